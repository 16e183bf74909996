// amqplib (Node): every check has a publisher and a consumer connection.
const amqp = require('amqplib');
const assert = require('node:assert/strict');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');

const { AMQP_URL, PREFIX } = process.env;

async function until(condition, millis = 10_000) {
  const deadline = Date.now() + millis;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `not in time: ${condition}`);
    await sleep(20);
  }
}

// The next `count` messages.
async function take(into, queue, count, options = { noAck: true }) {
  const taken = [];
  const { consumerTag } = await into.consume(queue, (message) => taken.push(message), options);
  await until(() => taken.length >= count);
  await into.cancel(consumerTag);
  assert.equal(taken.length, count);
  return taken;
}

const texts = (messages) => messages.map((message) => message.content.toString());

const checks = {
  async confirm(out, into) {
    const { queue } = await into.assertQueue(`${PREFIX}confirm`, { durable: false });
    const bodies = Array.from({ length: 200 }, (_, n) => `${n}`);
    for (const body of bodies) out.sendToQueue(queue, Buffer.from(body));
    await out.waitForConfirms();
    assert.equal((await into.checkQueue(queue)).messageCount, 200);
    assert.deepEqual(texts(await take(into, queue, 200)), bodies);
    await into.deleteQueue(queue);
  },

  async topic(out, into) {
    const { exchange } = await into.assertExchange(`${PREFIX}topic`, 'topic', {
      autoDelete: true,
      durable: false,
    });
    const { queue } = await into.assertQueue('', { exclusive: true });
    for (const key of ['*.orange.*', '*.*.rabbit', 'lazy.#']) {
      await into.bindQueue(queue, exchange, key);
    }
    for (const key of ['quick.orange.rabbit', 'quick.brown.fox', 'lazy', 'orange', 'lazy.a.b.c']) {
      out.publish(exchange, key, Buffer.from(key));
    }
    const came = await take(into, queue, 3);
    assert.deepEqual(texts(came), ['quick.orange.rabbit', 'lazy', 'lazy.a.b.c']);
    await into.unbindQueue(queue, exchange, '*.orange.*');
  },

  async exchange_to_exchange(out, into) {
    const from = `${PREFIX}from`;
    const to = `${PREFIX}to`;
    await into.assertExchange(from, 'direct', { durable: false });
    await into.assertExchange(to, 'fanout', { durable: false, internal: true });
    await into.bindExchange(to, from, 'key');
    const { queue } = await into.assertQueue('', { exclusive: true });
    await into.bindQueue(queue, to, '');
    out.publish(from, 'key', Buffer.from('through'));
    assert.deepEqual(texts(await take(into, queue, 1)), ['through']);
    await into.deleteExchange(from);
    await into.deleteExchange(to);
  },

  async returned(out) {
    const back = once(out, 'return', { signal: AbortSignal.timeout(10_000) });
    out.sendToQueue(`${PREFIX}nowhere`, Buffer.from('back'), { mandatory: true, messageId: 'm1' });
    const [message] = await back;
    assert.equal(message.fields.replyCode, 312);
    assert.equal(message.fields.replyText, 'NO_ROUTE');
    assert.equal(message.properties.messageId, 'm1');
    assert.equal(message.content.toString(), 'back');
    await out.waitForConfirms(); // unroutable is confirmed all the same
  },

  async cancel(out, into) {
    const { queue } = await into.assertQueue(`${PREFIX}cancel`, { durable: false });
    const got = [];
    const { consumerTag } = await into.consume(queue, (message) => got.push(message), {
      noAck: true,
    });
    out.sendToQueue(queue, Buffer.from('before'));
    await until(() => got.length === 1);
    await into.cancel(consumerTag);
    out.sendToQueue(queue, Buffer.from('after'));
    await out.waitForConfirms();
    await sleep(100);
    assert.deepEqual(texts(got), ['before']);
    assert.equal((await into.deleteQueue(queue)).messageCount, 1);
  },

  async cancel_notification(out, into) {
    const { queue } = await into.assertQueue(`${PREFIX}cancel_notification`, { durable: false });
    const got = [];
    await into.consume(queue, (message) => got.push(message));
    await out.deleteQueue(queue);
    await until(() => got.length === 1);
    assert.equal(got[0], null); // amqplib's word for "cancelled by the server"
  },

  async requeue(out, into) {
    const { queue } = await into.assertQueue(`${PREFIX}requeue`, { durable: false });
    for (const body of ['a', 'b', 'c']) out.sendToQueue(queue, Buffer.from(body));
    await out.waitForConfirms();
    const first = [await into.get(queue), await into.get(queue), await into.get(queue)];
    assert.ok(first.every((message) => !message.fields.redelivered));
    into.nackAll(true);
    const again = [await into.get(queue), await into.get(queue), await into.get(queue)];
    assert.deepEqual(texts(again), ['a', 'b', 'c']); // the original positions
    assert.ok(again.every((message) => message.fields.redelivered));
    into.reject(again[0], false);
    into.ack(again[2], true);
    assert.equal(await into.get(queue), false);
    assert.equal((await into.deleteQueue(queue)).messageCount, 0);
  },

  async recover(out, into) {
    const { queue } = await into.assertQueue(`${PREFIX}recover`, { durable: false });
    out.sendToQueue(queue, Buffer.from('once more'));
    await out.waitForConfirms();
    assert.equal((await into.get(queue)).fields.redelivered, false);
    await into.recover();
    const message = await into.get(queue, { noAck: true });
    assert.equal(message.fields.redelivered, true);
    await into.deleteQueue(queue);
  },

  async prefetch(out, into) {
    const { queue } = await into.assertQueue(`${PREFIX}prefetch`, { durable: false });
    for (let n = 0; n < 5; n += 1) out.sendToQueue(queue, Buffer.from(`${n}`));
    await out.waitForConfirms();
    await into.prefetch(2);
    const got = [];
    await into.consume(queue, (message) => got.push(message));
    await until(async () => (await out.checkQueue(queue)).messageCount === 3);
    await sleep(200);
    assert.deepEqual(texts(got), ['0', '1']);
    into.ack(got[0]);
    await until(() => got.length === 3);
    await sleep(200);
    assert.deepEqual(texts(got), ['0', '1', '2']);
    await into.deleteQueue(queue);
  },

  async properties(out, into) {
    const { queue } = await into.assertQueue(`${PREFIX}properties`, { durable: false });
    const headers = {
      int: 7, double: 1.5, yes: true, nothing: null, list: [1, 'x', { deep: false }],
      table: { a: { b: 'c' } },
    };
    out.sendToQueue(queue, Buffer.alloc(0), {
      headers, persistent: true, priority: 3, correlationId: 'c', replyTo: 'r',
      expiration: '60000', messageId: 'm', timestamp: 1_700_000_000, type: 't',
      userId: 'guest', appId: 'app', contentType: 'text/plain', contentEncoding: 'utf-8',
    });
    const [message] = await take(into, queue, 1);
    assert.equal(message.content.length, 0);
    assert.deepEqual({ ...message.properties.headers }, headers);
    assert.deepEqual(
      { ...message.properties, headers: undefined },
      {
        headers: undefined, deliveryMode: 2, priority: 3, correlationId: 'c', replyTo: 'r',
        expiration: '60000', messageId: 'm', timestamp: 1_700_000_000, type: 't',
        userId: 'guest', appId: 'app', contentType: 'text/plain', contentEncoding: 'utf-8',
        clusterId: undefined,
      },
    );
    await into.deleteQueue(queue);
  },

  async large(out, into) {
    const { queue } = await into.assertQueue(`${PREFIX}large`, { durable: false });
    const body = Buffer.from(Uint8Array.from({ length: 1_000_003 }, (_, n) => n % 251));
    out.sendToQueue(queue, body);
    const [message] = await take(into, queue, 1);
    assert.ok(message.content.equals(body));
    await into.deleteQueue(queue);
  },

  async channel_error(out, into, consumer) {
    const channel = await consumer.createChannel();
    channel.on('error', () => {});
    await assert.rejects(channel.checkQueue(`${PREFIX}missing`), (error) => {
      assert.equal(error.code, 404);
      assert.match(error.message, /NOT_FOUND - no queue '.*missing' in vhost '\/'/);
      return true;
    });
    await into.assertQueue('', { exclusive: true }); // the other channel lives
  },
};

(async () => {
  const publisher = await amqp.connect(AMQP_URL);
  const consumer = await amqp.connect(AMQP_URL);
  for (const [name, check] of Object.entries(checks)) {
    const out = await publisher.createConfirmChannel();
    const into = await consumer.createChannel();
    await check(out, into, consumer);
    await out.close();
    await into.close();
    console.log(`passed ${name}`);
  }
  await publisher.close();
  await consumer.close();
})();
