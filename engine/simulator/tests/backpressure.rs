//! A slow mesh: whoever feeds it waits, nothing is lost, and what waits is bounded.

use leveret_broker::post::BACKED_UP_BYTES;
use leveret_broker::settings::Settings;
use leveret_simulator::client::Client;
use leveret_simulator::fault::Faults;
use leveret_simulator::scene::{consume, declare_queue};
use leveret_simulator::world::World;

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
            publisher.ask(&mut world, 1, &declare_queue(queue));
            let mut all = consume(queue, queue);
            all.no_ack = true;
            consumer.ask(&mut world, 1, &all);
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
                |shard: &leveret_broker::shard::Shard| shard.core().exits.post.waiting_bytes();
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
