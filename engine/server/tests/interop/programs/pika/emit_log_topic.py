#!/usr/bin/env python
import sys

from broker import connect, named

connection = connect()
channel = connection.channel()

channel.exchange_declare(exchange=named('topic_logs'), exchange_type='topic')

routing_key = sys.argv[1] if len(sys.argv) > 2 else 'anonymous.info'
message = ' '.join(sys.argv[2:]) or 'Hello World!'
channel.basic_publish(exchange=named('topic_logs'),
                      routing_key=routing_key,
                      body=message)
print(" [x] Sent %s:%s" % (routing_key, message))
connection.close()
