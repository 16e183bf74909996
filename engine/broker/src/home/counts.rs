//! What a home counts.

use super::leaving::Reason;

/// Counters of the queues of one shard since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HomeCounts {
    /// Deliveries to consumers that acknowledge nothing.
    pub delivered_auto_ack: u64,
    /// Deliveries to consumers that acknowledge.
    pub delivered_manual_ack: u64,
    /// `basic.get` that found nothing.
    pub got_empty: u64,
    /// Messages given out again.
    pub redelivered: u64,
    /// Messages lost because their record in the log could not be read.
    pub damaged: u64,
    /// Messages that left queues, by [`Reason`].
    pub left: [u64; Reason::ALL.len()],
}

impl HomeCounts {
    /// Counts deliveries to a consumer.
    #[inline]
    pub(super) fn count_deliveries(&mut self, no_ack: bool, count: u64) {
        self.delivered_auto_ack += if no_ack { count } else { 0 };
        self.delivered_manual_ack += if no_ack { 0 } else { count };
    }
}
