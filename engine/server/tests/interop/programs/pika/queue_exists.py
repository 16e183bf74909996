#!/usr/bin/env python
import sys

import pika
from broker import connect

connection = connect()
channel = connection.channel()
try:
    channel.queue_declare(queue=sys.argv[1], passive=True)
    print(" [x] exists")
except pika.exceptions.ChannelClosedByBroker as closed:
    print(" [x] closed %s %s" % (closed.reply_code, closed.reply_text))
connection.close()
