//! The record of a message.

use super::super::QueueRef;
use super::super::blocks::Blocks;
use super::{HEADER_BYTES, PUBLISH, Stamp, finish, long, pairs, word};
use crate::id::{Time, WallTime};
use crate::message::{Body, Message};

/// Bytes of a publish record before its queues.
pub(super) const PUBLISH_FIXED_BYTES: usize = HEADER_BYTES + 24;

/// In the flags: the record says when the message came, and its priority.
const ARRIVAL: u8 = 0x01;

/// In the flags: an extension area stands behind the body.
const EXTENSION: u8 = 0x02;

/// A message and the queues that hold it.
#[derive(Clone, Copy, Debug)]
pub struct PublishRecord<'a> {
    /// The queues with the message's sequence in each.
    pub queues: Queues<'a>,
    /// The exchange it was published to.
    pub exchange: &'a [u8],
    /// Its routing key.
    pub routing_key: &'a [u8],
    /// Property flags and values as received.
    pub properties: &'a [u8],
    /// Its body.
    pub body: Body<'a>,
    /// What was noted when it came; `None` in a record of format 1.0.
    pub arrival: Option<Arrival>,
    /// What a newer version says about the message; kept, and not understood here.
    pub extension: &'a [u8],
}

/// What was noted when a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When its last frame arrived.
    pub at: WallTime,
    /// Its property of that name, 0 where it has none.
    pub priority: u8,
}

/// The queues of a publish record, as values or as bytes.
#[derive(Clone, Copy, Debug)]
pub enum Queues<'a> {
    /// Before they are written.
    Values(&'a [QueueRef]),
    /// As they were read: 16 bytes each.
    Bytes(&'a [u8]),
}

impl Queues<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Values(values) => values.len(),
            Self::Bytes(bytes) => bytes.len() / 16,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = QueueRef> {
        let (values, bytes): (&[QueueRef], &[u8]) = match self {
            Self::Values(values) => (values, &[]),
            Self::Bytes(bytes) => (&[], bytes),
        };
        let read = pairs(bytes).map(|(log_id, sequence)| QueueRef { log_id, sequence });
        values.iter().copied().chain(read)
    }
}

impl<'a> PublishRecord<'a> {
    /// Of a message for these queues; `time` is now.
    #[inline]
    pub fn of(message: &Message<'a>, queues: &'a [QueueRef], time: Time) -> Self {
        let Message { exchange, routing_key, properties, body, published_at, .. } = *message;
        let priority = leveret_amqp::Properties::trusted(properties).priority().unwrap_or(0);
        let arrival = Some(Arrival { at: time.wall_of(published_at), priority });
        let queues = Queues::Values(queues);
        Self { queues, exchange, routing_key, properties, body, arrival, extension: &[] }
    }

    /// Bytes of the record of a message that so many queues hold.
    #[inline]
    pub fn length_of(message: &Message<'_>, queues: usize) -> usize {
        (PUBLISH_FIXED_BYTES + 16 * queues + message.size_bytes()).next_multiple_of(8)
    }

    /// Bytes of the record.
    #[inline]
    pub fn length(&self) -> usize {
        let names = self.exchange.len() + self.routing_key.len();
        let extension = if self.extension.is_empty() { 0 } else { 4 + self.extension.len() };
        let rest = names + self.properties.len() + self.body.len() + extension;
        (PUBLISH_FIXED_BYTES + 16 * self.queues.len() + rest).next_multiple_of(8)
    }

    /// Writes it.
    #[inline(always)]
    pub fn encode(&self, blocks: &mut Blocks, stamp: Stamp) {
        let start = blocks.len();
        let mut fixed = [0; PUBLISH_FIXED_BYTES];
        fixed[40..44].copy_from_slice(&(self.queues.len() as u32).to_le_bytes());
        fixed[44..48].copy_from_slice(&(self.properties.len() as u32).to_le_bytes());
        fixed[48..52].copy_from_slice(&(self.body.len() as u32).to_le_bytes());
        fixed[52] = self.exchange.len() as u8;
        fixed[53] = self.routing_key.len() as u8;
        if let Some(Arrival { at, priority }) = self.arrival {
            fixed[21] |= ARRIVAL;
            fixed[54] = priority;
            fixed[56..].copy_from_slice(&at.0.to_le_bytes());
        }
        if !self.extension.is_empty() {
            fixed[21] |= EXTENSION;
        }
        blocks.extend(&fixed);
        for QueueRef { log_id, sequence } in self.queues.iter() {
            let mut pair = [0; 16];
            pair[..8].copy_from_slice(&log_id.to_le_bytes());
            pair[8..].copy_from_slice(&sequence.to_le_bytes());
            blocks.extend(&pair);
        }
        blocks.extend(self.exchange);
        blocks.extend(self.routing_key);
        blocks.extend(self.properties);
        match self.body {
            Body::Inline(bytes) => blocks.extend(bytes),
            Body::Pieces(pieces) => pieces.iter().for_each(|piece| blocks.extend(piece)),
        }
        if !self.extension.is_empty() {
            blocks.extend(&(self.extension.len() as u32).to_le_bytes());
            blocks.extend(self.extension);
        }
        finish(blocks, start, PUBLISH, stamp);
    }

    pub(super) fn decode(record: &'a [u8]) -> Option<Self> {
        let fixed = record.first_chunk::<PUBLISH_FIXED_BYTES>()?;
        let rest = &record[PUBLISH_FIXED_BYTES..];
        let (queues, rest) = rest.split_at_checked(16 * word(record, 40)? as usize)?;
        let (exchange, rest) = rest.split_at_checked(usize::from(fixed[52]))?;
        let (routing_key, rest) = rest.split_at_checked(usize::from(fixed[53]))?;
        let (properties, rest) = rest.split_at_checked(word(record, 44)? as usize)?;
        let (body, rest) = rest.split_at_checked(word(record, 48)? as usize)?;
        let (queues, body) = (Queues::Bytes(queues), Body::Inline(body));
        let flags = fixed[21];
        let arrival = if flags & ARRIVAL == 0 {
            None
        } else {
            Some(Arrival { at: WallTime(long(record, 56)?), priority: fixed[54] })
        };
        let extension = if flags & EXTENSION == 0 {
            &[]
        } else {
            rest.get(4..)?.get(..word(rest, 0)? as usize)?
        };
        Some(Self { queues, exchange, routing_key, properties, body, arrival, extension })
    }
}
