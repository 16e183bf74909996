//! Receive buffers in which bodies of stored messages stay.
//!
//! ```text
//!   buffer that is read ──first body kept──► kept ──last body given up──► free
//! ```
//! Most messages are delivered and acknowledged soon, so their bodies stay where they were
//! received, uncopied. The number of buffers kept for that is limited. At the limit, new bodies are
//! copied; and for every [`REFUSED_MAX`] buffers refused, one kept buffer is emptied by copying
//! what is left in it, so that long-lived messages do not hold the buffers for ever.

use std::ops::Range;

use bytes::Bytes;

/// A buffer that received fewer bytes is not kept: a small body would pin a large buffer.
const RECEIVED_MIN_BYTES: usize = 4 << 10;

/// Buffers refused before a kept one is emptied. Copying a body out of a cold buffer costs several
/// times the copy at arrival that it saves later. If all messages stay for long, emptying never
/// pays; this limits it to one buffer in sixteen.
const REFUSED_MAX: u32 = 16;

/// The receive buffers that bodies are kept in.
#[derive(Debug, Default)]
pub(super) struct ReceiveBuffers {
    kept: Vec<Kept>,
    /// Indices in `kept` that no buffer uses.
    vacant: Vec<u32>,
    kept_max: usize,
    /// The addresses of the bytes being read now; empty if no body of them may be kept.
    reading: Range<usize>,
    /// The number of the buffer being read, once a body is kept in it.
    number: Option<u32>,
    /// Buffers refused since the last one was emptied.
    refused: u32,
    /// The number of the buffer to be emptied next: all have their turn.
    hand: u32,
}

#[derive(Debug, Default)]
struct Kept {
    /// How many bodies are in it.
    count: u32,
    /// The numbers of all bodies ever kept in it; some may have left, and their numbers be reused.
    bodies: Vec<u32>,
}

impl ReceiveBuffers {
    /// Sets how many buffers are kept at most.
    pub(super) fn limit(&mut self, kept_max: usize) {
        self.kept_max = kept_max;
    }

    /// Begins to read this buffer.
    pub(super) fn begin(&mut self, received: &Bytes) {
        let start = received.as_ptr() as usize;
        if received.len() >= RECEIVED_MIN_BYTES {
            self.reading = start..start + received.len();
        }
    }

    /// Ends the reading. If a kept buffer has to be emptied now, returns its number and the bodies
    /// to copy out of it: those of the list that are still in it.
    #[inline]
    pub(super) fn end(&mut self) -> Option<(u32, Vec<u32>)> {
        (self.reading, self.number) = (0..0, None);
        if self.refused < REFUSED_MAX {
            return None;
        }
        let number = self.hand;
        // With a limit of 0 there is no buffer to empty, and the modulus below would be 0.
        let kept = self.kept.get_mut(number as usize)?;
        (self.refused, self.hand) = (0, (number + 1) % self.kept_max as u32);
        Some((number, std::mem::take(&mut kept.bodies)))
    }

    /// Adds a body, by its number, and returns the number of its buffer. `None` if the body is not
    /// in the buffer being read (it may be in another shard's), or if the limit is reached (the
    /// ring needs the other buffers to receive into).
    #[inline]
    pub(super) fn keep(&mut self, bytes: &Bytes, body: u32) -> Option<u32> {
        if !self.reading.contains(&(bytes.as_ptr() as usize)) {
            return None;
        }
        let number = match self.number {
            Some(number) => number,
            None => self.next_number()?,
        };
        let kept = &mut self.kept[number as usize];
        kept.count += 1;
        kept.bodies.push(body);
        Some(number)
    }

    fn next_number(&mut self) -> Option<u32> {
        let number = if let Some(number) = self.vacant.pop() {
            number
        } else if self.kept.len() < self.kept_max {
            self.kept.push(Kept::default());
            self.kept.len() as u32 - 1
        } else {
            // Counts once per buffer: its further bodies are not looked at.
            self.refused += 1;
            self.reading = 0..0;
            return None;
        };
        self.number = Some(number);
        Some(number)
    }

    /// How many buffers are kept.
    pub(super) fn kept(&self) -> usize {
        self.kept.len() - self.vacant.len()
    }

    /// A body left the buffer of this number.
    #[inline]
    pub(super) fn give_up(&mut self, number: u32) {
        let kept = &mut self.kept[number as usize];
        kept.count -= 1;
        if kept.count == 0 {
            kept.bodies.clear();
            self.vacant.push(number);
            // Still being read: its next body takes a number again.
            self.number.take_if(|current| *current == number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers(kept_max: usize) -> ReceiveBuffers {
        let mut buffers = ReceiveBuffers::default();
        buffers.limit(kept_max);
        buffers
    }

    fn received() -> Bytes {
        Bytes::from(vec![7; RECEIVED_MIN_BYTES])
    }

    /// Reads two bodies of one buffer.
    fn keep_two(buffers: &mut ReceiveBuffers, numbers: [u32; 2]) -> [Option<u32>; 2] {
        let received = received();
        buffers.begin(&received);
        numbers.map(|number| buffers.keep(&received.slice(1_000..2_000), number))
    }

    #[test]
    fn a_buffer_is_kept_until_its_last_body_is_given_up() {
        let mut buffers = buffers(2);
        for (numbers, kept) in [([0, 1], Some(0)), ([2, 3], Some(1)), ([4, 5], None)] {
            assert_eq!(keep_two(&mut buffers, numbers), [kept; 2]);
            assert_eq!(buffers.end(), None);
        }
        buffers.give_up(0);
        assert_eq!(keep_two(&mut buffers, [4, 5]), [None; 2], "of the first one a body is left");
        buffers.give_up(0);
        assert_eq!((buffers.end(), keep_two(&mut buffers, [4, 5])), (None, [Some(0); 2]));
    }

    #[test]
    fn those_that_stay_make_place_in_turn() {
        let mut buffers = buffers(2);
        for numbers in [[0, 1], [2, 3]] {
            keep_two(&mut buffers, numbers);
            buffers.end();
        }
        for stays in [(0, vec![0, 1]), (1, vec![2, 3]), (0, vec![])] {
            for _ in 1..REFUSED_MAX {
                assert_eq!(keep_two(&mut buffers, [8, 9]), [None; 2]);
                assert_eq!(buffers.end(), None);
            }
            assert_eq!(keep_two(&mut buffers, [8, 9]), [None; 2]);
            assert_eq!(buffers.end(), Some(stays));
        }
    }

    #[test]
    fn a_buffer_whose_bodies_are_gone_while_it_is_read_is_kept_anew() {
        let (mut buffers, received) = (buffers(1), received());
        buffers.begin(&received);
        assert_eq!(buffers.keep(&received, 0), Some(0));
        buffers.give_up(0);
        assert_eq!([0, 1].map(|body| buffers.keep(&received, body)), [Some(0); 2]);
        assert_eq!((buffers.kept[0].count, &buffers.kept[0].bodies), (2, &vec![0, 1]));
    }

    #[test]
    fn only_what_is_being_read_and_fills_a_buffer_is_kept() {
        let (mut buffers, received) = (buffers(1), received());
        assert_eq!(buffers.keep(&received, 0), None);
        let little = received.slice(1..);
        buffers.begin(&little);
        assert_eq!(buffers.keep(&little, 0), None);
        buffers.begin(&received);
        assert_eq!(buffers.keep(&Bytes::from(vec![7; 1_000]), 0), None);
        buffers.end();
        assert_eq!(buffers.keep(&received, 0), None);
    }
}
