//! A queue's waiting messages as paging sees them: index, position and location of each.

use std::ops::Range;

use crate::queue::fifo::Entries;
use crate::queue::ready::{Entry, Ready};
use crate::storage::log::Place;

/// The messages that wait in one queue. A message that was never given out has an index, in the
/// order of positions. A message that came back has none; there are few.
#[derive(Clone, Copy, Debug)]
pub struct Pageable<'a>(&'a Ready);

impl<'a> Pageable<'a> {
    pub(super) fn of(ready: &'a Ready) -> Self {
        Self(ready)
    }

    /// How many messages have an index.
    pub fn len(self) -> usize {
        self.0.fifo().len()
    }

    /// Whether no message has an index.
    pub fn is_empty(self) -> bool {
        self.0.fifo().is_empty()
    }

    /// The message with this index: O(log n).
    pub fn get(self, index: usize) -> Option<Entry> {
        self.0.fifo().get(index)
    }

    /// The messages with these indexes, from either end.
    pub fn range(self, range: Range<usize>) -> Entries<'a> {
        self.0.fifo().range(range)
    }

    /// All messages with an index.
    pub fn iter(self) -> Entries<'a> {
        self.0.fifo().iter()
    }

    /// The index of the first message at this position or behind it: O(log n).
    pub fn index_of(self, position: u64) -> usize {
        self.0.fifo().index_of(position)
    }

    /// The position of the first message with an index.
    pub fn front_position(self) -> Option<u64> {
        self.0.fifo().front_position()
    }

    /// The messages that came back, in the order of their positions.
    pub fn returned(self) -> impl Iterator<Item = Entry> + use<'a> {
        self.0.returned()
    }

    /// The messages with an index that rest only in this segment of the log, each with its
    /// position.
    pub fn in_segment(self, segment: u32) -> impl Iterator<Item = (u64, Place)> + use<'a> {
        self.0.fifo().in_segment(segment)
    }

    /// Bytes of memory that the index takes.
    #[cfg(test)]
    pub(crate) fn memory_bytes(self) -> usize {
        self.0.fifo().memory_bytes()
    }
}
