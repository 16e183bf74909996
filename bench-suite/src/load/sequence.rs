//! Checks the sequence numbers of messages: none may be lost, duplicated or out of order.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{AddAssign, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::load::tally::Tally;

/// How many gaps are remembered. A broker with more is badly broken; a message that fills a
/// forgotten gap counts as a duplicate.
const GAPS_MAX: usize = 4096;

/// How far apart the messages of a shared stream may be, in words of 64 messages: 8 million
/// messages, a megabyte. Consumers of one queue are apart by their prefetch limits, at most 65,535
/// each; a message that is missing for longer is lost.
const SPAN_WORDS_MAX: usize = 1 << 17;

/// The messages of one stream that go to one consumer, numbered from 0.
#[derive(Debug, Default)]
pub(crate) struct SequenceCheck {
    /// The number after the highest received one.
    next: u64,
    /// Missing numbers below `next`: the first of each gap, and the one after its last.
    gaps: BTreeMap<u64, u64>,
    /// Missing messages in gaps that were not remembered.
    forgotten: u64,
    duplicated: u64,
    reordered: u64,
}

/// Counts of everything that must not happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Published, but never delivered.
    pub(crate) lost: u64,
    /// Delivered more than once.
    pub(crate) duplicated: u64,
    /// Delivered after a later message.
    pub(crate) reordered: u64,
    /// Never published.
    pub(crate) foreign: u64,
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
    }
}

impl SequenceCheck {
    /// Counts a delivery.
    #[inline]
    pub(crate) fn note(&mut self, sequence: u64) {
        if sequence == self.next {
            self.next += 1;
        } else {
            self.note_unusual(sequence);
        }
    }

    #[inline(never)]
    fn note_unusual(&mut self, sequence: u64) {
        if sequence >= self.next {
            if self.gaps.len() < GAPS_MAX {
                self.gaps.insert(self.next, sequence);
            } else {
                self.forgotten += sequence - self.next;
            }
            self.next = sequence + 1;
        } else if self.fill(sequence) {
            self.reordered += 1;
        } else {
            self.duplicated += 1;
        }
    }

    /// Removes a number from its gap.
    fn fill(&mut self, sequence: u64) -> bool {
        let Some((&start, &end)) = self.gaps.range(..=sequence).next_back() else {
            return false;
        };
        if sequence >= end {
            return false;
        }
        self.gaps.remove(&start);
        if start < sequence {
            self.gaps.insert(start, sequence);
        }
        if sequence + 1 < end {
            self.gaps.insert(sequence + 1, end);
        }
        true
    }

    /// The number after the highest received one: at least this many were published.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Whether all of `published` messages have arrived.
    pub(crate) fn is_complete(&self, published: u64) -> bool {
        let whole = self.gaps.first_key_value().is_none_or(|(&start, _)| start >= published);
        self.next >= published && whole && self.forgotten == 0
    }

    /// The counts at the end of a stream of `published` messages.
    pub(crate) fn verdict(&self, published: u64) -> Verdict {
        let below = |end: u64| end.min(published);
        let missing: u64 =
            self.gaps.iter().map(|(&start, &end)| below(end) - below(start)).sum::<u64>();
        let missing_above: u64 =
            self.gaps.iter().map(|(start, end)| end - start).sum::<u64>() - missing;
        Verdict {
            lost: missing + self.forgotten + published.saturating_sub(self.next),
            duplicated: self.duplicated,
            reordered: self.reordered,
            foreign: self.next.saturating_sub(published).saturating_sub(missing_above),
        }
    }
}

/// The check for a queue with several consumers. A stream is spread over them, so loss and
/// duplication are counted over all of them, but the numbers at each consumer must still ascend.
#[derive(Debug)]
pub(crate) struct SharedCheck {
    streams: Range<u32>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The received numbers of each stream.
    sets: Vec<SequenceSet>,
    /// Consumers that use this check and have not left.
    consumers: usize,
}

/// What one consumer of a shared queue has received and not reported yet, and its position in each
/// stream.
#[derive(Debug)]
pub(crate) struct SharedPart {
    /// Per stream, the number after the highest received one.
    next: Vec<u64>,
    /// Not reported yet: index of the stream, and number.
    untold: Vec<(u32, u64)>,
    reordered: u64,
}

impl SharedPart {
    /// Notes a delivery of the stream with this index. Call [`SharedCheck::report`] at the end of
    /// the chunk.
    #[inline]
    pub(crate) fn note(&mut self, index: u32, sequence: u64) {
        self.untold.push((index, sequence));
    }
}

impl SharedCheck {
    /// A check for the queue with these streams.
    pub(crate) fn new(streams: Range<u32>) -> Self {
        let sets = streams.clone().map(|_| SequenceSet::default()).collect();
        Self { streams, state: Mutex::new(State { sets, consumers: 0 }) }
    }

    /// The streams of the queue.
    pub(crate) fn streams(&self) -> Range<u32> {
        self.streams.clone()
    }

    /// The part of another consumer, which must call [`SharedCheck::leave`] at its end.
    pub(crate) fn join(&self) -> SharedPart {
        self.state().consumers += 1;
        SharedPart { next: vec![0; self.streams.len()], untold: Vec::new(), reordered: 0 }
    }

    /// Adds what a consumer has received.
    pub(crate) fn report(&self, part: &mut SharedPart) {
        if part.untold.is_empty() {
            return;
        }
        let mut state = self.state();
        for (index, sequence) in part.untold.drain(..) {
            let next = &mut part.next[index as usize];
            if !state.sets[index as usize].insert(sequence) {
                continue;
            }
            if sequence < *next {
                part.reordered += 1;
            } else {
                *next = sequence + 1;
            }
        }
    }

    /// Whether each of `published` messages of a stream has arrived at some consumer.
    pub(crate) fn is_complete(&self, stream: u32, published: u64) -> bool {
        self.state().sets[(stream - self.streams.start) as usize].is_complete(published)
    }

    /// Ends the part of a consumer. Returns its messages out of order and, for the last consumer to
    /// leave, the counts of the whole queue with the number of expected messages.
    pub(crate) fn leave(&self, mut part: SharedPart, tally: &Tally) -> (u64, Verdict) {
        self.report(&mut part);
        let mut state = self.state();
        state.consumers -= 1;
        let mut verdict = Verdict { reordered: part.reordered, ..Verdict::default() };
        let mut expected = 0;
        if state.consumers == 0 {
            for (set, stream) in state.sets.iter().zip(self.streams()) {
                let published = tally.total(stream).unwrap_or(set.end);
                expected += published;
                verdict += set.verdict(published);
            }
        }
        (expected, verdict)
    }

    /// A panic of another thread ends the run anyway; the counts are still valid.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The received numbers, in any order: one bit for each, starting at the first that may be missing.
#[derive(Debug, Default)]
struct SequenceSet {
    /// Words before the first of `words`, with 64 numbers each; they are final.
    base_words: u64,
    words: VecDeque<u64>,
    /// The number after the highest received one.
    end: u64,
    /// Missing numbers in the final part.
    lost: u64,
    duplicated: u64,
}

impl SequenceSet {
    /// False if the number was received before.
    fn insert(&mut self, sequence: u64) -> bool {
        let (word, bit) = (sequence / 64, 1_u64 << (sequence % 64));
        let Some(mut index) = word.checked_sub(self.base_words) else {
            self.duplicated += 1;
            return false;
        };
        if index >= SPAN_WORDS_MAX as u64 {
            self.settle(index + 1 - SPAN_WORDS_MAX as u64);
            index = word - self.base_words;
        }
        let index = index as usize;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        let came = self.words[index];
        if came & bit != 0 {
            self.duplicated += 1;
            return false;
        }
        self.words[index] = came | bit;
        self.end = self.end.max(sequence + 1);
        while self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.base_words += 1;
        }
        true
    }

    /// Makes the first `count` words final: numbers that are missing in them are lost.
    fn settle(&mut self, count: u64) {
        let held = self.words.len().min(count as usize);
        self.lost +=
            self.words.drain(..held).map(|word| u64::from(word.count_zeros())).sum::<u64>();
        self.lost += (count - held as u64) * 64;
        self.base_words += count;
    }

    fn missing_below(&self, published: u64) -> u64 {
        let base = self.base_words * 64;
        let held = published.saturating_sub(base);
        let came = self.came_below(held);
        self.lost + held - came
    }

    /// How many of the first `count` numbers of `words` were received.
    fn came_below(&self, count: u64) -> u64 {
        let masked = self.words.iter().zip(0_u64..).map(|(word, index)| {
            match count.saturating_sub(index * 64) {
                64.. => *word,
                bits => word & ((1 << bits) - 1),
            }
        });
        masked.map(|word| u64::from(word.count_ones())).sum()
    }

    fn is_complete(&self, published: u64) -> bool {
        self.end >= published && self.missing_below(published) == 0
    }

    fn verdict(&self, published: u64) -> Verdict {
        let (all, base) = (self.came_below(u64::MAX), self.base_words * 64);
        let settled_above = base.saturating_sub(published);
        let above = all - self.came_below(published.saturating_sub(base));
        Verdict {
            lost: self.missing_below(published),
            duplicated: self.duplicated,
            reordered: 0,
            foreign: settled_above + above,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn verdict(numbers: &[u64], published: u64) -> [u64; 4] {
        let mut check = SequenceCheck::default();
        for &number in numbers {
            check.note(number);
        }
        let verdict = check.verdict(published);
        assert_eq!(check.is_complete(published), verdict.lost == 0, "{verdict:?}");
        assert_eq!(verdict == Verdict::default(), numbers.iter().copied().eq(0..published));
        [verdict.lost, verdict.duplicated, verdict.reordered, verdict.foreign]
    }

    #[test]
    fn each_fault_is_told_apart() {
        assert_eq!(verdict(&[0, 1, 2], 3), [0, 0, 0, 0], "clean");
        assert_eq!(verdict(&[], 0), [0, 0, 0, 0], "nothing");
        assert_eq!(verdict(&[0, 2], 3), [1, 0, 0, 0], "lost in the middle");
        assert_eq!(verdict(&[0, 1], 4), [2, 0, 0, 0], "lost at the end");
        assert_eq!(verdict(&[0, 1, 1, 2], 3), [0, 1, 0, 0], "doubled");
        assert_eq!(verdict(&[0, 2, 1, 3], 4), [0, 0, 1, 0], "swapped");
        assert_eq!(verdict(&[4, 2, 2, 0], 5), [2, 1, 2, 0], "all at once");
        assert_eq!(verdict(&[0, 1, 2], 2), [0, 0, 0, 1], "never published");
        assert_eq!(verdict(&[0, 1, 5], 2), [0, 0, 0, 1], "never published, with a gap");
        assert_eq!(verdict(&[0, 5], 3), [2, 0, 0, 1], "a gap on both sides of the end");
    }

    #[test]
    fn too_many_gaps_are_still_losses() {
        let mut check = SequenceCheck::default();
        let published = 4 * GAPS_MAX as u64;
        for number in (1..published).step_by(2) {
            check.note(number);
        }
        assert_eq!(check.verdict(published).lost, published / 2);
        assert!(check.gaps.len() <= GAPS_MAX && !check.is_complete(published));
    }

    /// The counts of two consumers of one stream: lost, duplicated, reordered, foreign.
    fn shared(first: &[u64], second: &[u64], published: u64) -> [u64; 4] {
        let tally = Tally::new(Instant::now(), 5, 1, 1);
        let check = SharedCheck::new(5..6);
        let mut parts = [check.join(), check.join()];
        for (part, numbers) in parts.iter_mut().zip([first, second]) {
            for &number in numbers {
                part.note(0, number);
            }
            check.report(part);
        }
        tally.close_stream(5, published);
        let [first, second] = parts;
        let complete = check.is_complete(5, published);
        let (expected, mut all) = check.leave(first, &tally);
        assert_eq!((expected, all.lost), (0, 0), "the last to leave tells it");
        let (expected, last) = check.leave(second, &tally);
        all += last;
        assert_eq!((expected, complete), (published, all.lost == 0));
        [all.lost, all.duplicated, all.reordered, all.foreign]
    }

    #[test]
    fn a_shared_stream_ascends_for_each_consumer() {
        assert_eq!(shared(&[0, 3, 4], &[1, 2, 5], 6), [0, 0, 0, 0], "clean");
        assert_eq!(shared(&[5, 6], &[0, 1, 2, 3, 4], 7), [0, 0, 0, 0], "one is far behind");
        assert_eq!(shared(&[0, 3], &[1, 2], 6), [2, 0, 0, 0], "lost");
        assert_eq!(shared(&[0, 3, 4], &[1, 3, 2, 5], 6), [0, 1, 0, 0], "doubled");
        assert_eq!(shared(&[0, 4, 3], &[1, 2, 5], 6), [0, 0, 1, 0], "swapped");
        assert_eq!(shared(&[0, 9], &[1, 2], 3), [0, 0, 0, 1], "never published");
    }

    #[test]
    fn the_span_of_a_shared_stream_is_limited() {
        let mut set = SequenceSet::default();
        let span = 64 * SPAN_WORDS_MAX as u64;
        assert!(set.insert(1) && set.insert(span - 1) && !set.insert(1));
        assert!(!set.is_complete(2) && set.missing_below(2) == 1);
        assert!(set.insert(10 * span), "far ahead");
        assert!(set.words.len() <= SPAN_WORDS_MAX);
        assert!(!set.insert(0), "it was given up");
        let expected = Verdict { lost: 10 * span - 2, duplicated: 2, reordered: 0, foreign: 0 };
        assert_eq!(set.verdict(10 * span + 1), expected);
    }

    #[test]
    fn a_long_shared_stream_in_order_holds_one_word() {
        let mut set = SequenceSet::default();
        assert!((0..100_000).all(|number| set.insert(number)));
        assert!(set.words.len() <= 1 && set.is_complete(100_000) && !set.is_complete(100_001));
        assert_eq!(set.verdict(99_990), Verdict { foreign: 10, ..Verdict::default() });
    }
}
