//! Writing a message: its method frame, its content header frame and its body frames.
//!
//! ```text
//! ┌────────────────────────┬──────────────────────┬──────┬─────────────┬──────┬──────┬───
//! │ basic.deliver frame    │ content header frame │ head │ body octets │ 0xCE │ head │ …
//! └────────────────────────┴──────────────────────┴──────┴─────────────┴──────┴──────┴───
//!  a small body is copied behind: encode_content
//!  a large one is sent by reference, cut at frame-max - 8: encode_content_parts
//! ```
//!
//! The size is computed first, the buffer extended once, and the fields written into the slice:
//! pushing each field would cost a capacity check each.

use std::ops::Range;

use crate::frame::{
    FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEADER_SIZE, FRAME_METHOD, FRAME_MIN_SIZE,
    FRAME_OVERHEAD, frame_header,
};
use crate::method::{BasicDeliver, BasicGetOk, BasicPublish, BasicReturn};
use crate::octets::copy;
use crate::properties::CONTENT_HEADER_FIXED_SIZE;
use crate::wire::SHORTSTR_SIZE_MAX;

/// Class basic: the only one with content.
const CLASS_BASIC: u16 = 60;

/// `basic.deliver` with its channel. Strings longer than 255 octets are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deliver<'a> {
    /// Channel number.
    pub channel: u16,
    /// Tag of the consumer.
    pub consumer_tag: &'a [u8],
    /// Number of the delivery on its channel, from 1.
    pub delivery_tag: u64,
    /// The message may have been delivered before.
    pub redelivered: bool,
    /// As it was published.
    pub exchange: &'a [u8],
    /// As it was published.
    pub routing_key: &'a [u8],
}

/// `basic.return` with its channel. Strings longer than 255 octets are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return<'a> {
    /// Channel number.
    pub channel: u16,
    /// 312 or 313.
    pub reply_code: u16,
    /// For example `NO_ROUTE`.
    pub reply_text: &'a [u8],
    /// As it was published.
    pub exchange: &'a [u8],
    /// As it was published.
    pub routing_key: &'a [u8],
}

/// `basic.get-ok` with its channel. Strings longer than 255 octets are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetOk<'a> {
    /// Channel number.
    pub channel: u16,
    /// Number of the delivery on its channel, from 1.
    pub delivery_tag: u64,
    /// The message may have been delivered before.
    pub redelivered: bool,
    /// As it was published.
    pub exchange: &'a [u8],
    /// As it was published.
    pub routing_key: &'a [u8],
    /// Messages still ready in the queue.
    pub message_count: u32,
}

/// `basic.publish` with its channel, for clients. Strings longer than 255 octets are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Channel number.
    pub channel: u16,
    /// Name; empty is the default exchange.
    pub exchange: &'a [u8],
    /// Routing key.
    pub routing_key: &'a [u8],
    /// Return the message if it reaches no queue.
    pub mandatory: bool,
    /// Return the message if it reaches no consumer.
    pub immediate: bool,
}

/// The methods that are followed by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentMethod<'a> {
    /// `basic.deliver`
    Deliver(Deliver<'a>),
    /// `basic.return`
    Return(Return<'a>),
    /// `basic.get-ok`
    GetOk(GetOk<'a>),
    /// `basic.publish`
    Publish(Publish<'a>),
}

impl<'a> From<Deliver<'a>> for ContentMethod<'a> {
    #[inline(always)]
    fn from(method: Deliver<'a>) -> Self {
        Self::Deliver(method)
    }
}

impl<'a> From<Return<'a>> for ContentMethod<'a> {
    fn from(method: Return<'a>) -> Self {
        Self::Return(method)
    }
}

impl<'a> From<GetOk<'a>> for ContentMethod<'a> {
    fn from(method: GetOk<'a>) -> Self {
        Self::GetOk(method)
    }
}

impl<'a> From<Publish<'a>> for ContentMethod<'a> {
    #[inline(always)]
    fn from(method: Publish<'a>) -> Self {
        Self::Publish(method)
    }
}

impl ContentMethod<'_> {
    #[inline(always)]
    const fn channel(&self) -> u16 {
        match self {
            Self::Deliver(method) => method.channel,
            Self::Return(method) => method.channel,
            Self::GetOk(method) => method.channel,
            Self::Publish(method) => method.channel,
        }
    }

    /// Size of the method payload: ids and arguments.
    #[inline(always)]
    fn payload_size(&self) -> usize {
        let strings = |strings: &[&[u8]]| -> usize {
            strings.iter().map(|string| 1 + string.len().min(SHORTSTR_SIZE_MAX)).sum()
        };
        match self {
            Self::Deliver(m) => 13 + strings(&[m.consumer_tag, m.exchange, m.routing_key]),
            Self::Return(m) => 6 + strings(&[m.reply_text, m.exchange, m.routing_key]),
            Self::GetOk(m) => 17 + strings(&[m.exchange, m.routing_key]),
            Self::Publish(m) => 7 + strings(&[m.exchange, m.routing_key]),
        }
    }

    #[inline(always)]
    const fn ids(&self) -> (u16, u16) {
        match self {
            Self::Deliver(_) => BasicDeliver::IDS,
            Self::Return(_) => BasicReturn::IDS,
            Self::GetOk(_) => BasicGetOk::IDS,
            Self::Publish(_) => BasicPublish::IDS,
        }
    }

    #[inline(always)]
    fn write_arguments(&self, slice: &mut SliceWriter<'_>) {
        match self {
            Self::Deliver(method) => {
                slice.shortstr(method.consumer_tag);
                slice.tag(method.delivery_tag, method.redelivered);
                slice.shortstr(method.exchange);
                slice.shortstr(method.routing_key);
            }
            Self::Return(method) => {
                slice.array(method.reply_code.to_be_bytes());
                slice.shortstr(method.reply_text);
                slice.shortstr(method.exchange);
                slice.shortstr(method.routing_key);
            }
            Self::GetOk(method) => {
                slice.tag(method.delivery_tag, method.redelivered);
                slice.shortstr(method.exchange);
                slice.shortstr(method.routing_key);
                slice.array(method.message_count.to_be_bytes());
            }
            Self::Publish(method) => {
                slice.array([0, 0]);
                slice.shortstr(method.exchange);
                slice.shortstr(method.routing_key);
                slice.array([u8::from(method.mandatory) | u8::from(method.immediate) << 1]);
            }
        }
    }
}

/// Appends a whole message with a contiguous body. A body larger than a frame is cut; an empty one
/// has no body frame. `frame_size_max` is in octets, 0 is no limit.
#[inline(always)]
pub fn encode_content<'a>(
    out: &mut Vec<u8>,
    method: impl Into<ContentMethod<'a>>,
    properties: &[u8],
    body: &[u8],
    frame_size_max: u32,
) {
    let method = method.into();
    if body.is_empty() || body.len() > body_frame_size_max(frame_size_max) as usize {
        encode_content_in_frames(out, method, properties, body, frame_size_max);
        return;
    }
    let prefix_size = prefix_size(&method, properties) + FRAME_HEADER_SIZE;
    let mut slice = SliceWriter::extend(out, prefix_size + body.len() + 1);
    write_prefix(&mut slice, &method, properties, body.len() as u64);
    slice.array(next_frame(FRAME_BODY, method.channel(), body.len() as u32));
    slice.octets(body);
    slice.array([FRAME_END]);
}

#[inline(never)]
fn encode_content_in_frames(
    out: &mut Vec<u8>,
    method: ContentMethod<'_>,
    properties: &[u8],
    body: &[u8],
    frame_size_max: u32,
) {
    encode_content_prefix(out, method, properties, body.len() as u64);
    for part in body.chunks(body_frame_size_max(frame_size_max) as usize) {
        out.extend_from_slice(&frame_header(FRAME_BODY, method.channel(), part.len() as u32));
        out.extend_from_slice(part);
        out.push(FRAME_END);
    }
}

/// Appends the frames around a body that is sent by reference, and calls `part(offset, range)` for
/// each body frame: the octets `range` of the body belong before `out[offset]`. Calls come in
/// order, offsets ascend, and no part is empty.
pub fn encode_content_parts<'a>(
    out: &mut Vec<u8>,
    method: impl Into<ContentMethod<'a>>,
    properties: &[u8],
    body_size: u64,
    frame_size_max: u32,
    mut part: impl FnMut(usize, Range<u64>),
) {
    let method = method.into();
    let channel = method.channel();
    encode_content_prefix(out, method, properties, body_size);
    let part_size_max = u64::from(body_frame_size_max(frame_size_max));
    let mut start = 0;
    while start < body_size {
        let size = part_size_max.min(body_size - start);
        out.extend_from_slice(&frame_header(FRAME_BODY, channel, size as u32));
        part(out.len(), start..start + size);
        out.push(FRAME_END);
        start += size;
    }
}

/// Appends the method frame and the content header frame.
#[inline]
pub fn encode_content_prefix<'a>(
    out: &mut Vec<u8>,
    method: impl Into<ContentMethod<'a>>,
    properties: &[u8],
    body_size: u64,
) {
    let method = method.into();
    let mut slice = SliceWriter::extend(out, prefix_size(&method, properties));
    write_prefix(&mut slice, &method, properties, body_size);
    slice.array([FRAME_END]);
}

/// Appends a content header frame. `properties` are flags and values, `body_size` is in octets.
///
/// A content header cannot be cut: the caller must check [`content_header_frame_size`] against the
/// peer's `frame-max`.
pub fn encode_content_header(channel: u16, body_size: u64, properties: &[u8], out: &mut Vec<u8>) {
    let payload_size = (CONTENT_HEADER_FIXED_SIZE + properties.len()) as u32;
    out.extend_from_slice(&frame_header(FRAME_HEADER, channel, payload_size));
    out.extend_from_slice(&CLASS_BASIC.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&body_size.to_be_bytes());
    out.extend_from_slice(properties);
    out.push(FRAME_END);
}

/// Size of the whole content header frame in octets.
#[inline(always)]
pub const fn content_header_frame_size(properties: &[u8]) -> usize {
    FRAME_OVERHEAD + CONTENT_HEADER_FIXED_SIZE + properties.len()
}

/// The most body octets in one frame. `frame_size_max` is in octets, 0 is no limit.
#[inline(always)]
pub const fn body_frame_size_max(frame_size_max: u32) -> u32 {
    match frame_size_max {
        0 => u32::MAX,
        // No negotiation ends below the minimum; a smaller value must not give parts of size 0.
        1..FRAME_MIN_SIZE => FRAME_MIN_SIZE - FRAME_OVERHEAD as u32,
        _ => frame_size_max - FRAME_OVERHEAD as u32,
    }
}

#[inline(always)]
fn prefix_size(method: &ContentMethod<'_>, properties: &[u8]) -> usize {
    FRAME_OVERHEAD + method.payload_size() + content_header_frame_size(properties)
}

/// Writes both frames without the last end octet, which the next write brings: see [`next_frame`].
#[inline(always)]
fn write_prefix(
    slice: &mut SliceWriter<'_>,
    method: &ContentMethod<'_>,
    properties: &[u8],
    body_size: u64,
) {
    slice.method_head(method.channel(), method.payload_size() as u32, method.ids());
    method.write_arguments(slice);
    let channel = method.channel();
    let payload_size = (CONTENT_HEADER_FIXED_SIZE + properties.len()) as u32;
    slice.array(next_frame(FRAME_HEADER, channel, payload_size));
    // The class, and the weight, which is 0.
    slice.array((u32::from(CLASS_BASIC) << 16).to_be_bytes());
    slice.array(body_size.to_be_bytes());
    slice.octets(properties);
}

/// The end octet of one frame and the header of the next: together they are one word.
#[inline(always)]
const fn next_frame(kind: u8, channel: u16, payload_size: u32) -> [u8; FRAME_OVERHEAD] {
    let kind = (FRAME_END as u64) << 56 | (kind as u64) << 48;
    (kind | (channel as u64) << 32 | payload_size as u64).to_be_bytes()
}

/// Writes from the front of a slice that was made large enough.
struct SliceWriter<'o> {
    rest: &'o mut [u8],
}

impl<'o> SliceWriter<'o> {
    /// The next `size` octets of `out`, which grows by them.
    #[inline(always)]
    fn extend(out: &'o mut Vec<u8>, size: usize) -> Self {
        let start = out.len();
        out.resize(start + size, 0);
        Self { rest: &mut out[start..] }
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self, array: [u8; N]) {
        if let Some((target, rest)) = std::mem::take(&mut self.rest).split_first_chunk_mut() {
            *target = array;
            self.rest = rest;
        }
    }

    /// The header of a method frame and the two ids at the start of its payload.
    #[inline(always)]
    fn method_head(&mut self, channel: u16, payload_size: u32, (class, method): (u16, u16)) {
        // The first frame has none before it: the shift drops that end octet.
        let head = u64::from_be_bytes(next_frame(FRAME_METHOD, channel, payload_size)) << 8;
        let ids = u32::from(class) << 16 | u32::from(method);
        let mut fixed = [0; FRAME_HEADER_SIZE + size_of::<u32>()];
        fixed[..8].copy_from_slice(&head.to_be_bytes());
        fixed[FRAME_HEADER_SIZE..].copy_from_slice(&ids.to_be_bytes());
        self.array(fixed);
    }

    /// A delivery tag and the bit behind it.
    #[inline(always)]
    fn tag(&mut self, delivery_tag: u64, redelivered: bool) {
        let mut fixed = [0; size_of::<u64>() + 1];
        fixed[..8].copy_from_slice(&delivery_tag.to_be_bytes());
        fixed[8] = u8::from(redelivered);
        self.array(fixed);
    }

    #[inline(always)]
    fn shortstr(&mut self, string: &[u8]) {
        let string = &string[..string.len().min(SHORTSTR_SIZE_MAX)];
        self.array([string.len() as u8]);
        self.octets(string);
    }

    #[inline(always)]
    fn octets(&mut self, octets: &[u8]) {
        let target = std::mem::take(&mut self.rest).split_at_mut_checked(octets.len());
        if let Some((target, rest)) = target {
            copy(target, octets);
            self.rest = rest;
        }
    }
}
