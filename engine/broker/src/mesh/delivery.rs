//! A delivery on its way from the home of its queue to the channel of its consumer.

use crate::id::{ConsumerKey, QueueId, ShardId};
use crate::queue::terms::Holder;

/// A delivery to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The receiver.
    pub consumer: ConsumerKey,
    /// The queue it comes from.
    pub queue: QueueId,
    /// That queue's home.
    pub home: ShardId,
    /// The consumer, as the queue numbers it.
    pub holder: Holder,
    /// The holder's number for it; `None` if the consumer does not acknowledge.
    pub number: Option<u64>,
    /// Delivered before.
    pub redelivered: bool,
    /// It used up a grant of the channel-wide limit.
    pub granted: bool,
}

impl Delivery {
    /// Whether this delivery is the one `count` behind `first` in the same run. Both must be in one
    /// batch.
    #[inline(always)]
    pub fn continues(&self, first: &Self, count: u64) -> bool {
        // Queue and holder identify the consumer: a holder number that is used again belongs to a
        // new consumer, whose consume-ok is a mail between the two deliveries and ends the run.
        let continues = (self.queue, self.holder) == (first.queue, first.holder)
            && (self.redelivered, self.granted) == (first.redelivered, first.granted)
            && self.number == first.number.map(|number| number + count);
        debug_assert!(!continues || (self.consumer, self.home) == (first.consumer, first.home));
        continues
    }

    /// This delivery and its continuations, without end.
    #[inline]
    pub fn run(self) -> impl Iterator<Item = Self> {
        (0..).map(move |behind| Self { number: self.number.map(|first| first + behind), ..self })
    }
}
