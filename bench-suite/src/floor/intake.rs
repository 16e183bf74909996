//! The receiving side of a connection. A publish that lies completely in the receive buffer is
//! forwarded without reading its content; everything else is read frame by frame.

use std::ops::Range;

use bytes::Bytes;
use leveret_amqp::frame::{
    FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEADER_SIZE, FRAME_METHOD, FRAME_OVERHEAD,
    FRAME_SIZE_MAX_BEFORE_TUNE, PROTOCOL_HEADER,
};
use leveret_amqp::method::{BasicAck, BasicPublish, ConnectionClose, Encode, split_ids};
use leveret_amqp::reply::reply_text;
use leveret_amqp::{ContentHeader, Decoder, Frame, Method, ReplyCode};

use super::FloorState;
use super::delivery::Target;
use super::message::Message;
use super::outlet::{PENDING_MAX, REFERENCE_FROM};

/// The largest message in octets: RabbitMQ's limit.
const MESSAGE_SIZE_MAX: u64 = 512 << 20;

/// The most parts of a message that is being assembled. The smallest frames that a peer could
/// negotiate would cut the largest message into twice as many, but no client sends such frames.
const PARTS_MAX: usize = 1 << 16;

/// The size of the table of recent routes of a publisher, a power of two. The scenarios have up to
/// about ten keys per publisher, and a collision of two keys only costs time.
const ROUTES: usize = 64;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// Everything that has to be sent has been sent.
    Answered,
    Refused(ReplyCode, String),
}

/// The receiving side of one connection.
pub(super) struct Intake {
    pub(super) slot: usize,
    /// The octets of the protocol header received so far; it has eight.
    protocol_header: Vec<u8>,
    /// The virtual host is open.
    pub(super) open: bool,
    /// The largest frame in octets.
    pub(super) frame_max: u32,
    decoder: Decoder,
    pub(super) channels: Vec<Channel>,
    /// Channels with an incomplete message.
    assembling: usize,
    routes: Vec<Route>,
    /// A consumer that has too much to send.
    over: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) number: u16,
    pub(super) confirming: bool,
    /// Publishes in confirm mode, and how many of them have been confirmed.
    published: u64,
    confirmed: u64,
    /// The queue that an empty name stands for.
    pub(super) last_queue: String,
    content: Option<Content>,
}

impl Channel {
    pub(super) fn new(number: u16) -> Self {
        Self { number, ..Self::default() }
    }
}

/// An incomplete message.
#[derive(Debug, Default)]
struct Content {
    message: Message,
    /// Missing octets of the body; `None` before the content header.
    left: Option<u64>,
}

/// The route of publishes with the same method frame.
#[derive(Debug, Default)]
struct Route {
    frame: Vec<u8>,
    generation: u64,
    /// The index of the channel.
    channel: usize,
    targets: Vec<Target>,
    /// The largest frame that all consumers accept unchanged; 0 if some need other frames.
    verbatim_max: usize,
}

impl Intake {
    pub(super) fn new(slot: usize) -> Self {
        Self {
            slot,
            protocol_header: Vec::new(),
            open: false,
            frame_max: FRAME_SIZE_MAX_BEFORE_TUNE,
            decoder: Decoder::new(FRAME_SIZE_MAX_BEFORE_TUNE),
            channels: Vec::new(),
            assembling: 0,
            routes: Vec::new(),
            over: None,
        }
    }

    /// Takes received octets, cut anywhere. False if the connection has to end.
    pub(super) fn receive(&mut self, floor: &mut FloorState, chunk: &Bytes) -> bool {
        let taken = self.take(floor, chunk);
        self.confirm(floor);
        if let Err(End::Refused(code, text)) = &taken {
            let reply_text = reply_text(*code, text);
            let close = ConnectionClose {
                reply_code: code.code(),
                reply_text: &reply_text,
                class_id: 0,
                method_id: 0,
            };
            self.send(floor, 0, &close);
        }
        taken.is_ok()
    }

    /// A consumer that got a message of the last chunk and has too much to send.
    pub(super) fn take_over(&mut self) -> Option<usize> {
        self.over.take()
    }

    pub(super) fn send(&self, floor: &mut FloorState, channel: u16, method: &impl Encode) {
        floor.outlets[self.slot].send(channel, method);
        floor.dirty.push(self.slot);
    }

    /// The index of an open channel.
    pub(super) fn channel(&self, number: u16) -> Result<usize, End> {
        self.channels
            .iter()
            .position(|channel| channel.number == number)
            .ok_or_else(|| End::Refused(ReplyCode::ChannelError, "channel is not open".into()))
    }

    /// Closes a channel; false if it was not open.
    pub(super) fn close_channel(&mut self, number: u16) -> bool {
        let before = self.channels.len();
        self.channels.retain(|channel| channel.number != number);
        self.assembling = self.channels.iter().filter(|channel| channel.content.is_some()).count();
        self.channels.len() < before
    }

    fn take(&mut self, floor: &mut FloorState, chunk: &Bytes) -> Result<(), End> {
        let mut cursor = self.take_protocol_header(floor, chunk)?;
        // Taken out, because frames borrow from the decoder while `self` is changed.
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(0));
        loop {
            if self.open && self.assembling == 0 && decoder.between_frames() {
                while let Some(next) = self.forward_whole(floor, chunk, cursor) {
                    cursor = next;
                }
            }
            let frame = decoder
                .next(chunk, &mut cursor)
                .map_err(|error| End::Refused(error.reply_code(), error.to_string()))?;
            let Some(frame) = frame else { break };
            self.take_frame(floor, chunk, frame)?;
            decoder.set_frame_size_max(self.frame_max);
        }
        self.decoder = decoder;
        Ok(())
    }

    /// Where the frames begin in the chunk.
    fn take_protocol_header(
        &mut self,
        floor: &mut FloorState,
        chunk: &Bytes,
    ) -> Result<usize, End> {
        let missing = PROTOCOL_HEADER.len() - self.protocol_header.len();
        if missing == 0 {
            return Ok(0);
        }
        let part = &chunk[..missing.min(chunk.len())];
        self.protocol_header.extend_from_slice(part);
        if self.protocol_header == PROTOCOL_HEADER {
            self.send_start(floor);
        } else if !PROTOCOL_HEADER.starts_with(&self.protocol_header) {
            return Err(End::Answered);
        }
        Ok(part.len())
    }

    /// Forwards the message at `at`, if all of it is in the chunk and its consumers accept it
    /// unchanged. Returns its end.
    #[inline(always)]
    fn forward_whole(&mut self, floor: &mut FloorState, chunk: &Bytes, at: usize) -> Option<usize> {
        let whole = whole_message(chunk, at)?;
        let publish = &chunk[at..whole.content.start];
        let place = place_of(publish);
        let known = self.routes.get(place).is_some_and(|route| {
            route.generation == floor.topology.generation && route.frame == publish
        });
        if !known {
            self.learn(floor, publish, place)?;
        }
        let route = &mut self.routes[place];
        if whole.frame_size_max > route.verbatim_max {
            return None;
        }
        for target in &mut route.targets {
            let feed = target.turn()?;
            let outlet = &mut floor.outlets[feed.slot];
            if outlet.is_empty() {
                floor.dirty.push(feed.slot);
            }
            outlet.deliver_frames(feed, chunk, whole.content.clone());
            if outlet.pending() > PENDING_MAX {
                self.over = Some(feed.slot);
            }
        }
        self.channels[route.channel].published += 1;
        Some(whole.content.end)
    }

    /// Looks up the route for publishes with this method frame. `None` if the frame has to be
    /// refused when it is read properly.
    #[inline(never)]
    fn learn(&mut self, floor: &mut FloorState, frame: &[u8], place: usize) -> Option<()> {
        let number = u16::from_be_bytes([frame[1], frame[2]]);
        let channel = self.channel(number).ok()?;
        let payload = &frame[FRAME_HEADER_SIZE..frame.len() - 1];
        let Ok(Method::BasicPublish(publish)) = Method::decode(payload) else { return None };
        let targets = floor.targets(publish.exchange, publish.routing_key);
        let feeds = || targets.iter().flat_map(|target| &target.feeds);
        let as_it_came = targets.iter().all(|target| !target.feeds.is_empty())
            && feeds().all(|feed| feed.channel == number);
        let verbatim_max = if as_it_came {
            feeds().map(|feed| feed.frame_max as usize).min().unwrap_or(usize::MAX)
        } else {
            0
        };
        self.routes.resize_with(ROUTES, Route::default);
        self.routes[place] = Route {
            frame: frame.to_vec(),
            generation: floor.topology.generation,
            channel,
            targets,
            verbatim_max,
        };
        Some(())
    }

    fn take_frame(
        &mut self,
        floor: &mut FloorState,
        chunk: &Bytes,
        frame: Frame<'_>,
    ) -> Result<(), End> {
        match frame {
            Frame::Method { channel, payload } => {
                let refuse = |error: leveret_amqp::MethodError| {
                    End::Refused(error.reply_code(), error.to_string())
                };
                let (ids, _) = split_ids(payload).map_err(refuse)?;
                if ids == BasicAck::IDS && self.open {
                    return Ok(());
                }
                match Method::decode(payload).map_err(refuse)? {
                    Method::BasicPublish(publish) if self.open => self.begin(channel, &publish),
                    method => self.answer(floor, channel, method),
                }
            }
            Frame::Header { channel, payload } => self.take_header(floor, channel, payload),
            Frame::Body { channel, data, .. } => self.take_body(floor, channel, chunk, data),
            Frame::Heartbeat { .. } => Ok(()),
        }
    }

    fn begin(&mut self, channel: u16, publish: &BasicPublish<'_>) -> Result<(), End> {
        let index = self.channel(channel)?;
        let message = Message {
            exchange: publish.exchange.to_vec(),
            routing_key: publish.routing_key.to_vec(),
            ..Message::default()
        };
        if self.channels[index].content.replace(Content { message, left: None }).is_some() {
            return Err(unexpected("a publish within a message"));
        }
        self.assembling += 1;
        Ok(())
    }

    fn take_header(
        &mut self,
        floor: &mut FloorState,
        channel: u16,
        payload: &[u8],
    ) -> Result<(), End> {
        let index = self.channel(channel)?;
        let Some(content @ Content { left: None, .. }) = &mut self.channels[index].content else {
            return Err(unexpected("a content header without a publish"));
        };
        let header = ContentHeader::decode(payload)
            .map_err(|error| End::Refused(error.reply_code(), error.to_string()))?;
        let size = header.body_size;
        if size > MESSAGE_SIZE_MAX {
            let text = format!("{size} octets, at most {MESSAGE_SIZE_MAX} are relayed");
            return Err(End::Refused(ReplyCode::NotAllowed, text));
        }
        content.message.properties = header.properties.to_vec();
        content.left = Some(size);
        self.finish(floor, index);
        Ok(())
    }

    fn take_body(
        &mut self,
        floor: &mut FloorState,
        channel: u16,
        chunk: &Bytes,
        data: Range<usize>,
    ) -> Result<(), End> {
        let index = self.channel(channel)?;
        let content = self.channels[index].content.as_mut();
        let Some(Content { message, left: Some(left) }) = content else {
            // The rest of the last body frame is only its end octet.
            return if data.is_empty() { Ok(()) } else { Err(unexpected("a body by itself")) };
        };
        let Some(rest) = left.checked_sub(data.len() as u64) else {
            return Err(unexpected("more body than its content header says"));
        };
        *left = rest;
        if message.parts.len() == PARTS_MAX {
            return Err(unexpected("a message in too many parts"));
        }
        if data.len() >= REFERENCE_FROM {
            message.parts.push(chunk.slice(data));
        } else if !data.is_empty() {
            // A small part is copied, because it is not worth holding a receive buffer.
            message.parts.push(Bytes::copy_from_slice(&chunk[data]));
        }
        self.finish(floor, index);
        Ok(())
    }

    /// Forwards the message of a channel once it is complete.
    fn finish(&mut self, floor: &mut FloorState, index: usize) {
        let channel = &mut self.channels[index];
        let Some(content) = channel.content.take_if(|content| content.left == Some(0)) else {
            return;
        };
        self.assembling -= 1;
        channel.published += 1;
        let message = content.message;
        let mut targets = floor.targets(&message.exchange, &message.routing_key);
        if let Some(over) = floor.deliver(&mut targets, &message) {
            self.over = Some(over);
        }
    }

    /// Confirms all publishes of this chunk at once.
    fn confirm(&mut self, floor: &mut FloorState) {
        let slot = self.slot;
        for channel in &mut self.channels {
            if channel.published == channel.confirmed {
                continue;
            }
            if !channel.confirming {
                // Publishes are numbered from `confirm.select` on.
                channel.published = 0;
                continue;
            }
            channel.confirmed = channel.published;
            let ack = BasicAck { delivery_tag: channel.published, multiple: true };
            floor.outlets[slot].send(channel.number, &ack);
            floor.dirty.push(slot);
        }
    }

    /// Puts a channel into confirm mode.
    pub(super) fn select_confirms(&mut self, index: usize) {
        let channel = &mut self.channels[index];
        if !channel.confirming {
            channel.confirming = true;
            channel.published = 0;
        }
    }
}

fn unexpected(what: &str) -> End {
    End::Refused(ReplyCode::UnexpectedFrame, what.to_owned())
}

/// A message that lies completely in a chunk.
struct Whole {
    /// Its content header and body frames.
    content: Range<usize>,
    /// The largest of these frames in octets.
    frame_size_max: usize,
}

/// The message that begins with a publish at `at`; `None` for anything else, and if frames of other
/// channels are in between.
#[inline(always)]
fn whole_message(chunk: &[u8], at: usize) -> Option<Whole> {
    /// The ids of `basic.publish`.
    const PUBLISH: [u8; 4] = [0, 60, 0, 40];
    /// The sizes of class, weight, body size and property flags.
    const HEADER_PAYLOAD_MIN: usize = 14;
    let (channel, start) = frame_at(chunk, at, FRAME_METHOD)?;
    // At least ids, the reserved short, two empty names, bits and the frame end.
    if start - at < FRAME_OVERHEAD + 9 || chunk.get(at + 7..at + 11)? != PUBLISH {
        return None;
    }
    let (of_header, mut end) = frame_at(chunk, start, FRAME_HEADER)?;
    if of_header != channel || end - start < FRAME_OVERHEAD + HEADER_PAYLOAD_MIN {
        return None;
    }
    let body_size = chunk.get(start + 11..)?.first_chunk::<8>()?;
    let mut left = usize::try_from(u64::from_be_bytes(*body_size)).ok()?;
    let mut frame_size_max = end - start;
    while left > 0 {
        let (of_body, next) = frame_at(chunk, end, FRAME_BODY)?;
        let size = next - end - FRAME_OVERHEAD;
        if of_body != channel || size == 0 || size > left {
            return None;
        }
        left -= size;
        frame_size_max = frame_size_max.max(next - end);
        end = next;
    }
    Some(Whole { content: start..end, frame_size_max })
}

/// Channel and end of the complete frame of this kind at `at`.
#[inline(always)]
fn frame_at(chunk: &[u8], at: usize, kind: u8) -> Option<(u16, usize)> {
    let head = u64::from_be_bytes(*chunk.get(at..)?.first_chunk::<FRAME_OVERHEAD>()?);
    let size = (head >> 8) as u32 as usize;
    let end = at + FRAME_OVERHEAD + size;
    ((head >> 56) as u8 == kind && *chunk.get(end - 1)? == FRAME_END)
        .then_some(((head >> 40) as u16, end))
}

/// The place of a publish in the table of routes. It depends on the end of the routing key, where
/// keys differ.
#[inline(always)]
fn place_of(publish: &[u8]) -> usize {
    /// An odd number without regular bits, from the golden ratio.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    // Before the bits and the frame end.
    let key_end = publish.len() - 2;
    let tail = publish[..key_end].last_chunk::<8>().map_or(0, |tail| u64::from_be_bytes(*tail));
    (tail.wrapping_mul(SPREAD) >> (64 - ROUTES.trailing_zeros())) as usize
}
