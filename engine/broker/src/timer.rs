//! Deadlines of everything in a shard that waits.
//!
//! A binary heap with exact nanoseconds and no cancellation. A timer wheel would arm in O(1), but
//! a shard arms per *expiry*, not per frame: 100,000 connections with a 60 s heartbeat expire
//! 3,300 times a second, and to expire and re-arm was measured as 0.2 µs at that size (0.9 µs at
//! a million), so below 0.1 % of a core. What the heap gives in return: no ticks, no bursts when
//! a level of a wheel is dealt out, `next` is exact and free, and one defined order.
//!
//! Users compare on expiry and re-arm: a connection that was active meanwhile is armed again at
//! its new deadline. So one entry per user is the rule, and an entry whose user is gone is *stale*
//! until it is due or swept.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::id::Instant;

/// Entries below which sweeping is not worth a look: one page of them.
const SWEEP_FLOOR: usize = 128;

/// Deadlines with a key each. Equal deadlines leave in the order they were armed.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    heap: BinaryHeap<Entry<K>>,
    /// Numbers the entries. At one per nanosecond it wraps after 584 years.
    armed_count: u64,
}

impl<K: Copy> Timers<K> {
    /// Memory per deadline.
    #[cfg(test)]
    pub(crate) const ENTRY_BYTES: usize = size_of::<Entry<K>>();

    /// No deadlines.
    pub const fn new() -> Self {
        Self { heap: BinaryHeap::new(), armed_count: 0 }
    }

    /// Adds a deadline. The key may have others already; none is replaced.
    ///
    /// The caller bounds the number: one per user, plus what [`Timers::sweep`] leaves.
    pub fn arm(&mut self, at: Instant, key: K) {
        self.heap.push(Entry { at, number: self.armed_count, key });
        self.armed_count += 1;
    }

    /// Takes the earliest deadline that is not after `now`.
    #[inline]
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.key)
    }

    /// Drops stale entries, if they may outnumber the `live_count` entries in use.
    ///
    /// Cheap enough to be called after every [`Timers::arm`]: it looks at entries only when they
    /// are more than `2 × live_count + 128`, and then at least half of them go. So the cost per
    /// armed entry is constant, and memory is bounded by twice the entries in use. The order of
    /// those that stay is kept.
    pub fn sweep(&mut self, live_count: usize, is_live: impl FnMut(&K) -> bool) {
        if self.heap.len() > live_count.saturating_mul(2).saturating_add(SWEEP_FLOOR) {
            self.drop_stale(is_live);
        }
    }

    #[cold]
    fn drop_stale(&mut self, mut is_live: impl FnMut(&K) -> bool) {
        self.heap.retain(|entry| is_live(&entry.key));
        self.heap.shrink_to(2 * self.heap.len() + SWEEP_FLOOR);
    }

    /// The earliest deadline.
    #[inline]
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Entries, stale ones included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<K: Copy> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    at: Instant,
    number: u64,
    key: K,
}

impl<K> Ord for Entry<K> {
    /// Reversed: the standard heap has its greatest element on top.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<K> PartialOrd for Entry<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> PartialEq for Entry<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<K> Eq for Entry<K> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_deadlines_leave_in_the_order_they_came() {
        let mut timers = Timers::new();
        for key in 0..100 {
            timers.arm(Instant(7), key);
        }
        assert_eq!(timers.pop_due(Instant(6)), None);
        let keys: Vec<_> = std::iter::from_fn(|| timers.pop_due(Instant(7))).collect();
        assert_eq!(keys, (0..100).collect::<Vec<_>>());
        assert!(timers.is_empty() && timers.next().is_none());
    }

    /// Connections that come and go far faster than their deadlines fall due.
    #[test]
    fn churn_does_not_pile_up_stale_entries() {
        let live_count = 1000;
        let mut timers = Timers::new();
        let mut looked_at: usize = 0;
        let armed: usize = 200_000;
        for key in 0..armed {
            timers.arm(Instant(60_000_000_000 + key as u64), key);
            timers.sweep(live_count, |&other| {
                looked_at += 1;
                other + live_count > key
            });
            assert!(timers.len() <= 2 * live_count + SWEEP_FLOOR);
            assert!(timers.heap.capacity() <= 8 * live_count);
        }
        assert!(looked_at <= 2 * armed, "{looked_at} entries looked at");
        let oldest = timers.pop_due(Instant(u64::MAX)).unwrap();
        assert!(oldest <= armed - live_count, "a live entry was dropped");
    }

    #[derive(Clone, Debug)]
    enum Action {
        Arm(u64, u32),
        Pop(u64),
        Kill(u32),
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let action = prop_oneof![
            4 => (0..50_u64, 0..40_u32).prop_map(|(at, key)| Action::Arm(at, key)),
            2 => (0..60_u64).prop_map(Action::Pop),
            1 => (0..40_u32).prop_map(Action::Kill),
        ];
        proptest::collection::vec(action, 0..600)
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_list(actions in actions()) {
            let mut timers = Timers::new();
            // (at, number, key), searched from the front.
            let mut model: Vec<(u64, usize, u32)> = Vec::new();
            for (number, action) in actions.into_iter().enumerate() {
                match action {
                    Action::Arm(at, key) => {
                        timers.arm(Instant(at), key);
                        model.push((at, number, key));
                        model.sort_unstable();
                    }
                    Action::Pop(now) => {
                        let due = model.first().filter(|entry| entry.0 <= now).copied();
                        prop_assert_eq!(timers.pop_due(Instant(now)), due.map(|entry| entry.2));
                        model.retain(|entry| Some(*entry) != due);
                    }
                    Action::Kill(key) => {
                        timers.drop_stale(|&other| other != key);
                        model.retain(|entry| entry.2 != key);
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.next(), model.first().map(|entry| Instant(entry.0)));
            }
        }
    }
}
