//! Scenario files: one question each, as TOML. `bench-suite/scenarios/` has the built-in ones.
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
    /// The question that it answers, for somebody who has never seen it.
    pub(crate) question: String,
    /// Whether the bare relay can do it too.
    #[serde(default)]
    pub(crate) floor: bool,
    /// What drives the load client.
    #[serde(default)]
    pub(crate) transport: Transport,
    pub(crate) load: Load,
}

impl Scenario {
    /// What drives the load client, for the report.
    pub(crate) const fn transport_name(&self) -> &'static str {
        match (&self.load, self.transport) {
            // One thing after the other, each awaited: nothing to drive.
            (Load::Churn(_) | Load::Idle(_), _) => "blocking",
            (_, Transport::TokioUring) => "tokio-uring",
            (_, Transport::IoUring) => "io-uring",
        }
    }
}

/// What drives the load client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// tokio-uring, one runtime per core.
    #[default]
    TokioUring,
    /// A bare ring per core, for scenarios in which the runtime would be the limit.
    IoUring,
}

/// What is done to a broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Load {
    /// Messages flow from publishers to consumers for a measured time.
    Flow(Box<Flow>),
    /// The highest rate of a flow at which a percentile stays under a bound.
    Search(Box<Search>),
    /// One thing at a time and wait for its answer.
    RoundTrip(RoundTrip),
    /// Messages pile up, rest, and are drained.
    Backlog(Backlog),
    /// Things are made and removed again.
    Churn(Churn),
    /// Connections do nothing.
    Idle(Idle),
    /// A flow alone, beside something, and alone again.
    #[serde(rename = "beside")]
    Interference(Box<Interference>),
}

/// Messages from publishers to consumers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Flow {
    /// Octets of a body; 16 at least, the stamp.
    pub(crate) body_bytes: usize,
    /// Connections that publish.
    pub(crate) publishers: u16,
    pub(crate) queues: u32,
    /// Connections that consume; the queues are dealt to them in turn.
    pub(crate) consumers: u16,
    /// Every consumer connection consumes from every queue: a work queue.
    pub(crate) shared: bool,
    pub(crate) exchange: Exchange,
    /// Routing keys published to each queue, or headers; fan-out ignores it.
    pub(crate) keys_per_queue: u32,
    /// Bindings in all; what is above one per key matches nothing that is published.
    pub(crate) bindings: u32,
    /// Durable exchange and queues.
    pub(crate) durable: bool,
    /// `delivery_mode` 2.
    pub(crate) persistent: bool,
    /// Arguments of the queues, for example `x-queue-type = "quorum"`.
    pub(crate) queue_arguments: std::collections::BTreeMap<String, String>,
    /// Publishes of each publisher that may wait for their confirm; 0 for no confirms.
    pub(crate) confirm_window: u32,
    /// Deliveries that may wait for their ack; 0 for automatic acks.
    pub(crate) prefetch: u16,
    /// Deliveries per ack (`multiple`); divides `prefetch`.
    pub(crate) ack_every: u16,
    /// Without confirms: how many publishes may be under way. 0: as many as make 1 MiB, at most
    /// 20,000 and at least 16.
    pub(crate) under_way_max: u32,
    /// Open loop: messages per second of all publishers together; 0 for as fast as possible.
    pub(crate) rate_per_s: f64,
    /// The rate goes to this one evenly over the measured time; 0 for a constant rate.
    pub(crate) rate_end_per_s: f64,
    /// How long a consumer works on a message before it acknowledges.
    pub(crate) work_us: u32,
    /// Measured seconds instead of those of the command line; 0 for those.
    pub(crate) seconds: f64,
    /// Connections that do nothing, opened behind the queues' declaration and before the first
    /// consumer. A broker that deals connections to its cores in turn, and keeps a queue where it
    /// was declared, has publishers, queues and consumers elsewhere for them.
    pub(crate) bystanders: u16,
    /// Channels that are open on each connection beside the one in use. Files say it as
    /// [`IdleThings::channels`].
    #[serde(skip)]
    pub(crate) idle_channels: u16,
}

/// Where is published to.
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
    /// Its rate is what is searched.
    pub(crate) flow: Flow,
    /// The delivery latency that 99 % must stay under.
    pub(crate) p99_max_us: f64,
    /// The first rate that is tried.
    pub(crate) from_per_s: f64,
    /// The search ends here.
    pub(crate) to_per_s: f64,
}

/// One thing at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoundTrip {
    pub(crate) what: RoundTripKind,
    #[serde(default = "stamp_only")]
    pub(crate) body_bytes: usize,
    /// Callers, each with one request under way.
    #[serde(default = "one")]
    pub(crate) callers: u16,
}

/// What waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RoundTripKind {
    /// Publish, and `basic.get` it; the next when it came.
    Get,
    /// Publish, and wait for its delivery on the same connection.
    Deliver,
    /// A request to a server's queue, its reply to an exclusive queue of the caller.
    RpcReplyQueue,
    /// The same with `amq.rabbitmq.reply-to`.
    RpcDirectReplyTo,
}

/// A queue that fills, rests and is drained.
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

/// Things that are made and removed, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Churn {
    pub(crate) what: ChurnKind,
    /// Things of the same kind that are there all the while.
    #[serde(default)]
    pub(crate) standing: u32,
}

/// What is made and removed.
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

/// A flow whose cost or latency must not depend on what is beside it. It runs three times: alone,
/// beside it, and alone again, so that a machine that drifts drifts out of the ratio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Interference {
    pub(crate) flow: Flow,
    #[serde(default)]
    pub(crate) idle: IdleThings,
    #[serde(default)]
    pub(crate) trouble: Option<Trouble>,
}

/// Things that are there and do nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IdleThings {
    pub(crate) queues: u32,
    /// Wildcard patterns on a topic exchange of their own.
    pub(crate) bindings: u32,
    pub(crate) connections: u32,
    /// On each connection of the flow.
    pub(crate) channels: u16,
}

/// What somebody else does at the same time, on a thread of its own that gives way to the flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Trouble {
    /// A flow that nobody measures.
    Flow(Flow),
    /// A backlog that was there before is drained as fast as possible, from the moment on at which
    /// the measured window opens.
    Drain(Backlog),
    /// Connections are opened and closed.
    Connections(ConnectionChurn),
    /// Bindings come and go on the exchange of the flow. Every other one matches what is published
    /// and leads where it goes anyway: whoever loses or duplicates a message by it is caught.
    Bindings(BindingChurn),
}

/// Connections that come and go as fast as possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionChurn {
    /// Clients that do so, each with one connection at a time.
    pub(crate) clients: u16,
}

/// Bindings that come and go at a fixed rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindingChurn {
    /// Binds and unbinds together.
    pub(crate) changes_per_s: f64,
}

const fn stamp_only() -> usize {
    16
}

const fn one() -> u16 {
    1
}
