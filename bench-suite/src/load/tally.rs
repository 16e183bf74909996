//! What the endpoints of a run and the watching thread share across threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The number of messages of a stream whose publisher has not ended.
const UNKNOWN: u64 = u64::MAX;

/// A counter on its own cache lines, because publisher and consumer may be on two cores. 128
/// octets, because processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// The counters and switches of one run. Counters only grow, and switches are only switched on.
#[derive(Debug)]
pub(crate) struct Tally {
    /// The time from which stamps count.
    pub(crate) epoch: Instant,
    published: Counter,
    confirmed: Counter,
    consumed: Counter,
    measuring: AtomicBool,
    stopped: AtomicBool,
    /// For the progress view: whether latencies are shown, and p50 and p99 of the deliveries so far
    /// in µs.
    is_watched: AtomicBool,
    delivery_us: [AtomicU64; 2],
    /// Deliveries per publish: 10 for a fan-out to 10 queues.
    copies: u64,
    /// The lowest stream of this run, at index 0 of [`Tally::totals`].
    first_stream: u32,
    /// Messages published to each stream, once its publisher has ended.
    totals: Vec<AtomicU64>,
}

impl Tally {
    /// A run with the streams `first_stream .. first_stream + streams`.
    pub(crate) fn new(epoch: Instant, first_stream: u32, streams: u32, copies: u64) -> Self {
        Self {
            epoch,
            published: Counter::default(),
            confirmed: Counter::default(),
            consumed: Counter::default(),
            measuring: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            delivery_us: Default::default(),
            copies,
            first_stream,
            totals: (0..streams).map(|_| AtomicU64::new(UNKNOWN)).collect(),
        }
    }

    pub(crate) fn note_published(&self, count: u64) {
        self.published.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn note_confirmed(&self, count: u64) {
        self.confirmed.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn note_consumed(&self, count: u64) {
        self.consumed.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn published(&self) -> u64 {
        self.published.0.load(Relaxed)
    }

    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.0.load(Relaxed)
    }

    /// Deliveries, or completed round trips.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed.0.load(Relaxed)
    }

    /// Publishes whose deliveries have not all arrived.
    pub(crate) fn under_way(&self) -> u64 {
        self.published().saturating_sub(self.consumed() / self.copies)
    }

    /// From now on latencies are recorded.
    pub(crate) fn measure(&self) {
        self.measuring.store(true, Relaxed);
    }

    /// The measured window has ended; latencies are no longer recorded.
    pub(crate) fn end_measuring(&self) {
        self.measuring.store(false, Relaxed);
    }

    pub(crate) fn is_measuring(&self) -> bool {
        self.measuring.load(Relaxed)
    }

    /// Latencies will be shown during the run.
    pub(crate) fn watch(&self) {
        self.is_watched.store(true, Relaxed);
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Relaxed)
    }

    /// Shows p50 and p99 of a consumer. With several consumers, the last value is shown.
    pub(crate) fn show_delivery(&self, quantiles_us: [u64; 2]) {
        for (shown, us) in self.delivery_us.iter().zip(quantiles_us) {
            shown.store(us, Relaxed);
        }
    }

    /// The p50 and p99 that were shown last, if any.
    pub(crate) fn delivery_us(&self) -> Option<[u64; 2]> {
        let shown = [0, 1].map(|index: usize| self.delivery_us[index].load(Relaxed));
        (shown[1] > 0).then_some(shown)
    }

    /// Stops publishing; messages in flight still arrive.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Sets the final number of messages of a stream; its consumers wait for that many.
    pub(crate) fn close_stream(&self, stream: u32, total: u64) {
        self.totals[(stream - self.first_stream) as usize].store(total, Relaxed);
    }

    /// The final number of messages of a stream, once its publisher has ended.
    pub(crate) fn total(&self, stream: u32) -> Option<u64> {
        let total = self.totals[(stream - self.first_stream) as usize].load(Relaxed);
        (total != UNKNOWN).then_some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_way_counts_publishes_not_copies() {
        let tally = Tally::new(Instant::now(), 5, 2, 10);
        tally.note_published(7);
        tally.note_consumed(39);
        assert_eq!(tally.under_way(), 4, "the fourth message has one copy to come");
        tally.note_consumed(31);
        assert_eq!(tally.under_way(), 0);
    }

    #[test]
    fn totals_are_known_once_the_publisher_ended() {
        let tally = Tally::new(Instant::now(), 5, 2, 1);
        tally.close_stream(6, 0);
        assert_eq!((tally.total(5), tally.total(6)), (None, Some(0)));
    }
}
