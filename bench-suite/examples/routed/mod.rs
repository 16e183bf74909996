//! Messages on many ways: what is declared for them, and the buffers that carry them.
//!
//! The names and numbers are those of the load test's scenarios, so that instructions here explain
//! seconds there.

use bytes::Bytes;
use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::method::{BasicConsume, ExchangeDeclare, QueueBind, QueueDeclare};
use leveret_amqp::{OwnedTable, PropertiesBuilder, TableBuilder, TableRef};
use leveret_broker::id::ConnectionId;

use crate::world::{FRAME_SIZE_MAX, RECEIVE_BUFFER_BYTES, World};

/// Queues behind one exchange, and the keys that publishes take in turn.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Routed {
    pub(crate) kind: Kind,
    pub(crate) queues: u32,
    pub(crate) keys_per_queue: u32,
    /// Those of the keys, then others that match nothing.
    pub(crate) bindings: u32,
    /// Connections that consume, each from its share of the queues.
    pub(crate) consumers: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Default,
    Direct,
    Fanout,
    Topic,
    Headers,
}

impl Routed {
    /// Moves `rounds` buffers from one publisher; returns the number of deliveries.
    pub(crate) fn carry(&self, body_bytes: usize, rounds: u64) -> u64 {
        let mut world = World::new(1);
        self.declare(&mut world);
        let publisher = world.connect(0);
        let body = vec![b'x'; body_bytes];
        let copies = if self.kind == Kind::Fanout { u64::from(self.queues) } else { 1 };
        let buffers = self.buffers(&body);
        let mut deliveries = 0;
        for (buffer, count) in buffers.iter().cycle().take(rounds as usize) {
            let sent = world.feed(publisher, buffer.clone());
            let expected = count * copies;
            assert!(sent > body_bytes * expected as usize, "{sent} octets for {expected} messages");
            deliveries += expected;
        }
        deliveries
    }

    fn declare(&self, world: &mut World) {
        let consumers: Vec<_> = (0..self.consumers).map(|_| world.connect(0)).collect();
        let turn = |queue: u32| consumers[(queue % self.consumers) as usize];
        if let Some(kind) = self.kind.name() {
            let declare = ExchangeDeclare {
                exchange: EXCHANGE,
                kind,
                passive: false,
                durable: false,
                auto_delete: false,
                internal: false,
                nowait: false,
                arguments: TableRef::EMPTY,
            };
            world.say(consumers[0], &declare);
        }
        for queue in 0..self.queues {
            consume(world, turn(queue), &queue_name(queue), &format!("{queue:04x}"));
        }
        for number in 0..self.bindings {
            let of_key = number < self.keys();
            let queue = if of_key { number / self.keys_per_queue } else { number % self.queues };
            let (key, arguments) = self.kind.binding(number);
            let bind = QueueBind {
                queue: &queue_name(queue),
                exchange: EXCHANGE,
                routing_key: key.as_bytes(),
                nowait: false,
                arguments: arguments.as_ref(),
            };
            world.say(turn(queue), &bind);
        }
    }

    /// A publish to each key in turn, over and over or until all have had one, cut to receive
    /// buffers; with the number of publishes in each.
    fn buffers(&self, body: &[u8]) -> Vec<(Bytes, u64)> {
        let mut buffers = Vec::new();
        let (mut wire, mut count) = (Vec::new(), 0);
        for turn in 0.. {
            let all = turn % self.keys() == 0;
            // One publish is far below 512 octets.
            if wire.len() + body.len() + 512 > RECEIVE_BUFFER_BYTES {
                buffers.push((Bytes::from(std::mem::take(&mut wire)), count));
                count = 0;
            }
            if all && !buffers.is_empty() {
                break;
            }
            // From one queue to the next.
            let number = turn % self.keys();
            let number = number % self.queues * self.keys_per_queue + number / self.queues;
            let (exchange, key, properties) = self.kind.message(number);
            let publish = Publish {
                channel: 1,
                exchange: exchange.as_bytes(),
                routing_key: key.as_bytes(),
                mandatory: false,
                immediate: false,
            };
            encode_content(&mut wire, publish, &properties, body, FRAME_SIZE_MAX);
            count += 1;
        }
        if count > 0 {
            buffers.push((wire.into(), count));
        }
        buffers
    }

    fn keys(&self) -> u32 {
        if self.kind == Kind::Fanout { 1 } else { self.queues * self.keys_per_queue }
    }
}

/// As long as the load test's.
const EXCHANGE: &str = "leveret-bench.4711.00000000.exchange";

impl Kind {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Direct => Some("direct"),
            Self::Fanout => Some("fanout"),
            Self::Topic => Some("topic"),
            Self::Headers => Some("headers"),
        }
    }

    /// Key and arguments of a binding.
    fn binding(self, number: u32) -> (String, OwnedTable) {
        match self {
            Self::Topic => (format!("k{number:07}.*.stock.#"), OwnedTable::default()),
            Self::Headers => {
                let all = TableBuilder::new().long_str("x-match", "all");
                ("any".to_owned(), all.fields(headers(number).as_ref()).finish())
            }
            _ => (self.message(number).1, OwnedTable::default()),
        }
    }

    /// Exchange, routing key and properties of a publish.
    fn message(self, number: u32) -> (&'static str, String, Vec<u8>) {
        let plain = PropertiesBuilder::default().finish();
        match self {
            Self::Default => ("", queue_name(number), plain),
            Self::Direct => (EXCHANGE, format!("k{number:07}.stock.eur"), plain),
            Self::Fanout => (EXCHANGE, "any".to_owned(), plain),
            Self::Topic => (EXCHANGE, format!("k{number:07}.{:02}.stock.eur", number % 100), plain),
            Self::Headers => {
                let matched = headers(number);
                // One that no binding asks for, as real messages have.
                let trace = TableBuilder::new().long_str("trace", "none");
                let headers = trace.fields(matched.as_ref()).finish();
                let headers = Some(headers.as_ref());
                let properties = PropertiesBuilder { headers, ..PropertiesBuilder::default() };
                (EXCHANGE, "any".to_owned(), properties.finish())
            }
        }
    }
}

/// The two headers by which a key is told from the others.
fn headers(number: u32) -> OwnedTable {
    TableBuilder::new()
        .long_str("region", format!("r{:02}", number % 100))
        .long_str("account", format!("k{number:07}"))
        .finish()
}

fn queue_name(queue: u32) -> String {
    format!("leveret-bench.4711.00000000.q{queue:05}")
}

/// Declares a queue and consumes from it without acks.
fn consume(world: &mut World, connection: ConnectionId, queue: &str, consumer_tag: &str) {
    world.say(connection, &QueueDeclare::named(queue));
    let consume = BasicConsume {
        queue,
        consumer_tag,
        no_local: false,
        no_ack: true,
        exclusive: false,
        nowait: false,
        arguments: TableRef::EMPTY,
    };
    world.say(connection, &consume);
}
