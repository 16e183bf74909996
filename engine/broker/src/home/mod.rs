//! The queues that live on this shard.
//!
//! ```text
//!   publish ──► queue ──► deliver ──► outputs         in: publish.rs   on: deliver.rs, get.rs
//!                 │                                   out: leaving.rs, the one door
//!                 └──► store, log                     durability.rs, paging, compaction.rs
//! ```
//! A call names a queue by its id and looks it up once ([`Home::open`]); all that follows happens
//! on the [`OpenQueue`]. A channel of this shard publishes and settles by a call, one of another
//! shard by mail; whatever a channel waits for is asked by mail, also on the same shard. Nothing
//! here knows the client side: the answers go into the [`Outputs`].

pub mod ask;
pub mod backlog;
pub mod compaction;
pub mod counts;
mod deliver;
pub mod durability;
mod get;
pub mod latency;
pub mod leaving;
pub(crate) mod memory;
pub mod paging;
mod pending_confirms;
mod publish;
mod settle;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::object::QueueMeta;
use crate::delivery::outputs::Outputs;
use crate::id::{ChannelKey, ConsumerKey, Map, QueueId, seeded_map};
use crate::queue::Queue;
use crate::settings::Settings;
use crate::storage::log::{Log, LogId};
use crate::storage::store::{MessageId, Store};
use crate::turn::Turn;

use self::compaction::Compaction;
use self::counts::HomeCounts;
use self::durability::Stored;
use self::latency::ShardLatency;
use self::memory::spare_segments;
use self::paging::{Damage, Paging};
use self::pending_confirms::PendingConfirms;

pub use self::publish::Accepted;

/// The queues of one shard, with their messages.
#[derive(Debug)]
pub struct Home {
    /// By slot of [`QueueId`].
    queues: Vec<Option<Box<Queue>>>,
    /// The durable queues, by their number in the log.
    by_log_id: Map<LogId, QueueId>,
    /// What the queues have in common.
    shared: Shared,
}

/// What all queues of a home use.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Their messages.
    store: Store,
    /// Where messages go that have to outlive the process. `None`: none has to, and confirms say
    /// only that a message is in its queues.
    log: Option<Log>,
    /// Publishers to this shard wait: its log has more to write than it should.
    log_backed_up: bool,
    /// Publishes whose confirm waits for the log.
    pending_confirms: PendingConfirms,
    /// The queues that the message at hand is stored for.
    stored: Stored,
    /// Reads of messages that are on disk only.
    paging: Paging,
    /// The segment that is being emptied.
    compaction: Compaction,
    /// Records that could not be read, until the driver asks; see [`Damage`].
    damage: Vec<Damage>,
    /// The queues that a channel consumes or gets from, which hear of its end.
    channel_queues: Map<ChannelKey, BTreeSet<QueueId>>,
    latency: ShardLatency,
    counts: HomeCounts,
    /// Scratch of publishing: how many of the messages at hand each queue gave out at once.
    given: Vec<usize>,
    /// Scratch of publishing: the store's ids of those that were given out to be acknowledged.
    handed: Vec<MessageId>,
}

/// A queue that was looked up, with everything that its methods touch.
pub(crate) struct OpenQueue<'a> {
    queue: &'a mut Queue,
    home: &'a mut Shared,
    turn: &'a Turn,
    out: &'a mut Outputs,
}

impl Home {
    /// Without queues.
    pub fn new(settings: &Settings) -> Self {
        let mut store = Store::default();
        store.limit_spare(spare_segments(settings));
        store.set_budget(settings.store_memory_max_bytes as usize);
        store.limit_received(settings.receive_buffers_kept_max.into());
        Self {
            queues: Vec::new(),
            // Keys are made by the broker: no seed is needed.
            by_log_id: seeded_map(0),
            shared: Shared {
                store,
                log: None,
                log_backed_up: false,
                pending_confirms: PendingConfirms::default(),
                stored: Stored::default(),
                paging: Paging::default(),
                compaction: Compaction::default(),
                damage: Vec::new(),
                channel_queues: seeded_map(0),
                latency: ShardLatency::default(),
                counts: HomeCounts::default(),
                given: Vec::new(),
                handed: Vec::new(),
            },
        }
    }

    /// A queue whose home is here was declared.
    pub fn add_queue(&mut self, meta: Arc<QueueMeta>) {
        let (id, log_id) = (meta.id, meta.log_id);
        let slot = id.slot as usize;
        if self.queues.len() <= slot {
            self.queues.resize_with(slot + 1, || None);
        }
        if let Some(log_id) = log_id {
            self.by_log_id.insert(log_id, id);
        }
        self.queues[slot] = Some(Box::new(Queue::new(meta)));
    }

    /// The control state has forgotten a queue: so does its home.
    pub fn remove_queue(&mut self, turn: &Turn, out: &mut Outputs, id: QueueId) {
        if let Some(mut queue) = self.open(turn, out, id) {
            queue.end_service();
        }
        self.drop_messages(turn, id);
    }

    /// There is room again for consumers that were passed over.
    pub fn room_again(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        consumers: Vec<(QueueId, ConsumerKey)>,
    ) {
        for (id, consumer) in consumers {
            if let Some(mut queue) = self.open(turn, out, id) {
                queue.queue.consumers.start_here(&consumer);
                queue.pump();
            }
        }
    }

    /// A message's receive buffer begins or ends to be read: see [`Store::begin_received`].
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.shared.store
    }

    /// The messages.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The log, if there is one.
    pub fn log(&self) -> Option<&Log> {
        self.shared.log.as_ref()
    }

    /// The log, to tell it the time.
    pub fn log_mut(&mut self) -> Option<&mut Log> {
        self.shared.log.as_mut()
    }

    /// Counters since the start.
    pub fn counts(&self) -> &HomeCounts {
        &self.shared.counts
    }

    /// Latencies of all messages that left queues here.
    pub fn latency(&self) -> &ShardLatency {
        &self.shared.latency
    }

    /// All queues that live here, those that are closing included.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.queues.iter().flatten().map(|queue| &**queue)
    }

    /// Channels that consume or get from queues here, or did and have not ended.
    pub fn channels(&self) -> usize {
        self.shared.channel_queues.len()
    }

    /// Publishes that wait for the log.
    pub fn pending_confirms(&self) -> u64 {
        self.shared.pending_confirms.count()
    }

    /// Takes what was found damaged since the last call.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.shared.damage)
    }

    /// The queue, unless it is gone or going.
    #[inline(always)]
    pub(crate) fn open<'a>(
        &'a mut self,
        turn: &'a Turn,
        out: &'a mut Outputs,
        id: QueueId,
    ) -> Option<OpenQueue<'a>> {
        let queue = self.queues.get_mut(id.slot as usize)?.as_deref_mut()?;
        let is_open = queue.id == id && !queue.closing;
        is_open.then_some(OpenQueue { queue, home: &mut self.shared, turn, out })
    }

    /// The queue, also if it is going.
    fn known(&self, id: QueueId) -> Option<&Queue> {
        let queue = self.queues.get(id.slot as usize)?.as_deref();
        queue.filter(|queue| queue.id == id)
    }

    /// The queue, also if it is going.
    fn known_mut(&mut self, id: QueueId) -> Option<&mut Queue> {
        let queue = self.queues.get_mut(id.slot as usize)?.as_deref_mut();
        queue.filter(|queue| queue.id == id)
    }
}
