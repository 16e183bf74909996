//! Queue kinds: the operations that each kind must provide, however it keeps its messages.
//!
//! [`Kind`] is matched once per run of messages, never per message. A new kind is a new variant:
//! the compiler then asks for each verb here. [`Queue::new`](super::Queue::new) chooses the kind.

pub mod classic;

use crate::id::WallTime;
use crate::queue::fifo::FrontRun;
use crate::queue::pageable::Pageable;
use crate::queue::ready::Entry;
use crate::queue::state::Placed;
use crate::queue::terms::{Deliveries, Holder};
use crate::storage::store::{MessageId, Where};

use self::classic::Classic;

/// The messages of a queue, kept as its kind does.
#[derive(Debug)]
pub enum Kind {
    /// Each message goes to one consumer, in the order of publishing.
    Classic(Classic),
}

/// A message that a restart found in the log.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredMessage {
    /// Its position in the queue.
    pub position: u64,
    /// Where it is.
    pub location: Where,
    /// It may have been given out before.
    pub redelivered: bool,
}

macro_rules! of_kind {
    ($kind:expr, $queue:ident => $act:expr) => {
        match $kind {
            Kind::Classic($queue) => $act,
        }
    };
}

impl Kind {
    /// A message arrives and waits.
    #[inline(always)]
    pub fn accept(&mut self, message: MessageId, at: WallTime) {
        of_kind!(self, queue => queue.accept(message, at));
    }

    /// Messages arrive and go at once to a holder that has to settle them. Returns the delivery
    /// number of the first.
    #[inline(always)]
    pub fn hand_over(&mut self, holder: Holder, messages: &[MessageId]) -> u64 {
        of_kind!(self, queue => queue.hand_over(holder, messages))
    }

    /// Messages arrive and leave at once: the consumer does not acknowledge.
    #[inline(always)]
    pub fn pass_through(&mut self, count: u64) {
        of_kind!(self, queue => queue.pass_through(count));
    }

    /// Adds the messages that a restart found, in the order of positions. The next message will get
    /// the position `next`.
    pub fn recover(
        &mut self,
        messages: impl Iterator<Item = RecoveredMessage>,
        next: u64,
        at: WallTime,
    ) {
        of_kind!(self, queue => queue.recover(messages, next, at));
    }

    /// The next message that a consumer may be given.
    #[inline(always)]
    pub fn front(&self) -> Option<Entry> {
        of_kind!(self, queue => queue.state().front())
    }

    /// The next messages of one run: same ready time and redelivered flag, consecutive positions,
    /// contiguous in memory. `None` if no message waits or the next one is on disk only.
    #[inline(always)]
    pub fn front_run(&self) -> Option<FrontRun<'_>> {
        of_kind!(self, queue => queue.state().front_run())
    }

    /// The next `count` messages leave, to a holder that has to settle them or, without one, for
    /// good: `left` then gets each. At least `count` must wait. Returns the delivery number of the
    /// first.
    #[inline(always)]
    pub fn check_out(
        &mut self,
        holder: Option<Holder>,
        count: u64,
        left: impl FnMut(&Placed),
    ) -> Option<u64> {
        of_kind!(self, queue => queue.check_out(holder, count, left))
    }

    /// Ends deliveries: `left` gets the message of each that exists. Returns how many existed.
    #[inline(always)]
    pub fn settle(&mut self, deliveries: Deliveries, left: impl FnMut(&Placed)) -> u64 {
        of_kind!(self, queue => queue.settle(deliveries, left))
    }

    /// Puts the messages of deliveries back to their places. Returns how many deliveries existed.
    pub fn requeue(&mut self, deliveries: Deliveries, at: WallTime) -> u64 {
        of_kind!(self, queue => queue.requeue(deliveries, at))
    }

    /// The next `count` messages leave without being given out. At least `count` wait.
    pub fn drop_front(&mut self, count: u64, left: impl FnMut(&Placed)) {
        of_kind!(self, queue => queue.drop_front(count, left));
    }

    /// Everything leaves: the end of the queue.
    pub fn clear(&mut self, left: impl FnMut(&Placed)) {
        of_kind!(self, queue => queue.clear(left));
    }

    /// Whether no message waits.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        of_kind!(self, queue => queue.state().is_empty())
    }

    /// Messages that wait.
    #[inline(always)]
    pub fn ready_count(&self) -> usize {
        of_kind!(self, queue => queue.state().ready_count())
    }

    /// Messages given out and not settled.
    pub fn unacked_count(&self) -> usize {
        of_kind!(self, queue => queue.state().unacked_count())
    }

    /// The position of the message that comes next.
    #[inline(always)]
    pub fn next_position(&self) -> u64 {
        of_kind!(self, queue => queue.state().next_position())
    }

    /// Messages at positions below this may have been given out.
    pub fn delivered_through(&self) -> u64 {
        of_kind!(self, queue => queue.state().delivered_through())
    }

    /// The number of the next delivery to a holder.
    #[inline(always)]
    pub fn next_delivery(&self, holder: Holder) -> u64 {
        of_kind!(self, queue => queue.state().next_delivery(holder))
    }

    /// The range of delivery numbers that contains all unsettled deliveries of a holder; some in it
    /// may be settled.
    pub fn held_by(&self, holder: Holder) -> Deliveries {
        of_kind!(self, queue => queue.held_by(holder))
    }

    /// The messages given out and not settled.
    pub fn checked_out(&self) -> impl Iterator<Item = &Placed> {
        of_kind!(self, queue => queue.state().checked_out())
    }

    /// Where the message waiting at `position` rests: O(log n).
    pub fn find(&self, position: u64) -> Option<Where> {
        of_kind!(self, queue => queue.state().find(position))
    }

    /// The messages that wait, for moves between memory and disk.
    pub fn pageable(&self) -> Pageable<'_> {
        of_kind!(self, queue => Pageable::of(queue.state().ready()))
    }

    /// Changes where a message of [`Kind::pageable`] rests, by its index there.
    pub fn relocate(&mut self, index: usize, location: Where) {
        of_kind!(self, queue => queue.relocate(index, location));
    }

    /// As [`Kind::relocate`], by the message's position.
    pub fn relocate_at(&mut self, position: u64, location: Where) {
        of_kind!(self, queue => queue.relocate_at(position, location));
    }
}
