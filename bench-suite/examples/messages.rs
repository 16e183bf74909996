//! A counted number of messages through a whole shard, for tools that count instructions.
//!
//! `messages NAME ROUNDS` moves ROUNDS receive buffers full of messages and prints how many
//! messages those were. There is no clock, socket, thread or random seed in it: two runs do the
//! same. Two runs with different ROUNDS differ by nothing but messages, so that the difference of
//! their instruction counts is free of start-up. `perf-scripts/callgrind.sh` does that.
#![forbid(unsafe_code)]

mod routed;
#[path = "../benches/world/mod.rs"]
mod world;

use std::env;
use std::process::ExitCode;

use leveret_amqp::TableRef;
use leveret_amqp::method::{BasicAck, ConfirmSelect, ExchangeDeclare, QueueBind, encode_frame};

use crate::routed::{Kind as Exchange, Routed};
use crate::world::{
    Path, World, consume_work, declare_durable_work, declare_work, persistent_publishes, publishes,
    work_queue,
};

/// Name, octets of a body, what else is done with each message, and the shards it passes.
const KINDS: [(&str, usize, Kind, Path); 25] = [
    ("auto-ack-16b", 16, Kind::AutoAck, Path::LOCAL),
    ("auto-ack-1k", 1024, Kind::AutoAck, Path::LOCAL),
    ("acks-16b", 16, Kind::Acks, Path::LOCAL),
    ("acks-each-16b", 16, Kind::AcksEach, Path::LOCAL),
    ("confirms-16b", 16, Kind::Confirms, Path::LOCAL),
    ("confirms-acks-16b", 16, Kind::ConfirmsAndAcks, Path::LOCAL),
    ("confirms-acks-1k", 1024, Kind::ConfirmsAndAcks, Path::LOCAL),
    ("topic-16b", 16, Kind::Topic, Path::LOCAL),
    ("topic-rotating-16b", 16, routed(Exchange::Topic, 10, 10, 1_000, 1), Path::LOCAL),
    ("direct-many-keys", 16, routed(Exchange::Direct, 10, 1_000, 10_000, 1), Path::LOCAL),
    ("headers-16b", 16, routed(Exchange::Headers, 10, 1, 10, 1), Path::LOCAL),
    ("many-queues-16b", 16, routed(Exchange::Default, 10_000, 1, 0, 10), Path::LOCAL),
    ("fanout-10", 16, routed(Exchange::Fanout, 10, 1, 10, 10), Path::LOCAL),
    ("fill-100b", 100, Kind::Fill, Path::LOCAL),
    ("drain-100b", 100, Kind::Drain, Path::LOCAL),
    ("durable-fill-16b", 16, Kind::DurableFill, Path::LOCAL),
    ("durable-fill-1k", 1024, Kind::DurableFill, Path::LOCAL),
    ("durable-confirms-acks-16b", 16, Kind::Durable, Path::LOCAL),
    ("durable-confirms-acks-1k", 1024, Kind::Durable, Path::LOCAL),
    ("deliver-hop-16b", 16, Kind::AutoAck, DELIVER_HOP),
    ("deliver-hop-1k", 1024, Kind::AutoAck, DELIVER_HOP),
    ("publish-hop-16b", 16, Kind::AutoAck, PUBLISH_HOP),
    ("publish-hop-1k", 1024, Kind::AutoAck, PUBLISH_HOP),
    ("both-hops-16b", 16, Kind::AutoAck, BOTH_HOPS),
    ("both-hops-confirms-acks-16b", 16, Kind::ConfirmsAndAcks, BOTH_HOPS),
];

/// The queue lives with its publisher.
const DELIVER_HOP: Path = Path { publisher: 0, home: 0, consumer: 1 };

/// The queue lives with its consumer.
const PUBLISH_HOP: Path = Path { publisher: 0, home: 1, consumer: 1 };

/// The queue lives with neither.
const BOTH_HOPS: Path = Path { publisher: 0, home: 1, consumer: 2 };

/// Topic bindings besides the one that matches: enough that a search through all would show.
const OTHER_BINDINGS: usize = 99;

/// Receive buffers that a queue is filled with before it is drained, however many are.
const DRAINED_ROUNDS_MAX: u64 = 256;

/// More than anybody waits for under callgrind, and far from overflow.
const ROUNDS_MAX: u64 = 1_000_000;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Default exchange, automatic acks.
    AutoAck,
    /// Default exchange, one ack per receive buffer (`multiple`).
    Acks,
    /// Default exchange, an ack for each message.
    AcksEach,
    /// Default exchange, publisher confirms, automatic acks.
    Confirms,
    /// Default exchange, publisher confirms, one ack per receive buffer (`multiple`).
    ConfirmsAndAcks,
    /// Topic exchange with wildcard bindings, automatic acks.
    Topic,
    /// Default exchange, nobody consumes.
    Fill,
    /// A queue that is filled already, one ack per receive buffer's worth of messages.
    Drain,
    /// Persistent messages to a durable queue, publisher confirms, nobody consumes.
    DurableFill,
    /// The same with a consumer that acknowledges: every other receive buffer before its commit
    /// begins, the ones between after that.
    Durable,
    /// Rotating keys to several queues, automatic acks; deliveries are counted.
    Routed(Routed),
}

const fn routed(
    kind: Exchange,
    queues: u32,
    keys_per_queue: u32,
    bindings: u32,
    consumers: u32,
) -> Kind {
    Kind::Routed(Routed { kind, queues, keys_per_queue, bindings, consumers })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let chosen = match arguments.as_slice() {
        [name, rounds] => {
            let kind = KINDS.iter().find(|(known, ..)| known == name);
            let drains = kind.is_some_and(|(_, _, kind, _)| matches!(kind, Kind::Drain));
            let most = if drains { DRAINED_ROUNDS_MAX } else { ROUNDS_MAX };
            let rounds = rounds.parse().ok().filter(|n| (1..=most).contains(n));
            kind.zip(rounds)
        }
        _ => None,
    };
    let Some(((_, body_bytes, kind, path), rounds)) = chosen else {
        eprintln!(
            "usage: messages NAME ROUNDS, with ROUNDS from 1 to {ROUNDS_MAX} \
             ({DRAINED_ROUNDS_MAX} where a queue is drained) and NAME one of"
        );
        for (name, ..) in KINDS {
            eprintln!("  {name}");
        }
        return ExitCode::from(2);
    };
    let messages = match kind {
        Kind::Fill => fill(*body_bytes, rounds),
        Kind::Drain => drain(*body_bytes, rounds),
        Kind::DurableFill => durable(*body_bytes, rounds, false),
        Kind::Durable => durable(*body_bytes, rounds, true),
        Kind::Routed(routed) => routed.carry(*body_bytes, rounds),
        _ => carry(*body_bytes, *kind, *path, rounds),
    };
    println!("{messages}");
    ExitCode::SUCCESS
}

/// Moves `rounds` buffers from a publisher to a consumer; returns the number of messages.
fn carry(body_bytes: usize, kind: Kind, path: Path, rounds: u64) -> u64 {
    let shards = path.publisher.max(path.home).max(path.consumer) + 1;
    let mut world = World::new(shards as u16);
    let acks = matches!(kind, Kind::Acks | Kind::AcksEach | Kind::ConfirmsAndAcks);
    let (publisher, consumer) = work_queue(&mut world, !acks, path);
    let (exchange, routing_key) = match kind {
        Kind::Topic => ("events", "orders.eu.paid"),
        _ => ("", "work"),
    };
    if matches!(kind, Kind::Topic) {
        world.say(consumer, &declare_topic(exchange));
        world.say(consumer, &bind(exchange, "orders.*.paid"));
        for number in 0..OTHER_BINDINGS {
            world.say(consumer, &bind(exchange, &format!("other{number}.*.#")));
        }
    }
    if matches!(kind, Kind::Confirms | Kind::ConfirmsAndAcks) {
        world.say(publisher, &ConfirmSelect { nowait: false });
    }
    let (buffer, count) = publishes(&vec![b'x'; body_bytes], exchange, routing_key);
    for round in 1..=rounds {
        let sent = world.feed(publisher, buffer.clone());
        assert!(sent > body_bytes * count as usize, "{sent} octets for {count} messages");
        if kind == Kind::AcksEach {
            let mut acks = Vec::new();
            for delivery_tag in (round - 1) * count + 1..=round * count {
                encode_frame(1, &BasicAck { delivery_tag, multiple: false }, &mut acks);
            }
            world.feed(consumer, acks.into());
        } else if acks {
            world.say(consumer, &BasicAck { delivery_tag: round * count, multiple: true });
        }
    }
    rounds * count
}

/// Moves `rounds` buffers from a publisher into a queue; returns the number of messages.
fn fill(body_bytes: usize, rounds: u64) -> u64 {
    let mut world = World::new(1);
    let publisher = world.connect(0);
    declare_work(&mut world, publisher);
    let (buffer, count) = publishes(&vec![b'x'; body_bytes], "", "work");
    for _ in 0..rounds {
        assert_eq!(world.feed(publisher, buffer.clone()), 0);
    }
    rounds * count
}

/// Moves `rounds` buffers' worth of messages from a deep queue to a consumer that acknowledges;
/// returns their number.
fn drain(body_bytes: usize, rounds: u64) -> u64 {
    let mut world = World::new(1);
    let (publisher, consumer) = (world.connect(0), world.connect(0));
    declare_work(&mut world, publisher);
    let (buffer, count) = publishes(&vec![b'x'; body_bytes], "", "work");
    for _ in 0..=DRAINED_ROUNDS_MAX {
        world.feed(publisher, buffer.clone());
    }
    let mut sent = consume_work(&mut world, consumer, false, count as u16);
    for round in 1..=rounds {
        assert!(sent > body_bytes * count as usize, "{sent} octets for {count} messages");
        sent = world.say(consumer, &BasicAck { delivery_tag: round * count, multiple: true });
    }
    rounds * count
}

/// Moves `rounds` buffers of persistent messages from a publisher into a durable queue, and on to a
/// consumer if there is one; returns their number.
fn durable(body_bytes: usize, rounds: u64, consumed: bool) -> u64 {
    let mut world = World::with_logs(1);
    let (publisher, consumer) = (world.connect(0), world.connect(0));
    declare_durable_work(&mut world, publisher);
    if consumed {
        consume_work(&mut world, consumer, false, 0);
    }
    world.say(publisher, &ConfirmSelect { nowait: false });
    let (buffer, count) = persistent_publishes(&vec![b'x'; body_bytes], "work");
    for round in 1..=rounds {
        let sent = world.feed(publisher, buffer.clone());
        if consumed {
            assert!(sent > body_bytes * count as usize, "{sent} octets for {count} messages");
        }
        if !consumed || !round.is_multiple_of(2) {
            world.end_commits();
        }
        if consumed {
            world.say(consumer, &BasicAck { delivery_tag: round * count, multiple: true });
        }
    }
    rounds * count
}

fn declare_topic(exchange: &str) -> ExchangeDeclare<'_> {
    ExchangeDeclare {
        exchange,
        kind: "topic",
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: TableRef::EMPTY,
    }
}

fn bind<'t>(exchange: &'t str, routing_key: &'t str) -> QueueBind<'t> {
    QueueBind {
        queue: "work",
        exchange,
        routing_key: routing_key.as_bytes(),
        nowait: false,
        arguments: TableRef::EMPTY,
    }
}
