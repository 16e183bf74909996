//! The frames in front of the body of a publish, kept from one to the next.
//!
//! ```text
//! ┌─────────────────────┬──────────────────────────────────────────┐
//! │ basic.publish frame │ content header frame                     │  body frames …
//! │ exchange, key, bits │ class, weight, BODY SIZE, properties     │
//! └─────────────────────┴──────────────────────────────────────────┘
//!  the part in capitals changes from message to message, the rest usually does not
//! ```
//! A prelude speeds up reading publishes as an [`crate::envelope`] speeds up writing deliveries.

use crate::frame::{FRAME_HEADER_SIZE, FRAME_OVERHEAD};
use crate::octets::same;

/// A larger prelude is not kept: comparing it costs as much as decoding it, and a channel must not
/// hold memory for the largest properties it ever received.
const PRELUDE_SIZE_MAX: usize = 1024;

/// Octets of the body size.
const SIZE: usize = 8;

/// Method frame and content header frame of the last message of a channel.
#[derive(Debug, Default)]
pub struct Prelude {
    frames: Vec<u8>,
    /// Offset of the body size, 8 octets.
    size_at: usize,
}

impl Prelude {
    /// Drops the kept frames: no later frames match.
    #[inline(always)]
    pub fn forget(&mut self) {
        self.frames.clear();
    }

    /// Keeps `frames`: a valid method frame and, right behind it, a valid content header frame. If
    /// they are anything else, nothing is kept.
    #[inline(never)]
    pub fn keep(&mut self, frames: &[u8]) {
        self.forget();
        let Some((_, header_at)) = frame_at(frames, 0) else { return };
        let Some((header, end)) = frame_at(frames, header_at) else { return };
        // Class and weight come first.
        let size_at = header + 4;
        if end == frames.len() && size_at + SIZE < end && end <= PRELUDE_SIZE_MAX {
            self.frames.extend_from_slice(frames);
            self.size_at = size_at;
        }
    }

    /// Compares the chunk at `at` with the kept frames, except for the body size. If they are
    /// equal, returns that size and the end of the frames.
    #[inline(always)]
    pub fn ahead(&self, chunk: &[u8], at: usize) -> Option<(u64, usize)> {
        if self.frames.is_empty() {
            return None;
        }
        let end = at + self.frames.len();
        let (before, rest) = chunk.get(at..end)?.split_at_checked(self.size_at)?;
        let (size, behind) = rest.split_first_chunk::<SIZE>()?;
        let (kept_before, kept) = self.frames.split_at_checked(self.size_at)?;
        let kept_behind = kept.get(SIZE..)?;
        let is_ahead = same(before, kept_before) && same(behind, kept_behind);
        is_ahead.then_some((u64::from_be_bytes(*size), end))
    }
}

/// The offsets of the payload of the frame at `at`, and of the next frame.
fn frame_at(frames: &[u8], at: usize) -> Option<(usize, usize)> {
    let [_, _, _, size @ ..] = frames.get(at..)?.first_chunk::<FRAME_HEADER_SIZE>()?;
    Some((at + FRAME_HEADER_SIZE, at + FRAME_OVERHEAD + u32::from_be_bytes(*size) as usize))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encoder::{Publish, encode_content};

    fn publish(key: &[u8], properties: &[u8], body_size: usize) -> (Vec<u8>, usize) {
        let mut frames = Vec::new();
        let method = Publish {
            channel: 1,
            exchange: b"",
            routing_key: key,
            mandatory: false,
            immediate: false,
        };
        encode_content(&mut frames, method, properties, &vec![7; body_size], 0);
        let body_frame = if body_size == 0 { 0 } else { body_size + FRAME_OVERHEAD };
        let end = frames.len() - body_frame;
        (frames, end)
    }

    proptest! {
        #[test]
        fn ahead_is_what_differs_in_nothing_but_the_body_size(
            key in prop::collection::vec(any::<u8>(), 0..255),
            properties in prop::collection::vec(any::<u8>(), 2..600),
            sizes in prop::array::uniform2(0..5000_usize),
            before in 0..10_usize,
            flipped in any::<prop::sample::Index>(),
        ) {
            let mut prelude = Prelude::default();
            let (first, end) = publish(&key, &properties, sizes[0]);
            prelude.keep(&first[..end]);
            let (second, end) = publish(&key, &properties, sizes[1]);
            let mut chunk = vec![9; before];
            chunk.extend_from_slice(&second);
            let ahead = prelude.ahead(&chunk, before);
            prop_assert_eq!(ahead, Some((sizes[1] as u64, before + end)));
            prop_assert_eq!(prelude.ahead(&chunk[..before + end - 1], before), None);

            let at = flipped.index(end);
            chunk[before + at] ^= 1;
            let size_at = prelude.size_at;
            let is_size = (size_at..size_at + SIZE).contains(&at);
            prop_assert_eq!(prelude.ahead(&chunk, before).is_some(), is_size);
            prelude.forget();
            prop_assert_eq!(prelude.ahead(&chunk, before), None);
        }

        #[test]
        fn whatever_is_kept_is_two_frames(octets in prop::collection::vec(0..40_u8, 0..200)) {
            let mut prelude = Prelude::default();
            prelude.keep(&octets);
            if let Some((_, end)) = prelude.ahead(&octets, 0) {
                prop_assert_eq!(end, octets.len());
            }
        }
    }

    #[test]
    fn a_large_one_is_not_kept() {
        let (frames, end) = publish(b"key", &[0; PRELUDE_SIZE_MAX], 1);
        let mut prelude = Prelude::default();
        prelude.keep(&frames[..end]);
        assert_eq!(prelude.ahead(&frames, 0), None);
    }
}
