//! The frames around the body of a delivery, kept from one to the next.
//!
//! ```text
//! ┌──────────────────────────────┬─────────────────────────────┬───────────┐         ┌──────┐
//! │ basic.deliver frame          │ content header frame        │ body head │  body   │ 0xCE │
//! │ … tag, DELIVERY TAG, BIT, …  │ … body size, properties     │           │         │      │
//! └──────────────────────────────┴─────────────────────────────┴───────────┘         └──────┘
//!  the part in capitals changes with each delivery, the rest usually does not
//! ```

use crate::encoder::{Deliver, body_frame_size_max, encode_content_prefix};
use crate::frame::{FRAME_BODY, FRAME_HEADER_SIZE, frame_header};
use crate::octets::same;
use crate::properties::CONTENT_HEADER_FIXED_SIZE;
use crate::wire::SHORTSTR_SIZE_MAX;

/// A larger envelope is not kept: copying it costs as much as encoding it, and a consumer must not
/// hold memory for the largest properties it was ever sent.
const ENVELOPE_SIZE_MAX: usize = 1024;

/// The frames of a consumer's last delivery, without the body and the last octet.
#[derive(Debug, Default)]
pub struct Envelope {
    frames: Vec<u8>,
    /// Offset of the delivery tag; the redelivered bit is behind it.
    tag_at: usize,
    exchange: (usize, usize),
    routing_key: (usize, usize),
    properties: (usize, usize),
    body_size: usize,
}

impl Envelope {
    /// The body size that this envelope suits, in octets; 0 if it suits none.
    #[inline(always)]
    pub const fn body_size(&self) -> usize {
        self.body_size
    }

    /// Whether a delivery differs from the last one only in delivery tag, redelivered bit and the
    /// octets of its body.
    pub fn suits(
        &self,
        exchange: &[u8],
        routing_key: &[u8],
        properties: &[u8],
        body_size: usize,
    ) -> bool {
        let is = |(start, end): (usize, usize), octets| {
            self.frames.get(start..end).is_some_and(|kept| same(kept, octets))
        };
        self.body_size == body_size
            && body_size > 0
            && is(self.routing_key, routing_key)
            && is(self.exchange, exchange)
            && is(self.properties, properties)
    }

    /// Encodes another envelope. False if the delivery can have none: no body, a body of several
    /// frames, or names and properties too large to keep.
    #[inline(never)]
    pub fn render(
        &mut self,
        deliver: Deliver<'_>,
        properties: &[u8],
        body_size: usize,
        frame_size_max: u32,
    ) -> bool {
        self.body_size = 0;
        let names = [deliver.consumer_tag, deliver.exchange, deliver.routing_key];
        if body_size == 0
            || body_size > body_frame_size_max(frame_size_max) as usize
            || names.iter().any(|name| name.len() > SHORTSTR_SIZE_MAX)
            || !is_small_enough(names, properties)
        {
            return false;
        }
        self.frames.clear();
        encode_content_prefix(&mut self.frames, deliver, properties, body_size as u64);
        let behind = |start: usize, octets: &[u8]| (start, start + octets.len());
        // Between the fields: class and method id and the length of the consumer tag (5), delivery
        // tag, bit and the length of the exchange name (10), then one length octet each.
        self.tag_at = behind(FRAME_HEADER_SIZE + 5, deliver.consumer_tag).1;
        self.exchange = behind(self.tag_at + 10, deliver.exchange);
        self.routing_key = behind(self.exchange.1 + 1, deliver.routing_key);
        let header = self.routing_key.1 + 1 + FRAME_HEADER_SIZE;
        self.properties = behind(header + CONTENT_HEADER_FIXED_SIZE, properties);
        let head = frame_header(FRAME_BODY, deliver.channel, body_size as u32);
        self.frames.extend_from_slice(&head);
        self.body_size = body_size;
        true
    }

    /// Appends all octets before the body. The caller then appends the body and a
    /// [`crate::frame::FRAME_END`].
    #[inline(always)]
    pub fn write(&self, out: &mut Vec<u8>, delivery_tag: u64, redelivered: bool) {
        let start = out.len();
        out.reserve(self.frames.len() + self.body_size + 1);
        out.extend_from_slice(&self.frames);
        let tag = out.get_mut(start + self.tag_at..);
        if let Some([tag @ .., bit]) = tag.and_then(|tag| tag.first_chunk_mut::<9>()) {
            *tag = delivery_tag.to_be_bytes();
            *bit = u8::from(redelivered);
        }
    }
}

/// Whether an envelope with these names and properties is kept.
fn is_small_enough(names: [&[u8]; 3], properties: &[u8]) -> bool {
    names.iter().map(|name| name.len()).sum::<usize>() + properties.len() <= ENVELOPE_SIZE_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encoder::encode_content;
    use crate::frame::FRAME_END;

    fn octets(max: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..max)
    }

    fn message() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>)> {
        // Few values, so that a message often suits the envelope of the one before.
        let name = prop_oneof![Just(Vec::new()), Just(b"events".to_vec()), octets(80)];
        let key = prop_oneof![Just(b"work".to_vec()), octets(255)];
        let properties = prop_oneof![Just(vec![0, 0]), Just(vec![0x10, 0, 2]), octets(1200)];
        let body = prop_oneof![Just(vec![1; 16]), octets(40), Just(vec![2; 5000])];
        (name, key, properties, body)
    }

    proptest! {
        #[test]
        fn an_envelope_and_its_body_are_what_the_encoder_writes(
            messages in prop::collection::vec((message(), any::<u64>(), any::<bool>()), 1..20),
            consumer_tag in octets(60),
            channel in any::<u16>(),
        ) {
            let mut envelope = Envelope::default();
            for ((exchange, routing_key, properties, body), delivery_tag, redelivered) in messages {
                let deliver = Deliver {
                    channel,
                    consumer_tag: &consumer_tag,
                    delivery_tag,
                    redelivered,
                    exchange: &exchange,
                    routing_key: &routing_key,
                };
                let suits = envelope.suits(&exchange, &routing_key, &properties, body.len());
                if !suits && !envelope.render(deliver, &properties, body.len(), 4096) {
                    let names = [&consumer_tag[..], &exchange, &routing_key];
                    prop_assert!(
                        body.is_empty()
                            || body.len() > body_frame_size_max(4096) as usize
                            || !is_small_enough(names, &properties)
                    );
                    continue;
                }
                let mut written = Vec::new();
                envelope.write(&mut written, delivery_tag, redelivered);
                written.extend_from_slice(&body);
                written.push(FRAME_END);
                let mut encoded = Vec::new();
                encode_content(&mut encoded, deliver, &properties, &body, 4096);
                prop_assert_eq!(written, encoded);
            }
        }
    }
}
