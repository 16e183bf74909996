//! Publishes that repeat the one before them: of each of them only the body is new.

use std::ops::Range;
use std::slice;

use bytes::Bytes;
use leveret_amqp::decoder::{Decoder, Whole};
use leveret_amqp::frame::FRAME_BODY;
use leveret_amqp::prelude::Prelude;

use crate::mesh::batch::BATCH_BYTES_MAX;
use crate::message::{BODY_COPY_MAX_BYTES, Body, Message, Messages, Upcoming};

/// So many go together at most. They share some 300 instructions, so that a longer run would save
/// less than 5 of each; and a publisher overruns what stops it by as many: a backlog, a lane, the
/// log.
const REPEATS_MAX: usize = 64;

/// And no more of such that have so many bytes: what fills a batch of mail is as many as a lane is
/// to be overrun by.
const REPEATS_BYTES_MAX: u64 = BATCH_BYTES_MAX as u64;

/// What publishes look like that are repeats.
#[derive(Clone, Copy)]
pub(super) struct Form<'a> {
    /// Of their connection.
    pub(super) decoder: &'a Decoder,
    /// What is in front of their bodies.
    pub(super) prelude: &'a Prelude,
    /// The number of their channel.
    pub(super) channel: u16,
    /// The largest body that needs no closer look.
    pub(super) body_size_max: u64,
}

/// Where the bodies of repeats are that lie whole in a received chunk, one right behind the other.
pub(super) struct Found {
    bodies: [Range<usize>; REPEATS_MAX],
    count: usize,
    /// Where the last one ends.
    pub(super) end: usize,
    /// Bytes of their bodies.
    pub(super) body_bytes: u64,
}

/// Repeats on their way to their queues.
#[derive(Clone)]
pub(super) struct Repeats<'a> {
    chunk: &'a Bytes,
    bodies: slice::Iter<'a, Range<usize>>,
    /// All but their bodies.
    message: Message<'a>,
}

impl Form<'_> {
    /// Reads the repeats that begin at `at`.
    #[inline(always)]
    pub(super) fn find(&self, chunk: &[u8], at: usize) -> Found {
        let bodies = [const { 0..0 }; REPEATS_MAX];
        let mut found = Found { bodies, count: 0, end: at, body_bytes: 0 };
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
        // An empty body has no frame: what follows belongs to something else.
        let is_body = (frame.kind, frame.channel) == (FRAME_BODY, self.channel)
            && frame.data().len() as u64 == body_size
            && (1..=self.body_size_max).contains(&body_size);
        is_body.then_some(frame)
    }
}

impl Found {
    /// As messages, which are `message` but for their bodies.
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
