//! Publishes that repeat the one before them in everything but the body.

use std::ops::Range;
use std::slice;

use bytes::Bytes;
use leveret_amqp::decoder::{Decoder, Whole};
use leveret_amqp::frame::FRAME_BODY;
use leveret_amqp::prelude::Prelude;

use crate::mesh::batch::BATCH_BYTES_MAX;
use crate::message::{BODY_COPY_MAX_BYTES, Body, Message, Messages, Upcoming};

/// Most publishes of one run. A run shares some 300 instructions, so a longer one would save less
/// than 5 per publish. A publisher may overshoot a limit (backlog, lane, log) by one run.
const REPEATS_MAX: usize = 64;

/// Byte limit of one run: one mail batch, which is also how far a publisher may overshoot a full
/// lane.
const REPEATS_BYTES_MAX: u64 = BATCH_BYTES_MAX as u64;

/// The pattern that a repeat matches: the frames of the last publish, then one body frame.
#[derive(Clone, Copy)]
pub(super) struct Form<'a> {
    /// The decoder of the connection.
    pub(super) decoder: &'a Decoder,
    /// The method and header frames of the last publish.
    pub(super) prelude: &'a Prelude,
    /// The channel number of the body frame.
    pub(super) channel: u16,
    /// The message size limit; a larger body is left to the slow path, which refuses it.
    pub(super) body_size_max: u64,
}

/// A run of complete publishes in a received chunk, one right behind the other.
pub(super) struct Found {
    /// Where in the chunk the bodies are; the first `count` are valid.
    bodies: [Range<usize>; REPEATS_MAX],
    count: usize,
    /// Where the last publish ends.
    pub(super) end: usize,
    /// Bytes of all bodies.
    pub(super) body_bytes: u64,
}

/// The messages of a run, for [`Backend::send_to_queues`](crate::client::backend::Backend).
#[derive(Clone)]
pub(super) struct Repeats<'a> {
    chunk: &'a Bytes,
    bodies: slice::Iter<'a, Range<usize>>,
    /// Their common part, without body.
    message: Message<'a>,
}

impl Form<'_> {
    /// Reads the run of repeats that begins at `at`; it may be empty.
    #[inline(always)]
    pub(super) fn find(&self, chunk: &[u8], at: usize) -> Found {
        let bodies = [const { 0..0 }; REPEATS_MAX];
        let mut found = Found { bodies, count: 0, end: at, body_bytes: 0 };
        // A run ends at its limits, at the first publish that is not a repeat, and at one that is
        // cut by the end of the chunk: the frames that follow are read one by one.
        for body in &mut found.bodies {
            if found.body_bytes >= REPEATS_BYTES_MAX {
                break;
            }
            let Some(frame) = self.read(chunk, found.end) else { break };
            *body = frame.data();
            found.count += 1;
            found.end = frame.end;
            found.body_bytes += body.len() as u64;
        }
        found
    }

    /// The body frame of the repeat at `at`, if there is one.
    #[inline(always)]
    fn read(&self, chunk: &[u8], at: usize) -> Option<Whole> {
        let (body_size, body_at) = self.prelude.ahead(chunk, at)?;
        let frame = self.decoder.whole(chunk, body_at)?;
        // The body must be exactly one frame. An empty body has none: the frame that follows its
        // header belongs to the next method.
        let is_body = (frame.kind, frame.channel) == (FRAME_BODY, self.channel)
            && frame.data().len() as u64 == body_size
            && (1..=self.body_size_max).contains(&body_size);
        is_body.then_some(frame)
    }
}

impl Found {
    /// The publishes as messages: `message` with the body of each.
    #[inline(always)]
    pub(super) fn of<'a>(&'a self, chunk: &'a Bytes, message: Message<'a>) -> Repeats<'a> {
        Repeats { chunk, bodies: self.bodies[..self.count].iter(), message }
    }
}

impl Messages for Repeats<'_> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        let mut message = self.message;
        for body in self.bodies.by_ref() {
            let goes_on = if body.len() <= BODY_COPY_MAX_BYTES {
                message.body = Body::Inline(&self.chunk[body.clone()]);
                take(&message)
            } else {
                take(&Message { body: Body::Pieces(&[self.chunk.slice(body.clone())]), ..message })
            };
            if !goes_on {
                return;
            }
        }
    }
}

impl Upcoming for Repeats<'_> {
    #[inline(always)]
    fn count(&self) -> usize {
        self.bodies.len()
    }
}
