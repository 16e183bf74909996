//! Cuts a byte stream into frames, chunk by chunk.
//!
//! A frame that lies whole in the chunk is borrowed from it. A method or content header frame that
//! straddles chunks is gathered in the decoder's own buffer, which grows with the received octets,
//! never with the declared size. Body octets are never copied: a straddling body frame is handed
//! out in parts, each a range of the current chunk.

use std::ops::Range;

use thiserror::Error;

use crate::frame::{
    FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEADER_SIZE, FRAME_HEARTBEAT, FRAME_METHOD,
    FRAME_OVERHEAD,
};
use crate::reply::ReplyCode;

/// The largest method or content header frame while `frame-max` is 0 (no limit), in octets. These
/// frames are held in memory until they are complete. 16 MiB is the default limit of a message; its
/// metadata need not be larger.
pub const GATHERED_SIZE_MAX: u32 = 16 * 1024 * 1024;

/// A gathering buffer above this size is freed after its frame was read, so that an idle connection
/// does not keep memory for its largest header: the size of the smallest `frame-max`.
const GATHERED_SIZE_KEPT: usize = 4096;

/// One frame, or one part of a body frame.
#[derive(Debug, Clone, PartialEq, Eq)]
// Laid out by hand: with the channel in one place for all kinds, reading it early is never a load
// of two octets that were stored apart, which stalls.
#[repr(u8)]
pub enum Frame<'a> {
    /// A method: read it with [`crate::Method::decode`].
    Method {
        /// The channel number of the frame.
        channel: u16,
        /// Class id, method id, arguments.
        payload: &'a [u8],
    },
    /// A content header: read it with [`crate::ContentHeader::decode`].
    Header {
        /// The channel number of the frame.
        channel: u16,
        /// Class id, weight, body size, properties.
        payload: &'a [u8],
    },
    /// A body frame, or the part of one that lies in this chunk.
    Body {
        /// The channel number of the frame.
        channel: u16,
        /// The range of the octets in the chunk. Empty if only the end octet was missing, and for
        /// an empty body frame.
        data: Range<usize>,
        /// The first part of its frame.
        first: bool,
        /// The last part of its frame: the end octet was seen and is right.
        last: bool,
    },
    /// A heartbeat. `RabbitMQ` answers one on a channel other than 0 with 505.
    Heartbeat {
        /// The channel number of the frame.
        channel: u16,
    },
}

/// A frame that lies whole in a chunk, see [`Decoder::whole`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Method, header or body.
    pub kind: u8,
    /// The channel number of the frame.
    pub channel: u16,
    start: usize,
    /// Where in the chunk the next frame begins.
    pub end: usize,
}

impl Whole {
    /// Where in the chunk the payload is.
    #[inline(always)]
    pub const fn data(&self) -> Range<usize> {
        self.start..self.end - 1
    }
}

/// Why the stream cannot be read any further. All are `501 FRAME_ERROR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The declared payload is larger than the limit. Decided before any of it is read.
    #[error("frame_too_large: payload of {size} octets, at most {size_max} allowed")]
    TooLarge {
        /// Declared payload size in octets.
        size: u32,
        /// Allowed payload size in octets.
        size_max: u32,
    },
    /// The frame kind is none of 1, 2, 3 and 8.
    #[error("unknown_frame: type {0}")]
    UnknownType(u8),
    /// The octet after the payload is not 0xCE.
    #[error("invalid_frame_end_marker: {0:#04x}")]
    BadEnd(u8),
    /// A heartbeat whose declared size is not 0.
    #[error("unknown_frame: heartbeat with a payload of {0} octets")]
    HeartbeatWithPayload(u32),
}

impl FrameError {
    /// The reply code of the connection exception: always `501 FRAME_ERROR`.
    pub const fn reply_code(self) -> ReplyCode {
        ReplyCode::FrameError
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No partial frame is held.
    Between,
    /// `gathered` holds 1 to 6 octets of a frame header.
    FrameHeader,
    /// `gathered` holds a part of a method or content header payload.
    Payload { kind: u8, channel: u16, size: u32 },
    /// In a body frame: `remaining` octets, then the end octet.
    Body { channel: u16, remaining: u32, first: bool },
    /// The stream is broken; nothing after the fault is read.
    Failed(FrameError),
}

/// The incremental frame decoder of one connection and one direction.
#[derive(Debug)]
pub struct Decoder {
    stage: Stage,
    /// Largest payload of a body frame, in octets.
    body_size_max: u32,
    /// Largest payload of a method or content header frame, in octets.
    gathered_size_max: u32,
    gathered: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a frame. `frame_size_max` is in octets, 0 is no limit.
    pub const fn new(frame_size_max: u32) -> Self {
        let (body_size_max, gathered_size_max) = payload_limits(frame_size_max);
        Self { stage: Stage::Between, body_size_max, gathered_size_max, gathered: Vec::new() }
    }

    /// Sets the limit for the frames that begin after this call, in octets, 0 is no limit.
    pub const fn set_frame_size_max(&mut self, frame_size_max: u32) {
        (self.body_size_max, self.gathered_size_max) = payload_limits(frame_size_max);
    }

    /// The next frame or body part of `chunk`, read from `cursor` on, which is moved behind it.
    ///
    /// `None` means that the chunk is used up: go on with the next chunk and a cursor of 0. After
    /// an error every call gives the same error.
    #[inline(always)]
    pub fn next<'a>(
        &'a mut self,
        chunk: &'a [u8],
        cursor: &mut usize,
    ) -> Result<Option<Frame<'a>>, FrameError> {
        let Some(whole) = self.whole(chunk, *cursor) else {
            return self.next_in_parts(chunk, cursor);
        };
        *cursor = whole.end;
        let Whole { kind, channel, .. } = whole;
        Ok(Some(match kind {
            FRAME_BODY => Frame::Body { channel, data: whole.data(), first: true, last: true },
            FRAME_METHOD => Frame::Method { channel, payload: &chunk[whole.data()] },
            _ => Frame::Header { channel, payload: &chunk[whole.data()] },
        }))
    }

    /// The frame at `at`, if it is a valid method, header or body frame that lies whole in the
    /// chunk. The caller continues at its `end`. On `None`, [`Self::next`] from `at` says why.
    ///
    /// Small and without an error, so that a loop over such frames keeps them in registers.
    #[inline(always)]
    pub fn whole(&self, chunk: &[u8], at: usize) -> Option<Whole> {
        if !self.between_frames() {
            return None;
        }
        // One load of 8 octets for the header of 7: every frame has at least the end octet behind
        // it.
        let head = chunk.get(at..)?.first_chunk::<FRAME_OVERHEAD>()?;
        let word = u64::from_be_bytes(*head);
        let (kind, channel, size) = ((word >> 56) as u8, (word >> 40) as u16, (word >> 8) as u32);
        let size_max = match kind {
            FRAME_BODY => self.body_size_max,
            FRAME_METHOD | FRAME_HEADER => self.gathered_size_max,
            _ => return None,
        };
        let start = at + FRAME_HEADER_SIZE;
        let end = start + size as usize;
        let ended = size <= size_max && chunk.get(end) == Some(&FRAME_END);
        ended.then_some(Whole { kind, channel, start, end: end + 1 })
    }

    /// Whether no partial frame is held: the stream may end here without loss.
    pub const fn between_frames(&self) -> bool {
        matches!(self.stage, Stage::Between)
    }

    /// Octets of a partial method or content header frame held in memory.
    pub fn gathered_size(&self) -> usize {
        if self.between_frames() { 0 } else { self.gathered.len() }
    }

    /// The slow path: frames in parts, heartbeats, and errors.
    #[inline(never)]
    fn next_in_parts<'a>(
        &'a mut self,
        chunk: &'a [u8],
        cursor: &mut usize,
    ) -> Result<Option<Frame<'a>>, FrameError> {
        if let Stage::Between | Stage::FrameHeader = self.stage {
            let Some(header) = self.gather_header(chunk, cursor) else {
                return Ok(None);
            };
            self.stage = match self.begin(header) {
                Ok(stage) => stage,
                Err(error) => return self.fail(error),
            };
        }
        match self.stage {
            Stage::Payload { kind, channel, size } => {
                self.next_payload(chunk, cursor, kind, channel, size)
            }
            Stage::Body { channel, remaining, first } => {
                self.next_body_part(chunk, cursor, channel, remaining, first)
            }
            Stage::Failed(error) => Err(error),
            Stage::Between | Stage::FrameHeader => Ok(None),
        }
    }

    /// Collects the seven header octets; leaves `gathered` empty once it has them all.
    fn gather_header(
        &mut self,
        chunk: &[u8],
        cursor: &mut usize,
    ) -> Option<[u8; FRAME_HEADER_SIZE]> {
        if self.stage == Stage::Between {
            self.gathered.clear();
            if self.gathered.capacity() > GATHERED_SIZE_KEPT {
                self.gathered = Vec::new();
            }
        }
        let rest = rest_of(chunk, *cursor);
        let part = &rest[..rest.len().min(FRAME_HEADER_SIZE - self.gathered.len())];
        *cursor += part.len();
        self.gathered.extend_from_slice(part);
        if let Ok(header) = self.gathered.as_slice().try_into() {
            self.gathered.clear();
            return Some(header);
        }
        if !self.gathered.is_empty() {
            self.stage = Stage::FrameHeader;
        }
        None
    }

    /// Checks a frame by its header alone, in the order of `RabbitMQ`: size first.
    fn begin(&self, header: [u8; FRAME_HEADER_SIZE]) -> Result<Stage, FrameError> {
        let (kind, channel, size) = split_header(header);
        let size_max = match kind {
            FRAME_METHOD | FRAME_HEADER => self.gathered_size_max,
            _ => self.body_size_max,
        };
        if size > size_max {
            return Err(FrameError::TooLarge { size, size_max });
        }
        match kind {
            FRAME_METHOD | FRAME_HEADER => Ok(Stage::Payload { kind, channel, size }),
            FRAME_BODY => Ok(Stage::Body { channel, remaining: size, first: true }),
            FRAME_HEARTBEAT if size == 0 => Ok(Stage::Payload { kind, channel, size }),
            FRAME_HEARTBEAT => Err(FrameError::HeartbeatWithPayload(size)),
            _ => Err(FrameError::UnknownType(kind)),
        }
    }

    fn next_payload<'a>(
        &'a mut self,
        chunk: &'a [u8],
        cursor: &mut usize,
        kind: u8,
        channel: u16,
        size: u32,
    ) -> Result<Option<Frame<'a>>, FrameError> {
        let rest = rest_of(chunk, *cursor);
        let part = &rest[..rest.len().min(size as usize - self.gathered.len())];
        *cursor += part.len();
        self.gathered.extend_from_slice(part);
        let Some(&end) = rest.get(part.len()) else {
            return Ok(None);
        };
        *cursor += 1;
        if end != FRAME_END {
            return self.fail(FrameError::BadEnd(end));
        }
        self.stage = Stage::Between;
        let payload = self.gathered.as_slice();
        Ok(Some(match kind {
            FRAME_METHOD => Frame::Method { channel, payload },
            FRAME_HEADER => Frame::Header { channel, payload },
            _ => Frame::Heartbeat { channel },
        }))
    }

    fn next_body_part(
        &mut self,
        chunk: &[u8],
        cursor: &mut usize,
        channel: u16,
        remaining: u32,
        first: bool,
    ) -> Result<Option<Frame<'static>>, FrameError> {
        let rest = rest_of(chunk, *cursor);
        if rest.is_empty() {
            return Ok(None);
        }
        let size = rest.len().min(remaining as usize);
        let data = *cursor..*cursor + size;
        *cursor += size;
        let last = match rest.get(size) {
            Some(&FRAME_END) => true,
            Some(&end) => return self.fail(FrameError::BadEnd(end)),
            None => false,
        };
        self.stage = if last {
            *cursor += 1;
            Stage::Between
        } else {
            Stage::Body { channel, remaining: remaining - size as u32, first: false }
        };
        Ok(Some(Frame::Body { channel, data, first, last }))
    }

    fn fail<T>(&mut self, error: FrameError) -> Result<T, FrameError> {
        self.stage = Stage::Failed(error);
        self.gathered = Vec::new();
        Err(error)
    }
}

/// Payload limits of body frames and of gathered frames. As in `RabbitMQ` (`FRAME_SIZE_FUDGE`) a
/// payload may be as large as the whole frame should be, eight octets too many: some clients count
/// only the payload.
const fn payload_limits(frame_size_max: u32) -> (u32, u32) {
    if frame_size_max == 0 {
        (u32::MAX, GATHERED_SIZE_MAX)
    } else {
        (frame_size_max, frame_size_max)
    }
}

#[inline(always)]
fn split_header(header: [u8; FRAME_HEADER_SIZE]) -> (u8, u16, u32) {
    let [kind, c0, c1, s0, s1, s2, s3] = header;
    (kind, u16::from_be_bytes([c0, c1]), u32::from_be_bytes([s0, s1, s2, s3]))
}

fn rest_of(chunk: &[u8], cursor: usize) -> &[u8] {
    chunk.get(cursor..).unwrap_or_default()
}
