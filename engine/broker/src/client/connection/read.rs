//! Reading: from received buffers to frames, and from frames to their channels.

use std::ops::Range;

use bytes::Bytes;
use leveret_amqp::decoder::{Decoder, Frame, FrameError};
use leveret_amqp::frame::{FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};

use crate::client::backend::Backend;
use crate::client::channel::{Answered, Awaited, Awaiting, Call, Channel};
use crate::client::frame_text::unexpected_frame;
use crate::delivery::operation::Operation;
use crate::error::Exception;
use crate::id::ChannelKey;

use super::close::Ending;
use super::{Connection, PENDING_BUFFERS_MAX, Stage};

/// Whether to go on with the next frame of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on.
    Frame,
    /// The stage or a block may have changed: check both first.
    Look,
}

impl Connection {
    /// Takes a received buffer.
    pub fn receive(&mut self, backend: &mut Backend, bytes: Bytes) {
        self.heartbeat.received = true;
        if self.is_blocked() || !self.pending.is_empty() {
            self.pending.push_back(bytes);
            if self.pending.len() > PENDING_BUFFERS_MAX && !self.paused {
                self.paused = true;
                backend.outputs.operations.push_back(Operation::Pause { connection: self.id });
            }
            return;
        }
        self.read_received(backend, bytes);
    }

    /// Continues the method whose answer has come.
    pub fn answered(&mut self, backend: &mut Backend, channel: ChannelKey, answer: Answered) {
        if channel.channel == 0 {
            return self.released(backend);
        }
        let Stage::Running(session) = &mut self.stage else {
            return;
        };
        let asked = session.awaiting.take_if(|awaiting| awaiting.channel == channel);
        let Some(Awaiting { method, what, .. }) = asked else {
            return;
        };
        match what {
            Awaited::Leave { homes, close } => self.home_left(backend, channel, homes, close),
            what => {
                self.call(backend, channel.channel, method, |call| call.answered(what, answer));
            }
        }
        self.resume(backend);
    }

    /// The awaited `basic.get` has been answered with a message.
    pub fn got(&mut self, backend: &mut Backend, channel: ChannelKey) {
        let Stage::Running(session) = &mut self.stage else {
            return;
        };
        if session.awaiting.take_if(|awaiting| awaiting.channel == channel).is_some() {
            self.resume(backend);
        }
    }

    /// Reads on, as far as the connection is not blocked.
    pub(super) fn resume(&mut self, backend: &mut Backend) {
        while !self.is_blocked()
            && let Some(bytes) = self.pending.pop_front()
        {
            self.read_received(backend, bytes);
        }
        if self.paused && self.pending.is_empty() && !self.is_blocked() {
            self.paused = false;
            backend.outputs.operations.push_back(Operation::Resume { connection: self.id });
        }
    }

    fn is_blocked(&self) -> bool {
        match &self.stage {
            Stage::Running(session) => session.is_blocked(),
            Stage::Closing(ending) => matches!(ending, Ending::AwaitRelease { .. }),
            Stage::Header(..) | Stage::Handshake(_) | Stage::Ended => false,
        }
    }

    fn read_received(&mut self, backend: &mut Backend, bytes: Bytes) {
        backend.home.store_mut().begin_received(&bytes);
        self.read(backend, bytes);
        backend.home.store_mut().end_received();
    }

    fn read(&mut self, backend: &mut Backend, mut bytes: Bytes) {
        if let Stage::Header(..) = self.stage {
            bytes = self.read_protocol_header(backend, bytes);
        }
        // Taken out: frames borrow from the decoder while the connection changes.
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(0));
        let mut cursor = 0;
        // Two readers in turn: `read_messages` takes what it can, and stops in front of a frame
        // that the general reader has to take.
        while self.reads_on() {
            let mut next = self.read_messages(backend, &decoder, &bytes, &mut cursor);
            if next == Next::Frame {
                next = match decoder.next(&bytes, &mut cursor) {
                    Ok(Some(frame)) => self.frame(backend, &frame, &bytes),
                    Ok(None) => break,
                    Err(error) => {
                        self.broken(backend, error);
                        break;
                    }
                };
            }
            if next == Next::Look {
                if let Stage::Running(session) = &self.stage {
                    // The handshake may just have ended, and larger frames follow in this buffer.
                    decoder.set_frame_size_max(session.opened.frame_size_max);
                }
                if self.is_blocked() {
                    if cursor < bytes.len() {
                        self.pending.push_front(bytes.slice(cursor..));
                    }
                    break;
                }
            }
        }
        self.decoder = decoder;
    }

    /// Whether frames are still read in this stage.
    #[inline]
    fn reads_on(&self) -> bool {
        !matches!(self.stage, Stage::Header(..) | Stage::Closing(Ending::Silent(_)) | Stage::Ended)
    }

    /// Reads frames of the channel that the last frame was for, while they lie completely in the
    /// chunk: the hot path. Stops in front of any other frame.
    #[inline]
    fn read_messages(
        &mut self,
        backend: &mut Backend,
        decoder: &Decoder,
        chunk: &Bytes,
        cursor: &mut usize,
    ) -> Next {
        let Stage::Running(session) = &mut self.stage else { return Next::Frame };
        let channel = self.channels.get_mut(self.last_channel).filter(|channel| !channel.closing);
        let Some(channel) = channel.map(|channel| &mut **channel) else { return Next::Frame };
        let number = channel.key.channel;
        let alarmed = backend.alarms.any();
        if !decoder.between_frames() {
            return Next::Frame;
        }
        let mut call = Call { backend: &mut *backend, session, channel };
        // Where the method frame of the message being read begins, to keep both frames in front of
        // its body as a prelude.
        let mut method_at = None;
        let (failed, exception) = loop {
            // Repeats of the last message first: they need no decoding.
            while let Some(on) = call.publish_again(decoder, chunk, *cursor) {
                *cursor = on;
                if call.session.blocks.any() {
                    return Next::Look;
                }
            }
            let whole = decoder.whole(chunk, *cursor).filter(|frame| frame.channel == number);
            let Some(frame) = whole else { return Next::Frame };
            let at = std::mem::replace(cursor, frame.end);
            let done = match frame.kind {
                FRAME_BODY => call.publish_body(chunk, frame.data(), true, true),
                FRAME_HEADER => {
                    let done = call.publish_header(&chunk[frame.data()]);
                    call.keep_prelude(method_at.map(|method_at| &chunk[method_at..frame.end]));
                    done
                }
                _ => match call.hot_method(&chunk[frame.data()]) {
                    Some(done) => {
                        method_at = Some(at);
                        done
                    }
                    None => {
                        let payload = &chunk[frame.data()];
                        return self.method(backend, number, payload);
                    }
                },
            };
            match done {
                Ok(()) if frame.kind == FRAME_METHOD => {}
                Ok(()) if alarmed || call.session.blocks.any() => return self.published(backend),
                Ok(()) => {}
                Err(exception) => break (frame.kind, exception),
            }
        };
        if failed == FRAME_METHOD {
            self.failed(backend, number, exception)
        } else {
            self.unpublished(backend, number, exception)
        }
    }

    /// Any frame, whole or in parts.
    #[inline(never)]
    fn frame(&mut self, backend: &mut Backend, frame: &Frame<'_>, chunk: &Bytes) -> Next {
        if !matches!(self.stage, Stage::Running(_)) {
            return self.frame_before_or_after(backend, frame, chunk);
        }
        match frame {
            Frame::Method { channel, payload } => self.method(backend, *channel, payload),
            Frame::Header { channel, payload } => self.header_frame(backend, *channel, payload),
            Frame::Body { channel, data, first, last } => {
                self.body_frame(backend, *channel, chunk, data.clone(), *first, *last)
            }
            Frame::Heartbeat { channel: 0 } => Next::Frame,
            Frame::Heartbeat { .. } => {
                self.fail(backend, 0, &unexpected_frame(FRAME_HEARTBEAT, &[]));
                Next::Look
            }
        }
    }

    fn header_frame(&mut self, backend: &mut Backend, number: u16, payload: &[u8]) -> Next {
        let Some((session, channel)) = self.open_channel(number) else {
            return self.stray_content(backend, number, FRAME_HEADER, payload);
        };
        match (Call { backend, session, channel }).publish_header(payload) {
            Ok(()) => self.published(backend),
            Err(exception) => self.unpublished(backend, number, exception),
        }
    }

    fn body_frame(
        &mut self,
        backend: &mut Backend,
        number: u16,
        chunk: &Bytes,
        data: Range<usize>,
        first: bool,
        last: bool,
    ) -> Next {
        let Some((session, channel)) = self.open_channel(number) else {
            return self.stray_content(backend, number, FRAME_BODY, &chunk[data]);
        };
        match (Call { backend, session, channel }).publish_body(chunk, data, first && last, last) {
            Ok(()) => self.published(backend),
            Err(exception) => self.unpublished(backend, number, exception),
        }
    }

    /// The session and the open channel of a number.
    fn open_channel(&mut self, number: u16) -> Option<(&mut super::Session, &mut Channel)> {
        let index = self.channel_index(number)?;
        let channel = &mut *self.channels[index];
        match &mut self.stage {
            Stage::Running(session) if !channel.closing => Some((session, channel)),
            _ => None,
        }
    }

    /// A publish failed. If that ends only its channel, it still counts as the publish that an
    /// alarm waits for.
    #[cold]
    fn unpublished(&mut self, backend: &mut Backend, number: u16, exception: Exception) -> Next {
        self.failed(backend, number, exception);
        self.published(backend);
        Next::Look
    }

    /// After a header or body frame of a publish: an alarm or a full lane may block the connection.
    #[inline]
    fn published(&mut self, backend: &mut Backend) -> Next {
        if backend.alarms.any() {
            self.block_by_alarm(backend);
        }
        match &self.stage {
            Stage::Running(session) if !session.blocks.any() => Next::Frame,
            _ => Next::Look,
        }
    }

    #[cold]
    pub(super) fn failed(
        &mut self,
        backend: &mut Backend,
        number: u16,
        exception: Exception,
    ) -> Next {
        self.fail(backend, number, &exception);
        Next::Look
    }

    /// Content for a channel that is not open.
    #[cold]
    fn stray_content(
        &mut self,
        backend: &mut Backend,
        number: u16,
        kind: u8,
        payload: &[u8],
    ) -> Next {
        if self.channel_index(number).is_some() {
            // The channel is closing: frames that were under way are ignored.
            return Next::Frame;
        }
        let exception = if number == 0 {
            unexpected_frame(kind, payload)
        } else {
            crate::client::channel::Content::default().unexpected()
        };
        self.failed(backend, 0, exception)
    }

    /// Bytes that are not a frame: nothing after them is read.
    #[cold]
    fn broken(&mut self, backend: &mut Backend, error: FrameError) {
        let exception = Exception::new(leveret_amqp::ReplyCode::FrameError, error.to_string());
        match &mut self.stage {
            Stage::Handshake(handshake) => {
                let step = handshake.refuse(exception);
                self.step(backend, step);
            }
            Stage::Running(_) => {
                self.close_connection(backend, &exception);
                // Frame boundaries are lost, so close-ok cannot be recognised either: wait a fixed
                // time.
                let delay_ns = backend.turn.settings.silent_close_delay_ns;
                self.arm(backend, delay_ns, super::Deadline::Close);
            }
            Stage::Header(..) | Stage::Closing(_) | Stage::Ended => {}
        }
    }
}

/// The kind octet and payload of a frame, for the text of a refusal.
pub(super) fn shown<'a>(frame: &'a Frame<'a>, chunk: &'a [u8]) -> (u8, &'a [u8]) {
    match frame {
        Frame::Method { payload, .. } => (FRAME_METHOD, payload),
        Frame::Header { payload, .. } => (FRAME_HEADER, payload),
        Frame::Body { data, .. } => (FRAME_BODY, &chunk[data.clone()]),
        Frame::Heartbeat { .. } => (FRAME_HEARTBEAT, &[]),
    }
}
