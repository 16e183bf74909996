// amqplib's own recovery: the set-up runs again on every new connection.
const amqp = require('amqplib');
const { setTimeout: sleep } = require('node:timers/promises');

const { AMQP_URL, PREFIX } = process.env;
const queue = `${PREFIX}reconnect`;

(async () => {
  setTimeout(() => {
    console.error('not back in time');
    process.exit(1);
  }, 60_000).unref();

  const got = [];
  let connections = 0;
  let channel;
  const connection = await amqp.connect(AMQP_URL, {
    recovery: {
      initialDelay: 100,
      maxDelay: 500,
      async setup(model) {
        channel = await model.createConfirmChannel();
        channel.on('error', () => {});
        await channel.assertQueue(queue, { durable: true });
        await channel.prefetch(1);
        await channel.consume(queue, (message) => {
          if (!message) return;
          channel.ack(message);
          got.push(message.content.toString());
        });
        connections += 1;
      },
    },
  });
  connection.on('error', (error) => console.log('lost', error.message));

  async function publish(body) {
    for (;;) {
      try {
        channel.sendToQueue(queue, Buffer.from(body), { persistent: true });
        await channel.waitForConfirms();
        return;
      } catch (error) {
        console.log('again', error.message);
        await sleep(100);
      }
    }
  }

  await publish('start');
  while (!got.includes('start')) await sleep(20);
  console.log('ready');
  while (connections < 2) await sleep(20);
  await publish('end');
  while (!got.includes('end')) await sleep(20);
  await connection.close();
  console.log('passed reconnect');
})();
