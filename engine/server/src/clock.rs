//! One monotonic clock for all shards, so that a latency may begin on one and end on another.

use leveret_broker::id::Instant;

/// Counts nanoseconds since the start of the broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that starts now, at 0.
    pub(crate) fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// Now. Costs about 23 ns: once per turn, not once per event.
    pub(crate) fn now(self) -> Instant {
        Instant(self.uptime_ns())
    }

    /// Since the start.
    pub(crate) fn uptime_ns(self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}
