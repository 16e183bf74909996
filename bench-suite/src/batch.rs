//! A buffer of publishes that is encoded once; only the sequence numbers are written anew.

use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::properties::NO_PROPERTIES;

use crate::client::CHANNEL;
use crate::sequence::{STAMP_SIZE, stamp};

/// Octets of a sequence number, at the start of the body.
const SEQUENCE_SIZE: usize = 8;

/// What fills a body behind its stamp.
const FILLER: u8 = 0x2E;

/// Equal publishes to one queue, one behind the other.
#[derive(Debug)]
pub(crate) struct Batch {
    wire: Vec<u8>,
    /// Octets of one publish.
    stride: usize,
    /// Where its body begins.
    body_offset: usize,
}

impl Batch {
    /// As many publishes of `body_size` octets as fit in `size_max` octets, at least one.
    pub(crate) fn new(queue: &str, body_size: usize, run: u64, size_max: usize) -> Self {
        let mut body = vec![FILLER; body_size.max(STAMP_SIZE)];
        body[..STAMP_SIZE].copy_from_slice(&stamp(0, run));
        let publish = Publish {
            channel: CHANNEL,
            exchange: b"",
            routing_key: queue.as_bytes(),
            mandatory: false,
            immediate: false,
        };
        let mut one = Vec::new();
        encode_content(&mut one, publish, NO_PROPERTIES, &body, 0);
        let stride = one.len();
        let count = (size_max / stride).max(1);
        // The body is followed by the end octet of its frame.
        Self { wire: one.repeat(count), stride, body_offset: stride - body.len() - 1 }
    }

    /// How many publishes there are.
    pub(crate) fn count(&self) -> u64 {
        (self.wire.len() / self.stride) as u64
    }

    /// The first `count` publishes, numbered from `first` on; at most [`Self::count`].
    pub(crate) fn number(&mut self, first: u64, count: u64) -> &[u8] {
        let wire = &mut self.wire[..self.stride * count as usize];
        for (publish, sequence) in wire.chunks_exact_mut(self.stride).zip(first..) {
            publish[self.body_offset..self.body_offset + SEQUENCE_SIZE]
                .copy_from_slice(&sequence.to_be_bytes());
        }
        wire
    }
}

#[cfg(test)]
mod tests {
    use leveret_amqp::{Decoder, Frame};

    use super::*;

    fn bodies(wire: &[u8]) -> Vec<Vec<u8>> {
        let (mut decoder, mut cursor, mut bodies) = (Decoder::new(0), 0, Vec::new());
        while let Some(frame) = decoder.next(wire, &mut cursor).unwrap() {
            if let Frame::Body { data, .. } = frame {
                bodies.push(wire[data].to_vec());
            }
        }
        assert!(decoder.between_frames() && cursor == wire.len());
        bodies
    }

    #[test]
    fn each_publish_carries_its_number_and_run() {
        let mut batch = Batch::new("some queue", 16, 7, 1000);
        assert!((10..=14).contains(&batch.count()), "{} in 1000 octets", batch.count());
        for first in [0, 1 << 40] {
            let expected: Vec<_> = (first..first + 5).map(|n| stamp(n, 7).to_vec()).collect();
            assert_eq!(bodies(batch.number(first, 5)), expected);
        }
    }

    #[test]
    fn large_bodies_are_filled_and_one_always_fits() {
        let mut batch = Batch::new("q", 100, 9, 1);
        assert_eq!(batch.count(), 1);
        let body = [&stamp(3, 9)[..], &[FILLER; 84]].concat();
        assert_eq!(bodies(batch.number(3, 1)), [body]);
    }
}
