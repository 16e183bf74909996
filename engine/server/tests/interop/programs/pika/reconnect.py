"""Publisher and consumer that come back by themselves, as pika's documentation shows it."""
import time

import pika
from broker import connect, named
from pika.exceptions import AMQPConnectionError

QUEUE = named('reconnect')


def consume():
    """Consumes until a message says 'end'; starts over when the connection breaks."""
    got = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            connection = connect()
            channel = connection.channel()
            channel.queue_declare(QUEUE, durable=True)
            channel.confirm_delivery()
            body = b'end' if got else b'start'
            channel.basic_publish('', QUEUE, body, pika.BasicProperties(delivery_mode=2))
            for method, _, body in channel.consume(QUEUE):
                channel.basic_ack(method.delivery_tag)
                got.append(body)
                if body == b'end':
                    print("passed reconnect")
                    connection.close()
                    return
                print("ready")
        except AMQPConnectionError as error:
            print("lost", repr(error))
            time.sleep(0.1)
    raise SystemExit("not back in time")


consume()
