//! What a flow needs in a broker: exchange, queues, bindings; and the route of each stream.
//!
//! ```text
//!             Route: exchange, key, stream                      lane: queue, its streams
//! publisher p ────────────────────────────► exchange ──► queue q ─────────────────────► consumer
//!
//! stream = first + (q × keys per queue + key) × publishers + p       fan-out: q and key are 0
//! ```
//!
//! All keys of a scenario have the same length, so that all of its publishes do.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use leveret_amqp::{OwnedTable, PropertiesBuilder, TableBuilder};

use crate::broker::Broker;
use crate::client::{Binding, CHANNEL, Connection, QueueOptions};
use crate::fault::Fault;
use crate::load::batch::Route;
use crate::scenario::{Exchange, Flow};

mod check;

pub(crate) use check::check;

/// How many bindings are encoded at once. 100,000 of them would take 20 MB.
const BINDINGS_AT_ONCE: usize = 4096;

/// The number of names of bindings that come and go and match nothing.
const UNMATCHED_PATTERNS: u32 = 10_000;

/// How long a broker may take for one step: `RabbitMQ` deletes an exchange with 20,000 topic
/// bindings in 20 s, and one with 100,000 in minutes.
const PATIENCE: Duration = Duration::from_mins(10);

/// What has to be declared for one run of a flow. Nothing is declared before [`Topology::declare`],
/// and nothing is deleted before [`Topology::remove`].
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    flow: Flow,
    first_stream: u32,
    /// Queues are deleted with their last consumer.
    auto_delete: bool,
    /// The start of all names; it is unique to this process and run.
    prefix: String,
}

/// The streams of a flow, without those of an interference.
pub(crate) fn streams_of(flow: &Flow) -> u32 {
    lane_width(flow) * distinct_queues(flow)
}

/// Deliveries per publish.
pub(crate) fn copies(flow: &Flow) -> u64 {
    if flow.exchange == Exchange::Fanout { u64::from(flow.queues) } else { 1 }
}

/// The consumer tag of a queue: four hexadecimal digits.
pub(crate) fn consumer_tag(queue: u16) -> String {
    format!("{queue:04x}")
}

impl Topology {
    /// For a flow that passed [`check`]; its streams are `first_stream .. first_stream +
    /// streams_of(flow)`.
    pub(crate) fn new(flow: &Flow, first_stream: u32) -> Self {
        let prefix = format!("leveret-bench.{}.{first_stream:08}", std::process::id());
        // An aborted benchmark leaves no transient queues behind.
        Self { flow: flow.clone(), first_stream, auto_delete: !flow.durable, prefix }
    }

    /// Keeps queues until [`Topology::remove`], because an interference uses them too.
    pub(crate) fn keep_queues(self) -> Self {
        Self { auto_delete: false, ..self }
    }

    /// Declares everything; first deletes what an aborted run may have left under the same names.
    pub(crate) fn declare(&self, broker: &Broker) -> Result<(), Fault> {
        let mut connection = connect(broker)?;
        self.remove_on(&mut connection)?;
        let exchange = self.exchange();
        if let Some(kind) = self.kind() {
            connection.declare_exchange(&exchange, kind, self.flow.durable)?;
        }
        let options = QueueOptions {
            durable: self.flow.durable,
            exclusive: false,
            auto_delete: self.auto_delete,
            arguments: string_table(&self.flow.queue_arguments),
        };
        connection.declare_many(&self.queues(), &options)?;
        let mut bindings = self.bindings().peekable();
        while bindings.peek().is_some() {
            let some: Vec<Binding> = bindings.by_ref().take(BINDINGS_AT_ONCE).collect();
            connection.bind_many(&some)?;
        }
        connection.close()
    }

    /// Deletes everything, even if it does not exist. Must be called after a failed run as well.
    pub(crate) fn remove(&self, broker: &Broker) -> Result<(), Fault> {
        let mut connection = connect(broker)?;
        self.remove_on(&mut connection)?;
        connection.close()
    }

    fn remove_on(&self, connection: &mut Connection) -> Result<(), Fault> {
        // The exchange first, because all bindings are deleted with it.
        if self.kind().is_some() {
            connection.delete_exchange(&self.exchange())?;
        }
        connection.delete_many(&self.queues())
    }

    /// The routes of a publisher, alternating between the queues.
    pub(crate) fn routes(&self, publisher: u16) -> Vec<Route> {
        let keys = 0..keys_per_queue(&self.flow);
        keys.flat_map(|key| (0..distinct_queues(&self.flow)).map(move |queue| (queue, key)))
            .map(|(queue, key)| Route {
                exchange: self.exchange(),
                routing_key: self.routing_key(queue, key),
                properties: self.properties(queue, key),
                stream: self.lane(queue).start
                    + key * u32::from(self.flow.publishers)
                    + u32::from(publisher),
            })
            .collect()
    }

    /// The queues of a consumer, and the streams that are routed to each.
    pub(crate) fn lanes(&self, consumer: u16) -> Vec<(u16, Range<u32>)> {
        let step = if self.flow.shared { 1 } else { usize::from(self.flow.consumers) };
        let start = if self.flow.shared { 0 } else { u32::from(consumer) };
        (start..self.flow.queues)
            .step_by(step)
            .map(|queue| (queue as u16, self.lane(queue)))
            .collect()
    }

    /// The name of a queue.
    pub(crate) fn queue(&self, queue: u32) -> String {
        format!("{}.q{queue:05}", self.prefix)
    }

    fn queues(&self) -> Vec<String> {
        (0..self.flow.queues).map(|queue| self.queue(queue)).collect()
    }

    /// The streams that are routed to a queue.
    fn lane(&self, queue: u32) -> Range<u32> {
        let width = lane_width(&self.flow);
        let index = if self.flow.exchange == Exchange::Fanout { 0 } else { queue };
        let start = self.first_stream + index * width;
        start..start + width
    }

    fn kind(&self) -> Option<&'static str> {
        match self.flow.exchange {
            Exchange::Default => None,
            Exchange::Fanout => Some("fanout"),
            Exchange::Direct => Some("direct"),
            Exchange::Topic => Some("topic"),
            Exchange::Headers => Some("headers"),
        }
    }

    fn exchange(&self) -> String {
        self.kind().map_or_else(String::new, |kind| format!("{}.{kind}", self.prefix))
    }

    fn routing_key(&self, queue: u32, key: u32) -> String {
        let number = self.key_number(queue, key);
        match self.flow.exchange {
            Exchange::Default => self.queue(queue),
            Exchange::Fanout | Exchange::Headers => "any".to_owned(),
            Exchange::Direct => format!("k{number:07}.stock.eur"),
            Exchange::Topic => format!("k{number:07}.{:02}.stock.eur", number % 100),
        }
    }

    fn properties(&self, queue: u32, key: u32) -> Vec<u8> {
        let headers = (self.flow.exchange == Exchange::Headers).then(|| {
            let matched = headers(self.key_number(queue, key));
            // A header that no binding uses, as in real messages.
            TableBuilder::new().long_str("trace", "none").fields(matched.as_ref()).finish()
        });
        PropertiesBuilder {
            headers: headers.as_ref().map(OwnedTable::as_ref),
            delivery_mode: self.flow.persistent.then_some(2),
            ..PropertiesBuilder::default()
        }
        .finish()
    }

    /// One binding per published key, then those that match nothing, distributed over the queues.
    fn bindings(&self) -> impl Iterator<Item = Binding> {
        let keys = keys_per_queue(&self.flow);
        let matching = bindings_needed(&self.flow);
        (0..self.flow.bindings.max(matching)).map(move |number| {
            let queue = if number < matching { number / keys } else { number % self.flow.queues };
            self.binding(self.queue(queue), number)
        })
    }

    /// A binding of a topic exchange that does not change any route: every other one matches a
    /// published key and leads to its queue, the others match nothing. Each key has 16 patterns,
    /// which repeat.
    pub(crate) fn harmless_binding(&self, number: u64) -> Binding {
        let (kind, number) = (number % 2, (number / 2) as u32);
        if kind == 1 {
            let number = number % UNMATCHED_PATTERNS;
            let routing_key = format!("z{number:07}.*.stock.#");
            let queue = self.queue(number % self.flow.queues);
            return Binding { routing_key, ..self.binding(queue, 0) };
        }
        let (queue, variant) = (number % self.flow.queues, number / self.flow.queues);
        let key = variant % keys_per_queue(&self.flow);
        let variant = variant / keys_per_queue(&self.flow);
        let routing_key = self.routing_key(queue, key);
        let words = routing_key.split('.').enumerate().map(|(index, word)| match index {
            1.. if variant & (1 << index) != 0 => "*",
            _ => word,
        });
        let mut pattern = words.collect::<Vec<_>>().join(".");
        if variant & 1 != 0 {
            pattern.push_str(".#");
        }
        Binding { routing_key: pattern, ..self.binding(self.queue(queue), 0) }
    }

    /// A binding for the key with this number.
    fn binding(&self, queue: String, number: u32) -> Binding {
        let (routing_key, arguments) = match self.flow.exchange {
            Exchange::Default | Exchange::Fanout => ("any".to_owned(), OwnedTable::default()),
            Exchange::Direct => (format!("k{number:07}.stock.eur"), OwnedTable::default()),
            Exchange::Topic => (format!("k{number:07}.*.stock.#"), OwnedTable::default()),
            Exchange::Headers => {
                let matched = headers(number);
                let all = TableBuilder::new().long_str("x-match", "all");
                ("any".to_owned(), all.fields(matched.as_ref()).finish())
            }
        };
        Binding { queue, exchange: self.exchange(), routing_key, arguments }
    }

    /// Keys are numbered over all queues.
    fn key_number(&self, queue: u32, key: u32) -> u32 {
        queue * keys_per_queue(&self.flow) + key
    }
}

fn connect(broker: &Broker) -> Result<Connection, Fault> {
    let mut connection = Connection::open(broker)?;
    connection.set_patience(PATIENCE)?;
    connection.open_channel(CHANNEL)?;
    Ok(connection)
}

/// The two headers that identify a key.
fn headers(number: u32) -> OwnedTable {
    TableBuilder::new()
        .long_str("region", format!("r{:02}", number % 100))
        .long_str("account", format!("k{number:07}"))
        .finish()
}

/// Arguments of a queue. A value of digits only becomes a number (`x-max-length`).
fn string_table(arguments: &BTreeMap<String, String>) -> OwnedTable {
    let table = arguments.iter().fold(TableBuilder::new(), |table, (name, value)| {
        match value.parse::<i64>() {
            Ok(number) => table.long(name, number),
            Err(_) => table.long_str(name, value),
        }
    });
    table.finish()
}

/// Queues that have keys of their own; a fan-out has one for all.
fn distinct_queues(flow: &Flow) -> u32 {
    if flow.exchange == Exchange::Fanout { 1 } else { flow.queues }
}

fn keys_per_queue(flow: &Flow) -> u32 {
    if flow.exchange == Exchange::Fanout { 1 } else { flow.keys_per_queue }
}

/// Streams that are routed to one queue.
fn lane_width(flow: &Flow) -> u32 {
    keys_per_queue(flow) * u32::from(flow.publishers)
}

/// The least bindings with which every publish reaches a queue.
fn bindings_needed(flow: &Flow) -> u32 {
    match flow.exchange {
        Exchange::Default => 0,
        Exchange::Fanout => flow.queues,
        Exchange::Direct | Exchange::Topic | Exchange::Headers => flow.queues * flow.keys_per_queue,
    }
}

#[cfg(test)]
mod tests;
