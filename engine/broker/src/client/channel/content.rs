//! The message that a channel is receiving: method, then header, then bodies.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use leveret_amqp::method::BasicPublish;
use leveret_amqp::octets::same;
use leveret_amqp::properties::{ContentHeader, relayable, validate};
use leveret_amqp::{PropertiesError, ReplyCode};

use crate::error::Exception;
use crate::message::{BODY_COPY_MAX_BYTES, Body, Likeness};
use crate::settings::{BODY_SIZE_MAX_BYTES, Settings};

/// A part of a large body below this size is a crumb: it is shorter than a full frame of the
/// smallest `frame_max`, 4096 octets.
const CRUMB_BELOW_BYTES: usize = 4096 - 8;

/// Crumbs of any body that are kept by reference: its ends, and one frame cut by a receive buffer.
const FREE_CRUMBS: u64 = 4;

/// For this many bytes of body, one more crumb is kept by reference: a receive buffer of 64 KiB
/// cuts one frame in two. Further crumbs are copied together, so that a body sent in crumbs costs
/// its bytes, and not a reference and a pinned receive buffer per crumb.
const BYTES_PER_FREE_CRUMB: u64 = 32 << 10;

/// Gathered parts become one piece at this size.
const GATHERED_MAX_BYTES: usize = 64 << 10;

/// Empty body frames that one message may have: they carry nothing, and each costs time.
const EMPTY_FRAMES_MAX: u8 = 64;

/// The class of all content.
const CLASS_BASIC: u16 = 60;

/// Assembles one message at a time.
#[derive(Debug, Default)]
pub struct Content {
    stage: Stage,
    /// The publisher wants it back if it reaches no queue.
    pub mandatory: bool,
    /// Flags and values as received.
    pub properties: Vec<u8>,
    body_size: u64,
    empty_frames: u8,
    small: Vec<u8>,
    pieces: Vec<Bytes>,
    gathered: BytesMut,
    /// Crumbs kept by reference.
    crumbs: u64,
    /// Bytes copied since the caller last took this count.
    pub copied_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    Header,
    Body {
        remaining: u64,
    },
}

impl Content {
    /// Whether no message is being received, so that a method may come.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Begins a message with its `basic.publish`; the header is next.
    #[inline]
    pub fn begin(&mut self, publish: &BasicPublish<'_>) {
        self.stage = Stage::Header;
        self.mandatory = publish.mandatory;
    }

    /// Begins a message whose method and header are those of the last one, except for the body
    /// size. False, and nothing has changed, if that size needs the full check.
    #[inline(always)]
    pub fn again(&mut self, body_size: u64, settings: &Settings) -> bool {
        if body_size == 0 || body_size > settings.message_size_max_bytes {
            return false;
        }
        self.expect_body(body_size);
        true
    }

    #[inline(always)]
    fn expect_body(&mut self, body_size: u64) {
        self.body_size = body_size;
        self.empty_frames = 0;
        self.crumbs = 0;
        self.stage = Stage::Body { remaining: body_size };
    }

    /// Takes the content header. True when the message is complete (it has no body). Sets
    /// `likeness` to unknown if the properties differ from those of the last message.
    #[inline(always)]
    pub fn header(
        &mut self,
        payload: &[u8],
        settings: &Settings,
        likeness: &mut Likeness,
    ) -> Result<bool, Exception> {
        if self.stage != Stage::Header {
            return Err(self.unexpected());
        }
        let header = ContentHeader::decode(payload).map_err(malformed)?;
        if header.class_id != CLASS_BASIC || header.weight != 0 {
            return Err(misplaced(&header));
        }
        // Properties equal to the last ones were validated then. Empty means there were none yet.
        if self.properties.is_empty() || !same(header.properties, &self.properties) {
            *likeness = Likeness::UNKNOWN;
            self.take_properties(header.properties)?;
        }
        if header.body_size > settings.message_size_max_bytes {
            return Err(oversized(header.body_size, settings.message_size_max_bytes));
        }
        self.expect_body(header.body_size);
        if header.body_size == 0 {
            self.stage = Stage::Idle;
        }
        Ok(self.is_idle())
    }

    #[inline(never)]
    fn take_properties(&mut self, properties: &[u8]) -> Result<(), Exception> {
        validate(properties).map_err(malformed)?;
        self.properties.clear();
        self.properties.extend_from_slice(&relayable(properties));
        Ok(())
    }

    /// Takes a part of a body frame. True when the message is complete.
    pub fn body(
        &mut self,
        chunk: &Bytes,
        data: Range<usize>,
        last: bool,
    ) -> Result<bool, Exception> {
        let Stage::Body { remaining } = self.stage else {
            return Err(self.unexpected());
        };
        let length = data.len() as u64;
        if length > remaining {
            let text = format!(
                "content body size exceeds remaining content size: got {length}, expected at most \
                 {remaining}"
            );
            return Err(Exception::new(ReplyCode::FrameError, text).of(BasicPublish::IDS));
        }
        if length == 0 {
            self.empty_frames += 1;
            if self.empty_frames > EMPTY_FRAMES_MAX {
                return Err(Exception::new(ReplyCode::FrameError, "too many empty body frames")
                    .of(BasicPublish::IDS));
            }
        }
        self.keep(chunk, data, self.body_size - remaining);
        let remaining = remaining - length;
        self.stage = Stage::Body { remaining };
        if remaining > 0 || !last {
            return Ok(false);
        }
        self.stage = Stage::Idle;
        self.flush_gathered();
        Ok(true)
    }

    /// Takes a body that is one complete frame, the most common case. False, and nothing has
    /// changed, if this frame is not the whole body.
    #[inline]
    pub fn whole_body(&mut self, length: usize) -> bool {
        let whole = self.stage == Stage::Body { remaining: length as u64 }
            && self.body_size == length as u64;
        if whole {
            self.stage = Stage::Idle;
        }
        whole
    }

    /// The assembled body.
    pub fn assembled(&self) -> Body<'_> {
        if self.body_size <= BODY_COPY_MAX_BYTES as u64 {
            Body::Inline(&self.small)
        } else {
            Body::Pieces(&self.pieces)
        }
    }

    /// The exception for a frame out of the order method, header, bodies (505).
    #[cold]
    pub fn unexpected(&self) -> Exception {
        let (text, method) = match self.stage {
            Stage::Idle => ("expected method frame, got non method frame instead", (0, 0)),
            Stage::Header => (
                "expected content header for class 60, got non content header frame instead",
                BasicPublish::IDS,
            ),
            Stage::Body { .. } => {
                ("expected content body, got non content body frame instead", BasicPublish::IDS)
            }
        };
        Exception::new(ReplyCode::UnexpectedFrame, text).of(method)
    }

    /// Keeps a part of the body; `received` bytes came before it.
    fn keep(&mut self, chunk: &Bytes, data: Range<usize>, received: u64) {
        if data.is_empty() {
            return;
        }
        if self.body_size <= BODY_COPY_MAX_BYTES as u64 {
            self.copied_bytes += data.len() as u64;
            self.small.extend_from_slice(&chunk[data]);
            return;
        }
        if data.len() < CRUMB_BELOW_BYTES {
            if self.crumbs >= FREE_CRUMBS + received / BYTES_PER_FREE_CRUMB {
                self.copied_bytes += data.len() as u64;
                self.gathered.extend_from_slice(&chunk[data]);
                if self.gathered.len() >= GATHERED_MAX_BYTES {
                    self.flush_gathered();
                }
                return;
            }
            self.crumbs += 1;
        }
        // Gathered crumbs come first in the body, so they become a piece before this one.
        self.flush_gathered();
        self.pieces.push(chunk.slice(data));
    }

    fn flush_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.pieces.push(self.gathered.split().freeze());
        }
    }
}

/// RabbitMQ receives the whole body before it refuses; we refuse at the header.
#[cold]
fn oversized(size: u64, max: u64) -> Exception {
    if size > BODY_SIZE_MAX_BYTES {
        let text = format!("content size {size} is larger than any message may be");
        return Exception::new(ReplyCode::FrameError, text).of(BasicPublish::IDS);
    }
    let text = format!("message size {size} is larger than configured max size {max}");
    Exception::precondition_failed(text).of(BasicPublish::IDS)
}

#[cold]
fn malformed(error: PropertiesError) -> Exception {
    Exception::new(error.reply_code(), error.to_string()).of(BasicPublish::IDS)
}

#[cold]
fn misplaced(header: &ContentHeader<'_>) -> Exception {
    let text = if header.class_id == CLASS_BASIC {
        format!("content header weight {} is not 0", header.weight)
    } else {
        format!(
            "expected content header for class 60, got one for class {} instead",
            header.class_id
        )
    };
    Exception::new(ReplyCode::UnexpectedFrame, text).of(BasicPublish::IDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_header_without_flags_is_refused() {
        let publish = BasicPublish::decode(&[0, 0, 0, 0, 0]).expect("no names, no bits");
        let mut content = Content::default();
        content.begin(&publish);
        let (settings, mut likeness) = (Settings::default(), Likeness::UNKNOWN);
        let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(content.header(&header, &settings, &mut likeness).is_err());
    }
}
