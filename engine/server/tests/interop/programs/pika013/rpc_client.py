#!/usr/bin/env python
import sys
import uuid

import pika
from broker import connect, named


class FibonacciRpcClient(object):
    def __init__(self):
        self.connection = connect()

        self.channel = self.connection.channel()

        result = self.channel.queue_declare(exclusive=True)
        self.callback_queue = result.method.queue

        self.channel.basic_consume(self.on_response, no_ack=True,
                                   queue=self.callback_queue)

    def on_response(self, ch, method, props, body):
        if self.corr_id == props.correlation_id:
            self.response = body

    def call(self, n):
        self.response = None
        self.corr_id = str(uuid.uuid4())
        self.channel.basic_publish(exchange='',
                                   routing_key=named('rpc_queue'),
                                   properties=pika.BasicProperties(
                                       reply_to=self.callback_queue,
                                       correlation_id=self.corr_id,
                                   ),
                                   body=str(n))
        while self.response is None:
            self.connection.process_data_events()
        return int(self.response)


fibonacci_rpc = FibonacciRpcClient()

for n in map(int, sys.argv[1:] or ['30']):
    print(" [x] Requesting fib(%s)" % n)
    response = fibonacci_rpc.call(n)
    print(" [.] Got %r" % response)
fibonacci_rpc.connection.close()
