//! Messages between the members of the mesh.
//!
//! ```text
//!            Work lane: publish, settle, consume, get …              Work lane: requests
//!  channel ───────────────────────────────────────────► home   shard ─────────────► control
//!  shard   ◄─────────────────────────────────────────── shard        ◄─────────────
//!            Reply lane: deliver, answers, confirmed                 Reply lane: deltas, answers
//! ```
//!
//! Each lane of each ordered pair is first in, first out. Everything a channel tells a home
//! shares a lane, so that a purge follows the publishes before it; everything a home tells a
//! channel shares one, so that cancel-ok follows the last delivery.

use std::sync::Arc;

use bytes::Bytes;

use crate::control::{Answer, Request};
use crate::error::Exception;
use crate::id::{ChannelKey, ConsumerKey, Instant, QueueId, ShardId};
use crate::message::{Body, Likeness, Message};
use crate::queue::state::Holder;
use crate::topology::Delta;
use crate::writer::Delivery;

/// A mail batch is closed at this many mails: enough to pay a mesh slot once per many messages.
pub const BATCH_MAILS_MAX: usize = 256;

/// A mail batch is closed at this many bytes, so that a full lane is bounded in bytes too.
pub const BATCH_BYTES_MAX: usize = 64 << 10;

/// Which of the two queues between a pair of mesh members a mail takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Makes the receiver do something.
    Work,
    /// Follows from work that the receiver, or its clients, asked for.
    Reply,
}

/// Several mails for one destination, with the bytes they point into.
#[derive(Debug, Default)]
pub struct Batch {
    /// In sending order.
    pub mails: Vec<Mail>,
    bytes: Vec<u8>,
    queues: Vec<QueueId>,
    shared_bytes: usize,
}

/// One message between shards.
#[derive(Debug)]
pub enum Mail {
    /// Work: put a message into queues that live here.
    Publish {
        /// The queues, as a range of the batch.
        queues: (u32, u32),
        /// The message.
        parcel: Parcel,
        /// The channel that wants to hear [`Mail::Confirmed`].
        confirm: Option<ChannelKey>,
    },
    /// Work: the client acknowledged, rejected or requeued deliveries.
    Settle {
        /// The queue they came from.
        queue: QueueId,
        /// Which of the queue's.
        deliveries: Deliveries,
        /// What the client said.
        settlement: Settlement,
        /// No more of the same method follows for this queue: serve its consumers.
        serve: bool,
    },
    /// Work: everything else a channel asks of a queue.
    Ask(Box<(QueueId, QueueRequest)>),
    /// Work: channels of one connection ended; their consumers go, then their unacked messages
    /// return.
    Leave(Vec<ChannelKey>),
    /// Work: the consumer's socket is full, or has room again.
    Consumer {
        /// The queue it consumes from.
        queue: QueueId,
        /// The consumer.
        consumer: ConsumerKey,
        /// What changed.
        signal: Signal,
    },
    /// Work, to the control state.
    Control(Box<Request>),

    /// Reply: a message for a consumer.
    Deliver {
        /// To whom, and how it is settled.
        delivery: Delivery,
        /// The message.
        parcel: Parcel,
    },
    /// Reply: a message for `basic.get`.
    Got {
        /// Who asked.
        channel: ChannelKey,
        /// How it is settled.
        got: Got,
        /// The message.
        parcel: Parcel,
    },
    /// Reply: how a [`QueueRequest`] ended.
    Answered {
        /// Who asked.
        channel: ChannelKey,
        /// The end.
        answer: Result<QueueAnswer, Exception>,
    },
    /// Reply: this home is done with the next `count` publishes it got from the channel.
    Confirmed {
        /// The publishing channel.
        channel: ChannelKey,
        /// How many.
        count: u32,
    },
    /// Reply: this home could not keep the next `count` publishes it got from the channel.
    Refused {
        /// The publishing channel.
        channel: ChannelKey,
        /// How many.
        count: u32,
    },
    /// Reply: this home's log is backed up (true), or no longer is: publishers towards it wait.
    LogBackedUp(bool),
    /// Reply: the queue is gone, and with it this consumer.
    Cancelled(ConsumerKey),
    /// Reply: a consumer under a channel-wide prefetch limit could be given a message.
    Wants {
        /// The consumer.
        consumer: ConsumerKey,
        /// The queue that has something for it.
        queue: QueueId,
    },
    /// Reply: a grant that found nothing to deliver.
    GrantUnused(ConsumerKey),
    /// Reply, from the control state: a change of the topology.
    Delta(Arc<Delta>),
    /// Reply, from the control state: the end of a request.
    ControlAnswer(Box<Answer>),
}

/// What `basic.get` brought.
#[derive(Clone, Copy, Debug)]
pub struct Got {
    /// The queue it came from.
    pub queue: QueueId,
    /// Where that queue lives.
    pub home: ShardId,
    /// Who has it, to the queue.
    pub holder: Holder,
    /// The holder's number for it; `None` where nothing is to be acknowledged.
    pub delivery: Option<u64>,
    /// Delivered before.
    pub redelivered: bool,
    /// Ready messages left.
    pub remaining: u32,
}

/// Deliveries of a queue to one holder, by their numbers there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deliveries {
    /// Who has them.
    pub holder: Holder,
    /// The oldest.
    pub first: u64,
    /// How many: those after it, without a gap.
    pub count: u64,
}

impl Deliveries {
    /// Their numbers, oldest first.
    #[inline]
    pub fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.count
    }
}

/// What a client says of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Done with it.
    Ack,
    /// Back to its place in the queue.
    Requeue,
    /// Not wanted: dropped (later: dead-lettered).
    Reject,
}

/// What a channel asks of a queue and waits for.
#[derive(Clone, Debug)]
pub enum QueueRequest {
    /// `basic.consume`.
    Consume(Subscription),
    /// `basic.cancel`.
    Cancel(ConsumerKey),
    /// `basic.get`; the flag says that nothing will be acknowledged.
    Get(ChannelKey, bool),
    /// `queue.purge`.
    Purge(ChannelKey),
    /// `queue.delete` with if-unused and if-empty.
    Delete {
        /// Who asks.
        channel: ChannelKey,
        /// Refuse while there are consumers.
        if_unused: bool,
        /// Refuse while there are messages.
        if_empty: bool,
    },
    /// The counts of `queue.declare-ok`.
    Count(ChannelKey),
}

impl QueueRequest {
    /// The channel that waits for the answer.
    pub fn channel(&self) -> ChannelKey {
        match self {
            Self::Consume(subscription) => subscription.consumer.channel,
            Self::Cancel(consumer) => consumer.channel,
            Self::Get(channel, _) | Self::Purge(channel) | Self::Count(channel) => *channel,
            Self::Delete { channel, .. } => *channel,
        }
    }
}

/// The arguments of `basic.consume` that matter to the queue.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// Who.
    pub consumer: ConsumerKey,
    /// Unsettled deliveries it may have; 0 = any number.
    pub prefetch: u16,
    /// Deliveries count as settled when sent.
    pub no_ack: bool,
    /// Nobody else may consume from the queue.
    pub exclusive: bool,
    /// `x-priority`: higher ones are served first while they can take messages.
    pub priority: i32,
    /// Under a channel-wide limit: each delivery needs a [`Signal::Grant`].
    pub limited: bool,
}

/// How a [`QueueRequest`] ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueAnswer {
    /// Subscribed or cancelled.
    Done,
    /// `basic.get` found nothing.
    Empty,
    /// Ready messages dropped by `queue.purge`.
    Purged(u32),
    /// Ready messages and consumers.
    Counted {
        /// Ready messages.
        messages: u32,
        /// Consumers.
        consumers: u32,
    },
    /// The queue is no longer here.
    Gone(QueueId),
}

/// A change in what a consumer can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Its socket is full.
    Stop,
    /// Its socket has room again.
    Start,
    /// From now on each delivery needs a grant (true) or does not (false).
    Limited(bool),
    /// One delivery under the channel-wide limit.
    Grant,
}

/// A message inside a [`Batch`]: small parts in the batch's bytes, large bodies shared.
#[derive(Debug)]
pub struct Parcel {
    start: u32,
    exchange_length: u8,
    routing_key_length: u8,
    properties_length: u32,
    body: ParcelBody,
    published_at: Instant,
}

#[derive(Debug)]
enum ParcelBody {
    Inline(u32),
    Pieces(Vec<Bytes>),
}

impl Batch {
    /// Whether the batch should be sent before more is put in.
    pub fn is_full(&self) -> bool {
        self.mails.len() >= BATCH_MAILS_MAX
            || self.bytes.len() + self.shared_bytes >= BATCH_BYTES_MAX
    }

    /// Bytes that the batch holds or keeps alive.
    pub fn weight_bytes(&self) -> usize {
        self.mails.len() * size_of::<Mail>() + self.bytes.len() + self.shared_bytes
    }

    /// Forgets the content and keeps the memory.
    pub fn clear(&mut self) {
        self.mails.clear();
        self.bytes.clear();
        self.queues.clear();
        self.shared_bytes = 0;
    }

    /// Copies a message into the batch; large bodies only gain a reference.
    pub fn pack(&mut self, message: &Message<'_>) -> Parcel {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(message.exchange);
        self.bytes.extend_from_slice(message.routing_key);
        self.bytes.extend_from_slice(message.properties);
        let body = match message.body {
            Body::Inline(bytes) => {
                self.bytes.extend_from_slice(bytes);
                ParcelBody::Inline(bytes.len() as u32)
            }
            Body::Pieces(pieces) => {
                self.shared_bytes += message.body.len();
                ParcelBody::Pieces(pieces.to_vec())
            }
        };
        Parcel {
            start,
            exchange_length: message.exchange.len() as u8,
            routing_key_length: message.routing_key.len() as u8,
            properties_length: message.properties.len() as u32,
            body,
            published_at: message.published_at,
        }
    }

    /// The message of a parcel that was packed into this batch.
    pub fn unpack<'a>(&'a self, parcel: &'a Parcel) -> Message<'a> {
        let rest = &self.bytes[parcel.start as usize..];
        let (exchange, rest) = rest.split_at(usize::from(parcel.exchange_length));
        let (routing_key, rest) = rest.split_at(usize::from(parcel.routing_key_length));
        let (properties, rest) = rest.split_at(parcel.properties_length as usize);
        let body = match &parcel.body {
            ParcelBody::Inline(length) => Body::Inline(&rest[..*length as usize]),
            ParcelBody::Pieces(pieces) => Body::Pieces(pieces),
        };
        let published_at = parcel.published_at;
        let likeness = Likeness::UNKNOWN;
        Message { exchange, routing_key, properties, body, published_at, likeness }
    }

    /// Notes the queues of a [`Mail::Publish`] and returns their range.
    pub fn pack_queues(&mut self, queues: impl Iterator<Item = QueueId>) -> (u32, u32) {
        let start = self.queues.len() as u32;
        self.queues.extend(queues);
        (start, self.queues.len() as u32)
    }

    /// The queues of a [`Mail::Publish`].
    pub fn queues(&self, range: (u32, u32)) -> &[QueueId] {
        &self.queues[range.0 as usize..range.1 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_unpacks_to_what_was_packed() {
        let mut batch = Batch::default();
        let pieces = [Bytes::from_static(b"large "), Bytes::from_static(b"body")];
        let small = Message {
            exchange: b"x",
            routing_key: b"key",
            properties: &[0, 0],
            body: Body::Inline(b"hello"),
            published_at: Instant(7),
            likeness: Likeness::UNKNOWN,
        };
        let large = Message { exchange: b"", body: Body::Pieces(&pieces), ..small };
        let (first, second) = (batch.pack(&small), batch.pack(&large));
        for (parcel, sent) in [(&first, &small), (&second, &large)] {
            let message = batch.unpack(parcel);
            assert_eq!(message.exchange, sent.exchange);
            assert_eq!(message.routing_key, sent.routing_key);
            assert_eq!(message.properties, sent.properties);
            assert_eq!(message.body.len(), sent.body.len());
            assert_eq!(message.published_at, sent.published_at);
        }
    }
}
