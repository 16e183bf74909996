//! One queue, at its home shard.
//!
//! [`state::State`] holds what a replica would have to hold too: which messages are ready, in
//! which order, and which are checked out by whom. It changes only through `State::apply`.
//! [`consumers::Consumers`] holds who can take a message right now, which is nobody's business
//! but this shard's. [`Queue`] ties the two together.

pub mod consumers;
pub mod pages;
pub mod ready;
pub mod state;

use std::sync::Arc;

use crate::histogram::Histogram;
use crate::id::Instant;
use crate::log::LogId;
use crate::topology::QueueMeta;

use consumers::Consumers;
use pages::Pages;
use state::State;

/// A queue at home.
#[derive(Debug)]
pub struct Queue {
    /// What was declared.
    pub meta: Arc<QueueMeta>,
    /// What the log knows it by, if it outlives the process; as in `meta`, one pointer nearer.
    pub log_id: Option<LogId>,
    /// Its messages.
    pub state: State,
    /// Who takes them.
    pub consumers: Consumers,
    /// Counters since it was declared.
    pub counts: Counts,
    /// Messages on disk only: few queues have any.
    pub pages: Option<Box<Pages>>,
    /// Made when the first message leaves: 100 k queues that see no traffic pay nothing.
    latency: Option<Box<QueueLatency>>,
    /// The home has told the control state that the queue ends; nobody gets in any more.
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
#[derive(Debug, Default)]
pub struct QueueLatency {
    /// From the arrival of a publish's last frame to the delivery being handed to the socket
    /// (or to the mesh, where the consumer lives on another shard).
    pub publish_to_deliver: Histogram,
    /// From becoming ready to leaving the queue.
    pub time_in_queue: Histogram,
    passed_through: u64,
}

impl QueueLatency {
    /// Both histograms with everything in them; see
    /// [`ShardLatency::passed_through`](crate::core::ShardLatency::passed_through).
    pub fn told(&self) -> [Histogram; 2] {
        [&self.publish_to_deliver, &self.time_in_queue].map(|histogram| {
            let mut told = histogram.clone();
            told.record_many(0, self.passed_through);
            told
        })
    }
}

impl Queue {
    /// An empty queue.
    pub fn new(meta: Arc<QueueMeta>) -> Self {
        Self {
            log_id: meta.log_id,
            meta,
            state: State::default(),
            consumers: Consumers::default(),
            counts: Counts::default(),
            pages: None,
            latency: None,
            closing: false,
        }
    }

    /// Notes that a message left: `published_at` its publisher's time, `ready_at` ours.
    #[inline]
    pub fn record_latency(&mut self, published_at: Instant, ready_at: Instant, now: Instant) {
        let latency = self.latency.get_or_insert_default();
        if published_at == now {
            latency.passed_through += 1;
            return;
        }
        latency.publish_to_deliver.record(now.since(published_at));
        latency.time_in_queue.record(now.since(ready_at));
    }

    /// The latencies, if a message has left yet.
    pub fn latency(&self) -> Option<&QueueLatency> {
        self.latency.as_deref()
    }
}
