//! Publishers that are faster than live consumers: they wait a moment, so that messages pass
//! through memory that is in the cache instead of piling up.
//!
//! ```text
//!   a message waits: the backlog is large, the queue has consumers
//!     │
//!     ▼               the backlog is small again
//!   Pressure::Backlog ────────────────────────────► reads on
//!     │
//!     │ PATIENCE_NS are over                        HURRY_NS are over
//!     └────────────────► reads on, does not wait ───────────────► may wait again
//! ```
//! The home notifies each shard that publishes to the queue, its own included, when the backlog is
//! large and when it is small again ([`Mail::Backlog`]); the shard holds its publishers back. A
//! home alone would be flooded by a shard that only reads.
//!
//! `RabbitMQ` holds publishers back for the same reason by credit flow. It never costs a publisher
//! more than a hundredth of its time: a queue is there to take what its consumers cannot take yet.

use crate::delivery::outputs::Outputs;
use crate::id::{QueueId, ShardId};
use crate::mesh::mail::Mail;
use crate::message::Message;
use crate::turn::Turn;

use super::{Home, OpenQueue};

/// A backlog that is worth a pause, if all of it were like its last message: half of what stays in
/// a core's level 2 cache.
const LARGE_BYTES: usize = 512 << 10;

/// What a message costs besides its own bytes while it waits, roughly.
const OVERHEAD_BYTES: usize = 64;

/// A backlog is small again when this part of it is left: enough that its consumers go on while
/// the publisher is woken.
const SMALL_PART: usize = 4;

/// How long a publisher waits for consumers: many times what a live consumer takes for
/// [`LARGE_BYTES`], and less than a person notices.
pub const PATIENCE_NS: u64 = 10_000_000;

/// After a wait in vain a publisher does not wait for this long: a hundred times its patience.
pub const HURRY_NS: u64 = 100 * PATIENCE_NS;

impl Home {
    /// Has the publishers of a shard wait for the consumers of a queue that lives here. False where
    /// the queue is gone.
    pub fn backlog_begins(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        id: QueueId,
        shard: ShardId,
    ) -> bool {
        let Some(OpenQueue { queue, .. }) = self.open(turn, out, id) else {
            return false;
        };
        let backlog = queue.backlog.get_or_insert_default();
        backlog.small_messages = queue.kind.ready_count() / SMALL_PART;
        if !backlog.shards.contains(&shard) {
            backlog.shards.push(shard);
            if shard != turn.shard {
                out.reply(shard, Mail::Backlog { queue: id, is_large: true });
            }
        }
        true
    }
}

impl OpenQueue<'_> {
    /// The queue, if the publisher of a message that has just been added should wait for the
    /// queue's consumers.
    #[inline]
    pub(super) fn large_backlog(&self, message: &Message<'_>) -> Option<QueueId> {
        let messages = self.queue.kind.ready_count();
        let bytes = messages.saturating_mul(message.body.len() + OVERHEAD_BYTES);
        let is_large = bytes >= LARGE_BYTES && messages > 1 && self.queue.consumers.count() > 0;
        is_large.then_some(self.queue.id)
    }

    /// Lets the publishers go on that wait for the queue, if its backlog is small.
    #[inline]
    pub(super) fn backlog_shrank(&mut self) {
        if let Some(backlog) = &self.queue.backlog
            && (self.queue.kind.ready_count() <= backlog.small_messages
                || self.queue.consumers.count() == 0)
        {
            self.end_backlog();
        }
    }

    /// Lets the publishers go on that wait for the queue.
    pub(super) fn end_backlog(&mut self) {
        for shard in self.queue.backlog.take().into_iter().flat_map(|backlog| backlog.shards) {
            self.out.reply(shard, Mail::Backlog { queue: self.queue.id, is_large: false });
        }
    }
}
