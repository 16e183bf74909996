//! Messages come into the queues of this shard, and leave at once where they can: the hot way in.

use std::mem;

use crate::home::durability::Rested;
use crate::home::paging::queue_ref;
use crate::id::QueueId;
use crate::message::{First, Message, Messages, Upcoming};
use crate::queue::Queue;
use crate::queue::state::Change;
use crate::shard::core::Core;
use crate::storage::log::{QueueRef, Ticket};
use crate::storage::store::{MessageId, Store};

use super::deliver::{Leaving, delivery_of, next_taker};
use super::open_queue;

impl Core {
    /// Puts messages into queues that live here, each queue in their order. Queues that are gone
    /// swallow them, which is what RabbitMQ confirms too.
    ///
    /// Where some of it has to outlive the process, it returns how far the log has to have
    /// come before the publisher may be told.
    #[inline]
    pub fn publish_home(
        &mut self,
        queues: impl Iterator<Item = QueueId> + Clone,
        messages: &impl Upcoming,
    ) -> Option<Ticket> {
        let mut through = None;
        if messages.count() == 1 {
            messages.clone().lend(|message| {
                through = self.publish_one(queues.clone(), message);
                true
            });
            return through;
        }
        self.publish_run(queues, messages)
    }

    /// Each queue gives out first what it can at once.
    #[inline(never)]
    fn publish_run(
        &mut self,
        queues: impl Iterator<Item = QueueId> + Clone,
        messages: &impl Upcoming,
    ) -> Option<Ticket> {
        let is_lone = queues.clone().nth(1).is_none();
        let mut through = None;
        let mut given = mem::take(&mut self.given);
        given.clear();
        for queue in queues.clone() {
            let mut rest = messages.clone();
            let mut count = self.give_at_once(queue, false, &mut rest);
            if is_lone && rest.count() > 0 {
                // Nobody else has to find these where they rest.
                let mut handed = rest.clone();
                count += self.give_at_once(queue, true, &mut rest);
                through = self.log_handed(queue, &mut handed);
            }
            given.push(count);
        }
        if given.iter().any(|given| *given < messages.count()) {
            // What only some could take rests once for all others.
            let mut nth = 0;
            messages.clone().lend(|message| {
                let others = queues.clone().zip(&given).filter(|(_, given)| **given <= nth);
                let ticket = self.publish_one(others.map(|(queue, _)| queue), message);
                through = ticket.or(through);
                nth += 1;
                true
            });
        }
        self.given = given;
        through
    }

    #[inline(always)]
    fn publish_one(
        &mut self,
        queues: impl Iterator<Item = QueueId>,
        message: &Message<'_>,
    ) -> Option<Ticket> {
        let mut resting = None;
        for queue in queues {
            self.enqueue(queue, message, &mut resting);
        }
        if self.rested.queues.is_empty() {
            return None;
        }
        self.log_rested(resting?, message)
    }

    /// A message that finds its queue empty and a consumer with room leaves at once.
    ///
    /// Not inlined: in a loop over queues the compiler would work out beforehand what rendering
    /// needs of the message, and mostly there is one queue.
    #[inline(never)]
    fn enqueue(&mut self, id: QueueId, message: &Message<'_>, resting: &mut Option<MessageId>) {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        queue.counts.published += 1;
        let taker = if queue.state.is_empty() { next_taker(queue, &mut self.exits) } else { None };
        let mut number = None;
        if taker.is_some_and(|(taker, _)| taker.no_ack) {
            queue.state.apply(Change::PassThrough(1));
        } else {
            let rested = self.log.is_some().then_some(&mut self.rested);
            let resting = rest(&mut self.store, rested, queue, message, resting);
            if let Some((taker, _)) = taker {
                number = Some(queue.state.hand_over(taker.holder, &[resting]));
            } else {
                queue.state.apply(Change::Enqueue(resting, self.now));
            }
        }
        let Some((taker, way)) = taker else {
            self.backlogged = Self::look_at_backlog(queue, message).or(self.backlogged);
            return;
        };
        queue.consumers.took(&taker);
        queue.counts.delivered += 1;
        self.counts.count_delivery(taker.no_ack);
        queue.record_latency(message.published_at, self.now, self.now);
        self.latency.record(message.published_at, self.now, self.now);
        let home = self.id;
        self.exits.deliver(way, || delivery_of(queue, home, &taker, number, false), message);
    }

    /// Gives messages that came together to consumers while nothing waits and one of them can take
    /// more: to those that acknowledge, or to the others. Returns how many; what is to be
    /// acknowledged rests where [`Core::handed`] says.
    #[inline(always)]
    fn give_at_once(&mut self, id: QueueId, acks: bool, messages: &mut impl Upcoming) -> usize {
        self.handed.clear();
        let mut given = 0;
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return given;
        };
        while messages.count() > 0
            && queue.state.is_empty()
            && let Some((taker, way)) = next_taker(queue, &mut self.exits)
            && taker.no_ack != acks
        {
            let number = acks.then(|| queue.state.next_delivery(taker.holder));
            let first = delivery_of(queue, self.id, &taker, number, false);
            let next = First { most: queue.consumers.in_a_row(&taker), of: &mut *messages };
            let times = (self.now, self.now);
            let mut leaving = Leaving::of(next, times, &mut queue.waits, &mut self.latency);
            let count = if acks {
                let (store, ids) = (&mut self.store, &mut self.handed);
                let rested = ids.len();
                let mut handed = Handed { messages: &mut leaving, store, ids };
                let count = self.exits.deliver_many(way, first, &mut handed);
                queue.state.hand_over(taker.holder, &self.handed[rested..]);
                count
            } else {
                let count = self.exits.deliver_many(way, first, &mut leaving);
                queue.state.apply(Change::PassThrough(count));
                count
            };
            leaving.tell();
            queue.consumers.took_many(&taker, count as u32);
            queue.counts.published += count;
            queue.counts.delivered += count;
            self.counts.count_deliveries(taker.no_ack, count);
            given += count as usize;
        }
        given
    }

    /// Adds what a queue has just handed over to the log: the first of these messages.
    #[inline]
    fn log_handed(&mut self, id: QueueId, messages: &mut impl Messages) -> Option<Ticket> {
        let handed = mem::take(&mut self.handed);
        let mut through = None;
        if let Some(queue) = open_queue(&mut self.queues, id).filter(|_| self.log.is_some()) {
            let is_durable = queue.log_id.is_some();
            let first = queue.state.next_position() - handed.len() as u64;
            let held = [false, true].map(|persistent| queue_ref(queue, persistent, first));
            let mut ids = handed.iter().zip(first..);
            First { of: messages, most: handed.len() }.lend(|message| {
                let Some((id, sequence)) = ids.next() else { return false };
                let persistent = is_durable && message.is_persistent();
                self.rested.durable = persistent;
                self.rested.queues.push(QueueRef { sequence, ..held[usize::from(persistent)] });
                through = self.log_rested(*id, message).or(through);
                true
            });
        }
        self.handed = handed;
        through
    }
}

/// Messages that come to rest while they are lent.
struct Handed<'a, M> {
    messages: &'a mut M,
    store: &'a mut Store,
    /// Where they rest.
    ids: &'a mut Vec<MessageId>,
}

impl<M: Messages> Messages for Handed<'_, M> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        self.messages.lend(|message| {
            self.ids.push(self.store.put(message, 1));
            take(message)
        });
    }
}

/// Puts the message into the store, or takes the place it has there already, and notes where it
/// rests for its record in the log, if there is one.
#[inline]
fn rest(
    store: &mut Store,
    rested: Option<&mut Rested>,
    queue: &Queue,
    message: &Message<'_>,
    resting: &mut Option<MessageId>,
) -> MessageId {
    if let Some(rested) = rested {
        let persistent = queue.log_id.is_some() && message.is_persistent();
        rested.durable |= persistent;
        rested.queues.push(queue_ref(queue, persistent, queue.state.next_position()));
    }
    if let Some(id) = *resting {
        store.retain(id);
        return id;
    }
    let id = store.put(message, 1);
    *resting = Some(id);
    id
}
