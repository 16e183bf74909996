//! Places in the log of consecutive messages of a queue, 7 bytes each.
//!
//! ```text
//!   chunks     ┌──────────────────────┐┌──────────────────────┐┌ …
//!   words      │ o₀ l₀ │ o₁ l₁ │ …    ││ …                    ││   offset 4, length 3
//!   segments   │ 17 from word 0       ││ 17 from 0, 18 from 90││
//!              └──────────────────────┘└──────────────────────┘└ …
//! ```
//! Neighbours in a queue are usually neighbours in the log, so a run of them names its segment
//! once. A word with length 0 is the number of a message in the store.

use std::collections::VecDeque;

use crate::storage::log::Place;
use crate::storage::store::{MessageId, Where};

/// Bytes that a message costs, without its share of the chunk's segment list.
pub const WORD_BYTES: usize = 7;

/// Words in a chunk: they make it 4 KiB, a size that no allocator rounds up.
const CHUNK_WORDS: usize = (4096 - size_of::<Segments>()) / WORD_BYTES;

/// A record of 16 MiB or more keeps its number in the store: 24 bytes do not matter to it.
const LENGTH_BITS: u32 = 24;

/// Runs of words in one segment: first word and segment, ascending by word. A run ends where the
/// next one begins.
type Segments = Vec<(u16, u32)>;

/// A deque of places in the log, with numbers of the store between them.
#[derive(Debug, Default)]
pub struct Records {
    chunks: VecDeque<Box<Chunk>>,
    /// The first used word, in the first chunk.
    first: usize,
    len: usize,
}

#[derive(Debug)]
struct Chunk {
    words: [[u8; WORD_BYTES]; CHUNK_WORDS],
    segments: Segments,
}

/// Whether a place is short enough to be kept here.
pub fn can_keep(place: Place) -> bool {
    place.length > 0 && place.length >> LENGTH_BITS == 0
}

impl Records {
    /// Messages in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The message at `index`, counted from the front.
    pub fn get(&self, index: usize) -> Option<Where> {
        let at = self.first + index;
        let chunk = self.chunks.get(at / CHUNK_WORDS).filter(|_| index < self.len)?;
        Some(chunk.get(at % CHUNK_WORDS))
    }

    /// Changes where the message at `index` rests.
    pub fn set(&mut self, index: usize, rests: Where) {
        let at = self.first + index;
        // Counted from the start of the chunk, and past its end for all chunks but the last.
        let used = self.first + self.len - at / CHUNK_WORDS * CHUNK_WORDS;
        if let Some(chunk) = self.chunks.get_mut(at / CHUNK_WORDS) {
            chunk.set(at % CHUNK_WORDS, rests, used.min(CHUNK_WORDS));
        }
    }

    /// Adds a message at the front.
    pub fn push_front(&mut self, rests: Where) {
        if self.first == 0 {
            self.chunks.push_front(Chunk::empty());
            self.first = CHUNK_WORDS;
        }
        self.first -= 1;
        self.len += 1;
        self.set(0, rests);
    }

    /// Adds a message at the back.
    pub fn push_back(&mut self, rests: Where) {
        if self.first + self.len == self.chunks.len() * CHUNK_WORDS {
            self.chunks.push_back(Chunk::empty());
        }
        self.len += 1;
        self.set(self.len - 1, rests);
    }

    /// Takes the message at the front.
    pub fn pop_front(&mut self) -> Option<Where> {
        let front = self.get(0)?;
        self.first += 1;
        self.len -= 1;
        if self.first == CHUNK_WORDS || self.len == 0 {
            self.chunks.pop_front();
            self.first = 0;
        }
        Some(front)
    }

    /// The places in one segment, each with its index.
    pub fn in_segment(&self, segment: u32) -> impl Iterator<Item = (usize, Place)> {
        let chunks = self.chunks.iter().enumerate();
        let chunks = chunks.filter(move |(_, chunk)| chunk.names(segment));
        let used = self.first..self.first + self.len;
        let words = chunks.flat_map(|(number, _)| (0..CHUNK_WORDS).map(move |at| (number, at)));
        let indices = words.map(|(number, at)| number * CHUNK_WORDS + at);
        let indices = indices.filter(move |at| used.contains(at)).map(|at| at - self.first);
        indices.filter_map(move |index| match self.get(index) {
            Some(Where::Log(place)) if place.segment == segment => Some((index, place)),
            _ => None,
        })
    }

    /// Bytes of memory it takes.
    #[cfg(test)]
    pub fn memory_bytes(&self) -> usize {
        let segments = self.chunks.iter().map(|chunk| chunk.segments.capacity());
        self.chunks.capacity() * size_of::<Box<Chunk>>()
            + self.chunks.len() * size_of::<Chunk>()
            + segments.sum::<usize>() * size_of::<(u16, u32)>()
    }
}

impl Chunk {
    fn empty() -> Box<Self> {
        Box::new(Self { words: [[0; WORD_BYTES]; CHUNK_WORDS], segments: Vec::new() })
    }

    fn get(&self, at: usize) -> Where {
        let mut word = [0; 8];
        word[..WORD_BYTES].copy_from_slice(&self.words[at]);
        let word = u64::from_le_bytes(word);
        let (offset, length) = (word as u32, (word >> u32::BITS) as u32);
        match length {
            0 => Where::Store(MessageId(offset)),
            _ => Where::Log(Place { segment: self.segment_of(at), offset, length }),
        }
    }

    /// Words from `used` on are free: they need no segment.
    fn set(&mut self, at: usize, rests: Where, used: usize) {
        let word = match rests {
            Where::Store(MessageId(id)) => u64::from(id),
            Where::Log(Place { segment, offset, length }) => {
                self.set_segment(at as u16, segment, used as u16);
                u64::from(offset) | u64::from(length) << u32::BITS
            }
        };
        self.words[at].copy_from_slice(&word.to_le_bytes()[..WORD_BYTES]);
    }

    /// How many runs of [`Self::segments`] begin at or before this word.
    fn runs_up_to(&self, at: u16) -> usize {
        self.segments.partition_point(|(from, _)| *from <= at)
    }

    fn segment_of(&self, at: usize) -> u32 {
        let run = self.runs_up_to(at as u16).checked_sub(1);
        run.and_then(|run| self.segments.get(run)).map_or(0, |(_, segment)| *segment)
    }

    fn set_segment(&mut self, at: u16, segment: u32, used: u16) {
        let behind = self.runs_up_to(at);
        // The run that this word is in so far.
        let before = behind.checked_sub(1).map(|run| self.segments[run]);
        if before.is_some_and(|(_, of)| of == segment) {
            return;
        }
        // This word leaves its run, so the words after it need a run of the old segment, unless
        // they have one or are free.
        let is_next_apart = self.segments.get(behind).is_some_and(|(from, _)| *from == at + 1);
        if let Some((_, of)) = before
            && !is_next_apart
            && at + 1 < used
        {
            self.segments.insert(behind, (at + 1, of));
        }
        match before {
            Some((from, _)) if from == at => self.segments[behind - 1].1 = segment,
            _ => self.segments.insert(behind, (at, segment)),
        }
        // Segments copied forward word by word end as one run again.
        self.segments.dedup_by_key(|(_, segment)| *segment);
    }

    fn names(&self, segment: u32) -> bool {
        self.segments.iter().any(|(_, of)| *of == segment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(segment: u32, number: u32) -> Where {
        Where::Log(Place { segment, offset: number << 4, length: 1 + number % 0xFF_FFFF })
    }

    proptest! {
        /// Against a plain deque, with places copied forward and numbers among them.
        #[test]
        fn it_is_a_deque_of_places(
            steps in proptest::collection::vec((0..12_u8, 0..5_u32, 1..400_usize), 1..60),
        ) {
            let (mut records, mut plain) = (Records::default(), VecDeque::new());
            let mut number = u32::MAX;
            for (step, segment, count) in steps {
                for nth in 0..count {
                    number = number.wrapping_add(1);
                    let rests = match number % 7 {
                        0 => Where::Store(MessageId(number)),
                        _ => place(segment + u32::from(step == 0 && number % 3 == 0), number),
                    };
                    match step {
                        0..=3 => {
                            records.push_back(rests);
                            plain.push_back(rests);
                        }
                        4..=5 => {
                            records.push_front(rests);
                            plain.push_front(rests);
                        }
                        6..=8 => prop_assert_eq!(records.pop_front(), plain.pop_front()),
                        _ if !plain.is_empty() => {
                            let step_by = if step == 9 { 1 } else { 31 };
                            let index = nth * step_by % plain.len();
                            records.set(index, rests);
                            plain[index] = rests;
                        }
                        _ => {}
                    }
                }
                prop_assert_eq!(records.len(), plain.len());
                prop_assert_eq!(records.is_empty(), plain.is_empty());
                prop_assert!((0..=plain.len()).all(|at| records.get(at) == plain.get(at).copied()));
                for segment in 0..6 {
                    let expected = plain.iter().enumerate().filter_map(|(at, rests)| match rests {
                        Where::Log(place) if place.segment == segment => Some((at, *place)),
                        _ => None,
                    });
                    prop_assert!(records.in_segment(segment).eq(expected));
                }
            }
        }
    }

    #[test]
    fn a_place_costs_7_bytes_and_a_little() {
        let mut records = Records::default();
        for number in 0..1_000_000 {
            records.push_back(place(number / 100_000, number));
        }
        let bytes = records.memory_bytes();
        assert!(bytes * 10 < 1_000_000 * 72, "{bytes} bytes");
        // Copied forward, one after the other, they have one segment again.
        (0..1_000_000).for_each(|number| records.set(number, place(20, number as u32)));
        assert!(records.memory_bytes() * 10 < 1_000_000 * 72);
        assert_eq!((size_of::<Chunk>(), records.chunks[5].segments.len()), (4096, 1));
        (0..1_000_000).for_each(|_| assert!(records.pop_front().is_some()));
        assert!(records.chunks.is_empty());
    }

    #[test]
    fn long_records_are_not_kept() {
        let of_length = |length| can_keep(Place { segment: 1, offset: 0, length });
        assert_eq!([0, 1, 0xFF_FFFF, 0x100_0000].map(of_length), [false, true, true, false]);
    }
}
