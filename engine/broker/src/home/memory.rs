//! What the messages of a shard cost in memory, from totals that are kept where they change: fit
//! to be asked each turn.

use crate::delivery::unacked::Run;
use crate::queue::fifo::{ENTRY_BYTES_MAX, RECORD_BYTES_MAX};
use crate::queue::state::Checkout;
use crate::settings::Settings;
use crate::shard::core::Core;
use crate::storage::store::SEGMENT_BYTES;

/// What one queue's hold on one message costs beside the message: its entry while it is ready, or
/// its checkout at the queue and its run at the channel, which it may have to itself. The sum is
/// taken for either, so that it also covers the room by which ring buffers grow ahead.
const INDEX_BYTES: usize =
    ENTRY_BYTES_MAX + size_of::<(u64, Option<Checkout>)>() + size_of::<(u64, Run)>();

impl Core {
    /// Bytes of messages at rest with what finds them, and of what waits for sockets and for other
    /// shards. O(1) but for the number of shards.
    ///
    /// A body that is lent to an outbox counts on both sides: the store may let go first. Messages
    /// that are half received are not in it, nor is what is kept for reuse: the next messages take
    /// no more than that.
    pub fn memory_bytes(&self) -> u64 {
        let records = self.store.records() * RECORD_BYTES_MAX;
        let index = self.store.all_references() * INDEX_BYTES + records;
        let ways_out = self.exits.writers.waiting_bytes() + self.exits.post.waiting_bytes();
        (self.store.memory_bytes() - self.store.spare_bytes() + index + ways_out) as u64
    }

    /// While memory runs out none is kept for reuse.
    pub fn free_spare_memory(&mut self) {
        let segments = if self.alarms.memory { 0 } else { spare_segments(&self.settings) };
        self.store.limit_spare(segments);
    }
}

/// What is always worth keeping: a busy shard's in-flight backlog.
const SPARE_BYTES_MIN: u64 = 64 << 20;

/// Emptied segments that are kept for reuse. A sixteenth of the store's memory is as much of the
/// host's as nobody misses (an eightieth, as limits are by default), and a backlog that fits it
/// comes back at a tenth of what fresh pages cost. On a small host it is a quarter at most.
pub(crate) fn spare_segments(settings: &Settings) -> usize {
    let store_bytes = settings.store_memory_max_bytes;
    let bytes = (store_bytes / 16).max(SPARE_BYTES_MIN).min(store_bytes / 4);
    usize::try_from(bytes).unwrap_or(usize::MAX) / SEGMENT_BYTES
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::alarms::Alarms;
    use crate::id::{Instant, ShardId};
    use crate::message::{Body, Likeness, Message};
    use crate::routing::topology::Topology;

    #[test]
    fn a_backlog_counts_with_its_index_and_goes_again() {
        let settings = Settings { store_memory_max_bytes: 8 << 20, ..Settings::default() };
        let topology = Topology::with_presets(1, 1);
        let mut core = Core::new(ShardId(0), 1, Arc::new(settings), topology);
        assert_eq!(core.memory_bytes(), 0);
        let message = Message {
            exchange: b"",
            routing_key: b"q",
            properties: &[0, 0],
            body: Body::Inline(&[7; 300]),
            published_at: Instant(0),
            likeness: Likeness::UNKNOWN,
        };
        let ids: Vec<_> = (0..100_000).map(|_| core.store.put(&message, 2)).collect();
        let full = core.memory_bytes();
        // A record and its slot.
        let least = 100_000 * (309 + 8 + 2 * INDEX_BYTES as u64);
        assert!((least..least + least / 4).contains(&full), "{least} {full}");
        for id in ids {
            core.store.release(id);
            core.store.release(id);
        }
        let used = core.memory_bytes();
        assert!(used < full / 10, "{used} of {full}");
        // A quarter of 8 MiB, and in whole slabs.
        assert!((1 << 20..=2 << 20).contains(&core.store.spare_bytes()));
        core.alarms = Alarms { memory: true, disk: false };
        core.free_spare_memory();
        assert_eq!(core.store.spare_bytes(), 0);
        assert!(core.memory_bytes() <= used);
    }

    #[test]
    fn a_share_is_kept_for_reuse() {
        let bytes_of = |store_memory_max_bytes| {
            spare_segments(&Settings { store_memory_max_bytes, ..Settings::default() })
                * SEGMENT_BYTES
        };
        assert_eq!([8 << 20, 512 << 20, 4 << 30].map(bytes_of), [2 << 20, 64 << 20, 256 << 20]);
    }
}
