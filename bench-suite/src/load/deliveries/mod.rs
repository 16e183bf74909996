//! Reads deliveries from received octets: counts, checks and times them.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use leveret_amqp::frame::{
    FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEADER_SIZE, FRAME_METHOD, FRAME_OVERHEAD,
};
use leveret_amqp::{Decoder, Frame, Method};

use crate::client::refusal;
use crate::fault::Fault;
use crate::load::latency::LatencyHistogram;
use crate::load::sequence::{SequenceCheck, SharedCheck, SharedPart, Verdict};
use crate::load::stamp::{Filler, STAMP_SIZE, Stamp, elapsed_us, filler_pattern, filler_phase};
use crate::load::tally::Tally;
use crate::results::Messages;

/// The lane of an unknown tag.
const NO_LANE: u16 = u16::MAX;

/// The octets before the consumer tag in a `basic.deliver`: class and method without the first
/// octet, which is 0, and the size of the tag.
const DELIVER_WORD: u64 = 0x3C00_3C04;

/// A consumer: everything that arrives with its tag.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    /// The index of the queue; the consumer tag is its four hexadecimal digits.
    pub(crate) tag: u16,
    /// The streams that are routed to the queue.
    pub(crate) streams: Range<u32>,
    /// For a queue with several consumers.
    pub(crate) shared: Option<Arc<SharedCheck>>,
}

#[derive(Debug)]
struct LaneState {
    streams: Range<u32>,
    /// The index of its first check.
    first_check: usize,
    shared: Option<(Arc<SharedCheck>, SharedPart)>,
}

/// The time at which a chunk was received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// In the format of stamps.
    pub(crate) now_us: u32,
    /// Whether latencies are recorded.
    pub(crate) measuring: bool,
}

/// The deliveries to all consumers of a channel.
#[derive(Debug)]
pub(crate) struct Deliveries {
    decoder: Decoder,
    channel: u16,
    body_size: usize,
    /// Whether a body fits one frame.
    fits_frame: bool,
    filler: Filler,
    lanes: Vec<LaneState>,
    /// Whether any lane is shared.
    is_shared: bool,
    /// Lanes by tag.
    by_tag: Vec<u16>,
    /// The tag of the last delivery in its wire form, and its lane.
    last_tag: u64,
    last_lane: usize,
    checks: Vec<SequenceCheck>,
    partial: Partial,
    count: u64,
    /// The delivery tags of the first message and of the next one.
    first_tag: u64,
    next_tag: u64,
    /// A delivery tag did not follow the previous one.
    tag_jumped: bool,
    corrupted: u64,
    foreign: u64,
    latency: LatencyHistogram,
    /// All lanes and streams before this one are complete.
    complete_before: Cell<(usize, u32)>,
}

/// An incomplete message.
#[derive(Debug, Default)]
struct Partial {
    stage: Stage,
    lane: usize,
    stamp: [u8; STAMP_SIZE],
    /// Octets of its body received so far.
    size: usize,
    /// The size in its header.
    announced: usize,
    /// The phase of its filler, once the stamp is complete.
    phase: usize,
    broken: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Method,
    Header,
    Body,
}

impl Deliveries {
    /// For the lanes of a channel that has no other consumers.
    pub(crate) fn new(
        channel: u16,
        lanes: Vec<Lane>,
        body_size: usize,
        frame_size_max: u32,
    ) -> Result<Self, Fault> {
        let tags = lanes.iter().map(|lane| usize::from(lane.tag) + 1).max().unwrap_or(0);
        let (mut by_tag, mut checks, mut states) = (vec![NO_LANE; tags], Vec::new(), Vec::new());
        for (lane, index) in lanes.into_iter().zip(0..NO_LANE) {
            let slot = &mut by_tag[usize::from(lane.tag)];
            let (streams, first_check) = (lane.streams, checks.len());
            if *slot != NO_LANE || streams.is_empty() {
                return Err(Fault::Scenario(format!(
                    "consumer {:04x} is there twice on one channel, or has no streams",
                    lane.tag
                )));
            }
            *slot = index;
            let shared = lane.shared.map(|check| {
                let part = check.join();
                (check, part)
            });
            match &shared {
                Some((check, _)) if check.streams() != streams => {
                    return Err(Fault::Scenario(format!(
                        "queue {:04x} has streams {streams:?}, but its check {:?}",
                        lane.tag,
                        check.streams()
                    )));
                }
                Some(_) => {}
                None => checks.extend(streams.clone().map(|_| SequenceCheck::default())),
            }
            states.push(LaneState { streams, first_check, shared });
        }
        let Some(first) = states.first() else {
            return Err(Fault::Scenario("a consumer needs at least one queue".to_owned()));
        };
        let complete_before = Cell::new((0, first.streams.start));
        let frame_size = body_size + FRAME_OVERHEAD;
        Ok(Self {
            decoder: Decoder::new(frame_size_max),
            channel,
            body_size,
            fits_frame: frame_size_max == 0 || frame_size <= frame_size_max as usize,
            filler: filler_pattern(),
            is_shared: states.iter().any(|lane| lane.shared.is_some()),
            lanes: states,
            by_tag,
            // Not a valid tag, so that the first one is looked up.
            last_tag: u64::MAX,
            last_lane: 0,
            checks,
            partial: Partial::default(),
            count: 0,
            first_tag: 0,
            next_tag: 0,
            tag_jumped: false,
            corrupted: 0,
            foreign: 0,
            latency: LatencyHistogram::new(),
            complete_before,
        })
    }

    /// Complete messages so far, correct or not.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// The delivery tag of the first message; the following ones count up.
    pub(crate) const fn first_tag(&self) -> u64 {
        self.first_tag
    }

    /// Whether a delivery tag did not follow the previous one: then acks are meaningless.
    pub(crate) const fn tag_jumped(&self) -> bool {
        self.tag_jumped
    }

    /// Takes received octets, cut anywhere.
    pub(crate) fn receive(&mut self, chunk: &[u8], arrival: Arrival) -> Result<(), Fault> {
        let mut cursor = 0;
        loop {
            if self.fits_frame
                && self.partial.stage == Stage::Method
                && self.decoder.between_frames()
            {
                while let Some(whole) = self.whole(&chunk[cursor..]) {
                    cursor += whole.size;
                    let lane = self.lane(whole.tag)?;
                    self.begin(whole.delivery_tag);
                    self.take_whole(lane, whole.body, arrival);
                }
            }
            if !self.take_frame(chunk, &mut cursor, arrival)? {
                break;
            }
        }
        if self.is_shared {
            let shared = self.lanes.iter_mut().filter_map(|lane| lane.shared.as_mut());
            shared.for_each(|(check, part)| check.report(part));
        }
        Ok(())
    }

    /// A complete delivery of the usual form at the start of `rest`.
    #[inline(always)]
    fn whole<'a>(&self, rest: &'a [u8]) -> Option<Whole<'a>> {
        let word = |octets: &[u8; 8]| u64::from_be_bytes(*octets);
        let head_of = |kind: u8| u64::from(kind) << 16 | u64::from(self.channel);
        // Method frame: kind, channel, size, and the first octet of the class id.
        let (first, tail) = rest.split_first_chunk()?;
        let (second, tail) = tail.split_first_chunk()?;
        let (delivery_tag, _) = tail.split_first_chunk()?;
        let (first, second) = (word(first), word(second));
        let method_size = FRAME_OVERHEAD + (first >> 8) as u32 as usize;
        if first >> 40 != head_of(FRAME_METHOD) || first as u8 != 0 || second >> 32 != DELIVER_WORD
        {
            return None;
        }
        // Content header frame: kind, channel, size, then class, weight and body size.
        let (method, rest) = rest.split_at_checked(method_size)?;
        let first = word(rest.first_chunk()?);
        let header_size = FRAME_OVERHEAD + (first >> 8) as u32 as usize;
        let (header, rest) = rest.split_at_checked(header_size)?;
        let body_size = word(header.get(11..19)?.first_chunk()?);
        // The body, in one frame.
        let (body, end) = rest
            .get(..self.body_size + FRAME_OVERHEAD)?
            .split_at(self.body_size + FRAME_HEADER_SIZE);
        let body_head = word(body.first_chunk()?) >> 8;
        let sizes = self.body_size as u64;
        let right = first >> 40 == head_of(FRAME_HEADER)
            && body_size == sizes
            && body_head == head_of(FRAME_BODY) << 32 | sizes
            && method.last() == Some(&FRAME_END)
            && header.last() == Some(&FRAME_END)
            && end == [FRAME_END];
        right.then_some(Whole {
            size: method_size + header_size + self.body_size + FRAME_OVERHEAD,
            tag: second as u32,
            delivery_tag: word(delivery_tag),
            body: &body[FRAME_HEADER_SIZE..],
        })
    }

    /// The lane of a tag in its wire form.
    #[inline(always)]
    fn lane(&mut self, tag: u32) -> Result<usize, Fault> {
        if u64::from(tag) == self.last_tag { Ok(self.last_lane) } else { self.find_lane(tag) }
    }

    #[inline(never)]
    fn find_lane(&mut self, tag: u32) -> Result<usize, Fault> {
        let octets = tag.to_be_bytes();
        let number = octets.iter().try_fold(0_usize, |number, digit| match digit {
            b'0'..=b'9' => Some(number << 4 | usize::from(digit - b'0')),
            b'a'..=b'f' => Some(number << 4 | usize::from(digit - b'a' + 10)),
            _ => None,
        });
        match number.and_then(|number| self.by_tag.get(number)) {
            Some(&lane) if lane != NO_LANE => {
                (self.last_tag, self.last_lane) = (u64::from(tag), usize::from(lane));
                Ok(self.last_lane)
            }
            _ => Err(unknown_consumer(&octets)),
        }
    }

    #[inline(always)]
    fn begin(&mut self, delivery_tag: u64) {
        if delivery_tag != self.next_tag {
            self.begin_unusual(delivery_tag);
        }
        self.next_tag = delivery_tag.wrapping_add(1);
    }

    #[inline(never)]
    fn begin_unusual(&mut self, delivery_tag: u64) {
        // The first tag may be larger than 1, because messages may have been fetched on this
        // channel before.
        if self.next_tag == 0 {
            self.first_tag = delivery_tag;
        } else {
            self.tag_jumped = true;
        }
    }

    #[inline(always)]
    fn take_whole(&mut self, lane: usize, body: &[u8], arrival: Arrival) {
        self.count += 1;
        let decoded =
            body.split_first_chunk().map(|(stamp, filler)| (Stamp::decode(stamp), filler));
        match decoded {
            Some((Some(stamp), filler))
                if filler.is_empty()
                    || self.filler.matches(filler_phase(stamp.stream), 0, filler) =>
            {
                self.note(lane, stamp, arrival);
            }
            _ => self.corrupted += 1,
        }
    }

    /// Counts a message that arrived unchanged.
    #[inline(always)]
    fn note(&mut self, lane: usize, stamp: Stamp, arrival: Arrival) {
        let lane = &mut self.lanes[lane];
        let index = stamp.stream.wrapping_sub(lane.streams.start);
        if index >= lane.streams.end - lane.streams.start {
            self.foreign += 1;
            return;
        }
        if let Some((_, part)) = &mut lane.shared {
            part.note(index, stamp.sequence);
        } else {
            self.checks[lane.first_check + index as usize].note(stamp.sequence);
        }
        if arrival.measuring {
            self.latency.record_us(elapsed_us(stamp.intended_us, arrival.now_us));
        }
    }

    /// Reads the next frame, or part of it, in any form; false if the chunk is used up.
    #[inline(never)]
    fn take_frame(
        &mut self,
        chunk: &[u8],
        cursor: &mut usize,
        arrival: Arrival,
    ) -> Result<bool, Fault> {
        let Some(frame) = self.decoder.next(chunk, cursor)? else { return Ok(false) };
        match (frame, self.partial.stage) {
            (Frame::Method { payload, .. }, stage) => {
                let deliver = match Method::decode(payload)? {
                    Method::BasicDeliver(deliver) if stage == Stage::Method => deliver,
                    other => return Err(refusal("basic.deliver", other)),
                };
                let Ok(tag) = deliver.consumer_tag.as_bytes().try_into() else {
                    return Err(unknown_consumer(deliver.consumer_tag.as_bytes()));
                };
                let delivery_tag = deliver.delivery_tag;
                let lane = self.lane(u32::from_be_bytes(tag))?;
                self.begin(delivery_tag);
                self.partial = Partial { stage: Stage::Header, lane, ..Partial::default() };
            }
            (Frame::Header { payload, .. }, Stage::Header) => {
                let size = payload.get(4..12).and_then(|octets| octets.first_chunk());
                let size = size.ok_or_else(|| out_of_place("a content header without a size"))?;
                let announced = u64::from_be_bytes(*size) as usize;
                self.partial.stage = Stage::Body;
                self.partial.announced = announced;
                self.partial.broken = announced != self.body_size;
                if announced == 0 {
                    self.end_partial(arrival);
                }
            }
            (Frame::Body { data, last, .. }, Stage::Body) => {
                self.take_part(&chunk[data])?;
                if last && self.partial.size == self.partial.announced {
                    self.end_partial(arrival);
                }
            }
            (Frame::Header { .. }, _) => return Err(out_of_place("a content header")),
            (Frame::Body { .. }, _) => return Err(out_of_place("a body frame")),
            (Frame::Heartbeat { .. }, _) => {}
        }
        Ok(true)
    }

    fn take_part(&mut self, data: &[u8]) -> Result<(), Fault> {
        let partial = &mut self.partial;
        let missing = STAMP_SIZE.saturating_sub(partial.size);
        let (stamp, filler) = data.split_at(missing.min(data.len()));
        if !stamp.is_empty() {
            partial.stamp[partial.size..partial.size + stamp.len()].copy_from_slice(stamp);
            partial.size += stamp.len();
            if partial.size == STAMP_SIZE {
                match Stamp::decode(&partial.stamp) {
                    Some(stamp) => partial.phase = filler_phase(stamp.stream),
                    None => partial.broken = true,
                }
            }
        }
        if !filler.is_empty() {
            let offset = partial.size - STAMP_SIZE;
            partial.broken = partial.broken || !self.filler.matches(partial.phase, offset, filler);
            partial.size += filler.len();
        }
        if partial.size > partial.announced {
            return Err(out_of_place("a body that is longer than its header says"));
        }
        Ok(())
    }

    fn end_partial(&mut self, arrival: Arrival) {
        self.count += 1;
        let partial = std::mem::take(&mut self.partial);
        match Stamp::decode(&partial.stamp) {
            Some(stamp) if !partial.broken => self.note(partial.lane, stamp, arrival),
            _ => self.corrupted += 1,
        }
    }

    /// Whether all published messages have arrived. It continues where the last call stopped, so
    /// frequent calls are cheap.
    pub(crate) fn is_complete(&self, tally: &Tally) -> bool {
        let (mut index, mut stream) = self.complete_before.get();
        while let Some(lane) = self.lanes.get(index) {
            while stream < lane.streams.end {
                let complete = tally.total(stream).is_some_and(|total| match &lane.shared {
                    Some((check, _)) => check.is_complete(stream, total),
                    None => self.check(lane, stream).is_complete(total),
                });
                if !complete {
                    self.complete_before.set((index, stream));
                    return false;
                }
                stream += 1;
            }
            index += 1;
            stream = self.lanes.get(index).map_or(0, |next| next.streams.start);
        }
        self.complete_before.set((index, stream));
        true
    }

    fn check(&self, lane: &LaneState, stream: u32) -> &SequenceCheck {
        &self.checks[lane.first_check + (stream - lane.streams.start) as usize]
    }

    /// p50 and p99 recorded so far, in microseconds.
    pub(crate) fn quantiles_us(&mut self) -> Option<[u64; 2]> {
        self.latency.quantiles_us()
    }

    /// The counts and latencies so far. For a stream that is not closed, only messages up to the
    /// last received one are expected.
    pub(crate) fn finish(mut self, tally: &Tally) -> (Messages, LatencyHistogram) {
        let (mut expected, mut verdict) = (0, Verdict::default());
        for mut lane in std::mem::take(&mut self.lanes) {
            if let Some((check, part)) = lane.shared.take() {
                let (shared_expected, shared_verdict) = check.leave(part, tally);
                expected += shared_expected;
                verdict += shared_verdict;
                continue;
            }
            for stream in lane.streams.clone() {
                let check = self.check(&lane, stream);
                let published = tally.total(stream).unwrap_or(check.next());
                expected += published;
                verdict += check.verdict(published);
            }
        }
        let messages = Messages {
            published: 0,
            expected,
            lost: verdict.lost,
            duplicated: verdict.duplicated,
            reordered: verdict.reordered,
            corrupted: self.corrupted,
            foreign: self.foreign + verdict.foreign,
        };
        (messages, self.latency)
    }
}

/// A delivery that lies completely in a chunk.
struct Whole<'a> {
    /// The size of all its frames in octets.
    size: usize,
    /// The consumer tag, four octets.
    tag: u32,
    delivery_tag: u64,
    body: &'a [u8],
}

#[cold]
fn out_of_place(what: &'static str) -> Fault {
    Fault::Unexpected { expected: "the next frame of a delivery", method: what }
}

#[cold]
fn unknown_consumer(tag: &[u8]) -> Fault {
    let tag = String::from_utf8_lossy(tag);
    Fault::Messages(format!("the broker delivered to consumer {tag:?}, which is not there"))
}

#[cfg(test)]
mod tests;
