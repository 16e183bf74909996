//! The one door into the queues of this shard. Messages leave at once where they can.

use std::mem;

use crate::delivery::outputs::Outputs;
use crate::id::QueueId;
use crate::message::{First, Message, Messages, Upcoming};
use crate::queue::Queue;
use crate::storage::log::{QueueRef, Ticket};
use crate::storage::store::{MessageId, Store};
use crate::turn::Turn;

use super::deliver::{Timed, delivery_of, next_taker};
use super::durability::Stored;
use super::paging::queue_ref;
use super::{Home, OpenQueue, Shared};

/// What became of messages that were published to queues of one home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// How far the log has to have come before the publisher may be confirmed; `None` where nothing
    /// has to outlive the process.
    pub promise: Option<Ticket>,
    /// The home keeps nothing any more, because its log has failed: the messages are refused.
    pub refused: bool,
    /// The log has more to write than it should: publishers of messages that it keeps have to wait.
    pub log_backed_up: bool,
    /// A queue whose consumers are behind: the publisher should wait for them.
    pub backlog: Option<QueueId>,
}

impl Home {
    /// Puts messages into queues that live here, each queue in their order. Queues that are gone
    /// swallow them, which is what RabbitMQ confirms too.
    ///
    /// Whoever publishes answers for it by what this returns; see [`Home::confirms_later`].
    #[inline(always)]
    pub fn publish(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        queues: impl Iterator<Item = QueueId> + Clone,
        messages: &impl Upcoming,
    ) -> Accepted {
        let mut accepted = Accepted { refused: self.shared.has_failed(), ..Accepted::default() };
        if accepted.refused {
            return accepted;
        }
        // Known when this is compiled: a lone message pays nothing for runs, nor they for it.
        if let Some(message) = messages.lone() {
            self.publish_one(turn, out, queues, message, &mut accepted);
        } else {
            self.publish_run(turn, out, queues, messages, &mut accepted);
        }
        accepted.log_backed_up = accepted.promise.is_some() && self.shared.log_backed_up;
        accepted
    }

    /// The only message of a mail.
    #[inline(never)]
    fn publish_lent(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        queues: impl Iterator<Item = QueueId> + Clone,
        messages: &impl Upcoming,
        accepted: &mut Accepted,
    ) {
        messages.clone().lend(|message| {
            self.publish_one(turn, out, queues.clone(), message, accepted);
            true
        });
    }

    /// Each queue first gives out what it can at once. Only the rest is taken message by message,
    /// because a message that several queues keep is stored once for all of them.
    #[inline(never)]
    fn publish_run(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        queues: impl Iterator<Item = QueueId> + Clone,
        messages: &impl Upcoming,
        accepted: &mut Accepted,
    ) {
        if messages.count() == 1 {
            return self.publish_lent(turn, out, queues, messages, accepted);
        }
        let is_lone = queues.clone().nth(1).is_none();
        let mut given = mem::take(&mut self.shared.given);
        given.clear();
        for id in queues.clone() {
            let mut rest = messages.clone();
            let mut count = 0;
            if let Some(mut queue) = self.open(turn, out, id) {
                count = queue.give_at_once(false, &mut rest);
                if is_lone && rest.count() > 0 {
                    // No other queue needs these, so each can be stored as it is handed over.
                    let mut handed = rest.clone();
                    queue.give_at_once(true, &mut rest);
                    accepted.promise = queue.log_handed(&mut handed);
                    // And what is left waits in this queue alone.
                    queue.enqueue_all(&mut rest, accepted);
                    count = messages.count();
                }
            }
            given.push(count);
        }
        if given.iter().any(|given| *given < messages.count()) {
            // A message goes to those queues that have not given it out: each of them gave out the
            // first `given` of the run.
            let mut nth = 0;
            messages.clone().lend(|message| {
                let others = queues.clone().zip(&given).filter(|(_, given)| **given <= nth);
                let others = others.map(|(queue, _)| queue);
                self.publish_one(turn, out, others, message, accepted);
                nth += 1;
                true
            });
        }
        self.shared.given = given;
    }

    #[inline(always)]
    fn publish_one(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        queues: impl Iterator<Item = QueueId>,
        message: &Message<'_>,
        accepted: &mut Accepted,
    ) {
        let mut stored = None;
        for id in queues {
            if let Some(mut queue) = self.open(turn, out, id) {
                queue.enqueue(message, &mut stored, accepted);
            }
        }
        if !self.shared.stored.queues.is_empty()
            && let Some(id) = stored
        {
            let promise = self.shared.log_stored(turn, out, id, message);
            accepted.promise = promise.or(accepted.promise);
        }
    }
}

impl OpenQueue<'_> {
    /// Takes messages that no other queue gets, one by one. Not inlined: the loop that gives
    /// messages out at once needs all registers.
    #[inline(never)]
    fn enqueue_all(&mut self, messages: &mut impl Messages, accepted: &mut Accepted) {
        messages.lend(|message| {
            let mut stored = None;
            self.enqueue(message, &mut stored, accepted);
            if !self.home.stored.queues.is_empty()
                && let Some(id) = stored
            {
                let promise = self.home.log_stored(self.turn, self.out, id, message);
                accepted.promise = promise.or(accepted.promise);
            }
            true
        });
    }

    /// A message that finds its queue empty and a consumer with room leaves at once. `stored` is
    /// the store's id of the message, once a queue keeps it.
    ///
    /// Not inlined: in a loop over queues the compiler would work out beforehand what rendering
    /// needs of the message, and mostly there is one queue.
    #[inline(never)]
    fn enqueue(
        &mut self,
        message: &Message<'_>,
        stored: &mut Option<MessageId>,
        accepted: &mut Accepted,
    ) {
        let Self { queue, home, turn, out } = self;
        queue.counts.published += 1;
        let taker = if queue.kind.is_empty() { next_taker(queue, out) } else { None };
        let mut number = None;
        if taker.is_some_and(|(taker, _)| taker.no_ack) {
            queue.kind.pass_through(1);
            home.counts.count_passed_through(1);
        } else {
            let id = home.keep(queue, message, stored);
            if let Some((taker, _)) = taker {
                number = Some(queue.kind.hand_over(taker.holder, &[id]));
            } else {
                queue.kind.accept(id, turn.wall);
            }
        }
        let Some((taker, sink)) = taker else {
            accepted.backlog = self.large_backlog(message).or(accepted.backlog);
            return;
        };
        queue.consumers.took_many(&taker, 1);
        queue.counts.delivered += 1;
        home.counts.count_deliveries(taker.no_ack, 1);
        queue.waits.record_many(message.published_at, 0, turn.now, 1);
        home.latency.record_many(message.published_at, 0, turn.now, 1);
        let shard = turn.shard;
        out.deliver(sink, || delivery_of(queue, shard, &taker, number, false), message);
    }

    /// Gives messages that came together to consumers while nothing waits and one of them can take
    /// more: to those that acknowledge (`acks`), or to the others. Returns how many; the store's
    /// ids of those to be acknowledged are in [`Shared::handed`].
    #[inline(always)]
    fn give_at_once(&mut self, acks: bool, messages: &mut impl Upcoming) -> usize {
        let Self { queue, home, turn, out } = self;
        home.handed.clear();
        let mut given = 0;
        while messages.count() > 0
            && queue.kind.is_empty()
            && let Some((taker, sink)) = next_taker(queue, out)
            && taker.no_ack != acks
        {
            let number = acks.then(|| queue.kind.next_delivery(taker.holder));
            let first = delivery_of(queue, turn.shard, &taker, number, false);
            let next = First { most: queue.consumers.in_a_row(&taker), of: &mut *messages };
            let mut timed = Timed::of(next, 0, turn.now, &mut queue.waits, &mut home.latency);
            let count = if acks {
                let (store, ids) = (&mut home.store, &mut home.handed);
                let before = ids.len();
                let mut stored = StoredOnTheWay { messages: &mut timed, store, ids };
                let count = out.deliver_many(sink, first, &mut stored);
                queue.kind.hand_over(taker.holder, &home.handed[before..]);
                count
            } else {
                let count = out.deliver_many(sink, first, &mut timed);
                queue.kind.pass_through(count);
                home.counts.count_passed_through(count);
                count
            };
            timed.record();
            queue.consumers.took_many(&taker, count as u32);
            queue.counts.published += count;
            queue.counts.delivered += count;
            home.counts.count_deliveries(taker.no_ack, count);
            given += count as usize;
        }
        given
    }

    /// Adds the messages that the queue has just handed over to the log: the first of `messages`.
    #[inline]
    fn log_handed(&mut self, messages: &mut impl Messages) -> Option<Ticket> {
        let Self { queue, home, turn, out } = self;
        home.log.as_ref()?;
        let handed = mem::take(&mut home.handed);
        let mut promise = None;
        let is_durable = queue.log_id.is_some();
        let first = queue.kind.next_position() - handed.len() as u64;
        let held = [false, true].map(|persistent| queue_ref(queue, persistent, first));
        let mut ids = handed.iter().zip(first..);
        First { of: messages, most: handed.len() }.lend(|message| {
            let Some((id, sequence)) = ids.next() else { return false };
            let persistent = is_durable && message.is_persistent();
            home.stored.durable = persistent;
            home.stored.queues.push(QueueRef { sequence, ..held[usize::from(persistent)] });
            promise = home.log_stored(turn, out, *id, message).or(promise);
            true
        });
        home.handed = handed;
        promise
    }
}

impl Shared {
    /// Puts the message into the store for a queue, or finds it there where another queue keeps it
    /// already, and notes the queue for its record in the log, if there is one.
    #[inline]
    fn keep(
        &mut self,
        queue: &Queue,
        message: &Message<'_>,
        stored: &mut Option<MessageId>,
    ) -> MessageId {
        if self.log.is_some() {
            let Stored { queues, durable } = &mut self.stored;
            let persistent = queue.log_id.is_some() && message.is_persistent();
            *durable |= persistent;
            queues.push(queue_ref(queue, persistent, queue.kind.next_position()));
        }
        if let Some(id) = *stored {
            self.store.retain(id);
            return id;
        }
        let id = self.store.put(message, 1);
        *stored = Some(id);
        id
    }
}

/// Messages that are put into the store while they are lent: their consumers have to acknowledge.
struct StoredOnTheWay<'a, M> {
    messages: &'a mut M,
    store: &'a mut Store,
    /// The store's ids of those lent so far.
    ids: &'a mut Vec<MessageId>,
}

impl<M: Messages> Messages for StoredOnTheWay<'_, M> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        self.messages.lend(|message| {
            self.ids.push(self.store.put(message, 1));
            take(message)
        });
    }
}
