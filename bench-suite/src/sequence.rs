//! The number that every message carries, and the check that none is lost, doubled or out of order.
//!
//! ```text
//! ┌──────────────┬─────────┬──────────────┐
//! │ sequence u64 │ run u64 │ filler, 0x2E │
//! └──────────────┴─────────┴──────────────┘
//!  0              8         16
//! ```

use std::collections::BTreeMap;
use std::fmt;

/// Octets of a body that are the stamp: the smallest body.
pub(crate) const STAMP_SIZE: usize = 16;

/// Gaps that are remembered at once. A broker with more holes than this is broken beyond
/// description: what comes later to fill a forgotten one counts as a duplicate.
const GAPS_MAX: usize = 4096;

/// The stamp of message `sequence` of run `run`.
pub(crate) fn stamp(sequence: u64, run: u64) -> [u8; STAMP_SIZE] {
    (u128::from(sequence) << 64 | u128::from(run)).to_be_bytes()
}

/// What became of the messages of one run, numbered from 0.
#[derive(Debug)]
pub(crate) struct SequenceCheck {
    run: u64,
    /// The lowest number above all that came.
    next: u64,
    /// Missing below `next`: first number and the one behind the last.
    gaps: BTreeMap<u64, u64>,
    /// Messages of gaps that were too many to remember.
    forgotten: u64,
    duplicated: u64,
    reordered: u64,
    foreign: u64,
}

/// A count of everything that must not happen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Published, but never delivered.
    pub(crate) lost: u64,
    /// Delivered more than once.
    pub(crate) duplicated: u64,
    /// Delivered after a later one.
    pub(crate) reordered: u64,
    /// Not of this run, or never published.
    pub(crate) foreign: u64,
}

impl SequenceCheck {
    pub(crate) const fn new(run: u64) -> Self {
        Self {
            run,
            next: 0,
            gaps: BTreeMap::new(),
            forgotten: 0,
            duplicated: 0,
            reordered: 0,
            foreign: 0,
        }
    }

    /// Notes a delivery by its stamp.
    #[inline]
    pub(crate) fn note(&mut self, stamp: [u8; STAMP_SIZE]) {
        let both = u128::from_be_bytes(stamp);
        let (sequence, run) = ((both >> 64) as u64, both as u64);
        if sequence == self.next && run == self.run {
            self.next += 1;
        } else {
            self.note_unusual(sequence, run);
        }
    }

    #[inline(never)]
    fn note_unusual(&mut self, sequence: u64, run: u64) {
        if run != self.run {
            self.foreign += 1;
        } else if sequence >= self.next {
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

    /// Takes a number out of the gap that it lies in.
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

    /// Whether each of `published` messages came, so that nothing more is to be waited for.
    pub(crate) fn is_complete(&self, published: u64) -> bool {
        self.next >= published && self.gaps.is_empty() && self.forgotten == 0
    }

    /// The count at the end of a run that published `published` messages.
    pub(crate) fn verdict(&self, published: u64) -> Verdict {
        let missing: u64 = self.gaps.iter().map(|(start, end)| end - start).sum();
        Verdict {
            lost: missing + self.forgotten + published.saturating_sub(self.next),
            duplicated: self.duplicated,
            reordered: self.reordered,
            foreign: self.foreign + self.next.saturating_sub(published),
        }
    }
}

impl Verdict {
    /// Whether every message came once and in order.
    pub(crate) const fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.foreign == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "messages: {} lost, {} duplicated, {} reordered, {} foreign",
            self.lost, self.duplicated, self.reordered, self.foreign
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(numbers: &[u64], published: u64) -> [u64; 4] {
        let mut check = SequenceCheck::new(7);
        for &number in numbers {
            check.note(stamp(number, 7));
        }
        let verdict = check.verdict(published);
        assert_eq!(verdict.is_clean(), numbers.iter().copied().eq(0..published));
        [verdict.lost, verdict.duplicated, verdict.reordered, verdict.foreign]
    }

    #[test]
    fn each_fault_is_told_apart() {
        assert_eq!(verdict(&[0, 1, 2], 3), [0, 0, 0, 0], "clean");
        assert_eq!(verdict(&[0, 2], 3), [1, 0, 0, 0], "lost in the middle");
        assert_eq!(verdict(&[0, 1], 4), [2, 0, 0, 0], "lost at the end");
        assert_eq!(verdict(&[0, 1, 1, 2], 3), [0, 1, 0, 0], "doubled");
        assert_eq!(verdict(&[0, 2, 1, 3], 4), [0, 0, 1, 0], "swapped");
        assert_eq!(verdict(&[4, 2, 2, 0], 5), [2, 1, 2, 0], "all at once");
        assert_eq!(verdict(&[0, 1, 2], 2), [0, 0, 0, 1], "never published");
    }

    #[test]
    fn messages_of_another_run_are_foreign() {
        let mut check = SequenceCheck::new(7);
        check.note(stamp(0, 6));
        check.note(stamp(0, 7));
        assert_eq!(check.verdict(1), Verdict { lost: 0, duplicated: 0, reordered: 0, foreign: 1 });
        assert!(check.is_complete(1));
    }

    #[test]
    fn too_many_gaps_are_still_losses() {
        let mut check = SequenceCheck::new(7);
        let published = 4 * GAPS_MAX as u64;
        for number in (1..published).step_by(2) {
            check.note(stamp(number, 7));
        }
        assert_eq!(check.verdict(published).lost, published / 2);
        assert!(check.gaps.len() <= GAPS_MAX && !check.is_complete(published));
    }
}
