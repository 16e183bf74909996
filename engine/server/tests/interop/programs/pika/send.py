#!/usr/bin/env python
from broker import connect, named

connection = connect()
channel = connection.channel()

channel.queue_declare(queue=named('hello'))

channel.basic_publish(exchange='',
                      routing_key=named('hello'),
                      body='Hello World!')
print(" [x] Sent 'Hello World!'")
connection.close()
