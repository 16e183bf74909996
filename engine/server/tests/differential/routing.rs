//! Which messages reach which queues: many bindings and many messages at once, through a real
//! exchange on both brokers.

use std::fmt::Write as _;
use std::net::SocketAddr;

use leveret_amqp::encoder;
use leveret_amqp::method::{
    BasicGet, BasicPublish, ChannelOpen, ExchangeDeclare, ExchangeDelete, QueueBind, QueueDeclare,
    QueueDelete, QueueUnbind,
};
use leveret_amqp::{OwnedTable, PropertiesBuilder, TableBuilder, TableRef, Value};

use crate::link::{Event, Link};
use crate::pair::next_prefix;
use crate::random::Random;

/// Queues of a round, with one or two bindings each.
const QUEUE_COUNT: usize = 30;

/// Messages of a round; each is published before and after half of the bindings are removed.
const MESSAGE_COUNT: usize = 60;

/// Names the message by its place.
type Bodies = Vec<String>;

/// A type of exchange, and how to make bindings and messages for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Topic,
    Headers,
}

/// A binding, or what a message is routed by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Address {
    key: Vec<u8>,
    fields: OwnedTable,
}

/// What is bound and published in one round.
#[derive(Debug)]
struct Round {
    kind: Kind,
    /// By queue.
    bindings: Vec<Vec<Address>>,
    messages: Vec<Address>,
    /// The bindings that are removed: queue and place.
    removed: Vec<(usize, usize)>,
}

/// Runs a round on both brokers. The error lists all messages that took another way.
pub(crate) fn compare(
    kind: Kind,
    left: SocketAddr,
    right: SocketAddr,
    seed: u64,
) -> Result<(), String> {
    let round = Round::of_seed(kind, seed);
    let left = round.run(left);
    let reached = left.iter().filter(|bodies| !bodies.is_empty()).count();
    assert!(reached > QUEUE_COUNT / 2, "only {reached} queues got anything: nothing is compared");
    let right = round.run(right);
    if left == right {
        return Ok(());
    }
    let mut text = format!("{kind:?} round of seed {seed}:\n");
    for (index, (left, right)) in left.iter().zip(&right).enumerate() {
        if left != right {
            let bindings = &round.bindings[index % QUEUE_COUNT];
            let when = if index < QUEUE_COUNT { "before" } else { "after" };
            let _ = writeln!(text, "  queue {index} ({when} removing), bound by {bindings:?}");
            for (side, ours, theirs) in [("left", left, right), ("right", right, left)] {
                for body in ours.iter().filter(|body| !theirs.contains(body)) {
                    let message = body.parse().ok().and_then(|at: usize| round.messages.get(at));
                    let _ = writeln!(text, "    only {side}: {body} {message:?}");
                }
            }
        }
    }
    Err(text)
}

impl Round {
    fn of_seed(kind: Kind, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let address = |random: &mut Random, is_binding| match kind {
            Kind::Topic => Address { key: topic_key(random, is_binding), ..Address::default() },
            Kind::Headers => Address { fields: fields(random, is_binding), ..Address::default() },
        };
        let bindings: Vec<Vec<Address>> = (0..QUEUE_COUNT)
            .map(|_| (0..=random.below(2)).map(|_| address(&mut random, true)).collect())
            .collect();
        let messages = (0..MESSAGE_COUNT).map(|_| address(&mut random, false)).collect();
        let mut removed = Vec::new();
        for (queue, of_queue) in bindings.iter().enumerate() {
            let places = (0..of_queue.len()).filter(|_| random.chance(50));
            removed.extend(places.map(|place| (queue, place)));
        }
        Self { kind, bindings, messages, removed }
    }

    /// What is in each queue; then the same after bindings were removed.
    fn run(&self, broker: SocketAddr) -> Vec<Bodies> {
        let prefix = next_prefix();
        let mut routing = Routing::new(broker, &prefix);
        routing.declare(self);
        routing.publish(&self.messages);
        let mut found = routing.empty();
        for (queue, place) in &self.removed {
            routing.unbind(*queue, &self.bindings[*queue][*place]);
        }
        routing.publish(&self.messages);
        found.extend(routing.empty());
        routing.delete();
        found
    }
}

/// Up to six words. Few different ones, so that patterns and keys meet.
fn topic_key(random: &mut Random, is_pattern: bool) -> Vec<u8> {
    const WORDS: &[(usize, &str)] =
        &[(30, "a"), (20, "b"), (10, "ab"), (8, ""), (4, "\u{e4}"), (2, "a*"), (2, "##")];
    if random.chance(1) {
        return vec![b'x'; 255];
    }
    let words: Vec<&str> = (0..random.below(7))
        .map(|_| match random.below(100) {
            0..22 if is_pattern => "*",
            22..48 if is_pattern => "#",
            0..3 => "*",
            3..6 => "#",
            _ => random.weighted(WORDS),
        })
        .collect();
    words.join(".").into_bytes()
}

/// Up to four fields out of five names; for a binding also how to match.
fn fields(random: &mut Random, is_binding: bool) -> OwnedTable {
    const VALUES: &[Value<'_>] = &[
        Value::I32(1),
        Value::I32(1),
        Value::I64(1),
        Value::I16(1),
        Value::I8(1),
        Value::U8(1),
        Value::U16(1),
        Value::U32(1),
        Value::LongStr(b"1"),
        Value::LongStr(b"1"),
        Value::LongStr(b""),
        Value::Bytes(b"1"),
        Value::F64(1.0),
        Value::F32(1.0),
        Value::Bool(true),
        Value::Bool(false),
        Value::Timestamp(1),
        Value::Void,
        Value::Decimal { scale: 0, digits: 1 },
    ];
    const MATCHES: &[&str] = &["all", "all", "any", "any", "any", "all-with-x", "any-with-x"];
    let mut table = TableBuilder::new();
    for name in ["h", "i", "k", "x-h", "x-i"] {
        if random.chance(if name.starts_with('x') { 25 } else { 50 }) {
            table = table.value(name, random.pick(VALUES));
        }
    }
    if is_binding && random.chance(80) {
        table = table.long_str("x-match", random.pick(MATCHES));
    }
    table.finish()
}

/// An exchange and its queues on one broker.
#[derive(Debug)]
struct Routing {
    link: Link,
    exchange: String,
    queues: Vec<String>,
}

const CHANNEL: u16 = 1;

impl Routing {
    fn new(broker: SocketAddr, prefix: &str) -> Self {
        let mut link = Link::connect(broker).expect("the broker takes connections");
        link.method(CHANNEL, &ChannelOpen {});
        let queues = (0..QUEUE_COUNT).map(|number| format!("{prefix}q{number}")).collect();
        let mut routing = Self { link, exchange: format!("{prefix}e"), queues };
        assert_eq!(routing.answer(), Event::ChannelOpened);
        routing
    }

    fn declare(&mut self, round: &Round) {
        let kind = match round.kind {
            Kind::Topic => "topic",
            Kind::Headers => "headers",
        };
        self.link.method(
            CHANNEL,
            &ExchangeDeclare {
                exchange: &self.exchange,
                kind,
                passive: false,
                durable: false,
                auto_delete: false,
                internal: false,
                nowait: false,
                arguments: TableRef::default(),
            },
        );
        self.answer();
        for (queue, bindings) in round.bindings.iter().enumerate() {
            self.link.method(
                CHANNEL,
                &QueueDeclare { exclusive: true, ..QueueDeclare::named(&self.queues[queue]) },
            );
            self.answer();
            for binding in bindings {
                self.link.method(
                    CHANNEL,
                    &QueueBind {
                        queue: &self.queues[queue],
                        exchange: &self.exchange,
                        routing_key: &binding.key,
                        nowait: false,
                        arguments: binding.fields.as_ref(),
                    },
                );
                self.answer();
            }
        }
    }

    fn unbind(&mut self, queue: usize, binding: &Address) {
        self.link.method(
            CHANNEL,
            &QueueUnbind {
                queue: &self.queues[queue],
                exchange: &self.exchange,
                routing_key: &binding.key,
                arguments: binding.fields.as_ref(),
            },
        );
        self.answer();
    }

    fn publish(&mut self, messages: &[Address]) {
        for (number, message) in messages.iter().enumerate() {
            self.link.method(
                CHANNEL,
                &BasicPublish {
                    exchange: self.exchange.as_bytes(),
                    routing_key: &message.key,
                    mandatory: false,
                    immediate: false,
                },
            );
            let headers = Some(message.fields.as_ref());
            let properties = PropertiesBuilder { headers, ..Default::default() }.finish();
            let body = number.to_string();
            let out = self.link.out();
            encoder::encode_content_header(CHANNEL, body.len() as u64, &properties, out);
            out.extend_from_slice(&leveret_amqp::frame::frame_header(
                leveret_amqp::frame::FRAME_BODY,
                CHANNEL,
                body.len() as u32,
            ));
            out.extend_from_slice(body.as_bytes());
            out.push(leveret_amqp::frame::FRAME_END);
        }
        self.link.flush();
    }

    /// Takes all messages out of all queues.
    fn empty(&mut self) -> Vec<Bodies> {
        let mut found = Vec::new();
        for queue in &self.queues {
            // Asking once too often for each costs less than waiting for each answer.
            for _ in 0..=MESSAGE_COUNT {
                self.link.method(CHANNEL, &BasicGet { queue, no_ack: true });
            }
            self.link.flush();
            let mut bodies = Bodies::new();
            for _ in 0..=MESSAGE_COUNT {
                match self.link.receive().event {
                    Event::Got { message, .. } => {
                        bodies.push(String::from_utf8_lossy(&message.body).into_owned());
                    }
                    Event::Reply(_) => {}
                    other => panic!("get-ok or get-empty expected: {other:?}"),
                }
            }
            found.push(bodies);
        }
        found
    }

    fn delete(mut self) {
        for queue in self.queues.clone() {
            let delete =
                QueueDelete { queue: &queue, if_unused: false, if_empty: false, nowait: false };
            self.link.method(CHANNEL, &delete);
            self.answer();
        }
        let exchange = self.exchange.clone();
        let delete = ExchangeDelete { exchange: &exchange, if_unused: false, nowait: false };
        self.link.method(CHANNEL, &delete);
        self.answer();
    }

    /// Sends what is to be sent, and takes the answer to it.
    fn answer(&mut self) -> Event {
        self.link.flush();
        match self.link.receive().event {
            refused @ (Event::ChannelClose(_) | Event::ConnectionClose(_) | Event::End) => {
                panic!("refused: {refused:?}")
            }
            answer => answer,
        }
    }
}
