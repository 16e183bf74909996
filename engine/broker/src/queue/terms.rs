//! The types that a queue shares with its callers: who has which deliveries, how they end, and on
//! which terms a consumer takes them.

use crate::id::ConsumerKey;

/// Who a message is given to: a consumer's or getter's place in the queue's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub u32);

/// A range of a queue's deliveries to one holder, by the holder's delivery numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deliveries {
    /// Who has them.
    pub holder: Holder,
    /// The number of the oldest.
    pub first: u64,
    /// How many, without a gap.
    pub count: u64,
}

impl Deliveries {
    /// Their numbers, oldest first.
    #[inline]
    pub fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.count
    }
}

/// How a client ends a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Processed: the message leaves the queue.
    Ack,
    /// The message goes back to its place in the queue.
    Requeue,
    /// Refused: the message is dropped (later: dead-lettered).
    Reject,
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
    /// The queue may have no other consumer.
    pub exclusive: bool,
    /// `x-priority`: higher ones are served first while they can take messages.
    pub priority: i32,
    /// Under a channel-wide limit: each delivery needs a [`Signal::Grant`].
    pub limited: bool,
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
