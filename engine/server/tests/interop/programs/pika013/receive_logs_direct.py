#!/usr/bin/env python
import sys

from broker import connect, named

connection = connect()
channel = connection.channel()

channel.exchange_declare(exchange=named('direct_logs'), exchange_type='direct')

result = channel.queue_declare(exclusive=True)
queue_name = result.method.queue

severities = sys.argv[1:]
if not severities:
    sys.stderr.write("Usage: %s [info] [warning] [error]\n" % sys.argv[0])
    sys.exit(1)

for severity in severities:
    channel.queue_bind(exchange=named('direct_logs'),
                       queue=queue_name,
                       routing_key=severity)


def callback(ch, method, properties, body):
    print(" [x] %s:%s" % (method.routing_key, body.decode()))


channel.basic_consume(callback, queue=queue_name, no_ack=True)

print(' [*] Waiting for logs. To exit press CTRL+C')
channel.start_consuming()
