#!/usr/bin/env python
from broker import connect, named

connection = connect()
channel = connection.channel()

channel.exchange_declare(exchange=named('logs'), exchange_type='fanout')

result = channel.queue_declare(queue='', exclusive=True)
queue_name = result.method.queue

channel.queue_bind(exchange=named('logs'), queue=queue_name)


def callback(ch, method, properties, body):
    print(" [x] %s" % body.decode())


channel.basic_consume(queue=queue_name, on_message_callback=callback, auto_ack=True)

print(' [*] Waiting for logs in %s' % queue_name)
channel.start_consuming()
