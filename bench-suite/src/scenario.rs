//! Scenario files in TOML, one question each. The built-in ones are in `bench-suite/scenarios/`.
//!
//! ```toml
//! title = "16 B, transient, automatic acks"
//! question = "How many small messages can one core move when nobody asks for receipts?"
//! floor = true
//!
//! [load.flow]
//! body_bytes = 16
//! ```

use serde::{Deserialize, Serialize};

/// A scenario file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// One line for a heading.
    pub(crate) title: String,
    /// The question that it answers, for readers who do not know it.
    pub(crate) question: String,
    /// Whether the floor can run it too.
    #[serde(default)]
    pub(crate) floor: bool,
    /// The transport of the load client.
    #[serde(default)]
    pub(crate) transport: Transport,
    pub(crate) load: Load,
}

impl Scenario {
    /// The transport of the load client, for the report.
    pub(crate) const fn transport_name(&self) -> &'static str {
        match (&self.load, self.transport) {
            // One operation after the other, each awaited: no driver is used.
            (Load::Churn(_) | Load::Idle(_), _) => "blocking",
            (_, Transport::TokioUring) => "tokio-uring",
            (_, Transport::IoUring) => "io-uring",
        }
    }
}

/// How the load client moves octets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// tokio-uring, one runtime per core.
    #[default]
    TokioUring,
    /// A bare ring per core, for scenarios in which the runtime would be the bottleneck.
    IoUring,
}

/// The load on a broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Load {
    /// Messages flow from publishers to consumers for a given time.
    Flow(Box<Flow>),
    /// The highest rate of a flow at which a percentile stays below a bound.
    Search(Box<Search>),
    /// One operation at a time, each awaited.
    RoundTrip(RoundTrip),
    /// A queue is filled, rests, and is drained.
    Backlog(Backlog),
    /// Things are created and deleted again.
    Churn(Churn),
    /// Idle connections.
    Idle(Idle),
    /// A flow alone, with an interference, and alone again.
    #[serde(rename = "beside")]
    Interference(Box<Interference>),
}

/// Messages from publishers to consumers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Flow {
    /// Octets of a body; at least 16, the size of the stamp.
    pub(crate) body_bytes: usize,
    /// Connections that publish.
    pub(crate) publishers: u16,
    pub(crate) queues: u32,
    /// Connections that consume; the queues are distributed over them in turn.
    pub(crate) consumers: u16,
    /// Every consumer connection consumes from every queue, as in a work queue.
    pub(crate) shared: bool,
    pub(crate) exchange: Exchange,
    /// Routing keys or headers published to each queue; fan-out ignores them.
    pub(crate) keys_per_queue: u32,
    /// All bindings; those beyond one per key match nothing that is published.
    pub(crate) bindings: u32,
    /// Durable exchange and queues.
    pub(crate) durable: bool,
    /// `delivery_mode` 2.
    pub(crate) persistent: bool,
    /// Arguments of the queues, for example `x-queue-type = "quorum"`.
    pub(crate) queue_arguments: std::collections::BTreeMap<String, String>,
    /// The limit on unconfirmed publishes of each publisher; 0 for no confirms.
    pub(crate) confirm_window: u32,
    /// The limit on unacknowledged deliveries; 0 for automatic acks.
    pub(crate) prefetch: u16,
    /// Deliveries per ack (`multiple`); divides `prefetch`.
    pub(crate) ack_every: u16,
    /// Without confirms: the limit on publishes in flight. 0: as many as make 1 MiB, at most 20,000
    /// and at least 16.
    pub(crate) under_way_max: u32,
    /// Open loop: messages per second of all publishers together; 0 for as many as possible.
    pub(crate) rate_per_s: f64,
    /// The rate changes evenly to this one over the measured time; 0 for a constant rate.
    pub(crate) rate_end_per_s: f64,
    /// How long a consumer works on a message before it acknowledges.
    pub(crate) work_us: u32,
    /// Measured seconds instead of the value on the command line; 0 for that value.
    pub(crate) seconds: f64,
    /// Idle connections that are opened after the declaration of the queues and before the first
    /// consumer. They change which cores serve publishers, queues and consumers in a broker that
    /// assigns connections to cores in turn and keeps a queue where it was declared.
    pub(crate) bystanders: u16,
    /// Idle channels on each connection besides the one in use. In files this is
    /// [`IdleThings::channels`].
    #[serde(skip)]
    pub(crate) idle_channels: u16,
}

/// The exchange that is published to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Exchange {
    /// The default exchange: the routing key is the queue's name.
    #[default]
    Default,
    Fanout,
    Direct,
    Topic,
    Headers,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            body_bytes: 16,
            publishers: 1,
            queues: 1,
            consumers: 1,
            shared: false,
            exchange: Exchange::Default,
            keys_per_queue: 1,
            bindings: 0,
            durable: false,
            persistent: false,
            queue_arguments: std::collections::BTreeMap::new(),
            confirm_window: 0,
            prefetch: 0,
            ack_every: 1,
            under_way_max: 0,
            rate_per_s: 0.0,
            rate_end_per_s: 0.0,
            work_us: 0,
            seconds: 0.0,
            bystanders: 0,
            idle_channels: 0,
        }
    }
}

/// A search for the highest rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    /// The rate of this flow is searched.
    pub(crate) flow: Flow,
    /// The bound on the p99 of the delivery latency.
    pub(crate) p99_max_us: f64,
    /// The first rate of the search.
    pub(crate) from_per_s: f64,
    /// The highest rate of the search.
    pub(crate) to_per_s: f64,
}

/// One operation at a time, each awaited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoundTrip {
    pub(crate) what: RoundTripKind,
    #[serde(default = "stamp_only")]
    pub(crate) body_bytes: usize,
    /// Callers, each with one open request.
    #[serde(default = "one")]
    pub(crate) callers: u16,
}

/// The kinds of round trips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RoundTripKind {
    /// Publish a message and get it with `basic.get`.
    Get,
    /// Publish a message and wait for its delivery on the same connection.
    Deliver,
    /// Send a request to a server's queue and wait for the reply in an exclusive queue of the
    /// caller.
    RpcReplyQueue,
    /// The same with `amq.rabbitmq.reply-to`.
    RpcDirectReplyTo,
}

/// A queue that is filled, rests, and is drained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backlog {
    pub(crate) messages: u64,
    pub(crate) body_bytes: usize,
    #[serde(default)]
    pub(crate) durable: bool,
    #[serde(default)]
    pub(crate) persistent: bool,
}

/// Things that are created and deleted, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Churn {
    pub(crate) what: ChurnKind,
    /// Things of the same kind that exist all the time.
    #[serde(default)]
    pub(crate) standing: u32,
}

/// What is created and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChurnKind {
    Connection,
    Channel,
    Queue,
    Binding,
}

/// Idle connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Idle {
    pub(crate) connections: u32,
}

/// A flow whose cost or latency should not depend on the interference. It runs three times: alone,
/// with the interference, and alone again, so that an even drift of the machine cancels out of the
/// ratio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Interference {
    pub(crate) flow: Flow,
    #[serde(default)]
    pub(crate) idle: IdleThings,
    #[serde(default)]
    pub(crate) trouble: Option<Trouble>,
}

/// Things that exist and do nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IdleThings {
    pub(crate) queues: u32,
    /// Wildcard patterns on a topic exchange of their own.
    pub(crate) bindings: u32,
    pub(crate) connections: u32,
    /// Channels on each connection of the flow.
    pub(crate) channels: u16,
}

/// Another load at the same time, on a thread of its own with a lower priority than the flow's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Trouble {
    /// A flow that is not measured.
    Flow(Flow),
    /// A backlog from before is drained as fast as possible, starting with the measured window.
    Drain(Backlog),
    /// Connections are opened and closed.
    Connections(ConnectionChurn),
    /// Bindings are added to and removed from the exchange of the flow. Every other one matches
    /// published messages and leads to the queue that gets them anyway, so a broker that loses or
    /// duplicates messages during such changes is caught.
    Bindings(BindingChurn),
}

/// Connections that are opened and closed as fast as possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionChurn {
    /// Clients, each with one connection at a time.
    pub(crate) clients: u16,
}

/// Bindings that are added and removed at a fixed rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindingChurn {
    /// Additions and removals together.
    pub(crate) changes_per_s: f64,
}

const fn stamp_only() -> usize {
    16
}

const fn one() -> u16 {
    1
}
