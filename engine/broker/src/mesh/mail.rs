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
//!
//! The three mails of the hot path are runs: what a channel publishes the same way, what one
//! consumer is given and what is settled alike is said once in a [`Batch`], see there.

use std::sync::Arc;

use crate::control::{Answer, Request};
use crate::id::{ChannelKey, ConsumerKey, QueueId, ShardId};
use crate::mesh::batch::{Parcel, Span};
use crate::mesh::delivery::Delivery;
use crate::queue::terms::{Deliveries, Holder, Settlement, Signal, Subscription};
use crate::routing::change::Delta;

/// Which of the two queues between a pair of mesh members a mail takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Makes the receiver do something.
    Work,
    /// Follows from work that the receiver, or its clients, asked for.
    Reply,
}

/// One message between shards.
#[derive(Debug)]
pub enum Mail {
    /// Work: put messages into queues that live here, each into all of them.
    Publish {
        /// The queues.
        queues: Span<QueueId>,
        /// The messages.
        parcels: Span<Parcel>,
        /// The channel that wants to hear [`Mail::Confirmed`] of each.
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
    /// return, then auto-delete queues go.
    ChannelsEnded {
        /// Who is told when that is done: the channel itself, or channel 0 for the connection.
        asker: ChannelKey,
        /// The channels.
        channels: Vec<ChannelKey>,
    },
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

    /// Reply: messages for a consumer.
    Deliver {
        /// To whom, and how the first is settled; the holder's numbers for the others follow its.
        delivery: Delivery,
        /// The messages.
        parcels: Span<Parcel>,
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
        answer: QueueAnswer,
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
    /// Reply: publishers to a queue have to wait for its consumers, or no longer have to.
    Backlog {
        /// The queue.
        queue: QueueId,
        /// Whether they have to wait.
        is_large: bool,
    },
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

/// How a [`QueueRequest`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueAnswer {
    /// Subscribed, cancelled or left.
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
    /// `basic.consume` is refused: a consumer has the queue to itself, or wants it to itself.
    ExclusiveUse,
    /// `queue.delete` with if-unused is refused: the queue has consumers.
    InUse,
    /// `queue.delete` with if-empty is refused: the queue has messages.
    NotEmpty,
}
