//! The stamp in every message: its stream, its number, its intended time, and a filler in which
//! every changed octet is noticed.
//!
//! ```text
//! ┌────────────┬──────────────┬─────────────────┬──────────────┬────────┐
//! │ stream u24 │ sequence u40 │ intended µs u32 │ checksum u32 │ filler │   big-endian
//! └────────────┴──────────────┴─────────────────┴──────────────┴────────┘
//!  0            3              8                 12             16
//! ```

use std::sync::LazyLock;
use std::time::Instant;

/// The size of a stamp in octets, and of the smallest body.
pub(crate) const STAMP_SIZE: usize = 16;

/// The largest body in octets: the default limit of `RabbitMQ`.
pub(crate) const BODY_SIZE_MAX: usize = 16 << 20;

/// The highest stream: 24 bits.
pub(crate) const STREAM_MAX: u32 = (1 << 24) - 1;

/// The highest sequence number: 40 bits, a day of 12 million messages per second in one stream.
pub(crate) const SEQUENCE_MAX: u64 = (1 << 40) - 1;

/// The bits of the sequence number in the first word of a stamp.
pub(crate) const SEQUENCE_BITS: u32 = 40;

/// The bits of the phase with which a filler begins.
const PHASE_BITS: u32 = 12;

/// The period of the filler pattern in octets. The filler of a body of 1 MiB is one piece of it at
/// any phase, so checking it is one comparison.
const PATTERN_SIZE: usize = (1 << 20) + (1 << PHASE_BITS);

/// Odd numbers with bits in both halves, so that no product in the checksum is 0 (digits of the
/// golden ratio and of π).
const HEAD_MIX: u64 = 0x9E37_79B9_7F4A_7C15;
const TIME_MIX: u64 = 0x2436_F6A8_885A_308D;

/// A decoded stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// One publisher and one routing key; at most [`STREAM_MAX`].
    pub(crate) stream: u32,
    /// From 0, at most [`SEQUENCE_MAX`].
    pub(crate) sequence: u64,
    /// When it had to be sent, in microseconds since the epoch of the tally, modulo 2³².
    pub(crate) intended_us: u32,
}

impl Stamp {
    /// The encoded form.
    #[inline]
    pub(crate) fn encode(self) -> [u8; STAMP_SIZE] {
        encode(u64::from(self.stream) << SEQUENCE_BITS | self.sequence, self.intended_us)
    }

    /// `None` if the checksum is wrong, so that no field can be trusted.
    #[inline]
    pub(crate) fn decode(octets: &[u8; STAMP_SIZE]) -> Option<Self> {
        let word = u128::from_be_bytes(*octets);
        let (head, intended_us) = ((word >> 64) as u64, (word >> 32) as u32);
        (checksum(head, intended_us) == word as u32).then_some(Self {
            stream: (head >> SEQUENCE_BITS) as u32,
            sequence: head & SEQUENCE_MAX,
            intended_us,
        })
    }
}

/// Encodes a stamp whose stream and sequence number are one word already.
#[inline]
pub(crate) fn encode(head: u64, intended_us: u32) -> [u8; STAMP_SIZE] {
    let tail = u64::from(intended_us) << 32 | u64::from(checksum(head, intended_us));
    (u128::from(head) << 64 | u128::from(tail)).to_be_bytes()
}

/// A multiplication folded to 32 bits. One error in 4 billion is not detected, which is enough for
/// accidental faults.
#[inline]
fn checksum(head: u64, intended_us: u32) -> u32 {
    let product = u128::from(head ^ HEAD_MIX) * u128::from(u64::from(intended_us) ^ TIME_MIX);
    let folded = (product >> 64) as u64 ^ product as u64;
    (folded >> 32) as u32 ^ folded as u32
}

/// A time in the format of stamps: microseconds since `epoch` modulo 2³²; 0 before it.
#[inline]
pub(crate) fn stamp_time_us(epoch: Instant, time: Instant) -> u32 {
    time.saturating_duration_since(epoch).as_micros() as u32
}

/// Microseconds from a stamp's time to `now_us`; 0 if the stamp is younger, because the clock is
/// read once for many messages.
#[inline]
pub(crate) fn elapsed_us(intended_us: u32, now_us: u32) -> u32 {
    let elapsed = now_us.wrapping_sub(intended_us);
    if elapsed >> 31 == 0 { elapsed } else { 0 }
}

/// The offset in the pattern where the filler of a stream begins. It differs between streams, so
/// that a filler of another stream is noticed.
#[inline]
pub(crate) fn filler_phase(stream: u32) -> usize {
    (u64::from(stream).wrapping_mul(HEAD_MIX) >> (64 - PHASE_BITS)) as usize
}

/// The pattern of all fillers. Keep the result: each call checks whether the pattern exists.
pub(crate) fn filler_pattern() -> Filler {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = HEAD_MIX;
        let mut next = || {
            // Xorshift with 64 bits, so that the octets do not depend on their position in a simple
            // way.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..PATTERN_SIZE).map(|_| next()).collect()
    });
    Filler { pattern: &PATTERN }
}

/// The filler pattern.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filler {
    pattern: &'static [u8],
}

impl Filler {
    /// Whether `part` equals the filler of this phase from `offset` on.
    #[inline]
    pub(crate) fn matches(self, phase: usize, offset: usize, part: &[u8]) -> bool {
        let start = (phase + offset) % PATTERN_SIZE;
        match self.pattern.get(start..start + part.len()) {
            Some(expected) => expected == part,
            None => self.matches_across(start, part),
        }
    }

    /// A part that reaches beyond the end of the pattern.
    #[inline(never)]
    fn matches_across(self, start: usize, part: &[u8]) -> bool {
        let (head, tail) = part.split_at(part.len().min(PATTERN_SIZE - start));
        self.pattern[start..].starts_with(head)
            && tail.chunks(PATTERN_SIZE).all(|piece| self.pattern.starts_with(piece))
    }

    /// Appends the first `size` octets of a stream's filler.
    pub(crate) fn append(self, stream: u32, size: usize, out: &mut Vec<u8>) {
        let octets = self.pattern.iter().cycle().skip(filler_phase(stream));
        out.extend(octets.take(size));
    }
}

/// A complete body of `size` octets, at least [`STAMP_SIZE`].
pub(crate) fn body(stamp: Stamp, size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(size);
    body.extend_from_slice(&stamp.encode());
    filler_pattern().append(stamp.stream, size.saturating_sub(STAMP_SIZE), &mut body);
    body
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stamps() -> impl Iterator<Item = Stamp> {
        let sequences = [0, 1, 255, 1 << 32, SEQUENCE_MAX];
        [0, 1, 77, STREAM_MAX].into_iter().flat_map(move |stream| {
            sequences.into_iter().flat_map(move |sequence| {
                [0, 1, 1_000_000, u32::MAX].map(|intended_us| Stamp {
                    stream,
                    sequence,
                    intended_us,
                })
            })
        })
    }

    #[test]
    fn what_is_encoded_is_decoded_at_its_place() {
        let stamp = Stamp { stream: 0x01_0203, sequence: 0x04_0506_0708, intended_us: 0x090A_0B0C };
        assert_eq!(stamp.encode()[..12], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        for stamp in stamps() {
            assert_eq!(Stamp::decode(&stamp.encode()), Some(stamp));
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for stamp in stamps() {
            for bit in 0..8 * STAMP_SIZE {
                let mut octets = stamp.encode();
                octets[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Stamp::decode(&octets), None, "bit {bit} of {stamp:?}");
            }
        }
        assert_eq!(Stamp::decode(&[0; STAMP_SIZE]), None, "nothing at all");
    }

    #[test]
    fn parts_of_a_filler_match_at_their_offset_only() {
        let (filler, phase) = (filler_pattern(), filler_phase(9));
        let mut octets = Vec::new();
        filler.append(9, 2 * PATTERN_SIZE + 5000, &mut octets);
        assert!(filler.matches(phase, 0, &octets), "more than the pattern");
        let at_the_end = PATTERN_SIZE - phase - 1000;
        for (offset, size) in [(0, 0), (0, 1), (5, 4096), (at_the_end, 3000), (2_000_000, 70_000)] {
            let mut part = octets[offset..offset + size].to_vec();
            assert!(filler.matches(phase, offset, &part), "{size} at {offset}");
            if size > 8 {
                assert!(!filler.matches(phase, offset + 1, &part), "moved {size} at {offset}");
                assert!(!filler.matches(filler_phase(10), offset, &part), "another stream");
                part[size - 1] ^= 1;
                assert!(!filler.matches(phase, offset, &part), "flipped {size} at {offset}");
            }
        }
    }

    #[test]
    fn streams_next_to_each_other_have_fillers_of_their_own() {
        for first in (0..STREAM_MAX).step_by(65_537) {
            let mut phases: Vec<_> = (first..first + 16).map(filler_phase).collect();
            phases.sort_unstable();
            phases.dedup();
            assert_eq!(phases.len(), 16, "from stream {first}");
        }
    }

    #[test]
    fn times_wrap() {
        assert_eq!(elapsed_us(u32::MAX - 4, 5), 10);
        assert_eq!(elapsed_us(7, 5), 0, "the clock was read before it was sent");
        let epoch = Instant::now();
        assert_eq!(stamp_time_us(epoch, epoch + Duration::from_micros((1 << 32) + 7)), 7);
        assert_eq!(stamp_time_us(epoch + Duration::from_secs(1), epoch), 0);
    }

    #[test]
    fn a_body_is_its_stamp_and_its_filler() {
        let stamp = Stamp { stream: 3, sequence: 4, intended_us: 5 };
        let body = body(stamp, 100);
        assert_eq!((body.len(), &body[..STAMP_SIZE]), (100, &stamp.encode()[..]));
        assert!(filler_pattern().matches(filler_phase(3), 0, &body[STAMP_SIZE..]));
    }
}
