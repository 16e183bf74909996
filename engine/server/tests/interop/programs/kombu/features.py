"""kombu as celery and OpenStack use it; every check has a publisher and a consumer connection."""
import os
import socket
import time

from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.pools import producers

URL, PREFIX = os.environ['AMQP_URL'], os.environ['PREFIX']
publisher = Connection(URL, transport_options={'confirm_publish': True})
consumer = Connection(URL)


def drain(connection, condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'nothing came'
        try:
            connection.drain_events(timeout=0.2)
        except socket.timeout:
            pass


def quiet(connection, seconds=0.3):
    try:
        while True:
            connection.drain_events(timeout=seconds)
    except socket.timeout:
        pass


def confirm(out, into):
    exchange = Exchange(PREFIX + 'direct', 'direct')
    queue = Queue(PREFIX + 'confirm', exchange, 'key')
    queue(into).declare()
    producer = Producer(out, exchange, serializer='json')
    for n in range(30):
        producer.publish({'n': n}, routing_key='key', delivery_mode='persistent')
    assert queue(into).queue_declare(passive=True).message_count == 30
    got = []
    with Consumer(into, queue, accept=['json'], callbacks=[lambda body, message: (
            got.append(body['n']), message.ack())]):
        drain(consumer, lambda: len(got) == 30)
    assert got == list(range(30))
    queue(into).delete()


def topic(out, into):
    exchange = Exchange(PREFIX + 'topic', 'topic', durable=False)
    orange = Queue(PREFIX + 'orange', exchange, '*.orange.*', exclusive=True)
    lazy = Queue(PREFIX + 'lazy', exchange, 'lazy.#', exclusive=True)
    got = []
    with Consumer(into, [orange, lazy], no_ack=True, callbacks=[lambda body, message: got.append(
            (message.delivery_info['routing_key'], body))]):
        producer = Producer(out, exchange)
        for key in ('quick.orange.fox', 'quick.brown.fox', 'lazy', 'lazy.orange.dog'):
            producer.publish(key, routing_key=key)
        drain(consumer, lambda: len(got) == 4)
        quiet(consumer)
    assert sorted(key for key, _ in got) == [
        'lazy', 'lazy.orange.dog', 'lazy.orange.dog', 'quick.orange.fox'], got


def returned(out, into):
    back = []
    producer = Producer(out, on_return=lambda exception, exchange, key, message: back.append(
        (exception.reply_code, key, message.body)))
    producer.publish('back', routing_key=PREFIX + 'nowhere', mandatory=True)
    drain(publisher, lambda: back)
    assert back == [(312, PREFIX + 'nowhere', 'back')], back


def cancel(out, into):
    queue = Queue(PREFIX + 'cancel')
    got = []
    receiver = Consumer(into, queue, no_ack=True, callbacks=[lambda body, _: got.append(body)])
    receiver.consume()
    producer = Producer(out)
    producer.publish('before', routing_key=queue.name)
    drain(consumer, lambda: got)
    receiver.cancel()
    producer.publish('after', routing_key=queue.name)
    quiet(consumer)
    assert got == ['before'], got
    assert queue(into).delete() == 1


def cancel_notification(out, into):
    queue = Queue(PREFIX + 'cancel_notification')(into)
    queue.declare()
    told = []
    tag = into.basic_consume(queue.name, on_cancel=told.append)
    queue(out).delete()
    drain(consumer, lambda: told)
    assert told == [getattr(tag, 'consumer_tag', tag)], (told, tag)


def requeue(out, into):
    queue = Queue(PREFIX + 'requeue')(into)
    queue.declare()
    for body in 'abc':
        Producer(out).publish(body, routing_key=queue.name)
    first = [queue.get() for _ in range(3)]
    assert not any(message.delivery_info['redelivered'] for message in first)
    for message in first:
        message.requeue()
    again = [queue.get() for _ in range(3)]
    assert [message.payload for message in again] == ['a', 'b', 'c']
    assert all(message.delivery_info['redelivered'] for message in again)
    again[0].reject()
    again[2].ack(multiple=True)
    assert queue.get() is None
    assert queue.delete() == 0


def prefetch(out, into):
    queue = Queue(PREFIX + 'prefetch')
    queue(into).declare()
    for n in range(5):
        Producer(out).publish(str(n), routing_key=queue.name)
    got = []
    with Consumer(into, queue, prefetch_count=2, callbacks=[
            lambda body, message: got.append(message)]):
        drain(consumer, lambda: len(got) == 2)
        quiet(consumer)
        assert len(got) == 2
        got[0].ack()
        drain(consumer, lambda: len(got) == 3)
        quiet(consumer)
        assert [message.body for message in got] == ['0', '1', '2'], got
        for message in got[1:]:
            message.ack()
    queue(into).delete()


def compressed(out, into):
    """A pool, a compressed large body, headers."""
    queue = Queue(PREFIX + 'compressed')(into)
    queue.declare()
    body = {'text': [str(n) for n in range(100_000)]}
    with producers[publisher].acquire(block=True, timeout=5) as producer:
        for compression in ('gzip', None):
            producer.publish(body, routing_key=queue.name, compression=compression,
                             headers={'deep': {'list': [1, 'x', None]}})
    deadline = time.monotonic() + 10
    for _ in range(2):
        message = queue.get(accept=['json'], no_ack=True)
        while message is None and time.monotonic() < deadline:
            message = queue.get(accept=['json'], no_ack=True)
        assert message.payload == body
        assert message.headers['deep'] == {'list': [1, 'x', None]}
    queue.delete()


def simple_queue(out, into):
    with publisher.SimpleQueue(PREFIX + 'simple') as queue:
        queue.put({'hello': 'world'})
        message = queue.get(timeout=10)
        assert message.payload == {'hello': 'world'}
        message.ack()
    queue.queue(into).delete()


for check in (confirm, topic, returned, cancel, cancel_notification, requeue, prefetch,
              compressed, simple_queue):
    with publisher.channel() as out, consumer.channel() as into:
        check(out, into)
    print('passed', check.__name__)
publisher.release()
consumer.release()
