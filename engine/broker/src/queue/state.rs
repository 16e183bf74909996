//! The replicable part of a queue: its messages, and who has which of them.

use crate::id::Instant;
use crate::queue::outstanding::Outstanding;
use crate::queue::terms::{Deliveries, Holder};
use crate::storage::store::{MessageId, Where};

use super::fifo::FrontRun;
use super::ready::{Entry, Ready};

/// A message that was given out and is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// The message.
    pub message: MessageId,
    /// Its place in the queue.
    pub position: u64,
}

/// The messages of a queue.
#[derive(Debug, Default)]
pub struct State {
    ready: Ready,
    /// By [`Holder`]. Each counts its deliveries for itself, so that what a consumer gets and
    /// settles in a row has numbers in a row, however many others the queue has.
    held: Vec<Outstanding<Checkout>>,
    next_position: u64,
    delivered_through: u64,
}

/// A step in the life of a queue. Steps carry all they depend on, so that the same steps in the
/// same order give the same queue on any replica.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// A message arrives and waits.
    Enqueue(MessageId, Instant),
    /// So many messages arrive and leave at once to somebody who acknowledges nothing.
    PassThrough(u64),
    /// The next messages leave, so many of those of [`State::front_run`]; without a holder they
    /// are settled by leaving.
    CheckOut(Option<Holder>, usize),
    /// A holder's delivery goes back to its place.
    Requeue(Holder, u64, Instant),
    /// The next ready message is dropped.
    Drop,
}

/// What a [`Change`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing to act on: enqueued, or the named delivery or message does not exist.
    None,
    /// Messages left. `delivery` is the number of the first, if they are to be settled.
    Left {
        /// What left first.
        entry: Entry,
        /// The holder's number to settle it by.
        delivery: Option<u64>,
    },
    /// The queue holds this checked-out message again.
    Returned(Checkout),
}

impl Effect {
    /// What left, if something did.
    pub fn left(self) -> Option<Entry> {
        match self {
            Self::Left { entry, .. } => Some(entry),
            _ => None,
        }
    }
}

impl State {
    /// Makes one step. Inlined, so that a caller pays for its own change only.
    #[inline(always)]
    pub fn apply(&mut self, change: Change) -> Effect {
        match change {
            Change::Enqueue(message, ready_at) => {
                let position = self.next_position;
                self.next_position += 1;
                let rests = Where::Store(message);
                self.ready.push(Entry { rests, redelivered: false, position, ready_at });
                Effect::None
            }
            Change::PassThrough(count) => {
                self.next_position += count;
                Effect::None
            }
            Change::CheckOut(holder, count) => self.check_out(holder, count),
            Change::Requeue(holder, delivery, ready_at) => self.requeue(holder, delivery, ready_at),
            Change::Drop => match self.ready.pop() {
                Some(entry) => Effect::Left { entry, delivery: None },
                None => Effect::None,
            },
        }
    }

    /// Makes another step: messages arrive and leave at once to somebody who has to settle them.
    /// Returns the holder's number of the first.
    #[inline]
    pub fn hand_over(&mut self, holder: Holder, messages: &[MessageId]) -> u64 {
        let first = self.next_position;
        self.next_position += messages.len() as u64;
        self.delivered_through = self.next_position;
        check_out(&mut self.held, holder, messages, first)
    }

    /// Makes another step: a holder's deliveries are done with, acknowledged or rejected. Those
    /// that exist are told to `each`.
    #[inline]
    pub fn settle(&mut self, deliveries: Deliveries, each: impl FnMut(Checkout)) {
        let Deliveries { holder: Holder(place), first, count } = deliveries;
        if let Some(held) = self.held.get_mut(place as usize) {
            held.remove_many(first, count, each);
        }
    }

    /// The next messages to leave, as far as they are of one run.
    #[inline]
    pub fn front_run(&self) -> Option<FrontRun<'_>> {
        self.ready.front_run()
    }

    /// The number of the next delivery to a holder.
    #[inline]
    pub fn next_delivery(&self, Holder(place): Holder) -> u64 {
        self.held.get(place as usize).map_or(0, Outstanding::next)
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

    /// A queue that was read back from the log: `entries` in the order of their positions.
    pub fn recovered(
        entries: impl Iterator<Item = Entry>,
        next_position: u64,
        delivered_through: u64,
    ) -> Self {
        let mut ready = Ready::default();
        entries.for_each(|entry| ready.push(entry));
        Self { ready, next_position, delivered_through, ..Self::default() }
    }

    /// The ready message at `position`: O(log n).
    pub fn find(&self, position: u64) -> Option<Where> {
        self.ready.find(position).map(|entry| entry.rests)
    }

    /// Says anew where the message rests that `index` others of those in [`Ready::fifo`] are in
    /// front of. That is no step in the life of a queue: a replica has it where it likes.
    pub fn moved(&mut self, index: usize, rests: Where) {
        self.ready.fifo_mut().set(index, rests);
    }

    /// As [`Self::moved`], of a message that came in at `position`.
    pub fn moved_at(&mut self, position: u64, rests: Where) {
        let fifo = self.ready.fifo_mut();
        let index = fifo.index_of(position);
        if fifo.get(index).is_some_and(|entry| entry.position == position) {
            fifo.set(index, rests);
        }
    }

    /// The messages given out and not settled.
    pub fn checked_out(&self) -> impl Iterator<Item = &Checkout> {
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

    /// The unsettled deliveries of a holder, oldest first.
    pub fn held_by(&self, holder: Holder) -> Vec<u64> {
        let held = self.held.get(holder.0 as usize);
        held.map_or(Vec::new(), |held| held.iter().map(|(number, _)| number).collect())
    }

    /// Takes all messages out, each with its position, for the end of the queue.
    pub fn drain(&mut self) -> impl Iterator<Item = (u64, Where)> {
        let checked_out = self.checked_out();
        let checked_out = checked_out.map(|out| (out.position, Where::Store(out.message)));
        let checked_out: Vec<_> = checked_out.collect();
        self.held = Vec::new();
        let ready = std::iter::from_fn(|| self.ready.pop());
        let ready = ready.map(|entry| (entry.position, entry.rests));
        checked_out.into_iter().chain(ready)
    }

    #[inline]
    fn check_out(&mut self, holder: Option<Holder>, count: usize) -> Effect {
        let Some(run) = self.ready.front_run() else {
            return Effect::None;
        };
        let FrontRun { messages, redelivered, position, ready_at } = run;
        let messages = &messages[..count];
        let Some(&message) = messages.first() else {
            return Effect::None;
        };
        let through = position + messages.len() as u64;
        self.delivered_through = self.delivered_through.max(through);
        let delivery = holder.map(|holder| check_out(&mut self.held, holder, messages, position));
        self.ready.pop_many(count);
        let entry = Entry { rests: Where::Store(message), redelivered, position, ready_at };
        Effect::Left { entry, delivery }
    }

    #[inline]
    fn let_off(&mut self, Holder(place): Holder, delivery: u64) -> Option<Checkout> {
        self.held.get_mut(place as usize)?.remove(delivery)
    }

    fn requeue(&mut self, holder: Holder, delivery: u64, ready_at: Instant) -> Effect {
        let Some(checkout) = self.let_off(holder, delivery) else {
            return Effect::None;
        };
        let Checkout { message, position } = checkout;
        let rests = Where::Store(message);
        self.ready.put_back(Entry { rests, redelivered: true, position, ready_at });
        Effect::Returned(checkout)
    }
}

/// Notes what a holder was given, from `position` on; returns its number of the first.
#[inline]
fn check_out(
    held: &mut Vec<Outstanding<Checkout>>,
    Holder(place): Holder,
    messages: &[MessageId],
    position: u64,
) -> u64 {
    let place = place as usize;
    if held.len() <= place {
        held.resize_with(place + 1, Outstanding::default);
    }
    let given = messages.iter().enumerate();
    held[place].push_many(given.map(|(nth, &message)| {
        let position = position + nth as u64;
        Checkout { message, position }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(effect: Effect) -> (u32, bool, Option<u64>) {
        match effect {
            Effect::Left {
                entry: Entry { rests: Where::Store(MessageId(id)), redelivered, .. },
                delivery,
            } => (id, redelivered, delivery),
            other => panic!("{other:?}"),
        }
    }

    fn settled(state: &mut State, holder: u32, first: u64, count: u64) -> Vec<Checkout> {
        let mut settled = Vec::new();
        let deliveries = Deliveries { holder: Holder(holder), first, count };
        state.settle(deliveries, |checkout| settled.push(checkout));
        settled
    }

    #[test]
    fn what_leaves_together_is_numbered_in_a_row() {
        let mut state = State::default();
        for message in 0..10 {
            state.apply(Change::Enqueue(MessageId(message), Instant(u64::from(message / 6))));
        }
        let holder = Some(Holder(0));
        let ids = |run: Option<FrontRun<'_>>| run.map(|run| run.messages.to_vec());
        assert_eq!(ids(state.front_run()), Some((0..6).map(MessageId).collect()));
        assert_eq!(left(state.apply(Change::CheckOut(holder, 4))), (0, false, Some(0)));
        state.apply(Change::Requeue(Holder(0), 1, Instant(1)));
        // One that came back is before the rest, and by itself.
        assert_eq!(ids(state.front_run()), Some(vec![MessageId(1)]));
        assert_eq!(left(state.apply(Change::CheckOut(holder, 1))), (1, true, Some(4)));
        assert_eq!(left(state.apply(Change::CheckOut(holder, 2))), (4, false, Some(5)));
        assert_eq!(ids(state.front_run()), Some((6..10).map(MessageId).collect()));
        assert_eq!((state.delivered_through(), state.next_delivery(Holder(0))), (6, 7));
        let settled = settled(&mut state, 0, 0, 7).into_iter();
        let expected = [(0, 0), (2, 2), (3, 3), (1, 1), (4, 4), (5, 5)];
        assert!(settled.map(|Checkout { message, position }| (message.0, position)).eq(expected));
    }

    #[test]
    fn a_requeued_message_returns_to_its_place_and_is_flagged() {
        let mut state = State::default();
        for message in 0..4 {
            state.apply(Change::Enqueue(MessageId(message), Instant(0)));
        }
        let holder = Some(Holder(0));
        assert_eq!(left(state.apply(Change::CheckOut(holder, 1))), (0, false, Some(0)));
        assert_eq!(left(state.apply(Change::CheckOut(holder, 1))), (1, false, Some(1)));
        assert_eq!(left(state.apply(Change::CheckOut(None, 1))), (2, false, None));
        state.apply(Change::Requeue(Holder(0), 1, Instant(1)));
        state.apply(Change::Requeue(Holder(0), 0, Instant(1)));
        assert_eq!((state.ready_count(), state.unacked_count()), (3, 0));
        assert_eq!(left(state.apply(Change::CheckOut(holder, 1))), (0, true, Some(2)));
        assert_eq!(left(state.apply(Change::CheckOut(holder, 1))), (1, true, Some(3)));
        assert_eq!(left(state.apply(Change::CheckOut(holder, 1))), (3, false, Some(4)));
        assert_eq!(state.apply(Change::CheckOut(holder, 1)), Effect::None);
        assert_eq!(state.held_by(Holder(0)), [2, 3, 4]);
    }

    #[test]
    fn settling_twice_does_nothing() {
        let mut state = State::default();
        state.apply(Change::Enqueue(MessageId(9), Instant(0)));
        state.apply(Change::CheckOut(Some(Holder(3)), 1));
        let checkout = Checkout { message: MessageId(9), position: 0 };
        assert_eq!(settled(&mut state, 2, 0, 1), []);
        assert_eq!(settled(&mut state, 3, 0, 1), [checkout]);
        assert_eq!(settled(&mut state, 3, 0, 1), []);
        assert_eq!(state.apply(Change::Requeue(Holder(3), 0, Instant(0))), Effect::None);
    }

    #[test]
    fn each_holder_numbers_its_own_deliveries() {
        let mut state = State::default();
        assert_eq!(state.hand_over(Holder(1), &[MessageId(0)]), 0);
        assert_eq!(state.hand_over(Holder(0), &[MessageId(1)]), 0);
        assert_eq!(state.hand_over(Holder(1), &[MessageId(2)]), 1);
        assert_eq!((state.unacked_count(), state.delivered_through()), (3, 3));
        assert_eq!(state.held_by(Holder(1)), [0, 1]);
        state.apply(Change::Requeue(Holder(1), 1, Instant(1)));
        assert_eq!(settled(&mut state, 1, 0, 1).len(), 1);
        assert_eq!(left(state.apply(Change::CheckOut(Some(Holder(1)), 1))), (2, true, Some(2)));
        assert_eq!(state.held_by(Holder(0)), [0]);
    }
}
