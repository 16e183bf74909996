"""What programs do beyond the tutorials; every check has a publisher and a consumer connection."""
import time

import pika
from broker import connect, named
from pika.exceptions import ChannelClosed

publisher = connect()
consumer = connect()


def take(channel, queue, count, no_ack=False):
    """The next `count` messages as (method, properties, body), within ten seconds."""
    taken = []
    for message in channel.consume(queue, no_ack=no_ack, inactivity_timeout=10):
        assert message[0] is not None, "only %d of %d came" % (len(taken), count)
        taken.append(message)
        if len(taken) == count:
            return taken


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
    queue = into.queue_declare(queue=named('confirm')).method.queue
    out.confirm_delivery()
    for n in range(50):
        assert out.basic_publish('', queue, '%d' % n)
    assert into.queue_declare(queue=queue, passive=True).method.message_count == 50
    assert [body for _, _, body in take(into, queue, 50, True)] == [b'%d' % n for n in range(50)]
    into.cancel()
    into.queue_delete(queue=queue)


def returned(out, into):
    out.confirm_delivery()
    assert out.basic_publish('', named('nowhere'), 'back', mandatory=True) is False


def cancel(out, into):
    queue = into.queue_declare(queue=named('cancel')).method.queue
    got = []
    tag = into.basic_consume(lambda *args: got.append(args[3]), queue=queue, no_ack=True)
    out.confirm_delivery()
    out.basic_publish('', queue, 'before')
    until(lambda: got)
    into.basic_cancel(tag)
    out.basic_publish('', queue, 'after')
    settle()
    assert got == [b'before'], got
    assert into.queue_delete(queue=queue).method.message_count == 1


def cancel_notification(out, into):
    queue = into.queue_declare(queue=named('cancel_notification')).method.queue
    told = []
    into.add_on_cancel_callback(lambda frame: told.append(frame.method.consumer_tag))
    tag = into.basic_consume(lambda *args: None, queue=queue)
    out.queue_delete(queue=queue)
    until(lambda: told)
    assert told == [tag], told


def requeue(out, into):
    queue = into.queue_declare(queue=named('requeue')).method.queue
    for body in 'abc':
        out.basic_publish('', queue, body)
    first = take(into, queue, 3)
    assert not any(method.redelivered for method, _, _ in first)
    into.basic_nack(first[2][0].delivery_tag, multiple=True, requeue=True)
    again = take(into, queue, 3)
    assert [body for _, _, body in again] == [b'a', b'b', b'c'], again  # the original positions
    assert all(method.redelivered for method, _, _ in again)
    into.basic_reject(again[0][0].delivery_tag, requeue=False)
    into.basic_ack(again[2][0].delivery_tag, multiple=True)
    into.cancel()
    assert into.queue_delete(queue=queue).method.message_count == 0


def prefetch(out, into):
    queue = into.queue_declare(queue=named('prefetch')).method.queue
    out.confirm_delivery()
    for n in range(5):
        out.basic_publish('', queue, '%d' % n)
    got = []
    into.basic_qos(prefetch_count=2)
    into.basic_consume(lambda ch, method, props, body: got.append(method.delivery_tag), queue=queue)
    until(lambda: len(got) >= 2)
    settle()
    assert got == [1, 2], got
    into.basic_ack(1)
    until(lambda: len(got) >= 3)
    settle()
    assert got == [1, 2, 3], got
    into.queue_delete(queue=queue)


def properties(out, into):
    queue = into.queue_declare(queue=named('properties')).method.queue
    sent = pika.BasicProperties(
        content_type='text/plain', content_encoding='utf-8', delivery_mode=2, priority=3,
        headers={'int': 7, 'yes': True, 'text': 'x', 'list': [1, 'x'], 'table': {'a': {'b': 'c'}}},
        correlation_id='c', reply_to='r', expiration='60000', message_id='m',
        timestamp=1700000000, type='t', user_id='guest', app_id='app')
    out.basic_publish('', queue, '', sent)
    (_, came, body), = take(into, queue, 1, True)
    assert body == b'' and vars(came) == vars(sent), came
    into.cancel()
    into.queue_delete(queue=queue)


def large(out, into):
    queue = into.queue_declare(queue=named('large')).method.queue
    body = bytes(bytearray(range(251))) * 4000  # eight frames of 128 KiB
    out.basic_publish('', queue, body)
    assert take(into, queue, 1, True)[0][2] == body
    into.cancel()
    into.queue_delete(queue=queue)


def channel_error(out, into):
    """An error closes the channel, and only it."""
    try:
        into.queue_declare(queue=named('missing'), passive=True)
        raise AssertionError("found")
    except ChannelClosed as error:
        assert error.args == (404, "NOT_FOUND - no queue '%s' in vhost '/'" % named('missing'))
    consumer.channel().close()


for check in (confirm, returned, cancel, cancel_notification, requeue, prefetch, properties,
              large, channel_error):
    out, into = publisher.channel(), consumer.channel()
    check(out, into)
    for channel in (out, into):
        if channel.is_open:
            channel.close()
    print("passed", check.__name__)
publisher.close()
consumer.close()
