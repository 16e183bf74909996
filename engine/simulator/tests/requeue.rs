//! Messages that come back: where to, and with which flag.

use leveret_amqp::Method;
use leveret_amqp::method::{
    BasicAck, BasicGet, BasicNack, BasicQos, BasicRecover, BasicReject, ChannelClose, QueueDeclare,
};
use leveret_simulator::client::methods::consume;
use leveret_simulator::client::{Client, Delivery};
use leveret_simulator::world::World;

/// A queue `q` with messages whose bodies count from 0, filled through shard 0.
fn filled(shards: u16, count: u8) -> World {
    let mut world = World::calm(shards);
    let mut publisher = Client::open(&mut world, 0);
    publisher.request(&mut world, 1, &QueueDeclare::named("q"));
    for number in 0..count {
        publisher.publish(&mut world, 1, ("", "q"), false, &[number]);
    }
    publisher.close(&mut world);
    world
}

fn bodies(deliveries: &[Delivery]) -> Vec<(u8, bool)> {
    deliveries.iter().map(|delivery| (delivery.body[0], delivery.redelivered)).collect()
}

fn nack(delivery_tag: u64, multiple: bool, requeue: bool) -> BasicNack {
    BasicNack { delivery_tag, multiple, requeue }
}

#[test]
fn a_requeued_message_returns_to_its_place_with_the_flag() {
    for shards in [1, 3] {
        let mut world = filled(shards, 5);
        let mut client = Client::open(&mut world, shards - 1);
        for _ in 0..3 {
            client.request(&mut world, 1, &BasicGet { queue: "q", no_ack: false });
        }
        client.send(&mut world, 1, &nack(3, false, true));
        client.send(&mut world, 1, &BasicReject { delivery_tag: 1, requeue: true });
        client.send(&mut world, 1, &nack(2, false, false));
        client.settle(&mut world);
        client.request(&mut world, 1, &consume("q", "c"));
        let expected = [(0, true), (2, true), (3, false), (4, false)];
        assert_eq!(bodies(&client.deliveries(&mut world)), expected);
    }
}

#[test]
fn what_a_dead_consumer_held_goes_to_the_next_one_at_once() {
    for shards in [1, 3] {
        let mut world = filled(shards, 4);
        let mut first = Client::open(&mut world, shards - 1);
        let mut second = Client::open(&mut world, 0);
        first.request(
            &mut world,
            1,
            &BasicQos { prefetch_size: 0, prefetch_count: 3, global: false },
        );
        first.request(&mut world, 1, &consume("q", "first"));
        assert_eq!(bodies(&first.deliveries(&mut world)), [(0, false), (1, false), (2, false)]);
        second.request(&mut world, 1, &consume("q", "second"));
        assert_eq!(bodies(&second.deliveries(&mut world)), [(3, false)]);
        first.send(&mut world, 1, &BasicAck { delivery_tag: 2, multiple: false });
        world.run(100_000);
        world.reset(first.socket);
        assert_eq!(bodies(&second.deliveries(&mut world)), [(0, true), (2, true)]);
    }
}

#[test]
fn a_closed_channel_gives_back_in_the_old_order() {
    for shards in [1, 3] {
        let mut world = filled(shards, 4);
        let mut client = Client::open(&mut world, shards - 1);
        client.request(&mut world, 1, &consume("q", "c"));
        assert_eq!(client.deliveries(&mut world).len(), 4);
        let close = ChannelClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 };
        let incoming = client.request(&mut world, 1, &close);
        assert!(matches!(incoming.method(), Some(Method::ChannelCloseOk(_))));
        client.open_channel(&mut world, 1);
        client.request(&mut world, 1, &consume("q", "c"));
        let expected: Vec<_> = (0..4).map(|number| (number, true)).collect();
        assert_eq!(bodies(&client.deliveries(&mut world)), expected);
    }
}

#[test]
fn recover_brings_everything_again_in_order() {
    for shards in [1, 3] {
        let mut world = filled(shards, 3);
        let mut client = Client::open(&mut world, shards - 1);
        client.request(&mut world, 1, &consume("q", "c"));
        assert_eq!(client.deliveries(&mut world).len(), 3);
        client.send(&mut world, 1, &BasicRecover { requeue: true });
        let again = client.deliveries(&mut world);
        assert_eq!(bodies(&again), [(0, true), (1, true), (2, true)]);
        assert_eq!(again.iter().map(|d| d.delivery_tag).collect::<Vec<_>>(), [4, 5, 6]);
        let other = client.take();
        assert!(
            matches!(other[..], [ref ok] if matches!(ok.method(), Some(Method::BasicRecoverOk(_))))
        );
    }
}

#[test]
fn cancelled_consumers_may_still_acknowledge() {
    for shards in [1, 3] {
        let mut world = filled(shards, 2);
        let mut client = Client::open(&mut world, shards - 1);
        client.request(&mut world, 1, &consume("q", "c"));
        assert_eq!(client.deliveries(&mut world).len(), 2);
        let cancel = leveret_amqp::method::BasicCancel { consumer_tag: "c", nowait: false };
        client.request(&mut world, 1, &cancel);
        client.send(&mut world, 1, &BasicAck { delivery_tag: 1, multiple: false });
        client.send(&mut world, 1, &nack(2, false, true));
        let incoming = client.request(&mut world, 1, &BasicGet { queue: "q", no_ack: true });
        let Some(Method::BasicGetOk(got)) = incoming.method() else { panic!("{incoming:?}") };
        assert_eq!((incoming.body(), got.redelivered, got.message_count), (&[1][..], true, 0));
    }
}
