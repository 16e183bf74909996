//! Deadlines of everything in a shard that waits.
//!
//! A binary heap with exact nanoseconds. A timer wheel would arm in O(1), but a shard arms per
//! *expiry*, not per frame: 100,000 connections with a 60 s heartbeat expire 3,300 times a second,
//! and to expire and re-arm was measured as 0.2 µs at that size (0.9 µs at a million), so below
//! 0.1 % of a core. What the heap gives in return: no ticks, no bursts when a level of a wheel is
//! dealt out, `next` is exact and free, and one defined order.
//!
//! Users compare on expiry and re-arm: a connection that was active meanwhile is armed again at
//! its new deadline. So one entry per user is the rule, and an entry whose user is gone is *stale*
//! until it is due or swept.
//!
//! [`Timers::cancel`] is for users that would rather drop a deadline, such as a queue whose oldest
//! message leaves before it expires. It strikes the entry's number from a set in O(1) and leaves
//! the entry in the heap. To take it out of the middle, the heap would have to note the place of
//! every entry that it moves, at the cost of all users. Cancelled entries go when they reach the
//! top, or all together once they outnumber the others. So each costs at most O(log n) in the end,
//! and memory stays within twice the deadlines that are armed.
//!
//! The key says whose deadline it is. Each kind of user has timers of its own: those of connections
//! are in `client`, those of queues will be in `home`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::id::{Instant, Set};

/// Entries below which sweeping is not worth a look: one page of them.
const SWEEP_FLOOR: usize = 128;

/// Deadlines with a key each. Equal deadlines leave in the order they were armed.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    /// Its top is never a cancelled entry.
    heap: BinaryHeap<Entry<K>>,
    /// Numbers the entries. At one per nanosecond it wraps after 584 years.
    armed_count: u64,
    /// Numbers of the entries that have a ticket and are not cancelled.
    cancellable: Set<u64>,
    /// Entries of the heap that are cancelled.
    cancelled_count: usize,
}

/// Names a deadline, to cancel it by. Of no use once the deadline was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl<K: Copy> Timers<K> {
    /// Memory per deadline without a ticket.
    #[cfg(test)]
    pub(crate) const ENTRY_BYTES: usize = size_of::<Entry<K>>();

    /// No deadlines.
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            armed_count: 0,
            cancellable: Set::default(),
            cancelled_count: 0,
        }
    }

    /// Adds a deadline that is never cancelled. The key may have others already; none is replaced.
    ///
    /// The caller bounds the number: one per user, plus what [`Timers::sweep`] leaves.
    pub fn arm(&mut self, at: Instant, key: K) {
        self.push(at, key, false);
    }

    /// The same for a deadline that may be cancelled.
    pub fn arm_cancellable(&mut self, at: Instant, key: K) -> Ticket {
        let number = self.push(at, key, true);
        self.cancellable.insert(number);
        Ticket(number)
    }

    /// Drops a deadline. False if it was due, cancelled or swept before.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        if !self.cancellable.remove(&ticket.0) {
            return false;
        }
        self.cancelled_count += 1;
        self.drop_cancelled();
        true
    }

    /// Takes the earliest deadline that is not after `now`.
    #[inline]
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let entry = self.heap.pop()?;
        if entry.has_ticket {
            self.cancellable.remove(&entry.number);
        }
        if self.cancelled_count > 0 {
            self.drop_cancelled();
        }
        Some(entry.key)
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

    /// The earliest deadline.
    #[inline]
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Deadlines, stale ones included, cancelled ones not.
    pub fn len(&self) -> usize {
        self.heap.len() - self.cancelled_count
    }

    /// Whether there is no deadline.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn push(&mut self, at: Instant, key: K, has_ticket: bool) -> u64 {
        let number = self.armed_count;
        self.armed_count += 1;
        self.heap.push(Entry { at, number, key, has_ticket });
        number
    }

    /// Takes cancelled entries off the top, and all of them if they outnumber the others.
    #[inline(never)]
    fn drop_cancelled(&mut self) {
        while self.heap.peek().is_some_and(|top| top.is_cancelled(&self.cancellable)) {
            self.heap.pop();
            self.cancelled_count -= 1;
        }
        if self.cancelled_count > self.len() + SWEEP_FLOOR {
            self.drop_stale(|_| true);
        }
    }

    #[cold]
    fn drop_stale(&mut self, mut is_live: impl FnMut(&K) -> bool) {
        let cancellable = &mut self.cancellable;
        self.heap.retain(|entry| {
            let stays = !entry.is_cancelled(cancellable) && is_live(&entry.key);
            if !stays && entry.has_ticket {
                cancellable.remove(&entry.number);
            }
            stays
        });
        self.cancelled_count = 0;
        self.heap.shrink_to(2 * self.heap.len() + SWEEP_FLOOR);
        cancellable.shrink_to(2 * cancellable.len());
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
    has_ticket: bool,
}

impl<K> Entry<K> {
    fn is_cancelled(&self, cancellable: &Set<u64>) -> bool {
        self.has_ticket && !cancellable.contains(&self.number)
    }
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
    use std::collections::VecDeque;

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

    /// Deadlines that are cancelled long before they are due, as those of queues that are used.
    #[test]
    fn cancelled_deadlines_do_not_pile_up() {
        let live_count = 1000;
        let mut timers = Timers::new();
        let mut tickets = VecDeque::new();
        for key in 0..200_000_u64 {
            tickets.push_back(timers.arm_cancellable(Instant(60_000_000_000 + key), key));
            if tickets.len() > live_count {
                // The oldest is at the top, the newest deepest: half of each.
                let end = if key % 2 == 0 { tickets.pop_front() } else { tickets.pop_back() };
                assert!(timers.cancel(end.unwrap()));
            }
            assert_eq!(timers.len(), tickets.len());
            assert!(timers.heap.len() <= 2 * live_count + SWEEP_FLOOR + 1);
            assert_eq!(timers.cancellable.len(), tickets.len());
        }
        for ticket in tickets {
            assert!(timers.cancel(ticket) && !timers.cancel(ticket));
        }
        assert!(timers.is_empty() && timers.next().is_none());
    }

    /// What is left of a burst is small again.
    #[test]
    fn a_burst_gives_its_memory_back() {
        let mut timers = Timers::new();
        let armed = (0..100_000).map(|key| timers.arm_cancellable(Instant(key), key));
        let tickets: Vec<_> = armed.collect();
        for ticket in &tickets[1000..] {
            assert!(timers.cancel(*ticket));
        }
        assert!(timers.heap.capacity() < 8_000 && timers.cancellable.capacity() < 8_000);
        let left: Vec<_> = std::iter::from_fn(|| timers.pop_due(Instant(u64::MAX))).collect();
        assert_eq!(left, (0..1000).collect::<Vec<_>>());
        assert!(!timers.cancel(tickets[0]) && !timers.cancel(tickets[99_999]));
    }

    /// Of two kinds, as of connections and queues.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Key {
        Connection(u32),
        Queue(u32, Reason),
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Reason {
        Unused,
        Expired,
    }

    #[derive(Clone, Debug)]
    enum Action {
        Arm(u64, Key),
        /// The same without a ticket.
        ArmForGood(u64, Key),
        Pop(u64),
        /// Of all tickets ever given, one in thousandths.
        Cancel(usize),
        /// All deadlines of a connection or queue are stale, and swept.
        Kill(Key),
    }

    fn keys() -> impl Strategy<Value = Key> {
        prop_oneof![
            (0..20_u32).prop_map(Key::Connection),
            (0..20_u32).prop_map(|queue| Key::Queue(queue, Reason::Unused)),
            (0..20_u32).prop_map(|queue| Key::Queue(queue, Reason::Expired)),
        ]
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let action = prop_oneof![
            4 => (0..50_u64, keys()).prop_map(|(at, key)| Action::Arm(at, key)),
            2 => (0..50_u64, keys()).prop_map(|(at, key)| Action::ArmForGood(at, key)),
            2 => (0..60_u64).prop_map(Action::Pop),
            3 => (0..1000_usize).prop_map(Action::Cancel),
            1 => keys().prop_map(Action::Kill),
        ];
        proptest::collection::vec(action, 0..800)
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_list(actions in actions()) {
            let mut timers = Timers::new();
            let mut tickets = Vec::new();
            // (at, number, key), searched from the front.
            let mut model: Vec<(u64, usize, Key)> = Vec::new();
            for action in actions {
                match action {
                    Action::Arm(at, key) => {
                        model.push((at, tickets.len(), key));
                        model.sort_unstable();
                        tickets.push(Some(timers.arm_cancellable(Instant(at), key)));
                    }
                    Action::ArmForGood(at, key) => {
                        model.push((at, tickets.len(), key));
                        model.sort_unstable();
                        tickets.push(None);
                        timers.arm(Instant(at), key);
                    }
                    Action::Pop(now) => {
                        let due = model.first().filter(|entry| entry.0 <= now).copied();
                        prop_assert_eq!(timers.pop_due(Instant(now)), due.map(|entry| entry.2));
                        model.retain(|entry| Some(*entry) != due);
                    }
                    Action::Cancel(thousandths) => {
                        let number = tickets.len() * thousandths / 1000;
                        let Some(Some(ticket)) = tickets.get(number) else { continue };
                        let was_armed = model.iter().any(|entry| entry.1 == number);
                        prop_assert_eq!(timers.cancel(*ticket), was_armed);
                        model.retain(|entry| entry.1 != number);
                    }
                    Action::Kill(key) => {
                        timers.drop_stale(|&other| other != key);
                        model.retain(|entry| entry.2 != key);
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.next(), model.first().map(|entry| Instant(entry.0)));
                prop_assert!(timers.heap.len() <= 2 * model.len() + SWEEP_FLOOR);
                let cancellable = model.iter().filter(|entry| tickets[entry.1].is_some());
                prop_assert_eq!(timers.cancellable.len(), cancellable.count());
            }
        }
    }
}
