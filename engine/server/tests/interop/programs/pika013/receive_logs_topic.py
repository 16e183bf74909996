#!/usr/bin/env python
import sys

from broker import connect, named

connection = connect()
channel = connection.channel()

channel.exchange_declare(exchange=named('topic_logs'), exchange_type='topic')

result = channel.queue_declare(exclusive=True)
queue_name = result.method.queue

binding_keys = sys.argv[1:]
if not binding_keys:
    sys.stderr.write("Usage: %s [binding_key]...\n" % sys.argv[0])
    sys.exit(1)

for binding_key in binding_keys:
    channel.queue_bind(exchange=named('topic_logs'),
                       queue=queue_name,
                       routing_key=binding_key)


def callback(ch, method, properties, body):
    print(" [x] %s:%s" % (method.routing_key, body.decode()))


channel.basic_consume(callback, queue=queue_name, no_ack=True)

print(' [*] Waiting for logs. To exit press CTRL+C')
channel.start_consuming()
