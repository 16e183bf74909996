//! Publishes that repeat each other, which a shard passes on in runs: what a client sees of them is
//! what it sees of any.

use leveret_amqp::Method;
use leveret_amqp::method::{BasicCancel, BasicConsume, BasicQos, ConfirmSelect, QueueDeclare};
use leveret_broker::settings::Settings;
use leveret_simulator::client::Client;
use leveret_simulator::client::methods::{bind_queue, consume};
use leveret_simulator::world::World;
use leveret_simulator::world::faults::Faults;

const MESSAGES: u32 = 600;

/// A body that tells which one it is. Sizes on both sides of what is copied, none, and more than a
/// frame takes, in rows of alike ones and not.
fn body(number: u32) -> Vec<u8> {
    let size = match number % 40 {
        0..20 => 16,
        20..24 => 512 + (number as usize % 3),
        24 => 0,
        25..35 => 1024,
        35 => 140_000,
        _ => 4 + (number as usize % 7),
    };
    let mut body = vec![number as u8; size];
    body.iter_mut().zip(number.to_be_bytes()).for_each(|(octet, of_number)| *octet = of_number);
    body
}

/// A shard whose clients read slowly: outboxes fill in the midst of a run.
fn narrow(seed: u64, shards: u16) -> World {
    let outbox_high_bytes = 8 << 10;
    let faults = Faults { window_bytes: 16 << 10, outbox_high_bytes, ..Faults::none() };
    let settings = Settings { outbox_high_bytes, outbox_low_bytes: 2 << 10, ..Settings::default() };
    World::new(seed, shards, faults, settings)
}

fn consumer(world: &mut World, shard: u16, tag: &str) -> Client {
    consumer_of(world, shard, "q", tag, true)
}

fn consumer_of(world: &mut World, shard: u16, queue: &str, tag: &str, no_ack: bool) -> Client {
    let mut consumer = Client::open(world, shard);
    consumer.request(world, 1, &BasicConsume { no_ack, ..consume(queue, tag) });
    consumer
}

fn bodies(client: &mut Client, world: &mut World) -> Vec<Vec<u8>> {
    client.deliveries(world).into_iter().map(|delivery| delivery.body).collect()
}

/// How many publishes the client heard the end of, where nothing but acks came.
fn acked(client: &mut Client) -> u64 {
    client.take().iter().fold(0, |acked, incoming| match incoming.method() {
        Some(Method::BasicAck(ack)) if ack.multiple => ack.delivery_tag,
        Some(Method::BasicAck(_)) => acked + 1,
        other => panic!("{other:?}"),
    })
}

#[test]
fn each_arrives_once_in_its_order_and_is_counted_and_confirmed() {
    for (shards, wide) in [(1, true), (1, false), (2, true), (2, false)] {
        let mut world = if wide { World::calm(shards) } else { narrow(3, shards) };
        let mut publisher = Client::open(&mut world, 0);
        publisher.request(&mut world, 1, &QueueDeclare::named("q"));
        publisher.request(&mut world, 1, &QueueDeclare::named("other"));
        publisher.request(&mut world, 1, &ConfirmSelect { nowait: false });
        let mut consumer = consumer(&mut world, shards - 1, "c");
        for number in 0..MESSAGES {
            publisher.publish(&mut world, 1, ("", "q"), false, &body(number));
            if number % 100 == 77 {
                publisher.publish(&mut world, 1, ("", "other"), false, b"elsewhere");
            }
        }
        publisher.settle(&mut world);
        let got = bodies(&mut consumer, &mut world);
        assert!(got.into_iter().eq((0..MESSAGES).map(body)), "{shards} {wide}");
        let others = MESSAGES / 100;
        let bytes: usize = (0..MESSAGES).map(|number| body(number).len()).sum();
        let counts = world.shards()[0].counts();
        let all = u64::from(MESSAGES + others);
        assert_eq!(
            (counts.client.published, counts.published_confirm),
            (all, all),
            "{shards} {wide}"
        );
        assert_eq!(counts.client.published_bytes, bytes as u64 + u64::from(others) * 9);
        assert_eq!(acked(&mut publisher), all, "{shards} {wide}");
        assert_eq!(world.lent_buffers(), 0);
    }
}

#[test]
fn consumers_of_one_queue_take_turns_also_within_a_run() {
    let mut world = World::calm(1);
    let mut publisher = Client::open(&mut world, 0);
    publisher.request(&mut world, 1, &QueueDeclare::named("q"));
    let mut consumers = ["a", "b", "c"].map(|tag| consumer(&mut world, 0, tag));
    let published: Vec<_> = (0..MESSAGES).map(|number| number.to_be_bytes().to_vec()).collect();
    for body in &published {
        publisher.publish(&mut world, 1, ("", "q"), false, body);
    }
    publisher.settle(&mut world);
    for (first, consumer) in consumers.iter_mut().enumerate() {
        let got = bodies(consumer, &mut world).into_iter();
        assert!(got.eq(published.iter().skip(first).step_by(3).cloned()), "{first}");
    }
}

#[test]
fn what_a_consumer_leaves_behind_rests_for_the_next_one() {
    for seed in 0..8 {
        let mut world = narrow(seed, 1);
        let mut publisher = Client::open(&mut world, 0);
        publisher.request(&mut world, 1, &QueueDeclare::named("q"));
        let mut first = consumer(&mut world, 0, "first");
        for number in 0..MESSAGES {
            publisher.publish(&mut world, 1, ("", "q"), false, &body(number));
        }
        for _ in 0..seed * 40 {
            world.step();
        }
        first.send(&mut world, 1, &BasicCancel { consumer_tag: "first", nowait: true });
        let mut got = bodies(&mut first, &mut world);
        let mut second = consumer(&mut world, 0, "second");
        publisher.settle(&mut world);
        let rest = bodies(&mut second, &mut world);
        assert!(!rest.is_empty(), "seed {seed}: nothing was left");
        got.extend(rest);
        assert!(got.into_iter().eq((0..MESSAGES).map(body)), "seed {seed}");
        assert_eq!(world.lent_buffers(), 0);
    }
}

#[test]
fn what_is_to_be_acknowledged_rests_until_then_and_returns_in_its_order() {
    for (shards, wide, prefetch) in [(1, true, 0), (1, false, 0), (1, true, 50), (2, false, 0)] {
        let mut world = if wide { World::calm(shards) } else { narrow(7, shards) };
        let mut publisher = Client::open(&mut world, 0);
        publisher.request(&mut world, 1, &QueueDeclare::named("q"));
        publisher.request(&mut world, 1, &ConfirmSelect { nowait: false });
        let mut first = Client::open(&mut world, shards - 1);
        let limit = BasicQos { prefetch_size: 0, prefetch_count: prefetch, global: false };
        first.request(&mut world, 1, &limit);
        first.request(&mut world, 1, &consume("q", "first"));
        for number in 0..MESSAGES {
            publisher.publish(&mut world, 1, ("", "q"), false, &body(number));
        }
        publisher.settle(&mut world);
        let got = bodies(&mut first, &mut world);
        let most = if prefetch == 0 { MESSAGES } else { prefetch.into() };
        assert!(got.into_iter().eq((0..most).map(body)), "{shards} {wide} {prefetch}");
        let held = world.shards().iter().map(|shard| shard.backend().home.store().messages());
        assert_eq!(held.sum::<usize>(), MESSAGES as usize, "{shards} {wide} {prefetch}");
        first.close(&mut world);
        let mut second = consumer(&mut world, 0, "second");
        let again = second.deliveries(&mut world);
        let flags = again.iter().map(|delivery| delivery.redelivered);
        assert!(flags.eq((0..MESSAGES).map(|number| number < most)), "{shards} {wide} {prefetch}");
        assert!(again.into_iter().map(|again| again.body).eq((0..MESSAGES).map(body)));
        assert_eq!(acked(&mut publisher), MESSAGES.into(), "{shards} {wide} {prefetch}");
        assert_eq!(world.lent_buffers(), 0);
    }
}

#[test]
fn each_of_several_queues_gets_all_and_what_rests_in_some_rests_once() {
    for (shards, wide) in [(1, true), (1, false), (2, true), (2, false), (3, false)] {
        let mut world = if wide { World::calm(shards) } else { narrow(5, shards) };
        let mut publisher = Client::open(&mut world, 0);
        publisher.request(&mut world, 1, &ConfirmSelect { nowait: false });
        // Of two nobody takes anything yet.
        let queues = ["here", "later", "acked", "there", "never"];
        for queue in queues {
            publisher.request(&mut world, 1, &QueueDeclare::named(queue));
            publisher.request(&mut world, 1, &bind_queue(queue, "amq.fanout", ""));
        }
        let mut consumers = [
            consumer_of(&mut world, 0, "here", "a", true),
            consumer_of(&mut world, shards - 1, "there", "b", true),
            consumer_of(&mut world, shards / 2, "acked", "c", false),
        ];
        for number in 0..MESSAGES {
            publisher.publish(&mut world, 1, ("amq.fanout", "any"), true, &body(number));
        }
        publisher.settle(&mut world);
        let mut got = consumers.each_mut().map(|consumer| bodies(consumer, &mut world));
        publisher.settle(&mut world);
        for (consumer, got) in consumers.iter_mut().zip(&mut got) {
            got.extend(bodies(consumer, &mut world));
            assert!(got.iter().cloned().eq((0..MESSAGES).map(body)), "{shards} {wide}");
        }
        if shards == 1 {
            assert_eq!(world.shards()[0].backend().home.store().messages(), MESSAGES as usize);
        }
        let mut late = consumer_of(&mut world, 0, "later", "d", true);
        let got = bodies(&mut late, &mut world);
        assert!(got.into_iter().eq((0..MESSAGES).map(body)), "{shards} {wide}");
        assert_eq!(acked(&mut publisher), MESSAGES.into(), "{shards} {wide}");
    }
}

#[test]
fn each_that_reaches_no_queue_is_returned() {
    let mut world = World::calm(1);
    let mut publisher = Client::open(&mut world, 0);
    for mandatory in [true, false] {
        for number in 0..MESSAGES {
            publisher.publish(&mut world, 1, ("", "nowhere"), mandatory, &body(number));
        }
    }
    publisher.settle(&mut world);
    let returned: Vec<_> =
        publisher.take().iter().map(|incoming| incoming.body().to_vec()).collect();
    assert!(returned.into_iter().eq((0..MESSAGES).map(body)));
    let counts = world.shards()[0].counts();
    assert_eq!(counts.client.unroutable_returned, MESSAGES.into());
    assert_eq!(counts.client.unroutable_dropped, MESSAGES.into());
}
