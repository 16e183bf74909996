//! Publishers that are faster than live consumers: they wait a moment, so that messages pass
//! through memory that is in the cache instead of piling up.
//!
//! ```text
//!   rests: the backlog is large, the queue has consumers
//!     │
//!     ▼             the backlog is small again
//!   Pressure::Backlog ────────────────────────────► reads on
//!     │
//!     │ PATIENCE_NS are over                      HURRY_NS are over
//!     └──────────────► reads on, waits for nobody ───────────────► may wait again
//! ```
//! Publishers on other shards do the same: a home tells the shards that publish to the queue
//! ([`Mail::Backlog`]) when its backlog is large and when it is small again. A home alone would be
//! flooded by a shard that only reads.
//!
//! `RabbitMQ` holds publishers back for the same reason by credit flow. It never costs a publisher
//! more than a hundredth of its time: a queue is there to take what its consumers cannot take yet.

use std::collections::BTreeSet;

use crate::client::connection::{Connection, Deadline, Session};
use crate::home::open_queue;
use crate::id::{ConnectionId, QueueId, ShardId};
use crate::mesh::mail::Mail;
use crate::message::Message;
use crate::pressure::Pressure;
use crate::queue::Queue;
use crate::shard::core::Core;

/// A backlog that is worth a pause, if all of it were like its last message: half of what stays in
/// a core's level 2 cache.
const LARGE_BYTES: usize = 512 << 10;

/// What a message costs besides its own bytes while it rests, roughly.
const OVERHEAD_BYTES: usize = 64;

/// A backlog is small again when this part of it is left: enough that its consumers go on while
/// the publisher is woken.
const SMALL_PART: usize = 4;

/// How long a publisher waits for consumers: many times what a live consumer takes for
/// [`LARGE_BYTES`], and less than anybody notices.
pub const PATIENCE_NS: u64 = 10_000_000;

/// After it has waited in vain a publisher waits for nobody: a hundred times its patience.
const HURRY_NS: u64 = 100 * PATIENCE_NS;

/// Publishers that wait for one queue.
#[derive(Debug, Default)]
pub struct Backlog {
    /// They go on when no more than this many messages wait.
    small_messages: usize,
    publishers: BTreeSet<ConnectionId>,
    /// Shards that were told, for their publishers to wait.
    shards: Vec<ShardId>,
}

impl Core {
    /// Notes that a message came to rest in a queue, if its publisher should wait for the queue's
    /// consumers.
    #[inline]
    pub(crate) fn look_at_backlog(queue: &Queue, message: &Message<'_>) -> Option<QueueId> {
        let messages = queue.state.ready_count();
        let bytes = messages.saturating_mul(message.body.len() + OVERHEAD_BYTES);
        (bytes >= LARGE_BYTES && messages > 1 && queue.consumers.count() > 0).then_some(queue.id)
    }

    /// Lets the publishers go on that wait for a queue, if its backlog is small.
    #[inline]
    pub(crate) fn backlog_shrank(&mut self, id: QueueId) {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        if let Some(backlog) = &queue.backlog
            && (queue.state.ready_count() <= backlog.small_messages || queue.consumers.count() == 0)
        {
            self.end_backlog(id);
        }
    }

    /// Lets the publishers go on that wait for a queue.
    pub(crate) fn end_backlog(&mut self, id: QueueId) {
        let queue = self.queues.get_mut(id.slot as usize).and_then(Option::as_deref_mut);
        if let Some(backlog) = queue.and_then(|queue| queue.backlog.take()) {
            self.backlog_ended(backlog.publishers);
            for shard in backlog.shards {
                self.reply(shard, Mail::Backlog { queue: id, is_large: false });
            }
        }
    }

    /// Has the publishers of another shard wait for the consumers of a queue that lives here.
    pub(crate) fn tell_of_backlog(&mut self, shard: ShardId, id: QueueId) {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        let backlog = Backlog::begin(queue);
        if !backlog.shards.contains(&shard) {
            backlog.shards.push(shard);
            self.reply(shard, Mail::Backlog { queue: id, is_large: true });
        }
    }

    /// The home of a queue says that its backlog is large, or small again.
    pub(crate) fn backlog_elsewhere(&mut self, queue: QueueId, is_large: bool) {
        if is_large {
            self.backlogs_elsewhere.entry(queue).or_default();
        } else if let Some(publishers) = self.backlogs_elsewhere.remove(&queue) {
            self.backlog_ended(publishers);
        }
    }

    fn backlog_ended(&mut self, publishers: BTreeSet<ConnectionId>) {
        let publishers = publishers.into_iter();
        self.unblocked.extend(publishers.map(|connection| (connection, Pressure::Backlog)));
    }
}

impl Backlog {
    /// The backlog of a queue that is large as of now.
    fn begin(queue: &mut Queue) -> &mut Self {
        let small_messages = queue.state.ready_count() / SMALL_PART;
        let backlog = queue.backlog.get_or_insert_default();
        backlog.small_messages = small_messages;
        backlog
    }
}

impl Session {
    /// Has the connection wait for the consumers of a queue.
    pub(crate) fn wait_for_consumers(&mut self, core: &mut Core, id: QueueId) {
        let now = core.now;
        if now < self.hurries_until {
            return;
        }
        let publishers = if let Some(publishers) = core.backlogs_elsewhere.get_mut(&id) {
            publishers
        } else if let Some(queue) = open_queue(&mut core.queues, id) {
            &mut Backlog::begin(queue).publishers
        } else {
            return;
        };
        if !self.blocks.add(Pressure::Backlog, now) {
            return;
        }
        publishers.insert(self.id);
        core.timers.arm(now.after(PATIENCE_NS), (self.id, Deadline::Backlog));
    }
}

impl Connection {
    /// The consumers were waited for in vain, unless it was an earlier wait that this is about.
    pub(crate) fn backlog_stays(&mut self, core: &mut Core) {
        let Some(session) = self.session_mut() else {
            return;
        };
        let since = session.blocks.since(Pressure::Backlog);
        if since.is_some_and(|since| core.now.since(since) >= PATIENCE_NS) {
            session.hurries_until = core.now.after(HURRY_NS);
            self.relieved(core, Pressure::Backlog);
        }
    }
}
