//! A slow mesh: whoever feeds it waits, nothing is lost, and what waits is bounded.

use leveret_amqp::method::{BasicCancel, QueueDeclare};
use leveret_broker::home::backlog::PATIENCE_NS;
use leveret_broker::mesh::outgoing::BACKED_UP_BYTES;
use leveret_broker::settings::Settings;
use leveret_simulator::client::Client;
use leveret_simulator::client::methods::consume;
use leveret_simulator::world::World;
use leveret_simulator::world::faults::Faults;

/// Messages of each publisher, and their size: ten times what a lane may hold back.
const MESSAGES: u32 = 105;
const BODY_BYTES: usize = 100_000;

#[test]
fn a_backed_up_lane_stops_what_feeds_it() {
    for seed in 0..4 {
        let faults = Faults { lane_batches: 1, mail_delay_max_ns: 50_000_000, ..Faults::none() };
        let mut world = World::new(seed, 3, faults, Settings::default());
        let mut publisher = Client::open(&mut world, 0);
        let mut consumer = Client::open(&mut world, 1);
        for queue in ["a", "b", "c", "d"] {
            publisher.request(&mut world, 1, &QueueDeclare::named(queue));
            let mut all = consume(queue, queue);
            all.no_ack = true;
            consumer.request(&mut world, 1, &all);
        }
        for number in 0..MESSAGES {
            let mut body = vec![0; BODY_BYTES];
            body[..4].copy_from_slice(&number.to_be_bytes());
            for queue in ["a", "b", "c", "d"] {
                publisher.publish(&mut world, 1, ("", queue), false, &body);
            }
        }
        let mut most = 0;
        while world.step() {
            let waiting =
                |shard: &leveret_broker::shard::Shard| shard.backend().outputs.mesh.waiting_bytes();
            most = world.shards().iter().map(waiting).max().unwrap_or(0).max(most);
        }
        assert!(most > BACKED_UP_BYTES, "seed {seed}: the mesh was never backed up: {most}");
        // Two lanes to each of two members, and what one receive buffer completes on top.
        assert!(most < 5 * BACKED_UP_BYTES, "seed {seed}: {most} bytes waited");
        let delivered = consumer.deliveries(&mut world);
        for queue in ["a", "b", "c", "d"] {
            let of_queue = delivered.iter().filter(|delivery| delivery.consumer_tag == queue);
            let numbers = of_queue.map(|delivery| {
                let [a, b, c, d, ..] = delivery.body[..] else { panic!("a short body") };
                u32::from_be_bytes([a, b, c, d])
            });
            assert!(numbers.eq(0..MESSAGES), "seed {seed}, queue {queue}");
        }
        assert_eq!(world.lent_buffers(), 0);
    }
}

/// What makes the consumers catch up, or the publishers give them up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Read,
    Cancel,
    Patience,
}

#[test]
fn publishers_wait_for_consumers_on_any_shard_but_not_for_ever() {
    for publisher_shard in [0, 1] {
        for end in [End::Read, End::Cancel, End::Patience] {
            wait_for_consumers(publisher_shard, end);
        }
    }
}

fn wait_for_consumers(publisher_shard: u16, end: End) {
    let outbox_high_bytes = 64 << 10;
    let faults = Faults { window_bytes: 64 << 10, outbox_high_bytes, ..Faults::none() };
    let settings =
        Settings { outbox_high_bytes, outbox_low_bytes: 16 << 10, ..Settings::default() };
    let mut world = World::new(7, 2, faults, settings);
    // The queue lives with who declared it.
    let mut consumer = Client::open(&mut world, 0);
    consumer.request(&mut world, 1, &QueueDeclare::named("q"));
    let mut all = consume("q", "q");
    all.no_ack = true;
    consumer.request(&mut world, 1, &all);
    let mut publisher = Client::open(&mut world, publisher_shard);
    for number in 0..MESSAGES {
        let mut body = vec![0; BODY_BYTES];
        body[..4].copy_from_slice(&number.to_be_bytes());
        publisher.publish(&mut world, 1, ("", "q"), false, &body);
    }
    let blocked =
        |world: &World| world.shards()[usize::from(publisher_shard)].report(false).blocked.backlog;
    let published = |world: &World| -> u64 {
        world.shards().iter().map(|shard| shard.counts().client.published).sum()
    };
    while blocked(&world) == 0 && world.step() {}
    assert_eq!(blocked(&world), 1, "{publisher_shard} {end:?}: did not wait");
    let before = published(&world);
    assert!(before < MESSAGES.into(), "{publisher_shard} {end:?}: waited for nothing");
    match end {
        End::Read => {}
        End::Cancel => {
            consumer.send(&mut world, 1, &BasicCancel { consumer_tag: "q", nowait: true });
            let since = world.now();
            while blocked(&world) > 0 && world.step() {}
            assert!(world.now().since(since) < PATIENCE_NS, "they waited for nobody");
            world.run(1_000_000);
            assert_eq!((blocked(&world), published(&world)), (0, MESSAGES.into()), "nobody left");
            consumer.send(&mut world, 1, &all);
        }
        End::Patience => {
            world.advance(PATIENCE_NS);
            world.run(1_000_000);
            assert_eq!((blocked(&world), published(&world)), (0, MESSAGES.into()), "no end");
        }
    }
    let got = consumer.deliveries(&mut world);
    let got = got.iter().map(|delivery| u32::from(delivery.body[3]));
    assert!(got.eq(0..MESSAGES), "{publisher_shard} {end:?}: lost or out of order");
    assert_eq!((blocked(&world), published(&world)), (0, MESSAGES.into()));
}
