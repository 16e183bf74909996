//! One clock for all shards, so that a latency may begin on one and end on another.

use std::time::{SystemTime, UNIX_EPOCH};

use leveret_broker::id::{Instant, SECOND_NS, Time, WallTime};

/// What the clock shows at the start. A message that the log kept from an earlier run came before
/// that, and its age is counted: twice the hour up to which latencies are told apart.
const START: Instant = Instant(2 * 3_600 * SECOND_NS);

/// Counts nanoseconds from the start of the broker on.
///
/// The machine's wall clock is read at the start and not again: from then on wall time is the start
/// plus the monotonic clock. A step of the machine's clock during a run moves nothing here; the
/// next start takes the new time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: std::time::Instant,
    wall_at_start: WallTime,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        // A machine whose clock says a time before 1970 is taken to be there.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_at_start = WallTime(wall.as_nanos() as u64);
        Self { start: std::time::Instant::now(), wall_at_start }
    }

    /// Now. Costs about 23 ns: once per turn, not once per event.
    pub(crate) fn now(self) -> Instant {
        START.after(self.uptime_ns())
    }

    /// Now, on both clocks, at the same cost.
    pub(crate) fn time(self) -> Time {
        let uptime_ns = self.uptime_ns();
        Time { now: START.after(uptime_ns), wall: self.wall_at_start.after(uptime_ns) }
    }

    /// Since the start.
    pub(crate) fn uptime_ns(self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_on_together() {
        let clock = Clock::start();
        let (one, two) = (clock.time(), clock.time());
        assert_eq!(two.wall.since(one.wall), two.now.since(one.now));
        assert_eq!(one.wall_of(clock.now()), one.wall);
        assert!(one.wall > WallTime::default() && two.now >= one.now);
    }

    #[test]
    fn what_came_before_the_start_has_its_age() {
        let time = Clock::start().time();
        for age_s in [1, 3_600] {
            let came = time.instant_of(time.wall.before(age_s * SECOND_NS));
            assert_eq!(time.now.since(came), age_s * SECOND_NS);
        }
    }
}
