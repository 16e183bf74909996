//! Who gets a message, and how consumers end.

use leveret_amqp::method::{BasicAck, BasicCancel, BasicQos, QueueDeclare};
use leveret_amqp::{Method, TableBuilder};
use leveret_simulator::client::Client;
use leveret_simulator::client::methods::{consume, delete_queue};
use leveret_simulator::world::World;

fn with_queue(shards: u16) -> (World, Client) {
    let mut world = World::calm(shards);
    let mut client = Client::open(&mut world, 0);
    client.request(&mut world, 1, &QueueDeclare::named("q"));
    (world, client)
}

#[test]
fn consumers_are_served_in_turn() {
    for shards in [1, 3] {
        let (mut world, mut publisher) = with_queue(shards);
        let mut consumers: Vec<Client> =
            (0..3).map(|number| Client::open(&mut world, number % shards)).collect();
        for consumer in &mut consumers {
            consumer.request(&mut world, 1, &consume("q", "c"));
        }
        for number in 0..12 {
            publisher.publish(&mut world, 1, ("", "q"), false, &[number]);
            publisher.settle(&mut world);
        }
        for (start, consumer) in consumers.iter_mut().enumerate() {
            let got = consumer.deliveries(&mut world);
            let got: Vec<usize> = got.iter().map(|delivery| delivery.body[0].into()).collect();
            assert_eq!(got, [start, start + 3, start + 6, start + 9]);
        }
    }
}

#[test]
fn bodies_of_any_size_follow_each_other_unharmed() {
    // None has no body frame, the largest has two: neither fits what was kept of the one before.
    let sizes = [3, 0, 0, 3, 3, 200_000, 200_000, 0, 700, 700, 0, 3];
    for shards in [1, 3] {
        for waiting in [false, true] {
            let (mut world, mut publisher) = with_queue(shards);
            let mut consumer = Client::open(&mut world, shards - 1);
            if !waiting {
                consumer.request(&mut world, 1, &consume("q", "c"));
            }
            for size in sizes {
                publisher.publish(&mut world, 1, ("", "q"), false, &vec![7; size]);
            }
            publisher.settle(&mut world);
            if waiting {
                consumer.send(&mut world, 1, &consume("q", "c"));
                consumer.settle(&mut world);
            }
            let got = consumer.deliveries(&mut world);
            let got: Vec<usize> = got.iter().map(|delivery| delivery.body.len()).collect();
            assert_eq!(got, sizes, "{shards} shards, {waiting}");
        }
    }
}

#[test]
fn a_higher_priority_is_served_first_while_it_can_take() {
    for shards in [1, 3] {
        let (mut world, mut publisher) = with_queue(shards);
        let mut low = Client::open(&mut world, 0);
        let mut high = Client::open(&mut world, shards - 1);
        low.request(&mut world, 1, &consume("q", "low"));
        high.request(
            &mut world,
            1,
            &BasicQos { prefetch_size: 0, prefetch_count: 2, global: false },
        );
        let arguments = TableBuilder::new().int("x-priority", 5).finish();
        let mut wanted = consume("q", "high");
        wanted.arguments = arguments.as_ref();
        high.request(&mut world, 1, &wanted);
        for number in 0..4 {
            publisher.publish(&mut world, 1, ("", "q"), false, &[number]);
        }
        assert_eq!(high.deliveries(&mut world).len(), 2);
        assert_eq!(low.deliveries(&mut world).len(), 2);
        high.send(&mut world, 1, &BasicAck { delivery_tag: 2, multiple: true });
        high.settle(&mut world);
        publisher.publish(&mut world, 1, ("", "q"), false, &[9]);
        assert_eq!(high.deliveries(&mut world)[0].body, [9]);
    }
}

#[test]
fn an_exclusive_consumer_is_alone() {
    for shards in [1, 3] {
        let (mut world, mut first) = with_queue(shards);
        let mut second = Client::open(&mut world, shards - 1);
        let mut alone = consume("q", "alone");
        alone.exclusive = true;
        first.request(&mut world, 1, &alone);
        second.request(&mut world, 1, &consume("q", "other"));
        let (_, closed) = &second.closed_channels[0];
        assert_eq!((closed.code, closed.method), (403, (60, 20)));
        assert_eq!(closed.text, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use");
        first.request(&mut world, 1, &BasicCancel { consumer_tag: "alone", nowait: false });
        second.open_channel(&mut world, 1);
        let incoming = second.request(&mut world, 1, &consume("q", "other"));
        assert!(matches!(incoming.method(), Some(Method::BasicConsumeOk(_))));
    }
}

#[test]
fn consumers_hear_of_the_end_of_their_queue() {
    for shards in [1, 3] {
        let (mut world, mut owner) = with_queue(shards);
        let mut consumer = Client::open(&mut world, shards - 1);
        consumer.request(&mut world, 1, &consume("q", "c"));
        owner.publish(&mut world, 1, ("", "q"), false, b"unacked");
        assert_eq!(consumer.deliveries(&mut world).len(), 1);
        let incoming = owner.request(&mut world, 1, &delete_queue("q"));
        let Some(Method::QueueDeleteOk(ok)) = incoming.method() else { panic!("{incoming:?}") };
        assert_eq!(ok.message_count, 0, "unacked ones are not counted");
        consumer.settle(&mut world);
        let incoming = consumer.take();
        let Some(Method::BasicCancel(cancel)) = incoming[0].method() else {
            panic!("{incoming:?}")
        };
        assert_eq!(cancel.consumer_tag, "c");
        // An ack that crosses with the deletion is no fault.
        consumer.send(&mut world, 1, &BasicAck { delivery_tag: 1, multiple: false });
        consumer.close(&mut world);
        assert!(world.shards().iter().all(|shard| shard.backend().home.store().messages() == 0));
    }
}

#[test]
fn a_cancel_that_crosses_with_a_deletion_is_answered() {
    for shards in [1, 3] {
        for seed in 0..20 {
            let (mut world, mut owner) = with_queue(shards);
            world.random = leveret_simulator::random::Random::new(seed);
            let mut consumer = Client::open(&mut world, shards - 1);
            consumer.request(&mut world, 1, &consume("q", "c"));
            owner.send(&mut world, 1, &delete_queue("q"));
            consumer.send(&mut world, 1, &BasicCancel { consumer_tag: "c", nowait: false });
            consumer.settle(&mut world);
            let is_ok =
                |method| matches!(method, Method::BasicCancelOk(ok) if ok.consumer_tag == "c");
            let incoming = consumer.take();
            let oks = incoming.iter().filter(|one| one.method().is_some_and(is_ok)).count();
            assert_eq!(oks, 1, "seed {seed}");
        }
    }
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut owner = Client::open(&mut world, 0);
        let mut other = Client::open(&mut world, shards - 1);
        let declare = QueueDeclare { auto_delete: true, ..QueueDeclare::named("brief") };
        let passive = QueueDeclare { passive: true, ..QueueDeclare::named("brief") };
        owner.request(&mut world, 1, &declare);
        // It waits for its first consumer.
        assert!(matches!(
            other.request(&mut world, 1, &passive).method(),
            Some(Method::QueueDeclareOk(_))
        ));
        owner.request(&mut world, 1, &consume("brief", "a"));
        other.request(&mut world, 1, &consume("brief", "b"));
        owner.close(&mut world);
        assert!(matches!(
            other.request(&mut world, 1, &passive).method(),
            Some(Method::QueueDeclareOk(_))
        ));
        other.request(&mut world, 1, &BasicCancel { consumer_tag: "b", nowait: false });
        other.request(&mut world, 1, &passive);
        let (_, closed) = &other.closed_channels[0];
        assert_eq!((closed.code, closed.method), (404, (50, 10)));
        assert_eq!(closed.text, "NOT_FOUND - no queue 'brief' in vhost '/'");
    }
}
