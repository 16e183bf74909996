#!/usr/bin/env python
from broker import connect, named

connection = connect()
channel = connection.channel()

channel.queue_declare(queue=named('hello'))


def callback(ch, method, properties, body):
    print(" [x] Received %s" % body.decode())


channel.basic_consume(queue=named('hello'),
                      on_message_callback=callback,
                      auto_ack=True)

print(' [*] Waiting for messages. To exit press CTRL+C')
channel.start_consuming()
