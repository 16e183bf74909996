//! A delivery on its way from the home of its queue to the channel of its consumer.

use crate::id::{ConsumerKey, QueueId, ShardId};
use crate::queue::terms::Holder;

/// A delivery to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// To whom.
    pub consumer: ConsumerKey,
    /// The queue it comes from.
    pub queue: QueueId,
    /// That queue's home.
    pub home: ShardId,
    /// Who the consumer is to the queue.
    pub holder: Holder,
    /// The holder's number for it; `None` where nothing is to be acknowledged.
    pub number: Option<u64>,
    /// Delivered before.
    pub redelivered: bool,
    /// It used up a grant of the channel-wide limit.
    pub granted: bool,
}

impl Delivery {
    /// Whether this is what comes `count` deliveries of this shard behind `first` and says
    /// the same, where both are in one batch. Nobody else is the same holder there: who takes the
    /// place of another one has its consume-ok in between.
    #[inline(always)]
    pub fn continues(&self, first: &Self, count: u64) -> bool {
        let continues = (self.queue, self.holder) == (first.queue, first.holder)
            && (self.redelivered, self.granted) == (first.redelivered, first.granted)
            && self.number == first.number.map(|number| number + count);
        debug_assert!(!continues || (self.consumer, self.home) == (first.consumer, first.home));
        continues
    }

    /// This one and those that continue it, without end.
    #[inline]
    pub fn run(self) -> impl Iterator<Item = Self> {
        (0..).map(move |behind| Self { number: self.number.map(|first| first + behind), ..self })
    }
}
