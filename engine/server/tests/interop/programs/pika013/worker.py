#!/usr/bin/env python
# usage: worker.py [prefetch_count]; without one, messages are dispatched strictly in turn.
import sys
import time

from broker import connect, named

connection = connect()
channel = connection.channel()

channel.queue_declare(queue=named('task_queue'), durable=True)


def callback(ch, method, properties, body):
    assert properties.delivery_mode == 2
    again = " again" if method.redelivered else ""
    print(" [x] Received%s %s" % (again, body.decode()))
    time.sleep(body.count(b'.'))
    print(" [x] Done %s" % body.decode())
    ch.basic_ack(delivery_tag=method.delivery_tag)


if len(sys.argv) > 1:
    channel.basic_qos(prefetch_count=int(sys.argv[1]))
channel.basic_consume(callback,
                      queue=named('task_queue'))

print(' [*] Waiting for messages. To exit press CTRL+C')
channel.start_consuming()
