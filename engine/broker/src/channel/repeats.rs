//! Publishes that repeat the one before them: of each of them only the body is new.

use bytes::Bytes;
use leveret_amqp::decoder::{Decoder, Whole};
use leveret_amqp::frame::FRAME_BODY;
use leveret_amqp::prelude::Prelude;

use crate::message::{BODY_COPY_MAX_BYTES, Body, Message, Messages, Upcoming};

/// Publishes of one channel that lie whole in a received chunk, one right behind the other, and
/// say what the last one said. Each is read when it is taken.
pub(super) struct Repeats<'a> {
    chunk: &'a Bytes,
    form: Form<'a>,
    /// All but their bodies.
    message: Message<'a>,
    /// The body frame of the next one.
    next: Option<Whole>,
    taken: Taken,
}

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

/// How much was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// Where in the chunk the last one ends.
    pub(super) end: usize,
    /// Bytes of their bodies.
    pub(super) body_bytes: u64,
}

impl<'a> Repeats<'a> {
    /// Those that begin at `at` in the chunk.
    #[inline(always)]
    pub(super) fn new(chunk: &'a Bytes, at: usize, form: Form<'a>, message: Message<'a>) -> Self {
        let taken = Taken { end: at, body_bytes: 0 };
        Self { chunk, form, message, next: form.read(chunk, at), taken }
    }

    /// How much was taken.
    pub(super) fn taken(&self) -> Taken {
        self.taken
    }
}

impl Form<'_> {
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

impl Messages for Repeats<'_> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        let mut message = self.message;
        while let Some(frame) = self.next {
            let data = frame.data();
            self.taken.end = frame.end;
            self.taken.body_bytes += data.len() as u64;
            self.next = self.form.read(self.chunk, frame.end);
            let goes_on = if data.len() <= BODY_COPY_MAX_BYTES {
                message.body = Body::Inline(&self.chunk[data]);
                take(&message)
            } else {
                take(&Message { body: Body::Pieces(&[self.chunk.slice(data)]), ..message })
            };
            if !goes_on {
                return;
            }
        }
    }
}

impl Upcoming for Repeats<'_> {
    #[inline(always)]
    fn is_over(&self) -> bool {
        self.next.is_none()
    }
}
