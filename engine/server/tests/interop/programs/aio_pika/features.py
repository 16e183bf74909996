"""aio-pika: every check has a publisher and a consumer connection, both robust."""
import asyncio
import os

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message

URL, PREFIX = os.environ['AMQP_URL'], os.environ['PREFIX']


async def take(queue, count, no_ack=False):
    """The next `count` messages, within ten seconds."""
    taken = []
    async with queue.iterator(no_ack=no_ack, timeout=10) as messages:
        async for message in messages:
            taken.append(message)
            if len(taken) == count:
                return taken


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def confirm(out, into):
    queue = await into.declare_queue(PREFIX + 'confirm')
    sends = (out.default_exchange.publish(Message(b'%d' % n), queue.name) for n in range(100))
    acks = await asyncio.gather(*sends)
    assert {ack.name for ack in acks} == {'Basic.Ack'}
    bodies = sorted(int(message.body) for message in await take(queue, 100, True))
    assert bodies == list(range(100))
    await queue.delete(if_unused=False, if_empty=False)


async def topic(out, into):
    exchange = await out.declare_exchange(PREFIX + 'topic', ExchangeType.TOPIC, auto_delete=True)
    queue = await into.declare_queue(exclusive=True)
    for key in ('*.orange.*', '*.*.rabbit', 'lazy.#'):
        await queue.bind(exchange.name, key)
    for key in ('quick.orange.rabbit', 'quick.brown.fox', 'lazy', 'orange', 'lazy.pink.rabbit'):
        await exchange.publish(Message(key.encode()), key, mandatory=False)
    came = [message.routing_key for message in await take(queue, 3, True)]
    assert came == ['quick.orange.rabbit', 'lazy', 'lazy.pink.rabbit'], came
    await queue.unbind(exchange.name, '*.orange.*')
    back = await exchange.publish(Message(b''), 'quick.orange.fox')
    assert back.delivery.reply_text == 'NO_ROUTE', back


async def returned(out, into):
    back = await out.default_exchange.publish(
        Message(b'back', message_id='m1'), PREFIX + 'nowhere', mandatory=True)
    assert (back.delivery.reply_code, back.delivery.reply_text) == (312, 'NO_ROUTE'), back
    assert (back.body, back.header.properties.message_id) == (b'back', 'm1')


async def cancel(out, into):
    queue = await into.declare_queue(PREFIX + 'cancel')
    got = []
    tag = await queue.consume(lambda message: got.append(message.body), no_ack=True)
    await out.default_exchange.publish(Message(b'before'), queue.name)
    await until(lambda: got)
    await queue.cancel(tag)
    await out.default_exchange.publish(Message(b'after'), queue.name)
    assert got == [b'before'], got
    assert (await queue.delete(if_unused=False, if_empty=False)).message_count == 1


async def cancel_notification(out, into):
    plain = await aio_pika.connect(URL)
    channel = await plain.channel()
    queue = await channel.declare_queue(PREFIX + 'cancel_notification')
    told = []
    callbacks = (await channel.get_underlay_channel()).on_consumer_cancel_callbacks
    callbacks.add(lambda frame: told.append(frame.consumer_tag))
    tag = await queue.consume(lambda message: None)
    await out.queue_delete(queue.name)
    await until(lambda: told)
    assert told == [tag]
    await plain.close()


async def deleted_queue_recovered(out, into):
    """A robust consumer that is told of its end declares its queue and consumes again."""
    queue = await into.declare_queue(PREFIX + 'recovered')
    got = []
    await queue.consume(lambda message: got.append(message.body), no_ack=True)
    await out.queue_delete(queue.name)
    async with asyncio.timeout(20):
        while not got:
            await out.default_exchange.publish(Message(b'again'), queue.name, mandatory=False)
            await asyncio.sleep(0.1)
    await queue.delete(if_unused=False, if_empty=False)


async def requeue(out, into):
    queue = await into.declare_queue(PREFIX + 'requeue')
    for body in (b'a', b'b', b'c'):
        await out.default_exchange.publish(Message(body), queue.name)
    first = [await queue.get() for _ in range(3)]
    assert not any(message.redelivered for message in first)
    await first[2].nack(multiple=True, requeue=True)
    again = [await queue.get() for _ in range(3)]
    assert [message.body for message in again] == [b'a', b'b', b'c']  # the original positions
    assert all(message.redelivered for message in again)
    await again[0].reject(requeue=False)
    await again[2].ack(multiple=True)
    assert (await queue.delete(if_unused=False, if_empty=False)).message_count == 0


async def prefetch(out, into):
    await into.set_qos(prefetch_count=3)
    queue = await into.declare_queue(PREFIX + 'prefetch')
    for n in range(6):
        await out.default_exchange.publish(Message(b'%d' % n), queue.name)
    got = []
    await queue.consume(got.append)
    await until(lambda: len(got) == 3)
    await asyncio.sleep(0.3)
    assert len(got) == 3
    await got[0].ack()
    await until(lambda: len(got) == 4)
    await asyncio.sleep(0.3)
    assert [message.body for message in got] == [b'0', b'1', b'2', b'3']
    await queue.delete(if_unused=False, if_empty=False)


async def properties(out, into):
    queue = await into.declare_queue(PREFIX + 'properties')
    headers = {'int': 7, 'float': 1.5, 'yes': True, 'list': [1, 'x'], 'table': {'a': {'b': 'c'}}}
    await out.default_exchange.publish(
        Message(b'', headers=headers, priority=3, delivery_mode=DeliveryMode.PERSISTENT,
                correlation_id='c', reply_to='r', expiration=60, type='t', app_id='app',
                content_type='text/plain', content_encoding='utf-8'), queue.name)
    message, = await take(queue, 1, True)
    assert message.headers == headers, message.headers
    assert (message.priority, message.delivery_mode) == (3, DeliveryMode.PERSISTENT)
    assert (message.correlation_id, message.reply_to, message.expiration) == ('c', 'r', 60)
    assert (message.type, message.app_id, message.content_type) == ('t', 'app', 'text/plain')
    await queue.delete()


async def large(out, into):
    queue = await into.declare_queue(PREFIX + 'large')
    body = bytes(range(251)) * 4_000
    await out.default_exchange.publish(Message(body), queue.name)
    assert (await take(queue, 1, True))[0].body == body
    await queue.delete()


async def main():
    publisher, consumer = await aio_pika.connect_robust(URL), await aio_pika.connect_robust(URL)
    for check in (confirm, topic, returned, cancel, cancel_notification, deleted_queue_recovered,
                  requeue, prefetch, properties, large):
        async with asyncio.timeout(40), publisher.channel() as out, consumer.channel() as into:
            await check(out, into)
        print('passed', check.__name__)
    await publisher.close()
    await consumer.close()


asyncio.run(main())
