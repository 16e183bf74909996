"""Robust connections: nothing here knows that the broker went away and came back."""
import asyncio
import os

import aio_pika
from aio_pika import Message

URL, PREFIX = os.environ['AMQP_URL'], os.environ['PREFIX']


async def main():
    url = URL + '?reconnect_interval=0.3'
    publisher, consumer = await aio_pika.connect_robust(url), await aio_pika.connect_robust(url)
    lost = asyncio.Event()
    consumer.close_callbacks.add(lambda *_: lost.set())
    consumer.reconnect_callbacks.add(lambda *_: lost.set())
    out, into = await publisher.channel(), await consumer.channel()
    await into.set_qos(prefetch_count=1)
    exchange = await into.declare_exchange(PREFIX + 'logs', aio_pika.ExchangeType.FANOUT)
    queue = await into.declare_queue(PREFIX + 'reconnect')
    await queue.bind(exchange)
    got = asyncio.Queue()

    async def receive(message):
        async with message.process(requeue=True, ignore_processed=True):
            await got.put(message.body)

    await queue.consume(receive)

    async def publish(body):
        """Publishes until the broker confirms, as robust programs do."""
        while True:
            try:
                to = await out.get_exchange(exchange.name, ensure=False)
                await to.publish(Message(body), '', timeout=2)
                return
            except (*aio_pika.exceptions.CONNECTION_EXCEPTIONS, asyncio.TimeoutError) as error:
                print('again', repr(error))
                await asyncio.sleep(0.2)

    async with asyncio.timeout(60):
        await publish(b'start')
        assert await got.get() == b'start'
        print('ready')
        await lost.wait()
        # Until the consumer has restored its queue and binding, a fanout has nobody to reach.
        while got.empty():
            await publish(b'end')
            await asyncio.sleep(0.2)
        while await got.get() != b'end':
            pass
    await publisher.close()
    await consumer.close()
    print('passed reconnect')


asyncio.run(main())
