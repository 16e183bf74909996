//! How often the real binary copies a body, by its own counters.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

mod process;

use process::client::Client;
use process::{Broker, get};

/// One more than is copied for being small, some to a receive buffer, about a buffer, many buffers.
const LARGE_BODY_BYTES: [usize; 4] = [513, 1_024, 64 << 10, 1 << 20];

const ROUNDS: usize = 8;

/// Sums of the counters over all shards.
#[derive(Debug, PartialEq, Eq)]
struct BodyBytes {
    delivered: usize,
    stored: usize,
    logged: usize,
    mailed: usize,
    rendered: usize,
    assembled: usize,
    /// Copied out of receive buffers, whatever it was.
    received: usize,
}

impl BodyBytes {
    /// Of a broker that delivered `delivered` bytes by reference.
    fn by_reference(delivered: usize) -> Self {
        Self { delivered, stored: 0, logged: 0, mailed: 0, rendered: 0, assembled: 0, received: 0 }
    }

    fn of(broker: &Broker) -> Self {
        let (_, metrics) = get(broker.address("metrics"), "/metrics");
        let sum = |name: &str, label: &str| {
            let series = metrics.lines().filter(|line| {
                line.strip_prefix(name).is_some_and(|labels| labels.starts_with('{'))
                    && line.contains(label)
            });
            let values: Vec<usize> =
                series.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
            assert!(!values.is_empty(), "{name} with {label} is missing");
            values.iter().sum()
        };
        let copied = |into: &str| sum("leveret_body_bytes_copied_total", &format!("\"{into}\""));
        Self {
            delivered: sum("leveret_body_bytes_delivered_total", ""),
            stored: copied("store"),
            logged: copied("log"),
            mailed: copied("mail"),
            rendered: copied("outbox"),
            assembled: copied("assembly"),
            received: sum("leveret_ring_received_bytes_copied_total", ""),
        }
    }
}

/// A publisher and a consumer of the queue `q`, on as many shards as there are.
fn clients(broker: &Broker) -> (Client, Client) {
    let mut publisher = Client::open(broker.address("amqp"));
    publisher.open_channel();
    publisher.declare("q");
    let mut consumer = Client::open(broker.address("amqp"));
    consumer.open_channel();
    (publisher, consumer)
}

/// A body whose bytes follow from where they are.
fn body(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn large_bodies_pass_through_uncopied() {
    for shards in ["1", "2"] {
        for size in LARGE_BODY_BYTES {
            let broker = Broker::start(&["--shards", shards]);
            let (mut publisher, mut consumer) = clients(&broker);
            consumer.consume("q", true);
            for _ in 0..ROUNDS {
                publisher.publish("q", &body(size));
                assert_eq!(consumer.read_delivery(), body(size));
            }
            let expected = BodyBytes::by_reference(ROUNDS * size);
            assert_eq!(BodyBytes::of(&broker), expected, "{size} B, {shards} shards");
        }
    }
}

#[test]
fn bodies_at_rest_that_fill_no_receive_buffer_are_copied_once() {
    for size in LARGE_BODY_BYTES {
        let broker = Broker::start(&["--shards", "2"]);
        let (mut publisher, mut consumer) = clients(&broker);
        for _ in 0..ROUNDS {
            // One by one: what fills a receive buffer together is left there.
            publisher.publish("q", &body(size));
            while consumer.get("q").is_none_or(|got| got != body(size)) {}
        }
        // And a message that has to outlive its delivery, though nothing waited before it.
        consumer.consume("q", false);
        publisher.publish("q", &body(size));
        assert_eq!(consumer.read_delivery(), body(size));
        let bytes = (ROUNDS + 1) * size;
        let expected = BodyBytes { stored: bytes, ..BodyBytes::by_reference(bytes) };
        assert_eq!(BodyBytes::of(&broker), expected, "{size} B");
    }
}

#[test]
fn durable_bodies_are_copied_for_the_disk_too_and_small_ones_into_the_outbox() {
    let broker = Broker::start(&["--shards", "1"]);
    let (mut publisher, mut consumer) = clients(&broker);
    publisher.declare_durable("durable");
    publisher.publish_persistent("durable", &body(1_000));
    publisher.publish("q", &body(100));
    consumer.consume("durable", false);
    assert_eq!(consumer.read_delivery(), body(1_000));
    while consumer.get("q").is_none_or(|got| got != body(100)) {}
    let counted = BodyBytes::of(&broker);
    // `basic.get` answers by mail, also on one shard.
    let expected = BodyBytes {
        stored: 1_100,
        logged: 1_000,
        mailed: 100,
        rendered: 100,
        ..BodyBytes::by_reference(1_100)
    };
    assert_eq!(counted, expected);
}
