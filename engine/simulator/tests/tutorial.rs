//! Hello world, on one shard and across shards.

use leveret_amqp::Method;
use leveret_amqp::TableRef;
use leveret_amqp::method::{BasicAck, BasicConsume, BasicGet, QueueDeclare};
use leveret_simulator::client::Client;
use leveret_simulator::world::World;

fn declare(queue: &str) -> QueueDeclare<'_> {
    QueueDeclare {
        queue,
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: TableRef::EMPTY,
    }
}

#[test]
fn hello_world() {
    for shards in 1..=3 {
        let mut world = World::calm(shards);
        let mut publisher = Client::open(&mut world, 0);
        let mut consumer = Client::open(&mut world, shards - 1);
        let heard = publisher.ask(&mut world, 1, &declare("hello"));
        let Some(Method::QueueDeclareOk(ok)) = heard.method() else { panic!("{heard:?}") };
        assert_eq!((ok.queue, ok.message_count, ok.consumer_count), ("hello", 0, 0));
        publisher.publish(&mut world, 1, ("", "hello"), false, b"Hello World!");
        publisher.settle(&mut world);
        let consume = BasicConsume {
            queue: "hello",
            consumer_tag: "me",
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: TableRef::EMPTY,
        };
        let heard = consumer.ask(&mut world, 1, &consume);
        assert!(matches!(heard.method(), Some(Method::BasicConsumeOk(_))), "{heard:?}");
        let heard = consumer.take();
        assert_eq!(heard.len(), 1);
        let Some(Method::BasicDeliver(deliver)) = heard[0].method() else { panic!("{heard:?}") };
        assert_eq!((deliver.routing_key, deliver.redelivered), (&b"hello"[..], false));
        assert_eq!(heard[0].body(), b"Hello World!");
        consumer.send(&mut world, 1, &BasicAck { delivery_tag: 1, multiple: false });
        consumer.leave(&mut world);
        let heard = publisher.ask(&mut world, 1, &BasicGet { queue: "hello", no_ack: true });
        assert!(matches!(heard.method(), Some(Method::BasicGetEmpty(_))), "{heard:?}");
        publisher.leave(&mut world);
        assert_eq!(world.lent_buffers(), 0);
        assert!(world.is_mail_drained());
        assert!(world.shards().iter().all(|shard| shard.backend().home.store().messages() == 0));
    }
}
