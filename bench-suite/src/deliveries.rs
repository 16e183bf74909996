//! What a consumer makes of the frames it receives: counted, checked messages.

use leveret_amqp::method::BasicDeliver;
use leveret_amqp::{Frame, Method};

use crate::client::refusal;
use crate::fault::Fault;
use crate::sequence::{STAMP_SIZE, SequenceCheck};

/// Class and method id of a `basic.deliver`, as they begin its frame.
const DELIVER_IDS: [u8; 4] = {
    let (class, method) = (BasicDeliver::IDS.0.to_be_bytes(), BasicDeliver::IDS.1.to_be_bytes());
    [class[0], class[1], method[0], method[1]]
};

/// The deliveries of one consumer. Each body is one stamp, no more and no less.
#[derive(Debug)]
pub(crate) struct Deliveries {
    pub(crate) check: SequenceCheck,
    /// Whole messages.
    count: u64,
    /// The part of a stamp that came so far, when its frame is split between two reads.
    partial: [u8; STAMP_SIZE],
    partial_size: usize,
}

impl Deliveries {
    pub(crate) const fn new(run: u64) -> Self {
        Self { check: SequenceCheck::new(run), count: 0, partial: [0; STAMP_SIZE], partial_size: 0 }
    }

    /// Whole messages so far. Delivery tags begin at 1, so this is the tag of the last one.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Takes the next frame.
    #[inline]
    pub(crate) fn take(&mut self, chunk: &[u8], frame: Frame<'_>) -> Result<(), Fault> {
        match frame {
            Frame::Body { data, last, .. } => {
                let data = &chunk[data];
                if let Ok(stamp) = data.try_into()
                    && self.partial_size == 0
                    && last
                {
                    self.check.note(stamp);
                    self.count += 1;
                    return Ok(());
                }
                self.take_part(data, last)
            }
            Frame::Method { payload, .. } if !payload.starts_with(&DELIVER_IDS) => {
                Err(refusal("basic.deliver", Method::decode(payload)?))
            }
            _ => Ok(()),
        }
    }

    #[inline(never)]
    fn take_part(&mut self, data: &[u8], last: bool) -> Result<(), Fault> {
        let end = self.partial_size + data.len();
        let wrong =
            || Fault::Messages(format!("a body has not the {STAMP_SIZE} B it was sent with"));
        let room = self.partial.get_mut(self.partial_size..end).ok_or_else(wrong)?;
        room.copy_from_slice(data);
        self.partial_size = end;
        if last {
            if end != STAMP_SIZE {
                return Err(wrong());
            }
            self.check.note(self.partial);
            self.count += 1;
            self.partial_size = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use leveret_amqp::Decoder;
    use leveret_amqp::encoder::{Deliver, encode_content};
    use leveret_amqp::method::{ChannelClose, encode_frame};
    use leveret_amqp::properties::NO_PROPERTIES;

    use super::*;
    use crate::sequence::stamp;

    fn deliveries(bodies: &[&[u8]]) -> Vec<u8> {
        let mut wire = Vec::new();
        for (body, delivery_tag) in bodies.iter().zip(1..) {
            let deliver = Deliver {
                channel: 1,
                consumer_tag: b"bench",
                delivery_tag,
                redelivered: false,
                exchange: b"",
                routing_key: b"q",
            };
            encode_content(&mut wire, deliver, NO_PROPERTIES, body, 0);
        }
        wire
    }

    fn take(wire: &[u8], chunk_size: usize) -> Result<Deliveries, Fault> {
        let (mut deliveries, mut decoder) = (Deliveries::new(7), Decoder::new(0));
        for chunk in wire.chunks(chunk_size) {
            let mut cursor = 0;
            while let Some(frame) = decoder.next(chunk, &mut cursor)? {
                deliveries.take(chunk, frame)?;
            }
        }
        Ok(deliveries)
    }

    #[test]
    fn messages_are_counted_however_the_stream_is_cut() {
        let stamps: Vec<_> = (0..20).map(|sequence| stamp(sequence, 7)).collect();
        let bodies: Vec<&[u8]> = stamps.iter().map(|stamp| &stamp[..]).collect();
        let wire = deliveries(&bodies);
        for chunk_size in 1..200 {
            let deliveries = take(&wire, chunk_size).unwrap();
            assert_eq!(deliveries.count(), 20, "in chunks of {chunk_size}");
            assert!(deliveries.check.verdict(20).is_clean(), "in chunks of {chunk_size}");
        }
    }

    #[test]
    fn bodies_of_another_size_are_a_fault() {
        for body in [&[0; 15][..], &[0; 17]] {
            for chunk_size in [1, 7, 1000] {
                assert!(take(&deliveries(&[body]), chunk_size).is_err(), "{}", body.len());
            }
        }
    }

    #[test]
    fn a_closed_channel_is_a_fault() {
        let close = ChannelClose { reply_code: 404, reply_text: "gone", class_id: 0, method_id: 0 };
        let mut wire = Vec::new();
        encode_frame(1, &close, &mut wire);
        let fault = take(&wire, 1000).unwrap_err().to_string();
        assert!(fault.contains("channel: 404 gone"), "{fault}");
    }
}
