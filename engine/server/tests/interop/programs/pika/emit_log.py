#!/usr/bin/env python
import sys

from broker import connect, named

connection = connect()
channel = connection.channel()

channel.exchange_declare(exchange=named('logs'), exchange_type='fanout')

message = ' '.join(sys.argv[1:]) or "info: Hello World!"
channel.basic_publish(exchange=named('logs'), routing_key='', body=message)
print(" [x] Sent %s" % message)
connection.close()
