//! The server of a remote procedure call: it returns each request as the reply.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::{Properties, PropertiesBuilder};

use super::incoming::{Event, Incoming};
use crate::client::CHANNEL;
use crate::fault::Fault;
use crate::load::endpoint::Endpoint;
use crate::load::stamp::BODY_SIZE_MAX;
use crate::load::tally::Tally;

/// The limit on waiting replies, in octets, besides one of the largest. Each caller has one open
/// request, so only a broker that repeats requests without end comes close.
const REPLIES_SIZE_MAX: usize = 256 << 20;

/// A connection that consumes requests and replies with the same body.
#[derive(Debug)]
pub(crate) struct RpcServer {
    incoming: Incoming,
    /// Complete frames to be sent.
    replies: Vec<u8>,
    frame_size_max: u32,
    /// The streams of all callers: the server ends when all of these have ended.
    streams: Range<u32>,
    tally: Arc<Tally>,
}

impl RpcServer {
    /// For the callers with these streams. `frame_size_max` is in octets; 0 is no limit.
    pub(crate) fn new(frame_size_max: u32, streams: Range<u32>, tally: Arc<Tally>) -> Self {
        let incoming = Incoming::new(frame_size_max);
        Self { incoming, replies: Vec::new(), frame_size_max, streams, tally }
    }
}

impl Endpoint for RpcServer {
    fn receive(&mut self, chunk: &[u8], _now: Instant) -> Result<(), Fault> {
        let Self { incoming, replies, frame_size_max, .. } = self;
        incoming.read(chunk, |event| match event {
            Event::Message { body, properties } => {
                reply(body, properties, *frame_size_max, replies)
            }
            Event::Empty => Err(Fault::Messages("basic.get-empty, but nobody asked".to_owned())),
        })
    }

    fn poll_send(&mut self, _now: Instant, out: &mut Vec<u8>) -> Result<(), Fault> {
        out.append(&mut self.replies);
        Ok(())
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        (!self.replies.is_empty()).then_some(now)
    }

    fn is_done(&self) -> bool {
        // A caller ends only after its last reply, so no reply is waiting here by then.
        self.streams.clone().all(|stream| self.tally.total(stream).is_some())
    }

    fn awaits(&self) -> &'static str {
        "a request, at the server"
    }
}

fn reply(
    body: &[u8],
    properties: Properties<'_>,
    frame_size_max: u32,
    replies: &mut Vec<u8>,
) -> Result<(), Fault> {
    let Some(reply_to) = properties.reply_to() else {
        return Err(Fault::Messages("a request came without its reply-to".to_owned()));
    };
    if replies.len() > REPLIES_SIZE_MAX - BODY_SIZE_MAX {
        return Err(Fault::Messages("the broker repeats requests".to_owned()));
    }
    let publish = Publish {
        channel: CHANNEL,
        exchange: b"",
        routing_key: reply_to,
        mandatory: false,
        immediate: false,
    };
    let correlation_id = properties.correlation_id();
    let properties = PropertiesBuilder { correlation_id, ..PropertiesBuilder::default() }.finish();
    encode_content(replies, publish, &properties, body, frame_size_max);
    Ok(())
}
