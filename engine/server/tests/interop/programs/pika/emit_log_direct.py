#!/usr/bin/env python
import sys

from broker import connect, named

connection = connect()
channel = connection.channel()

channel.exchange_declare(exchange=named('direct_logs'), exchange_type='direct')

severity = sys.argv[1] if len(sys.argv) > 2 else 'info'
message = ' '.join(sys.argv[2:]) or 'Hello World!'
channel.basic_publish(exchange=named('direct_logs'),
                      routing_key=severity,
                      body=message)
print(" [x] Sent %s:%s" % (severity, message))
connection.close()
