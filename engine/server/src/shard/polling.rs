//! Whether a shard that finds nothing to do polls again or sleeps.
//!
//! ```text
//!   work ──► a look in vain ──► short waits of late? ──yes──► looks on, up to limit_ns
//!                                        │                            │ nothing
//!                                        └─────no────► sleep ◄────────┘
//! ```
//! Polling for as long as a wake-up costs wastes at most as much as the better choice would have
//! cost. But if work comes at longer intervals, that time is wasted in every interval: with large
//! bodies, a shard waits a hundred microseconds between two of them. So a shard polls only if at
//! least half of its recent waits were short enough for polling to end them.

use leveret_broker::id::Instant;

/// How many recent waits are remembered: few enough to follow a change of pace at once, enough that
/// a single pause changes nothing.
const WAITS_REMEMBERED: u32 = u16::BITS;

/// The recent waits of one shard.
#[derive(Debug)]
pub(crate) struct Polling {
    /// How long to poll after the last work: about the cost of a wake-up. 0: never.
    limit_ns: u64,
    last_work: Instant,
    /// The shard has found nothing at least once since the last work.
    waiting: bool,
    /// The shard slept during the current wait.
    slept: bool,
    /// One bit per recent wait, newest lowest: set if the wait was short.
    short_waits: u16,
}

impl Polling {
    /// The state of a shard that starts `now`.
    pub(crate) fn new(limit_ns: u64, now: Instant) -> Self {
        Self { limit_ns, last_work: now, waiting: false, slept: false, short_waits: u16::MAX }
    }

    /// Whether the shard ever polls.
    pub(crate) fn is_on(&self) -> bool {
        self.limit_ns > 0
    }

    /// Whether to poll again instead of sleeping. A shard never sleeps before it has looked at
    /// least once, because what it sent last usually completes at once.
    pub(crate) fn looks_again(&self, now: Instant) -> bool {
        self.is_on() && (!self.waiting || self.pays() && now.since(self.last_work) < self.limit_ns)
    }

    /// Called before the shard sleeps.
    pub(crate) fn sleeps(&mut self) {
        self.slept = true;
    }

    /// Called after each turn: it brought work, something else, or nothing.
    pub(crate) fn turned(&mut self, worked: bool, found: bool, now: Instant) {
        if worked {
            if self.waiting {
                self.short_waits = self.short_waits << 1 | u16::from(self.is_short(now));
            }
            (self.waiting, self.slept, self.last_work) = (false, false, now);
        } else if !found {
            self.waiting = true;
        }
    }

    fn pays(&self) -> bool {
        self.short_waits.count_ones() >= WAITS_REMEMBERED / 2
    }

    /// Whether polling ended the wait or would have ended it. A wait that was slept through is
    /// longer by one wake-up.
    fn is_short(&self, now: Instant) -> bool {
        !self.slept || !self.pays() && now.since(self.last_work) <= 2 * self.limit_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_NS: u64 = 30_000;
    const WAKE_UP_NS: u64 = 25_000;

    /// Brings work at equal intervals and returns how long the shard polled in each, in steps of 1
    /// µs.
    fn polled_ns(polling: &mut Polling, start: Instant, interval_ns: u64, waits: u64) -> Vec<u64> {
        let mut now = start;
        let mut polled = Vec::new();
        for _ in 0..waits {
            polling.turned(true, true, now);
            let (work, due) = (now, now.after(interval_ns));
            // A send completes at once, then nothing happens.
            polling.turned(false, true, now);
            assert!(polling.looks_again(now));
            polling.turned(false, false, now);
            while now < due && polling.looks_again(now) {
                now = now.after(1_000);
                polling.turned(false, false, now);
            }
            polled.push(now.since(work));
            if now < due {
                polling.sleeps();
                now = due.after(WAKE_UP_NS);
            }
        }
        polled
    }

    #[test]
    fn a_shard_polls_only_for_what_comes_soon() {
        let mut polling = Polling::new(LIMIT_NS, Instant(0));
        let soon = polled_ns(&mut polling, Instant(0), 20_000, 100);
        assert!(soon.iter().all(|ns| *ns == 20_000), "{soon:?}");
        let late = polled_ns(&mut polling, Instant(1 << 30), 100_000, 100);
        assert_eq!(late[0], LIMIT_NS);
        assert!(late[20..].iter().all(|ns| *ns == 0), "{late:?}");
        let soon = polled_ns(&mut polling, Instant(1 << 31), 20_000, 100);
        assert_eq!(soon[0], 0);
        assert!(soon[20..].iter().all(|ns| *ns == 20_000), "it never polls again: {soon:?}");
    }

    #[test]
    fn one_pause_says_nothing() {
        let mut polling = Polling::new(LIMIT_NS, Instant(0));
        polled_ns(&mut polling, Instant(0), 20_000, 20);
        let pause = polled_ns(&mut polling, Instant(1 << 30), 1_000_000_000, 1);
        let after = polled_ns(&mut polling, Instant(1 << 31), 20_000, 10);
        assert_eq!((pause[0], after[0]), (LIMIT_NS, 20_000));
    }

    #[test]
    fn without_a_limit_it_never_polls() {
        let mut polling = Polling::new(0, Instant(0));
        polling.turned(true, true, Instant(5));
        assert!(!polling.is_on() && !polling.looks_again(Instant(5)));
    }
}
