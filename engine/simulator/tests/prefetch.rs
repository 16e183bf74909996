//! `basic.qos` for a consumer and for a whole channel.

use leveret_amqp::method::{BasicAck, BasicQos, QueueDeclare};
use leveret_simulator::client::Client;
use leveret_simulator::client::methods::consume;
use leveret_simulator::world::World;

const fn qos(prefetch_count: u16, global: bool) -> BasicQos {
    BasicQos { prefetch_size: 0, prefetch_count, global }
}

const fn ack(delivery_tag: u64, multiple: bool) -> BasicAck {
    BasicAck { delivery_tag, multiple }
}

/// A world with `count` messages in each of two queues, and a consumer on the last shard.
fn filled(shards: u16, count: usize) -> (World, Client, Client) {
    let mut world = World::calm(shards);
    let mut publisher = Client::open(&mut world, 0);
    for queue in ["one", "two"] {
        publisher.request(&mut world, 1, &QueueDeclare::named(queue));
        for _ in 0..count {
            publisher.publish(&mut world, 1, ("", queue), false, queue.as_bytes());
        }
    }
    publisher.settle(&mut world);
    let consumer = Client::open(&mut world, shards - 1);
    (world, publisher, consumer)
}

#[test]
fn a_consumer_holds_no_more_than_its_prefetch() {
    for shards in [1, 3] {
        let (mut world, _publisher, mut client) = filled(shards, 10);
        client.request(&mut world, 1, &qos(3, false));
        client.request(&mut world, 1, &consume("one", "a"));
        assert_eq!(client.deliveries(&mut world).len(), 3);
        client.send(&mut world, 1, &ack(2, false));
        let more = client.deliveries(&mut world);
        assert_eq!(more.iter().map(|d| d.delivery_tag).collect::<Vec<_>>(), [4]);
        client.send(&mut world, 1, &ack(4, true));
        assert_eq!(client.deliveries(&mut world).len(), 3);
        // Another consumer of the channel has a credit of its own.
        client.request(&mut world, 1, &consume("two", "b"));
        assert_eq!(client.deliveries(&mut world).len(), 3);
    }
}

#[test]
fn a_changed_prefetch_is_for_consumers_to_come() {
    for shards in [1, 3] {
        let (mut world, _publisher, mut client) = filled(shards, 10);
        client.request(&mut world, 1, &qos(1, false));
        client.request(&mut world, 1, &consume("one", "a"));
        client.request(&mut world, 1, &qos(5, false));
        assert_eq!(client.deliveries(&mut world).len(), 1);
        client.request(&mut world, 1, &consume("two", "b"));
        assert_eq!(client.deliveries(&mut world).len(), 5);
    }
}

#[test]
fn a_global_prefetch_is_shared_by_the_consumers_of_the_channel() {
    for shards in [1, 3] {
        let (mut world, _publisher, mut client) = filled(shards, 10);
        client.request(&mut world, 1, &qos(4, true));
        client.request(&mut world, 1, &consume("one", "a"));
        client.request(&mut world, 1, &consume("two", "b"));
        assert_eq!(client.deliveries(&mut world).len(), 4);
        client.send(&mut world, 1, &ack(2, true));
        assert_eq!(client.deliveries(&mut world).len(), 2);
        // Raised, it lets more through at once; lifted, it lets all through.
        client.request(&mut world, 1, &qos(7, true));
        assert_eq!(client.deliveries(&mut world).len(), 3);
        client.request(&mut world, 1, &qos(0, true));
        assert_eq!(client.deliveries(&mut world).len(), 11);
    }
}

#[test]
fn both_limits_hold_at_once() {
    for shards in [1, 3] {
        let (mut world, _publisher, mut client) = filled(shards, 10);
        client.request(&mut world, 1, &qos(2, false));
        client.request(&mut world, 1, &qos(3, true));
        client.request(&mut world, 1, &consume("one", "a"));
        assert_eq!(client.deliveries(&mut world).len(), 2);
        client.request(&mut world, 1, &consume("two", "b"));
        assert_eq!(client.deliveries(&mut world).len(), 1);
        client.send(&mut world, 1, &ack(0, true));
        let next = client.deliveries(&mut world);
        assert_eq!(next.len(), 3);
        let of_a = next.iter().filter(|delivery| delivery.consumer_tag == "a").count();
        assert!((1..=2).contains(&of_a), "both are served: {next:?}");
    }
}

#[test]
fn auto_ack_knows_no_limit() {
    for shards in [1, 3] {
        let (mut world, _publisher, mut client) = filled(shards, 10);
        client.request(&mut world, 1, &qos(1, true));
        client.request(&mut world, 1, &qos(1, false));
        let mut all = consume("one", "a");
        all.no_ack = true;
        client.request(&mut world, 1, &all);
        assert_eq!(client.deliveries(&mut world).len(), 10);
    }
}
