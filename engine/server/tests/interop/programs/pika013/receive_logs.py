#!/usr/bin/env python
from broker import connect, named

connection = connect()
channel = connection.channel()

channel.exchange_declare(exchange=named('logs'), exchange_type='fanout')

result = channel.queue_declare(exclusive=True)
queue_name = result.method.queue

channel.queue_bind(exchange=named('logs'), queue=queue_name)


def callback(ch, method, properties, body):
    print(" [x] %s" % body.decode())


channel.basic_consume(callback, queue=queue_name, no_ack=True)

print(' [*] Waiting for logs in %s' % queue_name)
channel.start_consuming()
