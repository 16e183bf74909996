"""A ConsumerMixin worker and a producer with a retry policy; both come back by themselves."""
import os
import threading

from kombu import Connection, Exchange, Queue
from kombu.mixins import ConsumerMixin

URL, PREFIX = os.environ['AMQP_URL'], os.environ['PREFIX']
queue = Queue(PREFIX + 'reconnect', Exchange(PREFIX + 'tasks', 'direct'), 'task')
got = {name: threading.Event() for name in ('start', 'lost', 'end')}


class Worker(ConsumerMixin):
    def __init__(self, connection):
        self.connection = connection

    def get_consumers(self, Consumer, channel):
        return [Consumer([queue], callbacks=[self.on_task], accept=['json'], prefetch_count=1)]

    def on_connection_error(self, exc, interval):
        got['lost'].set()
        super().on_connection_error(exc, interval)

    def on_connection_revived(self):
        super().on_connection_revived()
        if got['start'].is_set():
            got['lost'].set()

    def on_task(self, body, message):
        message.ack()
        got[body].set()
        self.should_stop = body == 'end'


worker = Worker(Connection(URL, heartbeat=10))
thread = threading.Thread(target=worker.run, daemon=True)
thread.start()

with Connection(URL, transport_options={'confirm_publish': True}) as connection:
    producer = connection.Producer(serializer='json')

    def publish(body):
        producer.publish(body, exchange=queue.exchange, routing_key='task', declare=[queue],
                         retry=True, retry_policy={'interval_start': 0.2, 'max_retries': 60})

    publish('start')
    assert got['start'].wait(20)
    print('ready')
    assert got['lost'].wait(30), 'the connection did not break'
    publish('end')
    assert got['end'].wait(30), 'not back in time'
thread.join(10)
print('passed reconnect')
