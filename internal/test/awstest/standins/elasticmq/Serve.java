import org.elasticmq.rest.sqs.SQSRestServerBuilder;

/** Serves ElasticMQ on loopback, on a port of the system's choice, until stdin ends. */
class Serve {
    public static void main(String[] args) throws Exception {
        int port = SQSRestServerBuilder.withInterface("127.0.0.1").withDynamicPort()
                .start().waitUntilStarted().localAddress().getPort();
        System.out.println("listening on 127.0.0.1:" + port);
        while (System.in.read() >= 0) {
        }
        System.exit(0);
    }
}
