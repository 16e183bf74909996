//! Whether to poll for a commit or to sleep until it completes.
//!
//! On a good device a commit takes about as long as a few wake-ups of a sleeping core (95 µs
//! against 15 to 37 µs), and confirms wait for it. So a shard with a core of its own polls for
//! about the duration of a commit. If commits take long, a wake-up hardly matters and polling would
//! only waste the core. A shard also sleeps during a commit of many messages: per message, a
//! wake-up costs little, and the core can do other work meanwhile.

use leveret_broker::id::Instant;

/// How many commits are remembered: enough to include small ones, few enough to follow a device
/// that changes.
const REMEMBERED: usize = 16;

/// Above this duration, a wake-up takes less than a tenth of the commit.
const WORTHWHILE_NS: u64 = 400_000;

/// The largest commit, in bytes, that is polled for. In a larger one, each message of 1 KiB bears
/// less than a thirtieth of a wake-up.
const POLLED_BYTES_MAX: usize = 32 << 10;

/// The current commit, and the durations of the last ones.
#[derive(Debug)]
pub(crate) struct CommitPoll {
    took_ns: [u64; REMEMBERED],
    next: usize,
    began: Option<Instant>,
    is_small: bool,
}

impl Default for CommitPoll {
    fn default() -> Self {
        Self { took_ns: [u64::MAX; REMEMBERED], next: 0, began: None, is_small: false }
    }
}

impl CommitPoll {
    /// A commit of this size was submitted.
    pub(crate) fn begin(&mut self, now: Instant, bytes: usize) {
        self.is_small = bytes <= POLLED_BYTES_MAX;
        self.began = Some(now);
    }

    /// The current commit completed.
    pub(crate) fn end(&mut self, now: Instant) {
        if let Some(began) = self.began.take() {
            self.took_ns[self.next % REMEMBERED] = now.since(began);
            self.next += 1;
        }
    }

    /// Whether the current commit should complete soon: it has taken less than twice the shortest
    /// of the last ones. The shard always sleeps during the first one.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let shortest = self.took_ns.iter().min().copied().unwrap_or(u64::MAX);
        let waited = self.began.map(|began| now.since(began));
        let worthwhile = self.is_small && shortest <= WORTHWHILE_NS;
        worthwhile && waited.is_some_and(|waited| waited < 2 * shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(took: &[u64]) -> CommitPoll {
        let mut poll = CommitPoll::default();
        for took in took {
            poll.begin(Instant(1_000), 4096);
            poll.end(Instant(1_000 + took));
        }
        poll
    }

    #[test]
    fn it_polls_for_twice_the_time_a_commit_takes() {
        let mut poll = after(&[300_000, 95_000, 120_000]);
        assert!(!poll.is_due(Instant(5)), "none is under way");
        poll.begin(Instant(1_000_000), 4096);
        assert!(poll.is_due(Instant(1_000_000)) && poll.is_due(Instant(1_189_999)));
        assert!(!poll.is_due(Instant(1_190_000)));
        poll.end(Instant(1_200_000));
        assert!(!poll.is_due(Instant(1_200_000)));
        poll.begin(Instant(1_200_000), POLLED_BYTES_MAX + 4096);
        assert!(!poll.is_due(Instant(1_200_000)), "many wait together");
    }

    #[test]
    fn it_does_not_poll_for_what_it_does_not_know_or_what_takes_long() {
        let mut poll = after(&[]);
        poll.begin(Instant(0), 4096);
        assert!(!poll.is_due(Instant(0)));
        let mut poll = after(&[WORTHWHILE_NS + 1, 30_000_000]);
        poll.begin(Instant(0), 4096);
        assert!(!poll.is_due(Instant(0)));
        let mut poll = after(&[100_000]);
        (0..REMEMBERED).for_each(|_| {
            poll.begin(Instant(0), 4096);
            poll.end(Instant(10_000_000));
        });
        poll.begin(Instant(0), 4096);
        assert!(!poll.is_due(Instant(0)), "the device has become slow");
    }
}
