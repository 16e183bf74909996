//! How long the messages of a shard took.

use hdrhistogram::Histogram;

use crate::id::Instant;

/// The latencies of a shard, in nanoseconds.
#[derive(Clone, Debug)]
pub struct ShardLatency {
    /// From the arrival of a publish's last frame to the delivery's way out.
    pub publish_to_deliver: Histogram<u64>,
    /// From becoming ready to leaving the queue.
    pub time_in_queue: Histogram<u64>,
    /// Messages that left in the turn they came in, the common case: both latencies are 0 on a
    /// clock that is read once a turn, so they are counted here and added by [`Self::snapshot`].
    pub passed_through: u64,
}

/// Longest latency recorded (1 h); longer ones saturate.
const LATENCY_MAX_NS: u64 = 3600 * 1_000_000_000;

impl Default for ShardLatency {
    fn default() -> Self {
        // Two digits of 1 ns to 1 h: 1 % error in 35 KiB.
        let histogram = Histogram::new_with_max(LATENCY_MAX_NS, 2).expect("the bounds are sound");
        Self { publish_to_deliver: histogram.clone(), time_in_queue: histogram, passed_through: 0 }
    }
}

impl ShardLatency {
    /// Records `count` messages that leave now: they were published at the same time and waited in
    /// the queue for `waited_ns`.
    #[inline]
    pub fn record_many(&mut self, published_at: Instant, waited_ns: u64, now: Instant, count: u64) {
        if published_at == now {
            self.passed_through += count;
            return;
        }
        self.publish_to_deliver.saturating_record_n(now.since(published_at), count);
        self.time_in_queue.saturating_record_n(waited_ns, count);
    }

    /// Both histograms with everything in them.
    pub fn snapshot(&self) -> [Histogram<u64>; 2] {
        [&self.publish_to_deliver, &self.time_in_queue].map(|histogram| {
            let mut whole = histogram.clone();
            whole.saturating_record_n(0, self.passed_through);
            whole
        })
    }
}
