"""What programs do beyond the tutorials; every check has a publisher and a consumer connection."""
import time

import pika
from broker import connect, named
from pika.exceptions import ChannelClosedByBroker, UnroutableError

publisher = connect()
consumer = connect()


def take(channel, queue, count, auto_ack=False):
    """The next `count` messages as (method, properties, body), within ten seconds."""
    taken = []
    for method, properties, body in channel.consume(queue, auto_ack=auto_ack,
                                                    inactivity_timeout=10):
        assert method is not None, "only %d of %d came" % (len(taken), count)
        taken.append((method, properties, body))
        if len(taken) == count:
            return taken


def ready(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def until(condition):
    """Lets the consumer's callbacks run until it holds, at most ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        consumer.process_data_events(time_limit=0.05)


def settle():
    """Time for a delivery that must not come."""
    consumer.sleep(0.3)


def confirm(out, into):
    queue = into.queue_declare(named('confirm'), exclusive=False).method.queue
    out.confirm_delivery()
    for n in range(50):
        out.basic_publish('', queue, b'%d' % n, mandatory=True)
    # Confirmed and not yet consumed: a confirm says that the queue has the message.
    assert ready(into, queue) == 50
    assert [body for _, _, body in take(into, queue, 50, True)] == [b'%d' % n for n in range(50)]
    into.cancel()
    into.queue_delete(queue)


def topic(out, into):
    exchange = named('topic')
    into.exchange_declare(exchange, 'topic', auto_delete=True)
    queue = into.queue_declare('', exclusive=True).method.queue
    for key in ('*.orange.*', '*.*.rabbit', 'lazy.#'):
        into.queue_bind(queue, exchange, key)
    keys = ['quick.orange.rabbit', 'quick.brown.fox', 'lazy', 'orange', 'lazy.a.b.c.d',
            'quick.orange.new.rabbit', 'lazy.pink.rabbit']
    for key in keys:
        out.basic_publish(exchange, key, key)
    came = [method.routing_key for method, _, _ in take(into, queue, 4, True)]
    assert came == ['quick.orange.rabbit', 'lazy', 'lazy.a.b.c.d', 'lazy.pink.rabbit'], came
    into.cancel()
    into.queue_unbind(queue, exchange, '*.orange.*')
    out.confirm_delivery()
    try:
        out.basic_publish(exchange, 'quick.orange.fox', b'', mandatory=True)
        raise AssertionError("still bound")
    except UnroutableError:
        pass


def returned(out, into):
    out.confirm_delivery()
    try:
        out.basic_publish('', named('nowhere'), b'back', mandatory=True,
                          properties=pika.BasicProperties(message_id='m1'))
        raise AssertionError("not returned")
    except UnroutableError as error:
        back, = error.messages
        assert (back.method.reply_code, back.method.reply_text) == (312, 'NO_ROUTE')
        assert (back.body, back.properties.message_id) == (b'back', 'm1')


def cancel(out, into):
    queue = into.queue_declare(named('cancel')).method.queue
    got = []
    tag = into.basic_consume(queue, lambda *args: got.append(args[3]), auto_ack=True)
    out.confirm_delivery()
    out.basic_publish('', queue, b'before')
    until(lambda: got)
    into.basic_cancel(tag)
    out.basic_publish('', queue, b'after')
    settle()
    assert got == [b'before'], got
    assert into.queue_delete(queue).method.message_count == 1


def cancel_notification(out, into):
    queue = into.queue_declare(named('cancel_notification')).method.queue
    told = []
    into.add_on_cancel_callback(lambda frame: told.append(frame.method.consumer_tag))
    tag = into.basic_consume(queue, lambda *args: None)
    out.queue_delete(queue)
    until(lambda: told)
    assert told == [tag], told


def requeue(out, into):
    queue = into.queue_declare(named('requeue')).method.queue
    for body in (b'a', b'b', b'c'):
        out.basic_publish('', queue, body)
    first = take(into, queue, 3)
    assert [method.redelivered for method, _, _ in first] == [False] * 3
    into.basic_nack(first[2][0].delivery_tag, multiple=True, requeue=True)
    again = take(into, queue, 3)
    assert [body for _, _, body in again] == [b'a', b'b', b'c'], again  # the original positions
    assert all(method.redelivered for method, _, _ in again)
    into.basic_reject(again[0][0].delivery_tag, requeue=False)
    into.basic_ack(again[2][0].delivery_tag, multiple=True)
    into.cancel()
    assert into.queue_delete(queue).method.message_count == 0


def prefetch(out, into):
    queue = into.queue_declare(named('prefetch')).method.queue
    out.confirm_delivery()
    for n in range(5):
        out.basic_publish('', queue, b'%d' % n)
    got = []
    into.basic_qos(prefetch_count=2)
    into.basic_consume(queue, lambda ch, method, props, body: got.append(method.delivery_tag))
    until(lambda: len(got) >= 2)
    settle()
    assert got == [1, 2] and ready(out, queue) == 3, got
    into.basic_ack(1)
    until(lambda: len(got) >= 3)
    settle()
    assert ready(out, queue) == 2
    assert got == [1, 2, 3], got
    into.basic_ack(3, multiple=True)
    into.queue_delete(queue)


def get(out, into):
    queue = into.queue_declare(named('get')).method.queue
    assert into.basic_get(queue) == (None, None, None)
    out.confirm_delivery()
    out.basic_publish('', queue, b'one')
    out.basic_publish('', queue, b'two')
    method, _, body = into.basic_get(queue, auto_ack=True)
    assert (method.message_count, body) == (1, b'one')
    assert into.queue_purge(queue).method.message_count == 1
    into.queue_delete(queue)


def properties(out, into):
    queue = into.queue_declare(named('properties')).method.queue
    headers = {'int': 7, 'long': 1 << 40, 'yes': True, 'text': 'ä', 'none': None,
               'list': [1, 'x', {'deep': False}], 'table': {'a': {'b': 'c'}}}
    sent = pika.BasicProperties(
        content_type='text/plain', content_encoding='utf-8', headers=headers, delivery_mode=2,
        priority=3, correlation_id='c', reply_to='r', expiration='60000', message_id='m',
        timestamp=1700000000, type='t', user_id='guest', app_id='app')
    out.basic_publish('', queue, b'', sent)
    (_, came, body), = take(into, queue, 1, True)
    assert body == b'' and came == sent, came
    into.cancel()
    into.queue_delete(queue)


def large(out, into):
    queue = into.queue_declare(named('large')).method.queue
    body = bytes(range(251)) * 4_000  # eight frames of 128 KiB
    out.basic_publish('', queue, body)
    assert take(into, queue, 1, True)[0][2] == body
    into.cancel()
    into.queue_delete(queue)


def channel_error(out, into):
    """An error closes the channel, and only it."""
    try:
        into.queue_declare(named('missing'), passive=True)
        raise AssertionError("found")
    except ChannelClosedByBroker as error:
        assert error.reply_code == 404, error
        assert error.reply_text == "NOT_FOUND - no queue '%s' in vhost '/'" % named('missing')
    again = consumer.channel()
    queue = again.queue_declare(named('kind'), durable=False).method.queue
    try:
        again.queue_declare(queue, durable=True)
        raise AssertionError("accepted")
    except ChannelClosedByBroker as error:
        assert error.reply_code == 406, error
        assert "inequivalent arg 'durable'" in error.reply_text, error.reply_text
    consumer.channel().queue_delete(queue)


for check in (confirm, topic, returned, cancel, cancel_notification, requeue, prefetch, get,
              properties, large, channel_error):
    out, into = publisher.channel(), consumer.channel()
    check(out, into)
    for channel in (out, into):
        if channel.is_open:
            channel.close()
    print("passed", check.__name__)
publisher.close()
consumer.close()
