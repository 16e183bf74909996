//! The layout of a message in a segment.
//!
//! ```text
//! record   ┌──────┬───────────┬────────┬─────────┬──────┐
//!          │ id 4 │ context 3 │ body 2 │ context │ body │
//!          └──────┴───────────┴────────┴─────────┴──────┘
//! context  ┌─────────────┬────────────┬──────┬──────┬─────────────┬──────────┬─────┬────────────┐
//!          │ published 8 │ likeness 8 │ xl 1 │ kl 1 │ props-len 4 │ exchange │ key │ properties │
//!          └─────────────┴────────────┴──────┴──────┴─────────────┴──────────┴─────┴────────────┘
//! ```
//! Messages of one turn usually share arrival time, route and properties. So a record has a context
//! only if the record before it has a different one. The 3 bytes `context` are the offset of the
//! record that has it: the record itself or an earlier one. A body that is [`SHARED`] is replaced
//! by its number, 4 bytes.

use crate::id::Instant;
use crate::message::{Body, Likeness, Message};

/// Bytes of the fields that every record has.
const FIXED_BYTES: usize = 9;

/// Bytes of a context before its names.
const CONTEXT_BYTES: usize = 22;

/// Stands for the length if the body is not in the record.
const SHARED: u16 = u16::MAX;

/// Where the body of a record rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// In the record: its length.
    Inline(u16),
    /// In memory that is shared with outboxes: its number.
    Shared(u32),
}

/// The last record of a segment that has a context.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastContext {
    at: u32,
    published_at: Instant,
    likeness: Likeness,
}

/// A record's fixed part, read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) id: u32,
    pub(super) body: Rest,
    /// Offset in the segment of the record that has the context of this one.
    context: usize,
    /// Offset in the segment of the body, or of its number.
    body_at: usize,
}

/// An upper bound of the bytes of a record for this message: it counts a context.
#[inline]
pub(super) fn room_for(message: &Message<'_>, body: Rest) -> usize {
    let inline = if let Rest::Inline(length) = body { usize::from(length) } else { 4 };
    let names = message.exchange.len() + message.routing_key.len();
    FIXED_BYTES + CONTEXT_BYTES + names + message.properties.len() + inline
}

/// Writes a record at `at`; returns where it ends. `last` is the last record with a context; if
/// this record has one, `last` becomes this record.
#[inline(always)]
pub(super) fn write(
    segment: &mut [u8],
    at: usize,
    last: &mut Option<LastContext>,
    id: u32,
    message: &Message<'_>,
    body: Rest,
) -> usize {
    let mut body_at = at + FIXED_BYTES;
    let context = match last {
        Some(last) if last.is_of(segment, message) => last.at,
        _ => {
            let (published_at, likeness) = (message.published_at, message.likeness);
            *last = Some(LastContext { at: at as u32, published_at, likeness });
            body_at += write_context(&mut segment[body_at..], message);
            at as u32
        }
    };
    let length = if let Rest::Inline(length) = body { length } else { SHARED };
    let fixed = &mut segment[at..at + FIXED_BYTES];
    let word = u64::from(id) | u64::from(context) << 32 | u64::from(length) << 56;
    fixed[..8].copy_from_slice(&word.to_le_bytes());
    fixed[8] = (length >> 8) as u8;
    match (body, message.body) {
        (Rest::Shared(number), _) => write_at(segment, body_at, &number.to_le_bytes()),
        (Rest::Inline(_), Body::Inline(bytes)) => write_at(segment, body_at, bytes),
        (Rest::Inline(_), Body::Pieces(pieces)) => {
            pieces.iter().fold(body_at, |at, piece| write_at(segment, at, piece))
        }
    }
}

/// Returns where the bytes end.
#[inline(always)]
fn write_at(segment: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let end = at + bytes.len();
    segment[at..end].copy_from_slice(bytes);
    end
}

/// Returns how many bytes it wrote.
#[inline(never)]
fn write_context(to: &mut [u8], message: &Message<'_>) -> usize {
    let mut fixed = [0; CONTEXT_BYTES];
    fixed[..8].copy_from_slice(&message.published_at.0.to_le_bytes());
    fixed[8..16].copy_from_slice(&message.likeness.to_bytes());
    fixed[16] = message.exchange.len() as u8;
    fixed[17] = message.routing_key.len() as u8;
    fixed[18..].copy_from_slice(&(message.properties.len() as u32).to_le_bytes());
    let parts = [&fixed[..], message.exchange, message.routing_key, message.properties];
    parts.into_iter().fold(0, |at, part| write_at(to, at, part))
}

impl LastContext {
    /// Whether this message has the same context. The likeness saves comparing names.
    #[inline]
    fn is_of(&self, segment: &[u8], message: &Message<'_>) -> bool {
        self.published_at == message.published_at
            && (self.likeness.is(message.likeness) || has_names_of(segment, self.at, message))
    }
}

#[inline(never)]
fn has_names_of(segment: &[u8], at: u32, message: &Message<'_>) -> bool {
    let like = context(segment, at as usize);
    (like.exchange, like.routing_key, like.properties)
        == (message.exchange, message.routing_key, message.properties)
}

/// A message with the context of the record at `at`, which must have one, and no body.
#[inline]
fn context(segment: &[u8], at: usize) -> Message<'_> {
    let (fixed, names) = segment[at + FIXED_BYTES..].split_at(CONTEXT_BYTES);
    let (exchange, rest) = names.split_at(usize::from(fixed[16]));
    let (routing_key, rest) = rest.split_at(usize::from(fixed[17]));
    Message {
        exchange,
        routing_key,
        properties: &rest[..word(&fixed[18..]) as usize],
        body: Body::Inline(&[]),
        published_at: Instant(long(fixed)),
        likeness: Likeness::from_bytes(long(&fixed[8..]).to_le_bytes()),
    }
}

#[inline]
fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[inline]
fn long(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Header {
    /// Reads the record at `at`.
    #[inline]
    pub(super) fn read(segment: &[u8], at: usize) -> Self {
        let fixed = &segment[at..at + FIXED_BYTES];
        let first = long(fixed);
        let context = (first >> 32) as usize & 0xFF_FFFF;
        let length = (first >> 56) as u16 | u16::from(fixed[8]) << 8;
        let mut body_at = at + FIXED_BYTES;
        if context == at {
            body_at += context_bytes(&segment[body_at..]);
        }
        let body = match length {
            SHARED => Rest::Shared(word(&segment[body_at..])),
            length => Rest::Inline(length),
        };
        Self { id: first as u32, body, context, body_at }
    }

    /// Where the next record is.
    #[inline]
    pub(super) fn end(&self) -> usize {
        self.body_at + self.body_bytes()
    }

    /// Offset in the segment of the record that has the context of this one.
    #[inline]
    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// The message; a shared body is left empty.
    #[inline]
    pub(super) fn message<'a>(&self, segment: &'a [u8]) -> Message<'a> {
        Message { body: self.inline_body(segment), ..context(segment, self.context) }
    }

    /// The body; empty if it is shared.
    #[inline]
    pub(super) fn inline_body<'a>(&self, segment: &'a [u8]) -> Body<'a> {
        let length = if let Rest::Inline(length) = self.body { usize::from(length) } else { 0 };
        Body::Inline(&segment[self.body_at..self.body_at + length])
    }

    /// Bytes of the body, or of its number if it is shared.
    #[inline]
    fn body_bytes(&self) -> usize {
        match self.body {
            Rest::Inline(length) => usize::from(length),
            Rest::Shared(_) => 4,
        }
    }
}

#[inline(never)]
fn context_bytes(context: &[u8]) -> usize {
    let names = usize::from(context[16]) + usize::from(context[17]);
    CONTEXT_BYTES + names + word(&context[18..]) as usize
}
