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
        let incoming = publisher.request(&mut world, 1, &declare("hello"));
        let Some(Method::QueueDeclareOk(ok)) = incoming.method() else { panic!("{incoming:?}") };
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
        let incoming = consumer.request(&mut world, 1, &consume);
        assert!(matches!(incoming.method(), Some(Method::BasicConsumeOk(_))), "{incoming:?}");
        let incoming = consumer.take();
        assert_eq!(incoming.len(), 1);
        let Some(Method::BasicDeliver(deliver)) = incoming[0].method() else {
            panic!("{incoming:?}")
        };
        assert_eq!((deliver.routing_key, deliver.redelivered), (&b"hello"[..], false));
        assert_eq!(incoming[0].body(), b"Hello World!");
        consumer.send(&mut world, 1, &BasicAck { delivery_tag: 1, multiple: false });
        consumer.close(&mut world);
        let incoming = publisher.request(&mut world, 1, &BasicGet { queue: "hello", no_ack: true });
        assert!(matches!(incoming.method(), Some(Method::BasicGetEmpty(_))), "{incoming:?}");
        publisher.close(&mut world);
        assert_eq!(world.lent_buffers(), 0);
        assert!(world.is_mail_drained());
        assert!(world.shards().iter().all(|shard| shard.backend().home.store().messages() == 0));
    }
}
