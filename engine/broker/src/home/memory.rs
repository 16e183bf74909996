//! What the messages of a shard cost in memory, from totals that are kept where they change: fit
//! to be asked each turn.

use crate::delivery::unacked::Run;
use crate::home::Home;
use crate::queue::fifo::{ENTRY_BYTES_MAX, RECORD_BYTES_MAX};
use crate::queue::state::Placed;
use crate::settings::Settings;
use crate::storage::store::SEGMENT_BYTES;

/// What one queue's hold on one message costs beside the message: its entry while it is ready, or
/// its checkout at the queue and its run at the channel, which it may have to itself. The sum is
/// taken for either, so that it also covers the room by which ring buffers grow ahead.
const INDEX_BYTES: usize =
    ENTRY_BYTES_MAX + size_of::<(u64, Option<Placed>)>() + size_of::<(u64, Run)>();

impl Home {
    /// Bytes of messages at rest, with the index that finds them. O(1).
    ///
    /// Messages that are half received are not in it, nor is memory kept for reuse: the next
    /// messages take no more than that.
    pub fn memory_bytes(&self) -> usize {
        let store = &self.shared.store;
        let records = store.records() * RECORD_BYTES_MAX;
        let index = store.all_references() * INDEX_BYTES + records;
        store.memory_bytes() - store.spare_bytes() + index
    }

    /// Keeps emptied memory for reuse, or none while memory runs out.
    pub fn keep_spare_memory(&mut self, settings: &Settings, keep: bool) {
        let segments = if keep { spare_segments(settings) } else { 0 };
        self.shared.store.limit_spare(segments);
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
    use super::*;
    use crate::id::Instant;
    use crate::message::{Body, Likeness, Message};

    #[test]
    fn a_backlog_counts_with_its_index_and_goes_again() {
        let settings = Settings { store_memory_max_bytes: 8 << 20, ..Settings::default() };
        let mut home = Home::new(&settings);
        assert_eq!(home.memory_bytes(), 0);
        let message = Message {
            exchange: b"",
            routing_key: b"q",
            properties: &[0, 0],
            body: Body::Inline(&[7; 300]),
            published_at: Instant(0),
            likeness: Likeness::UNKNOWN,
        };
        let ids: Vec<_> = (0..100_000).map(|_| home.store_mut().put(&message, 2)).collect();
        let full = home.memory_bytes();
        // A record and its slot.
        let least = 100_000 * (309 + 8 + 2 * INDEX_BYTES);
        assert!((least..least + least / 4).contains(&full), "{least} {full}");
        for id in ids {
            home.store_mut().release(id);
            home.store_mut().release(id);
        }
        let used = home.memory_bytes();
        assert!(used < full / 10, "{used} of {full}");
        // A quarter of 8 MiB, and in whole slabs.
        assert!((1 << 20..=2 << 20).contains(&home.store().spare_bytes()));
        home.keep_spare_memory(&settings, false);
        assert_eq!(home.store().spare_bytes(), 0);
        assert!(home.memory_bytes() <= used);
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
