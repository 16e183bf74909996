//! The replicable part of a queue: its messages, and who has which of them.

use crate::id::WallTime;
use crate::queue::outstanding::Outstanding;
use crate::queue::step::Step;
use crate::queue::terms::{Deliveries, Holder};
use crate::storage::store::{MessageId, Where};

use super::fifo::FrontRun;
use super::ready::{Entry, Ready};

#[cfg(test)]
mod tests;

/// A message of a queue: its position there, and where this shard has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where this shard has it.
    pub location: Where,
    /// Its position in the queue.
    pub position: u64,
}

/// The messages of a queue. It changes only by [`State::apply`], except for the locations of
/// messages on this shard: steps do not decide them, and [`State::relocate`] changes them.
#[derive(Debug, Default)]
pub struct State {
    ready: Ready,
    /// Indexed by [`Holder`]. Delivery numbers are per holder, so one consumer's deliveries stay
    /// contiguous and settle as one range.
    held: Vec<Outstanding<Placed>>,
    next_position: u64,
    delivered_through: u64,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Messages that it moved.
    pub count: u64,
    /// The delivery number of the first message; the others follow without a gap.
    pub first_delivery: Option<u64>,
}

impl State {
    /// Makes one step. `locations` says where this shard has the messages that the step brings, one
    /// for each; `left` gets each message that leaves for good.
    ///
    /// Inlined, so that a caller pays for its own step only.
    ///
    /// # Panics
    /// When more messages shall leave than wait; debug builds also where a position is not the
    /// queue's next one. The steps were made for another queue then.
    #[inline(always)]
    pub fn apply(
        &mut self,
        step: Step,
        locations: impl ExactSizeIterator<Item = Where>,
        mut left: impl FnMut(&Placed),
    ) -> Effect {
        match step {
            Step::Enqueue { position, count, at, redelivered } => {
                debug_assert!(position >= self.next_position && locations.len() as u64 == count);
                for (location, position) in locations.zip(position..) {
                    let entry = Entry { rests: location, redelivered, position, ready_at: at };
                    self.ready.push(entry);
                }
                self.next_position = position + count;
                if redelivered {
                    self.delivered_through = self.next_position;
                }
                Effect { count, first_delivery: None }
            }
            Step::PassThrough { count } => {
                self.next_position += count;
                Effect { count, first_delivery: None }
            }
            Step::HandOver { holder, count } => {
                debug_assert_eq!(locations.len() as u64, count);
                let first = self.next_position;
                self.next_position += count;
                self.delivered_through = self.next_position;
                let given = locations.enumerate().map(|(nth, location)| {
                    let position = first + nth as u64;
                    Placed { location, position }
                });
                let first_delivery = Some(self.holder(holder).push_many(given));
                Effect { count, first_delivery }
            }
            Step::CheckOut { from, count, holder } => {
                debug_assert_eq!(self.ready.front().map(|front| front.position), Some(from));
                self.check_out(count, holder, left)
            }
            Step::Settle(Deliveries { holder: Holder(slot), first, count: most }) => {
                let mut count = 0;
                if let Some(held) = self.held.get_mut(slot as usize) {
                    held.remove_many(first, most, |message| {
                        count += 1;
                        left(message);
                    });
                }
                Effect { count, first_delivery: None }
            }
            Step::Requeue { deliveries, at } => self.requeue(&deliveries, at),
            Step::Drop { from, count } => {
                debug_assert_eq!(self.ready.front().map(|front| front.position), Some(from));
                for _ in 0..count {
                    let entry = self.ready.pop().expect("a drop names messages that wait");
                    left(&Placed { location: entry.rests, position: entry.position });
                }
                Effect { count, first_delivery: None }
            }
            Step::Clear => self.clear(left),
        }
    }

    /// The next messages of one run, see [`Ready::front_run`].
    #[inline]
    pub fn front_run(&self) -> Option<FrontRun<'_>> {
        self.ready.front_run()
    }

    /// The number of the next delivery to a holder.
    #[inline]
    pub fn next_delivery(&self, Holder(slot): Holder) -> u64 {
        self.held.get(slot as usize).map_or(0, Outstanding::next)
    }

    /// The next message to leave.
    #[inline]
    pub fn front(&self) -> Option<Entry> {
        self.ready.front()
    }

    /// The ready messages.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The position of the message that comes next.
    #[inline]
    pub fn next_position(&self) -> u64 {
        self.next_position
    }

    /// Messages at positions below this may have been given out.
    pub fn delivered_through(&self) -> u64 {
        self.delivered_through
    }

    /// Where the ready message at `position` is: O(log n).
    pub fn find(&self, position: u64) -> Option<Where> {
        self.ready.find(position).map(|entry| entry.rests)
    }

    /// Changes where a ready message rests; `index` counts the messages that were never given out.
    pub fn relocate(&mut self, index: usize, location: Where) {
        self.ready.fifo_mut().set(index, location);
    }

    /// As [`Self::relocate`], by the position of the message.
    pub fn relocate_at(&mut self, position: u64, location: Where) {
        let fifo = self.ready.fifo_mut();
        let index = fifo.index_of(position);
        if fifo.get(index).is_some_and(|entry| entry.position == position) {
            fifo.set(index, location);
        }
    }

    /// The messages given out and not settled.
    pub fn checked_out(&self) -> impl Iterator<Item = &Placed> {
        self.held.iter().flat_map(Outstanding::iter).map(|(_, checkout)| checkout)
    }

    /// Messages waiting.
    #[inline]
    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Whether no message waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Messages given out and not settled.
    pub fn unacked_count(&self) -> usize {
        self.held.iter().map(Outstanding::len).sum()
    }

    /// The numbers of the unsettled deliveries of a holder, oldest first.
    pub fn held_by(&self, Holder(slot): Holder) -> impl Iterator<Item = u64> {
        self.held
            .get(slot as usize)
            .into_iter()
            .flat_map(Outstanding::iter)
            .map(|(number, _)| number)
    }

    #[inline]
    fn holder(&mut self, Holder(slot): Holder) -> &mut Outstanding<Placed> {
        let slot = slot as usize;
        if self.held.len() <= slot {
            self.held.resize_with(slot + 1, Outstanding::default);
        }
        &mut self.held[slot]
    }

    /// One iteration per run. A run ends at another ready time or redelivered flag, at a gap in the
    /// positions, at the wrap of the queue's ring buffer, and before a message on disk only.
    #[inline(always)]
    fn check_out(
        &mut self,
        count: u64,
        holder: Option<Holder>,
        mut left: impl FnMut(&Placed),
    ) -> Effect {
        let first_delivery = holder.map(|holder| self.next_delivery(holder));
        let mut rest = count as usize;
        while rest > 0 {
            let Some(run) = self.ready.front_run() else {
                self.check_out_absent(holder, &mut left);
                rest -= 1;
                continue;
            };
            let (messages, position) =
                (&run.messages[..rest.min(run.messages.len())], run.position);
            let taken = messages.len();
            self.delivered_through = self.delivered_through.max(position + taken as u64);
            if let Some(Holder(slot)) = holder {
                let slot = slot as usize;
                if self.held.len() <= slot {
                    self.held.resize_with(slot + 1, Outstanding::default);
                }
                self.held[slot].push_many(messages.iter().enumerate().map(|(nth, message)| {
                    let position = position + nth as u64;
                    Placed { location: Where::Store(*message), position }
                }));
            } else {
                let messages = messages.iter().zip(position..);
                messages.for_each(|(message, position)| {
                    left(&Placed { location: Where::Store(*message), position });
                });
            }
            self.ready.pop_many(taken);
            rest -= taken;
        }
        Effect { count, first_delivery }
    }

    /// The next message leaves while this shard has it on disk only. A replica checks messages out
    /// without reading them; the shard that decides reads them first.
    #[cold]
    fn check_out_absent(&mut self, holder: Option<Holder>, left: &mut impl FnMut(&Placed)) {
        let entry = self.ready.pop().expect("a check-out names messages that wait");
        let Entry { rests: location, position, .. } = entry;
        self.delivered_through = self.delivered_through.max(position + 1);
        match holder {
            Some(holder) => {
                self.holder(holder).push_many(std::iter::once(Placed { location, position }));
            }
            None => left(&Placed { location, position }),
        }
    }

    fn requeue(&mut self, deliveries: &Deliveries, at: WallTime) -> Effect {
        let mut count = 0;
        for number in deliveries.numbers() {
            let held = self.held.get_mut(deliveries.holder.0 as usize);
            let Some(returned) = held.and_then(|held| held.remove(number)) else { continue };
            let Placed { location: rests, position } = returned;
            self.ready.put_back(Entry { rests, redelivered: true, position, ready_at: at });
            count += 1;
        }
        Effect { count, first_delivery: None }
    }

    #[cold]
    fn clear(&mut self, mut left: impl FnMut(&Placed)) -> Effect {
        let mut count = 0;
        for message in self.checked_out() {
            left(message);
            count += 1;
        }
        self.held = Vec::new();
        while let Some(entry) = self.ready.pop() {
            left(&Placed { location: entry.rests, position: entry.position });
            count += 1;
        }
        Effect { count, first_delivery: None }
    }
}

/// No locations, for a step that brings no message.
pub fn none() -> impl ExactSizeIterator<Item = Where> {
    std::iter::empty()
}

/// The locations of messages that the store knows.
pub fn stored(ids: &[MessageId]) -> impl ExactSizeIterator<Item = Where> {
    ids.iter().map(|id| Where::Store(*id))
}
