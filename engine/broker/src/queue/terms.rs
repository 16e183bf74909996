//! The words that a queue and those who use it have in common: who has which deliveries, how they
//! end, and on which terms a consumer takes them.

use crate::id::ConsumerKey;

/// Who a message is given to: a consumer's or getter's place in the queue's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub u32);

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
