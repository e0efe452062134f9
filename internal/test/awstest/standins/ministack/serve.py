"""Serves ministack on loopback, on a port of the system's choice, until stdin ends."""

import asyncio
import os
import socket
import sys
import threading


def end_with_the_parent():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=end_with_the_parent, daemon=True).start()
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
port = listener.getsockname()[1]
os.environ["GATEWAY_PORT"] = str(port)  # queue URLs have it; read on import

from hypercorn.asyncio import serve  # noqa: E402
from hypercorn.config import Config  # noqa: E402
from ministack.app import app  # noqa: E402

config = Config()
config.bind = [f"fd://{listener.fileno()}"]
config.keep_alive_timeout = 75  # as ministack's own program
print(f"listening on 127.0.0.1:{port}", flush=True)
asyncio.run(serve(app, config))
