"""Serves moto on loopback, on a port of the system's choice, until stdin ends."""

import os
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import make_server


def end_with_the_parent():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=end_with_the_parent, daemon=True).start()
app = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
os.environ["MOTO_PORT"] = str(server.port)
print(f"listening on 127.0.0.1:{server.port}", flush=True)
server.serve_forever()
