//! The messages of a queue in the order of their arrival, a few bytes each.
//!
//! ```text
//!   runs       ┌ position 7, ready at t₀ ┐┌ position 12, ready at t₁ ┐┌ …
//!   messages   │ m₇ m₈ m₉ m₁₀ m₁₁        ││ m₁₂ m₁₃ m₁₄ m₁₅ …        ││
//!              └─────────── head ────┴──── records ───┴─ tail ─┘
//! ```
//! Messages of one turn share an arrival time and have consecutive positions; a run stores both
//! once, in 24 bytes. Each message then costs 4 bytes more. The middle of a deep queue may be in
//! the log only; the place of such a message is kept nowhere else, and costs 7 bytes ([`Records`]).

use std::collections::VecDeque;
use std::ops::Range;

use crate::id::WallTime;
use crate::storage::log::Place;
use crate::storage::store::{MessageId, Where};

use super::ready::Entry;
use super::records::{Records, WORD_BYTES};

/// An emptied queue frees its memory if it has more capacity than this (128 KiB). A past backlog
/// must not cost memory for ever, and a short one must not cost an allocation each time.
const IDLE_CAPACITY_ENTRIES: usize = 32_768;

/// Entries by ascending position: in at the back, out at the front.
#[derive(Debug, Default)]
pub struct Fifo {
    head: VecDeque<MessageId>,
    /// `Some` while at least one message is known only by its place in the log.
    behind: Option<Box<Behind>>,
    runs: VecDeque<Run>,
    /// The number of the front message. Numbers wrap, so a queue holds fewer than 2³² messages.
    front: u32,
    /// The number of the next message to arrive.
    next: u32,
}

/// The messages behind the head of a deep queue.
#[derive(Debug, Default)]
struct Behind {
    /// From the first to the last message that is a place in the log. Messages of the store may
    /// stand between, but never in front: those belong to the head.
    records: Records,
    tail: VecDeque<MessageId>,
}

/// Messages that became ready together, at positions without a gap.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The number of its first message. The first run keeps it when messages have left.
    number: u32,
    redelivered: bool,
    /// The position of its first message.
    position: u64,
    ready_at: WallTime,
}

/// Most bytes that a message of the store costs here: it may need a run of its own.
pub const ENTRY_BYTES_MAX: usize = size_of::<MessageId>() + size_of::<Run>();

/// Most bytes that a message costs here if only the log has it.
pub const RECORD_BYTES_MAX: usize = WORD_BYTES + 1 + size_of::<Run>();

/// Messages at the front that became ready together, at positions without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontRun<'a> {
    /// Oldest first; never empty. The next run may continue this one.
    pub messages: &'a [MessageId],
    /// They were given out before.
    pub redelivered: bool,
    /// The position of the first one.
    pub position: u64,
    /// When they became ready.
    pub ready_at: WallTime,
}

impl Run {
    /// Whether a message with this number belongs to it.
    #[inline]
    fn goes_on(&self, number: u32, entry: &Entry) -> bool {
        self.ready_at == entry.ready_at
            && self.redelivered == entry.redelivered
            && self.position + u64::from(number.wrapping_sub(self.number)) == entry.position
    }

    fn entry(&self, number: u32, rests: Where) -> Entry {
        let position = self.position_of(number);
        Entry { rests, redelivered: self.redelivered, position, ready_at: self.ready_at }
    }

    #[inline]
    fn position_of(&self, number: u32) -> u64 {
        self.position + u64::from(number.wrapping_sub(self.number))
    }
}

impl Fifo {
    /// Adds a message at the back. Inlined: most callers pass a constant variant of [`Where`],
    /// which removes the match below.
    #[inline(always)]
    pub fn push(&mut self, entry: Entry) {
        let number = self.next;
        if !self.runs.back().is_some_and(|last| last.goes_on(number, &entry)) {
            self.begin_run(number, &entry);
        }
        self.next = number.wrapping_add(1);
        match (entry.rests, &self.behind) {
            (Where::Store(message), None) => self.head.push_back(message),
            (rests, _) => self.push_behind(rests),
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, rests: Where) {
        let behind = self.behind.get_or_insert_default();
        if let Where::Store(message) = rests {
            behind.tail.push_back(message);
            return;
        }
        // Only the records can hold a place, so every message before it joins them.
        behind.take_tail(behind.tail.len());
        behind.records.push_back(rests);
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
        if self.head.pop_front().is_none() {
            self.behind.as_mut()?.records.pop_front();
            // Messages of the store may have stood right behind the record that left.
            self.surface();
        }
        self.popped(1);
        Some(front)
    }

    /// Takes the first `count` messages of [`Self::front_run`].
    #[inline]
    pub fn pop_many(&mut self, count: usize) {
        // A front run is part of the head, so the records still begin with a place.
        self.head.drain(..count);
        self.popped(count);
    }

    #[inline]
    fn popped(&mut self, count: usize) {
        self.front = self.front.wrapping_add(count as u32);
        if self.is_empty() {
            self.runs.clear();
            if self.head.capacity() > IDLE_CAPACITY_ENTRIES {
                self.head = VecDeque::new();
                self.runs = VecDeque::new();
            }
        } else if self.runs.get(1).is_some_and(|next| next.number == self.front) {
            // One run at most is used up: a caller takes messages of the first run only.
            self.runs.pop_front();
        }
    }

    /// The longest slice of messages at the front that belongs to one run. `None` if the queue is
    /// empty or its front message is in the log only.
    #[inline]
    pub fn front_run(&self) -> Option<FrontRun<'_>> {
        let run = self.runs.front()?;
        let Run { redelivered, ready_at, .. } = *run;
        // Three things end the slice: the next run, the wrap of the ring buffer, whose second half
        // is not contiguous with the first, and the first place in the log, which ends the head.
        let (messages, _) = self.head.as_slices();
        let end = self.runs.get(1).map_or(usize::MAX, |next| self.start_of(next));
        let messages = &messages[..messages.len().min(end)];
        let position = run.position_of(self.front);
        let is_some = !messages.is_empty();
        is_some.then_some(FrontRun { messages, redelivered, position, ready_at })
    }

    /// The message at the front.
    #[inline]
    pub fn front(&self) -> Option<Entry> {
        Some(self.runs.front()?.entry(self.front, self.rests_at(0)?))
    }

    /// The position of the message at the front.
    #[inline]
    pub fn front_position(&self) -> Option<u64> {
        Some(self.runs.front()?.position_of(self.front))
    }

    /// The message at the back.
    pub fn back(&self) -> Option<Entry> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Messages in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.next.wrapping_sub(self.front) as usize
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.next == self.front
    }

    /// The message at `index`, counted from the front: O(log n).
    pub fn get(&self, index: usize) -> Option<Entry> {
        let rests = self.rests_at(index)?;
        let number = self.front.wrapping_add(index as u32);
        Some(self.runs.get(self.run_of(index))?.entry(number, rests))
    }

    #[inline]
    fn rests_at(&self, index: usize) -> Option<Where> {
        if let Some(message) = self.head.get(index) {
            return Some(Where::Store(*message));
        }
        let (behind, index) = (self.behind.as_ref()?, index - self.head.len());
        let in_tail = index.checked_sub(behind.records.len());
        match in_tail {
            Some(index) => behind.tail.get(index).map(|message| Where::Store(*message)),
            None => behind.records.get(index),
        }
    }

    /// Changes where the message at `index` rests.
    pub fn set(&mut self, index: usize, rests: Where) {
        match rests {
            Where::Store(message) => self.set_message(index, message),
            Where::Log(place) => self.set_place(index, place),
        }
    }

    fn set_message(&mut self, index: usize, message: MessageId) {
        if let Some(known) = self.head.get_mut(index) {
            *known = message;
            return;
        }
        let Some(behind) = &mut self.behind else { return };
        let index = index - self.head.len();
        match index.checked_sub(behind.records.len()) {
            Some(index) => behind.tail[index] = message,
            None => behind.records.set(index, Where::Store(message)),
        }
        self.surface();
    }

    /// The records grow up to this message, over any messages of the store in between: eviction
    /// works through neighbours, so those usually follow.
    fn set_place(&mut self, index: usize, place: Place) {
        if index >= self.len() {
            return;
        }
        let head = &mut self.head;
        // Without records yet, they begin with this one message; the messages after it become the
        // tail.
        let behind = self.behind.get_or_insert_with(|| {
            Box::new(Behind {
                tail: head.split_off(head.len().min(index + 1)),
                ..Behind::default()
            })
        });
        // In the head: the messages from this one to the first record join the records.
        for message in head.drain(head.len().min(index)..).rev() {
            behind.records.push_front(Where::Store(message));
        }
        let index = index - head.len();
        // In the tail: the messages from the last record to this one join them. Else it takes 0.
        behind.take_tail((index + 1).saturating_sub(behind.records.len()));
        behind.records.set(index, Where::Log(place));
    }

    /// Moves messages of the store from the front of the records to the head, and the tail too if
    /// no record remains.
    fn surface(&mut self) {
        let Some(behind) = &mut self.behind else { return };
        while let Some(Where::Store(message)) = behind.records.get(0) {
            behind.records.pop_front();
            self.head.push_back(message);
        }
        if !behind.records.is_empty() {
            return;
        }
        // Head and tail become one deque: the shorter one moves.
        let tail = &mut behind.tail;
        if self.head.len() < tail.len() {
            self.head.drain(..).rev().for_each(|message| tail.push_front(message));
            std::mem::swap(&mut self.head, tail);
        } else {
            self.head.append(tail);
        }
        self.behind = None;
    }

    /// The places in one segment of the log, each with the position of its message.
    pub fn in_segment(&self, segment: u32) -> impl Iterator<Item = (u64, Place)> {
        let behind = self.behind.iter();
        let found = behind.flat_map(move |behind| behind.records.in_segment(segment));
        found.filter_map(|(index, place)| {
            let entry = self.get(self.head.len() + index)?;
            Some((entry.position, place))
        })
    }

    /// How many messages are at positions below this one: O(log n).
    pub fn index_of(&self, position: u64) -> usize {
        let behind = self.runs.partition_point(|run| run.position < position);
        let Some(run) = behind.checked_sub(1).and_then(|run| self.runs.get(run)) else {
            return 0;
        };
        let end = self.runs.get(behind).map_or(self.len(), |next| self.start_of(next));
        // `run` is the last one that begins below `position`. Only of the first run may messages
        // have left; it then begins before index 0.
        let left = self.front.wrapping_sub(self.runs[0].number);
        let left = if behind == 1 { u64::from(left) } else { 0 };
        let within = (position - run.position).saturating_sub(left);
        let start = if behind == 1 { 0 } else { self.start_of(run) };
        // A position in the gap behind the run gives the index of the next run.
        end.min(start.saturating_add(usize::try_from(within).unwrap_or(usize::MAX)))
    }

    /// Those with between `range.start` and `range.end` others in front of them.
    pub fn range(&self, range: Range<usize>) -> Entries<'_> {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let (first_run, last_run) = (self.run_of(start), self.run_of(end.saturating_sub(1)));
        Entries { fifo: self, start, end, first_run, last_run }
    }

    /// All of them.
    pub fn iter(&self) -> Entries<'_> {
        self.range(0..self.len())
    }

    /// Bytes of memory it takes.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        let behind = self.behind.as_ref();
        let tail = behind.map_or(0, |behind| behind.tail.capacity());
        (self.head.capacity() + tail) * size_of::<MessageId>()
            + self.runs.capacity() * size_of::<Run>()
            + behind.map_or(0, |behind| size_of::<Behind>() + behind.records.memory_bytes())
    }

    /// The index of a run's first message. Not for the first run: its first message may have left.
    fn start_of(&self, run: &Run) -> usize {
        run.number.wrapping_sub(self.front) as usize
    }

    /// Which run the message at `index` is in.
    fn run_of(&self, index: usize) -> usize {
        let Some(first) = self.runs.front() else {
            return 0;
        };
        // Numbers wrap, but their distances from the first run ascend.
        let left = self.front.wrapping_sub(first.number) as usize;
        let behind = self
            .runs
            .partition_point(|run| run.number.wrapping_sub(first.number) as usize <= index + left);
        behind.saturating_sub(1)
    }
}

impl Behind {
    /// Moves the first `count` messages of the tail to the end of the records.
    fn take_tail(&mut self, count: usize) {
        for message in self.tail.drain(..count) {
            self.records.push_back(Where::Store(message));
        }
    }
}

impl<'a> IntoIterator for &'a Fifo {
    type Item = Entry;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

/// A range of the messages of a [`Fifo`], from either end.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    fifo: &'a Fifo,
    start: usize,
    end: usize,
    /// The index of the run of `start`: one search per range, not one per message.
    first_run: usize,
    /// The index of the run of `end - 1`.
    last_run: usize,
}

impl Entries<'_> {
    fn entry(&self, run: usize, index: usize) -> Option<Entry> {
        let number = self.fifo.front.wrapping_add(index as u32);
        Some(self.fifo.runs.get(run)?.entry(number, self.fifo.rests_at(index)?))
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

    fn rests(position: u64, in_log: bool) -> Where {
        let number = position as u32;
        let place = Place { segment: number >> 5, offset: number << 6, length: 50 };
        if in_log { Where::Log(place) } else { Where::Store(MessageId(number ^ 0x55)) }
    }

    proptest! {
        /// Against a plain deque of entries, over gaps, turns and the wrap of the numbers, while
        /// some messages leave memory and come back.
        #[test]
        fn it_is_a_deque_of_entries(
            steps in proptest::collection::vec((0..16_u8, 0..3_u64, any::<bool>()), 1..300),
            front in prop_oneof![Just(0), Just(u32::MAX - 5)],
        ) {
            let mut fifo = Fifo { front, next: front, ..Fifo::default() };
            let mut plain: VecDeque<Entry> = VecDeque::new();
            let (mut position, mut now) = (0, 0);
            for (step, gap, flag) in steps {
                if step < 6 {
                    position += 1 + if step == 0 { gap } else { 0 };
                    now += u64::from(step == 1);
                    let rests = rests(position, step == 5 && gap == 2);
                    let redelivered = flag && step == 2;
                    let entry = Entry { rests, redelivered, position, ready_at: WallTime(now) };
                    fifo.push(entry);
                    plain.push_back(entry);
                } else if step >= 10 && !plain.is_empty() {
                    // Usually neighbours, from either end.
                    let index = (usize::from(step) * 5 + gap as usize) % plain.len();
                    let index = if flag { index } else { plain.len() - 1 - index };
                    plain[index].rests = rests(plain[index].position, step < 13);
                    fifo.set(index, plain[index].rests);
                } else if let Some(run) = fifo.front_run().filter(|_| step > 8) {
                    let count = run.messages.len().min(1 + gap as usize);
                    fifo.pop_many(count);
                    plain.drain(..count);
                } else {
                    prop_assert_eq!(fifo.front(), plain.front().copied());
                    prop_assert_eq!(fifo.pop(), plain.pop_front());
                }
                prop_assert_eq!((fifo.len(), fifo.is_empty()), (plain.len(), plain.is_empty()));
                let is_known =
                    plain.front().is_some_and(|entry| matches!(entry.rests, Where::Store(_)));
                prop_assert_eq!(fifo.front_run().is_some(), is_known);
                if let Some(run) = fifo.front_run() {
                    prop_assert!(!run.messages.is_empty());
                    let FrontRun { redelivered, position, ready_at, .. } = run;
                    let spelled = run.messages.iter().zip(position..).map(|(id, position)| {
                        Entry { rests: Where::Store(*id), redelivered, position, ready_at }
                    });
                    prop_assert!(spelled.eq(plain.iter().take(run.messages.len()).copied()));
                }
                for segment in 0..6 {
                    let expected = plain.iter().filter_map(|entry| match entry.rests {
                        Where::Log(at) if at.segment == segment => Some((entry.position, at)),
                        _ => None,
                    });
                    prop_assert!(fifo.in_segment(segment).eq(expected));
                }
                prop_assert_eq!(fifo.front_position(), plain.front().map(|entry| entry.position));
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
            let ready_at = WallTime(position / 500);
            let rests = rests(position, false);
            fifo.push(Entry { rests, redelivered: false, position, ready_at });
        }
        assert_eq!((fifo.runs.len(), ENTRY_BYTES_MAX), (2, 28));
    }
}
