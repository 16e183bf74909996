//! A counted number of messages through a whole shard, for tools that count instructions.
//!
//! `messages NAME ROUNDS` moves ROUNDS receive buffers full of messages and prints how many
//! messages those were. There is no clock, socket, thread or random seed in it: two runs do the
//! same. Two runs with different ROUNDS differ by nothing but messages, so that the difference of
//! their instruction counts is free of start-up. `perf-scripts/callgrind.sh` does that.
#![forbid(unsafe_code)]

#[path = "../benches/world/mod.rs"]
mod world;

use std::env;
use std::process::ExitCode;

use leveret_amqp::TableRef;
use leveret_amqp::method::{BasicAck, ConfirmSelect, ExchangeDeclare, QueueBind};

use crate::world::{World, publishes, work_queue};

/// Name, octets of a body, and what else is done with each message.
const KINDS: [(&str, usize, Kind); 4] = [
    ("auto-ack-16b", 16, Kind::AutoAck),
    ("auto-ack-1k", 1024, Kind::AutoAck),
    ("confirms-acks-16b", 16, Kind::ConfirmsAndAcks),
    ("topic-16b", 16, Kind::Topic),
];

/// Topic bindings besides the one that matches: enough that a search through all would show.
const OTHER_BINDINGS: usize = 99;

/// More than anybody waits for under callgrind, and far from overflow.
const ROUNDS_MAX: u64 = 1_000_000;

#[derive(Clone, Copy)]
enum Kind {
    /// Default exchange, automatic acks.
    AutoAck,
    /// Default exchange, publisher confirms, one ack per receive buffer (`multiple`).
    ConfirmsAndAcks,
    /// Topic exchange with wildcard bindings, automatic acks.
    Topic,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let chosen = match arguments.as_slice() {
        [name, rounds] => {
            let kind = KINDS.iter().find(|(known, ..)| known == name);
            let rounds = rounds.parse().ok().filter(|n| (1..=ROUNDS_MAX).contains(n));
            kind.zip(rounds)
        }
        _ => None,
    };
    let Some(((_, body_bytes, kind), rounds)) = chosen else {
        eprintln!(
            "usage: messages NAME ROUNDS, with ROUNDS from 1 to {ROUNDS_MAX} and NAME one of"
        );
        for (name, ..) in KINDS {
            eprintln!("  {name}");
        }
        return ExitCode::from(2);
    };
    println!("{}", carry(*body_bytes, *kind, rounds));
    ExitCode::SUCCESS
}

/// Moves `rounds` buffers from a publisher to a consumer; returns the number of messages.
fn carry(body_bytes: usize, kind: Kind, rounds: u64) -> u64 {
    let mut world = World::new();
    let acks = matches!(kind, Kind::ConfirmsAndAcks);
    let (publisher, consumer) = work_queue(&mut world, !acks);
    let (exchange, routing_key) = match kind {
        Kind::Topic => ("events", "orders.eu.paid"),
        Kind::AutoAck | Kind::ConfirmsAndAcks => ("", "work"),
    };
    if matches!(kind, Kind::Topic) {
        world.say(consumer, &declare_topic(exchange));
        world.say(consumer, &bind(exchange, "orders.*.paid"));
        for number in 0..OTHER_BINDINGS {
            world.say(consumer, &bind(exchange, &format!("other{number}.*.#")));
        }
    }
    if acks {
        world.say(publisher, &ConfirmSelect { nowait: false });
    }
    let (buffer, count) = publishes(&vec![b'x'; body_bytes], exchange, routing_key);
    for round in 1..=rounds {
        let sent = world.feed(publisher, buffer.clone());
        assert!(sent > body_bytes * count as usize, "{sent} octets for {count} messages");
        if acks {
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
