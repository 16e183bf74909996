//! One queue as a value: its messages, and who has which of them.
//!
//! [`kind::Kind`] keeps the messages. Behind it, [`state::State`] holds what a replica would hold
//! too: which messages are ready, in which order, and which are checked out by whom; it changes
//! only by the steps of [`step::Step`]. [`consumers::Consumers`] holds who can take a message right
//! now, which concerns this shard alone. [`Queue`] ties them together.

pub mod backlog;
pub mod consumers;
pub mod fifo;
pub mod kind;
pub mod outstanding;
pub mod pageable;
pub mod pages;
pub mod ready;
pub mod records;
pub mod state;
pub mod step;
pub mod terms;

use std::sync::Arc;

use crate::catalog::object::QueueMeta;
use crate::histogram::Histogram;
use crate::id::{Instant, QueueId};
use crate::storage::log::LogId;

use backlog::Backlog;
use consumers::Consumers;
use kind::Kind;
use kind::classic::Classic;
use pages::Pages;

/// A queue at home.
#[derive(Debug)]
pub struct Queue {
    /// Which queue; as in `meta`, one pointer nearer.
    pub id: QueueId,
    /// The queue as declared.
    pub meta: Arc<QueueMeta>,
    /// Its id in the log, if it outlives the process; as in `meta`, one pointer nearer.
    pub log_id: Option<LogId>,
    /// Its messages.
    pub kind: Kind,
    /// Who takes them.
    pub consumers: Consumers,
    /// Counters since it was declared.
    pub counts: Counts,
    /// Messages on disk only: few queues have any.
    pub pages: Option<Box<Pages>>,
    /// How long its messages took.
    pub waits: Waits,
    /// Publishers that wait for the consumers.
    pub backlog: Option<Box<Backlog>>,
    /// The home has reported the end of the queue to the control state; requests no longer find
    /// the queue.
    pub closing: bool,
}

/// What passed through a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Messages that came in.
    pub published: u64,
    /// Messages given to consumers and to `basic.get`.
    pub delivered: u64,
    /// Deliveries the client settled with ack.
    pub acknowledged: u64,
    /// Messages given out again.
    pub redelivered: u64,
}

/// The two latencies of a queue: 512 B of buckets for each queue that delivers.
#[derive(Clone, Debug, Default)]
pub struct QueueLatency {
    /// From the arrival of a publish's last frame to the delivery being handed to the socket
    /// (or to the mesh, where the consumer lives on another shard).
    pub publish_to_deliver: Histogram,
    /// From becoming ready to leaving the queue.
    pub time_in_queue: Histogram,
}

/// How long the messages of a queue took.
#[derive(Debug, Default)]
pub struct Waits {
    /// Made when the first message leaves: 100 k queues that see no traffic pay nothing.
    latency: Option<Box<QueueLatency>>,
    passed_through: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new(meta: Arc<QueueMeta>) -> Self {
        Self {
            id: meta.id,
            log_id: meta.log_id,
            meta,
            kind: Kind::Classic(Classic::default()),
            consumers: Consumers::default(),
            counts: Counts::default(),
            pages: None,
            waits: Waits::default(),
            backlog: None,
            closing: false,
        }
    }

    /// The complete latencies; `None` until a message has left. Messages that left in the turn
    /// they arrived in enter the histograms only here: both of their latencies are 0.
    pub fn latency(&self) -> Option<QueueLatency> {
        let Waits { latency, passed_through } = &self.waits;
        let mut whole = match latency {
            Some(latency) => (**latency).clone(),
            None if *passed_through > 0 => QueueLatency::default(),
            None => return None,
        };
        whole.publish_to_deliver.record_many(0, *passed_through);
        whole.time_in_queue.record_many(0, *passed_through);
        Some(whole)
    }
}

impl Waits {
    /// Records `count` messages that leave now: they were published at the same time and waited in
    /// the queue for `waited_ns`.
    #[inline(always)]
    pub fn record_many(&mut self, published_at: Instant, waited_ns: u64, now: Instant, count: u64) {
        if published_at == now {
            self.passed_through += count;
        } else {
            self.note(now.since(published_at), waited_ns, count);
        }
    }

    fn note(&mut self, publish_to_deliver_ns: u64, time_in_queue_ns: u64, count: u64) {
        let latency = self.latency.get_or_insert_default();
        latency.publish_to_deliver.record_many(publish_to_deliver_ns, count);
        latency.time_in_queue.record_many(time_in_queue_ns, count);
    }
}
