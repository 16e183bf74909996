//! Round trips, one at a time: a request, its reply, and only then the next request.
//!
//! ```text
//! get      publish to an own queue, basic.get             ─► the message
//! deliver  publish to an own queue                        ─► its delivery
//! rpc      publish to the server's queue ─► the server publishes to reply-to ─► the delivery
//! ```

use std::sync::Arc;
use std::time::Instant;

use leveret_amqp::PropertiesBuilder;
use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::method::{BasicGet, encode_frame};
use leveret_amqp::properties::NO_PROPERTIES;

use crate::client::CHANNEL;
use crate::fault::Fault;
use crate::load::endpoint::Endpoint;
use crate::load::latency::LatencyHistogram;
use crate::load::stamp::{STAMP_SIZE, Stamp, filler_pattern, stamp_time_us};
use crate::load::tally::Tally;
use crate::results::Messages;

mod incoming;
mod server;

pub(crate) use incoming::{Event, Incoming};
pub(crate) use server::RpcServer;

/// How many successive answers `basic.get-empty` are accepted. A message may take a while to reach
/// its queue; after a million attempts it counts as lost.
const EMPTY_MAX: u32 = 1_000_000;

/// How a caller gets its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// Publish to this queue and get from it.
    Get { queue: String },
    /// Publish to this queue; the connection consumes from it.
    Deliver { queue: String },
    /// Publish to the server's queue, and consume from the queue for replies.
    Rpc { server_queue: String, reply_to: String },
}

/// The configuration of a caller.
#[derive(Debug)]
pub(crate) struct CallerPlan {
    pub(crate) question: Question,
    /// Octets of a body, [`STAMP_SIZE`] at least.
    pub(crate) body_size: usize,
    /// The stream of its messages.
    pub(crate) stream: u32,
    /// As negotiated, in octets; 0 is no limit.
    pub(crate) frame_size_max: u32,
    pub(crate) tally: Arc<Tally>,
}

/// A connection that repeatedly sends a request and waits for the reply.
#[derive(Debug)]
pub(crate) struct Caller {
    plan: CallerPlan,
    incoming: Incoming,
    /// The body of the current request.
    body: Vec<u8>,
    /// The number of the next request, which is also the number of requests so far.
    sequence: u64,
    /// When the current request was sent.
    asked_at: Option<Instant>,
    /// `basic.get` has to be repeated.
    ask_again: bool,
    empty: u32,
    ended: bool,
    messages: Messages,
    latencies: LatencyHistogram,
}

/// The endpoints of a round trip.
#[derive(Debug)]
pub(crate) enum RoundTripEndpoint {
    Caller(Box<Caller>),
    Server(Box<RpcServer>),
}

impl Caller {
    pub(crate) fn new(plan: CallerPlan) -> Self {
        let mut body = vec![0; STAMP_SIZE];
        filler_pattern().append(plan.stream, plan.body_size - STAMP_SIZE, &mut body);
        Self {
            incoming: Incoming::new(plan.frame_size_max),
            body,
            sequence: 0,
            asked_at: None,
            ask_again: false,
            empty: 0,
            ended: false,
            messages: Messages::default(),
            latencies: LatencyHistogram::new(),
            plan,
        }
    }

    /// The counts of its messages, and the duration of each round trip. A request without a reply
    /// counts as lost.
    pub(crate) fn finish(self) -> (Messages, LatencyHistogram) {
        let lost = u64::from(self.asked_at.is_some());
        let (published, expected) = (self.sequence, self.sequence);
        (Messages { published, expected, lost, ..self.messages }, self.latencies)
    }

    fn ask(&mut self, now: Instant, out: &mut Vec<u8>) {
        let intended_us = stamp_time_us(self.plan.tally.epoch, now);
        let stamp = Stamp { stream: self.plan.stream, sequence: self.sequence, intended_us };
        self.body[..STAMP_SIZE].copy_from_slice(&stamp.encode());
        match &self.plan.question {
            Question::Get { queue } | Question::Deliver { queue } => {
                self.publish(queue, NO_PROPERTIES, out);
            }
            Question::Rpc { server_queue, reply_to } => {
                let properties = PropertiesBuilder {
                    correlation_id: Some(&correlation_id(self.sequence)),
                    reply_to: Some(reply_to.as_bytes()),
                    ..PropertiesBuilder::default()
                };
                self.publish(server_queue, &properties.finish(), out);
            }
        }
        self.get(out);
        self.sequence += 1;
        self.asked_at = Some(now);
        self.plan.tally.note_published(1);
    }

    fn publish(&self, queue: &str, properties: &[u8], out: &mut Vec<u8>) {
        let publish = Publish {
            channel: CHANNEL,
            exchange: b"",
            routing_key: queue.as_bytes(),
            mandatory: false,
            immediate: false,
        };
        encode_content(out, publish, properties, &self.body, self.plan.frame_size_max);
    }

    fn get(&self, out: &mut Vec<u8>) {
        if let Question::Get { queue } = &self.plan.question {
            encode_frame(CHANNEL, &BasicGet { queue, no_ack: true }, out);
        }
    }

    /// Handles what arrived: the reply, or something unexpected.
    fn take(&mut self, event: Event<'_>, now: Instant) -> Result<(), Fault> {
        let (body, correlation) = match event {
            Event::Message { body, properties } => (body, properties.correlation_id()),
            Event::Empty => return self.take_empty(),
        };
        let is_rpc = matches!(self.plan.question, Question::Rpc { .. });
        if (body != self.body || self.asked_at.is_none()) && !self.note_wrong(body) {
            // The awaited reply may still come; `basic.get` has to be repeated for it.
            self.ask_again = self.asked_at.is_some();
            return Ok(());
        }
        let is_other = is_rpc && correlation != Some(&correlation_id(self.sequence - 1)[..]);
        if body == self.body && is_other {
            self.messages.corrupted += 1;
        }
        if let Some(asked_at) = self.asked_at.take()
            && self.plan.tally.is_measuring()
        {
            self.latencies.record(now.saturating_duration_since(asked_at));
        }
        self.empty = 0;
        self.plan.tally.note_consumed(1);
        Ok(())
    }

    fn take_empty(&mut self) -> Result<(), Fault> {
        self.ask_again = self.asked_at.is_some();
        self.empty += 1;
        if self.empty < EMPTY_MAX {
            return Ok(());
        }
        Err(Fault::Messages(format!(
            "a message that was published was not there for basic.get, {EMPTY_MAX} times in a row"
        )))
    }

    /// Counts an unexpected message. Returns whether it is a damaged reply, so that no other is
    /// awaited.
    #[cold]
    fn note_wrong(&mut self, body: &[u8]) -> bool {
        let awaited = self.asked_at.map(|_| self.sequence - 1);
        match body.first_chunk().and_then(Stamp::decode) {
            Some(stamp) if stamp.stream != self.plan.stream || stamp.sequence >= self.sequence => {
                self.messages.foreign += 1;
                false
            }
            Some(stamp) if Some(stamp.sequence) != awaited => {
                self.messages.duplicated += 1;
                false
            }
            _ => {
                self.messages.corrupted += 1;
                awaited.is_some()
            }
        }
    }
}

impl Endpoint for Caller {
    fn receive(&mut self, chunk: &[u8], now: Instant) -> Result<(), Fault> {
        // Taken out for the loop, because its events borrow from it while `self` is changed.
        let mut incoming = std::mem::take(&mut self.incoming);
        let result = incoming.read(chunk, |event| self.take(event, now));
        self.incoming = incoming;
        result
    }

    fn poll_send(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.ask_again {
            self.ask_again = false;
            self.get(out);
        } else if self.asked_at.is_none() && !self.ended {
            if self.plan.tally.is_stopped() {
                self.ended = true;
                self.plan.tally.close_stream(self.plan.stream, self.sequence);
            } else {
                self.ask(now, out);
            }
        }
        Ok(())
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        (self.ask_again || self.asked_at.is_none() && !self.ended).then_some(now)
    }

    fn is_done(&self) -> bool {
        self.ended
    }

    fn awaits(&self) -> &'static str {
        match self.plan.question {
            Question::Get { .. } => "the answer of a basic.get",
            Question::Deliver { .. } => "the delivery of what was just published",
            Question::Rpc { .. } => "the reply to a request",
        }
    }
}

impl Endpoint for RoundTripEndpoint {
    fn receive(&mut self, chunk: &[u8], now: Instant) -> Result<(), Fault> {
        match self {
            Self::Caller(caller) => caller.receive(chunk, now),
            Self::Server(server) => server.receive(chunk, now),
        }
    }

    fn poll_send(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            Self::Caller(caller) => caller.poll_send(now, out),
            Self::Server(server) => server.poll_send(now, out),
        }
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Caller(caller) => caller.next_due(now),
            Self::Server(server) => server.next_due(now),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Caller(caller) => caller.is_done(),
            Self::Server(server) => server.is_done(),
        }
    }

    fn awaits(&self) -> &'static str {
        match self {
            Self::Caller(caller) => caller.awaits(),
            Self::Server(server) => server.awaits(),
        }
    }
}

/// 16 hexadecimal digits, so that all requests have the same length.
fn correlation_id(sequence: u64) -> [u8; 16] {
    let digit = |index: usize| b"0123456789abcdef"[(sequence >> (60 - 4 * index)) as usize & 15];
    std::array::from_fn(digit)
}

#[cfg(test)]
mod tests;
