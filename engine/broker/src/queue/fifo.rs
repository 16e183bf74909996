//! Messages in the order they came, a few bytes for each of them.
//!
//! ```text
//!   runs       ┌ position 7, ready at t₀ ┐┌ position 12, ready at t₁ ┐┌ …
//!   messages   │ m₇ m₈ m₉ m₁₀ m₁₁        ││ m₁₂ m₁₃ m₁₄ m₁₅ …        ││
//! ```
//! What comes in one turn comes at one time and at positions without a gap: that is said once for
//! all of it. A message of a run costs 4 bytes, a run 24.

use std::collections::VecDeque;
use std::ops::Range;

use crate::id::Instant;
use crate::store::MessageId;

use super::ready::Entry;

/// An emptied queue gives back more room than this (128 KiB): a backlog that is gone must not
/// cost memory for ever, and a short one must not cost an allocation each time.
const IDLE_CAPACITY_ENTRIES: usize = 32_768;

/// Entries by ascending position: in at the back, out at the front.
#[derive(Debug, Default)]
pub struct Fifo {
    messages: VecDeque<MessageId>,
    runs: VecDeque<Run>,
    /// The number of the front message. There are never as many as there are numbers.
    front: u32,
}

/// Messages that became ready together, at positions without a gap.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Messages that came before it, modulo 2³².
    number: u32,
    redelivered: bool,
    /// Of its first message.
    position: u64,
    ready_at: Instant,
}

/// Bytes that an entry costs at most: a run of its own.
pub const ENTRY_BYTES_MAX: usize = size_of::<MessageId>() + size_of::<Run>();

/// Messages at the front that became ready together, at positions without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontRun<'a> {
    /// In their order, one at least. More of the same may be behind them.
    pub messages: &'a [MessageId],
    /// They were given out before.
    pub redelivered: bool,
    /// The place of the first one.
    pub position: u64,
    /// When they became ready.
    pub ready_at: Instant,
}

impl Run {
    /// Whether a message with this number belongs to it.
    #[inline]
    fn goes_on(&self, number: u32, entry: &Entry) -> bool {
        self.ready_at == entry.ready_at
            && self.redelivered == entry.redelivered
            && self.position + u64::from(number.wrapping_sub(self.number)) == entry.position
    }

    fn entry(&self, number: u32, message: MessageId) -> Entry {
        let position = self.position + u64::from(number.wrapping_sub(self.number));
        Entry { message, redelivered: self.redelivered, position, ready_at: self.ready_at }
    }
}

impl Fifo {
    /// Adds a message behind all others.
    #[inline]
    pub fn push(&mut self, entry: Entry) {
        let number = self.front.wrapping_add(self.messages.len() as u32);
        if !self.runs.back().is_some_and(|last| last.goes_on(number, &entry)) {
            self.begin_run(number, &entry);
        }
        self.messages.push_back(entry.message);
    }

    #[inline(never)]
    fn begin_run(&mut self, number: u32, entry: &Entry) {
        debug_assert!(self.back().is_none_or(|last| last.position < entry.position));
        let Entry { redelivered, position, ready_at, .. } = *entry;
        self.runs.push_back(Run { number, redelivered, position, ready_at });
    }

    /// Takes the message at the front.
    #[inline]
    pub fn pop(&mut self) -> Option<Entry> {
        let front = self.front()?;
        self.pop_many(1);
        Some(front)
    }

    /// Takes the first so many messages of [`Self::front_run`].
    #[inline]
    pub fn pop_many(&mut self, count: usize) {
        self.messages.drain(..count);
        self.front = self.front.wrapping_add(count as u32);
        if self.messages.is_empty() {
            self.runs.clear();
            if self.messages.capacity() > IDLE_CAPACITY_ENTRIES {
                self.messages = VecDeque::new();
                self.runs = VecDeque::new();
            }
        } else if self.runs.get(1).is_some_and(|next| next.number == self.front) {
            self.runs.pop_front();
        }
    }

    /// The messages at the front that have one run.
    #[inline]
    pub fn front_run(&self) -> Option<FrontRun<'_>> {
        let Run { redelivered, ready_at, .. } = *self.runs.front()?;
        let (messages, _) = self.messages.as_slices();
        let end = self.runs.get(1).map_or(usize::MAX, |next| self.start_of(next));
        let position = self.runs.front()?.entry(self.front, MessageId(0)).position;
        let messages = &messages[..messages.len().min(end)];
        Some(FrontRun { messages, redelivered, position, ready_at })
    }

    /// The message at the front.
    #[inline]
    pub fn front(&self) -> Option<Entry> {
        Some(self.runs.front()?.entry(self.front, *self.messages.front()?))
    }

    /// The message at the back.
    pub fn back(&self) -> Option<Entry> {
        self.get(self.messages.len().checked_sub(1)?)
    }

    /// Messages in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The message that `index` others are in front of: O(log n).
    pub fn get(&self, index: usize) -> Option<Entry> {
        let message = *self.messages.get(index)?;
        let number = self.front.wrapping_add(index as u32);
        Some(self.runs.get(self.run_of(index))?.entry(number, message))
    }

    /// How many messages are at positions below this one: O(log n).
    pub fn index_of(&self, position: u64) -> usize {
        let behind = self.runs.partition_point(|run| run.position < position);
        let Some(run) = behind.checked_sub(1).and_then(|run| self.runs.get(run)) else {
            return 0;
        };
        let end = self.runs.get(behind).map_or(self.messages.len(), |next| self.start_of(next));
        // The first ones of the first run may have left.
        let left = self.front.wrapping_sub(self.runs[0].number);
        let left = if behind == 1 { u64::from(left) } else { 0 };
        let within = (position - run.position).saturating_sub(left);
        let start = if behind == 1 { 0 } else { self.start_of(run) };
        end.min(start.saturating_add(usize::try_from(within).unwrap_or(usize::MAX)))
    }

    /// Those with between `range.start` and `range.end` others in front of them.
    pub fn range(&self, range: Range<usize>) -> Entries<'_> {
        let end = range.end.min(self.messages.len());
        let start = range.start.min(end);
        let (first_run, last_run) = (self.run_of(start), self.run_of(end.saturating_sub(1)));
        Entries { fifo: self, start, end, first_run, last_run }
    }

    /// All of them.
    pub fn iter(&self) -> Entries<'_> {
        self.range(0..self.messages.len())
    }

    /// The index of a run's first message, unless it is the first run, some of which may have left.
    fn start_of(&self, run: &Run) -> usize {
        run.number.wrapping_sub(self.front) as usize
    }

    /// Which run the message at `index` is in.
    fn run_of(&self, index: usize) -> usize {
        let Some(first) = self.runs.front() else {
            return 0;
        };
        let left = self.front.wrapping_sub(first.number) as usize;
        let behind = self
            .runs
            .partition_point(|run| run.number.wrapping_sub(first.number) as usize <= index + left);
        behind.saturating_sub(1)
    }
}

impl<'a> IntoIterator for &'a Fifo {
    type Item = Entry;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

/// Some messages of a [`Fifo`], in their order or from behind.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    fifo: &'a Fifo,
    start: usize,
    end: usize,
    /// The run of `start`.
    first_run: usize,
    /// The run of `end - 1`.
    last_run: usize,
}

impl Entries<'_> {
    fn entry(&self, run: usize, index: usize) -> Option<Entry> {
        let number = self.fifo.front.wrapping_add(index as u32);
        Some(self.fifo.runs.get(run)?.entry(number, *self.fifo.messages.get(index)?))
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.start == self.end {
            return None;
        }
        let entry = self.entry(self.first_run, self.start);
        self.start += 1;
        let next = self.fifo.runs.get(self.first_run + 1);
        if next.is_some_and(|next| self.fifo.start_of(next) == self.start) {
            self.first_run += 1;
        }
        entry
    }
}

impl DoubleEndedIterator for Entries<'_> {
    fn next_back(&mut self) -> Option<Entry> {
        if self.start == self.end {
            return None;
        }
        self.end -= 1;
        let entry = self.entry(self.last_run, self.end);
        let run = self.fifo.runs.get(self.last_run);
        if self.last_run > 0 && run.is_some_and(|run| self.fifo.start_of(run) == self.end) {
            self.last_run -= 1;
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain deque of entries, over gaps, turns and the end of the numbers.
        #[test]
        fn it_is_a_deque_of_entries(
            steps in proptest::collection::vec((0..10_u8, 0..3_u64, any::<bool>()), 1..300),
            front in prop_oneof![Just(0), Just(u32::MAX - 5)],
        ) {
            let mut fifo = Fifo { front, ..Fifo::default() };
            let mut plain: VecDeque<Entry> = VecDeque::new();
            let (mut position, mut now) = (0, 0);
            for (step, gap, flag) in steps {
                if step < 6 {
                    position += 1 + if step == 0 { gap } else { 0 };
                    now += u64::from(step == 1);
                    let message = MessageId(position as u32 ^ 0x55);
                    let redelivered = flag && step == 2;
                    let entry = Entry { message, redelivered, position, ready_at: Instant(now) };
                    fifo.push(entry);
                    plain.push_back(entry);
                } else if let Some(run) = fifo.front_run().filter(|_| step > 8) {
                    let count = run.messages.len().min(1 + gap as usize);
                    fifo.pop_many(count);
                    plain.drain(..count);
                } else {
                    prop_assert_eq!(fifo.front(), plain.front().copied());
                    prop_assert_eq!(fifo.pop(), plain.pop_front());
                }
                prop_assert_eq!(fifo.len(), plain.len());
                if let Some(run) = fifo.front_run() {
                    prop_assert!(!run.messages.is_empty());
                    let FrontRun { redelivered, position, ready_at, .. } = run;
                    let spelled = run.messages.iter().zip(position..).map(|(id, position)| {
                        Entry { message: *id, redelivered, position, ready_at }
                    });
                    prop_assert!(spelled.eq(plain.iter().take(run.messages.len()).copied()));
                }
                prop_assert_eq!(fifo.back(), plain.back().copied());
                prop_assert!(fifo.iter().eq(plain.iter().copied()));
                prop_assert!(fifo.iter().rev().eq(plain.iter().rev().copied()));
                let asked = position.saturating_sub(gap * 3);
                let index = plain.partition_point(|entry| entry.position < asked);
                prop_assert_eq!(fifo.index_of(asked), index);
                prop_assert_eq!(fifo.get(index), plain.get(index).copied());
                let behind = plain.iter().skip(index).take(4).copied();
                prop_assert!(fifo.range(index..index + 4).eq(behind));
                let before = fifo.range(index.saturating_sub(4)..index).rev();
                prop_assert!(before.eq(plain.range(index.saturating_sub(4)..index).rev().copied()));
            }
        }
    }

    #[test]
    fn a_turn_costs_one_run() {
        let mut fifo = Fifo::default();
        for position in 0..1_000 {
            let ready_at = Instant(position / 500);
            let message = MessageId(position as u32);
            fifo.push(Entry { message, redelivered: false, position, ready_at });
        }
        assert_eq!((fifo.runs.len(), ENTRY_BYTES_MAX), (2, 28));
    }
}
