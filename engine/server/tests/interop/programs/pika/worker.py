#!/usr/bin/env python
# usage: worker.py [prefetch_count]; without one, messages are dispatched strictly in turn.
import sys
import time

import pika
from broker import connect, named

connection = connect()
channel = connection.channel()

channel.queue_declare(queue=named('task_queue'), durable=True)


def callback(ch, method, properties, body):
    assert properties.delivery_mode == pika.DeliveryMode.Persistent.value
    again = " again" if method.redelivered else ""
    print(" [x] Received%s %s" % (again, body.decode()))
    time.sleep(body.count(b'.'))
    print(" [x] Done %s" % body.decode())
    ch.basic_ack(delivery_tag=method.delivery_tag)


if len(sys.argv) > 1:
    channel.basic_qos(prefetch_count=int(sys.argv[1]))
channel.basic_consume(queue=named('task_queue'), on_message_callback=callback)

print(' [*] Waiting for messages. To exit press CTRL+C')
channel.start_consuming()
