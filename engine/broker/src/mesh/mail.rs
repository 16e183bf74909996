//! Messages between the members of the mesh.
//!
//! ```text
//!            Work lane: publish, settle, consume, get …              Work lane: requests
//!  channel ───────────────────────────────────────────► home   shard ─────────────► control
//!  shard   ◄─────────────────────────────────────────── shard        ◄─────────────
//!            Reply lane: deliver, answers, confirmed                 Reply lane: deltas, answers
//! ```
//!
//! Each lane of each ordered pair is first in, first out. All mail from a channel to a home shares
//! a lane, so that a purge follows the publishes before it. All mail from a home to a channel
//! shares one, so that cancel-ok follows the last delivery.
//!
//! The three mails of the hot path are runs: publishes of a channel to the same queues, deliveries
//! to one consumer, and equal settlements. A run is one mail in a
//! [`Batch`](crate::mesh::batch::Batch).

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
        /// The channel that waits for [`Mail::Confirmed`], if it is in confirm mode.
        confirm: Option<ChannelKey>,
    },
    /// Work: the client acknowledged, rejected or requeued deliveries.
    Settle {
        /// The queue they came from.
        queue: QueueId,
        /// The deliveries.
        deliveries: Deliveries,
        /// How they end.
        settlement: Settlement,
        /// The last mail of one `basic.ack`, `nack` or `reject` for this queue: serve its
        /// consumers.
        serve: bool,
    },
    /// Work: every other request of a channel to a queue.
    Ask(Box<(QueueId, QueueRequest)>),
    /// Work: channels of one connection ended; their consumers go, then their unacked messages
    /// return, then auto-delete queues go.
    ChannelsEnded {
        /// The channel that gets the answer when that is done: the ended channel itself, or channel
        /// 0 if the connection ended.
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
        /// The change.
        signal: Signal,
    },
    /// Work, to the control state.
    Control(Box<Request>),

    /// Reply: messages for a consumer.
    Deliver {
        /// The delivery of the first message; the numbers of the others follow.
        delivery: Delivery,
        /// The messages.
        parcels: Span<Parcel>,
    },
    /// Reply: a message for `basic.get`.
    Got {
        /// The channel that asked.
        channel: ChannelKey,
        /// The delivery.
        got: Got,
        /// The message.
        parcel: Parcel,
    },
    /// Reply: the result of a [`QueueRequest`].
    Answered {
        /// The channel that asked.
        channel: ChannelKey,
        /// The result.
        answer: QueueAnswer,
    },
    /// Reply: this home has kept the next `count` publishes it got from the channel.
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
    /// Reply: this home's log is backed up (true), and publishers towards it wait; or no longer is.
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
    /// Reply: a message waits for a consumer under a channel-wide prefetch limit.
    Wants {
        /// The consumer.
        consumer: ConsumerKey,
        /// The queue with the message.
        queue: QueueId,
    },
    /// Reply: a grant comes back, because the queue had no message to deliver.
    GrantUnused(ConsumerKey),
    /// Reply, from the control state: a change of the topology.
    Delta(Arc<Delta>),
    /// Reply, from the control state: the result of a request.
    ControlAnswer(Box<Answer>),
}

/// A message for `basic.get`, without its content.
#[derive(Clone, Copy, Debug)]
pub struct Got {
    /// The queue it came from.
    pub queue: QueueId,
    /// Where that queue lives.
    pub home: ShardId,
    /// The getter, as the queue numbers it.
    pub holder: Holder,
    /// The holder's number for it; `None` if the client does not acknowledge.
    pub delivery: Option<u64>,
    /// Delivered before.
    pub redelivered: bool,
    /// Ready messages left.
    pub remaining: u32,
}

/// A request of a channel to a queue, for whose answer the channel waits.
#[derive(Clone, Debug)]
pub enum QueueRequest {
    /// `basic.consume`.
    Consume(Subscription),
    /// `basic.cancel`.
    Cancel(ConsumerKey),
    /// `basic.get`, with its `no_ack`.
    Get(ChannelKey, bool),
    /// `queue.purge`.
    Purge(ChannelKey),
    /// `queue.delete` with if-unused and if-empty.
    Delete {
        /// The channel that asks.
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

/// The result of a [`QueueRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueAnswer {
    /// The consumer was added or cancelled, or the ended channels have left.
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
    /// `basic.consume` is refused: an exclusive consumer has the queue, or the new one is exclusive
    /// and the queue has consumers.
    ExclusiveUse,
    /// `queue.delete` with if-unused is refused: the queue has consumers.
    InUse,
    /// `queue.delete` with if-empty is refused: the queue has messages.
    NotEmpty,
}
