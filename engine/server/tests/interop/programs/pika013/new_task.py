#!/usr/bin/env python
import sys

import pika
from broker import connect, named

connection = connect()
channel = connection.channel()

channel.queue_declare(queue=named('task_queue'), durable=True)

message = ' '.join(sys.argv[1:]) or "Hello World!"
channel.basic_publish(exchange='',
                      routing_key=named('task_queue'),
                      body=message,
                      properties=pika.BasicProperties(
                          delivery_mode=2,  # make message persistent
                      ))
print(" [x] Sent %s" % message)
connection.close()
