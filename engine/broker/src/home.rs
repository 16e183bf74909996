//! The home side: what happens in the queues of this shard.
//!
//! Publishing and settling are the two hot ways in. Everything a channel asks and waits for comes
//! through `Core::ask`, also from channels of this shard, as mail to itself.

use std::{mem, slice};

use crate::control::Request;
use crate::core::{Core, Exits, ShardLatency};
use crate::durable::{Leave, Rested};
use crate::error::Exception;
use crate::id::{ChannelKey, ConsumerKey, Instant, QueueId, ShardId};
use crate::log::{QueueRef, Ticket};
use crate::mail::{
    Deliveries, Got, Lane, Mail, QueueAnswer, QueueRequest, Settlement, Signal, Subscription,
};
use crate::message::{First, Message, Messages, Upcoming};
use crate::paging::queue_ref;
use crate::queue::consumers::{Next, Taker};
use crate::queue::state::{Change, Checkout, Effect, Holder};
use crate::queue::{Queue, Waits};
use crate::store::{MessageId, Reader, Store, Where};
use crate::writer::{Delivery, Room, Way};

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

    /// Gives ready messages to consumers that can take them.
    pub fn pump(&mut self, id: QueueId) {
        loop {
            self.serve_getters(id);
            self.give_out(id);
            self.backlog_shrank(id);
            if !self.page_in(id) {
                return;
            }
        }
    }

    /// Run by run: who takes it and what its messages have in common is looked up once.
    fn give_out(&mut self, id: QueueId) {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        // Nobody is asked to take a message that has to be read first.
        while queue.state.front().is_some_and(|front| self.store.is_at_hand(front.rests)) {
            let Some((taker, way)) = next_taker(queue, &mut self.exits) else {
                return;
            };
            let Some(run) = queue.state.front_run() else {
                return;
            };
            let holder = (!taker.no_ack).then_some(taker.holder);
            let number = holder.map(|holder| queue.state.next_delivery(holder));
            let first = delivery_of(queue, self.id, &taker, number, run.redelivered);
            let most = run.messages.len().min(queue.consumers.in_a_row(&taker));
            let next = Resting { ids: run.messages[..most].iter(), reader: self.store.reader() };
            let times = (run.ready_at, self.now);
            let mut leaving = Leaving::of(next, times, &mut queue.waits, &mut self.latency);
            let count = self.exits.deliver_many(way, first, &mut leaving);
            leaving.tell();
            self.counts.redelivered += if run.redelivered { count } else { 0 };
            queue.counts.redelivered += if run.redelivered { count } else { 0 };
            self.counts.count_deliveries(taker.no_ack, count);
            queue.counts.delivered += count;
            queue.consumers.took_many(&taker, count as u32);
            let taken = &run.messages[..count as usize];
            if taker.no_ack {
                let mut leave = Leave::of(queue.log_id, &mut self.store, &mut self.log, self.now);
                taken
                    .iter()
                    .zip(run.position..)
                    .for_each(|(id, position)| leave.one(position, *id));
            } else {
                Self::given_out(&mut self.store, self.log.as_ref(), taken);
            }
            queue.state.apply(Change::CheckOut(holder, count as usize));
        }
    }

    /// Ends deliveries as their client wishes. `serve` is false while more of the same is to come:
    /// what returns together is in its places before anybody is served.
    pub fn settle(
        &mut self,
        id: QueueId,
        deliveries: Deliveries,
        settlement: Settlement,
        serve: bool,
    ) {
        let (holder, now) = (deliveries.holder, self.now);
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        let mut settled = 0;
        if settlement == Settlement::Requeue {
            for number in deliveries.numbers() {
                let effect = queue.state.apply(Change::Requeue(holder, number, now));
                settled += u32::from(effect != Effect::None);
            }
        } else {
            let mut leave = Leave::of(queue.log_id, &mut self.store, &mut self.log, now);
            queue.state.settle(deliveries, |Checkout { message, position }| {
                settled += 1;
                leave.one(position, message);
            });
        }
        if settled == 0 {
            return;
        }
        queue.consumers.settled(holder, settled);
        if settlement == Settlement::Ack {
            queue.counts.acknowledged += u64::from(settled);
        }
        if serve && !queue.state.is_empty() {
            self.pump(id);
        }
    }

    /// Answers what a channel asks of a queue.
    pub fn ask(&mut self, id: QueueId, request: QueueRequest) {
        let channel = request.channel();
        if open_queue(&mut self.queues, id).is_none() {
            return self.answer(channel, Ok(QueueAnswer::Gone(id)));
        }
        match request {
            QueueRequest::Consume(subscription) => self.consume(id, subscription),
            QueueRequest::Cancel(consumer) => self.cancel(id, &consumer),
            QueueRequest::Get(channel, no_ack) => self.get(id, channel, no_ack),
            QueueRequest::Purge(channel) => {
                let purged = self.drop_ready(id);
                self.serve_getters(id);
                self.backlog_shrank(id);
                self.answer(channel, Ok(QueueAnswer::Purged(purged)));
            }
            QueueRequest::Delete { channel, if_unused, if_empty } => {
                self.delete(id, channel, if_unused, if_empty);
            }
            QueueRequest::Count(channel) => {
                let Some(queue) = open_queue(&mut self.queues, id) else {
                    return;
                };
                let messages = queue.state.ready_count() as u32;
                let consumers = queue.consumers.count() as u32;
                self.answer(channel, Ok(QueueAnswer::Counted { messages, consumers }));
            }
        }
    }

    /// A word from a consumer's channel.
    pub fn signal(&mut self, id: QueueId, consumer: &ConsumerKey, signal: Signal) {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            if signal == Signal::Grant {
                let to = consumer.channel.owner.shard;
                self.reply(to, Mail::GrantUnused(*consumer));
            }
            return;
        };
        let known = queue.consumers.signal(consumer, signal);
        self.pump(id);
        if signal != Signal::Grant {
            return;
        }
        let unused = match open_queue(&mut self.queues, id) {
            Some(queue) if known => queue.consumers.return_grants(consumer),
            _ => 1,
        };
        for _ in 0..unused {
            self.reply(consumer.channel.owner.shard, Mail::GrantUnused(*consumer));
        }
    }

    /// There is room again for consumers that were passed over.
    pub fn room_again(&mut self, consumers: Vec<(QueueId, ConsumerKey)>) {
        for (id, consumer) in consumers {
            if let Some(queue) = open_queue(&mut self.queues, id) {
                queue.consumers.start_here(&consumer);
                self.pump(id);
            }
        }
    }

    /// Channels ended: their consumers go, and what they had returns to its place before anybody
    /// else is served, so that the next consumer sees the old order. `asker` is answered when that
    /// is done and the auto-delete queues they leave behind are gone.
    pub fn leave(&mut self, asker: ChannelKey, channels: &[ChannelKey]) {
        let mut visited = Vec::new();
        for channel in channels {
            for id in self.visits.remove(channel).unwrap_or_default() {
                let Some(queue) = open_queue(&mut self.queues, id) else { continue };
                if let Some(pages) = &mut queue.pages {
                    pages.getters.retain(|(getter, _)| getter != channel);
                }
                let (consumers, holders) = queue.consumers.of_channel(*channel);
                for consumer in &consumers {
                    queue.consumers.cancel(consumer);
                }
                visited.push((id, holders, !consumers.is_empty()));
            }
        }
        for (id, holders, _) in &visited {
            for holder in holders {
                self.requeue_all(*id, *holder);
            }
        }
        let mut last_abandoned = None;
        for (id, _, had_consumers) in visited {
            if !had_consumers || !self.is_abandoned(id) {
                self.pump(id);
            } else if let Some(before) = last_abandoned.replace(id) {
                self.retire(before, None);
            }
        }
        // The control state answers in the order it was asked in.
        match last_abandoned {
            Some(last) => self.retire(last, Some((asker, 0))),
            None => self.answer(asker, Ok(QueueAnswer::Done)),
        }
    }

    /// The control state has forgotten a queue: so does its home.
    pub fn remove_queue(&mut self, id: QueueId) {
        if open_queue(&mut self.queues, id).is_some() {
            self.end_service(id);
        }
        self.drop_messages(id);
    }

    /// A queue whose home is here was declared.
    pub fn add_queue(&mut self, queue: Queue) {
        let slot = queue.meta.id.slot as usize;
        if self.queues.len() <= slot {
            self.queues.resize_with(slot + 1, || None);
        }
        if let Some(log_id) = queue.meta.log_id {
            self.by_log_id.insert(log_id, queue.meta.id);
        }
        self.queues[slot] = Some(Box::new(queue));
    }

    fn consume(&mut self, id: QueueId, subscription: Subscription) {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        let consumer = subscription.consumer;
        self.visits.entry(consumer.channel).or_default().insert(id);
        let answer = match queue.consumers.add(subscription) {
            Ok(()) => {
                // Deliveries start when the channel has written consume-ok.
                queue.consumers.signal(&consumer, Signal::Stop);
                Ok(QueueAnswer::Done)
            }
            Err(in_use) => {
                let vhost = self.topology.vhost_name(queue.meta.vhost);
                let vhost = vhost.map_or("", |name| name.as_str());
                Err(in_use.exception(&queue.meta.name, vhost))
            }
        };
        self.answer(consumer.channel, answer);
    }

    fn cancel(&mut self, id: QueueId, consumer: &ConsumerKey) {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        let was_there = queue.consumers.cancel(consumer);
        if was_there && self.is_abandoned(id) {
            // RabbitMQ answers after the queue is gone, and so do we.
            self.retire(id, Some((consumer.channel, 0)));
        } else {
            self.backlog_shrank(id);
            self.answer(consumer.channel, Ok(QueueAnswer::Done));
        }
    }

    pub(crate) fn get(&mut self, id: QueueId, channel: ChannelKey, no_ack: bool) {
        if self.has_to_wait(id, channel, no_ack) {
            return;
        }
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        if queue.state.is_empty() {
            self.counts.got_empty += 1;
            return self.answer(channel, Ok(QueueAnswer::Empty));
        }
        let holder = (!no_ack).then(|| queue.consumers.got(channel));
        if !no_ack {
            self.visits.entry(channel).or_default().insert(id);
        }
        let effect = queue.state.apply(Change::CheckOut(holder, 1));
        let holder = holder.unwrap_or_default();
        let Effect::Left { entry, delivery } = effect else {
            return;
        };
        let Where::Store(resting) = entry.rests else {
            return;
        };
        let message = self.store.message(resting);
        queue.counts.delivered += 1;
        queue.counts.redelivered += u64::from(entry.redelivered);
        queue.record_latency(message.published_at, entry.ready_at, self.now);
        self.counts.redelivered += u64::from(entry.redelivered);
        self.latency.record(message.published_at, entry.ready_at, self.now);
        let remaining = queue.state.ready_count() as u32;
        let log_id = queue.log_id;
        let batch = self.exits.post.open(channel.owner.shard, Lane::Reply);
        let parcel = batch.pack(&message);
        let redelivered = entry.redelivered;
        let got = Got { queue: id, home: self.id, holder, delivery, redelivered, remaining };
        batch.push(Mail::Got { channel, got, parcel });
        self.exits.body_bytes.copied.mail += message.body.copied_bytes();
        if no_ack {
            self.let_go(log_id, entry.position, entry.rests);
        } else {
            Self::given_out(&mut self.store, self.log.as_ref(), &[resting]);
        }
    }

    fn delete(&mut self, id: QueueId, channel: ChannelKey, if_unused: bool, if_empty: bool) {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        let refusal = if if_unused && queue.consumers.count() > 0 {
            Some("in use")
        } else if if_empty && !queue.state.is_empty() {
            Some("not empty")
        } else {
            None
        };
        let Some(reason) = refusal else {
            let messages = queue.state.ready_count() as u32;
            return self.retire(id, Some((channel, messages)));
        };
        let vhost = self.topology.vhost_name(queue.meta.vhost).map_or("", |name| name.as_str());
        let text = format!("queue '{}' in vhost '{vhost}' {reason}", queue.meta.name);
        self.answer(channel, Err(Exception::precondition_failed(text)));
    }

    /// Takes a queue out of service and has its name forgotten.
    fn retire(&mut self, queue: QueueId, asker: Option<(ChannelKey, u32)>) {
        self.end_service(queue);
        let request = Request::QueueGone { queue, asker };
        self.work(self.control(), Mail::Control(Box::new(request)));
    }

    /// Ends service: consumers are told, nobody gets in any more. Messages stay until the control
    /// state has forgotten the queue: before that a crash would bring it back.
    fn end_service(&mut self, id: QueueId) {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        queue.closing = true;
        self.end_backlog(id);
        let Some(queue) = self.queues[id.slot as usize].as_deref_mut() else {
            return;
        };
        let getters = queue.pages.take().map(|pages| pages.getters).unwrap_or_default();
        for channel in queue.consumers.channels() {
            if let Some(visits) = self.visits.get_mut(&channel) {
                visits.remove(&id);
            }
        }
        for (channel, _) in getters {
            let gone = Mail::Answered { channel, answer: Ok(QueueAnswer::Gone(id)) };
            self.exits.post.send(channel.owner.shard, Lane::Reply, gone);
        }
        for consumer in queue.consumers.keys() {
            queue.consumers.cancel(&consumer);
            self.exits.post.send(
                consumer.channel.owner.shard,
                Lane::Reply,
                Mail::Cancelled(consumer),
            );
        }
    }

    fn drop_ready(&mut self, id: QueueId) -> u32 {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return 0;
        };
        let mut leave = Leave::of(queue.log_id, &mut self.store, &mut self.log, self.now);
        let mut dropped = 0;
        while let Effect::Left { entry, .. } = queue.state.apply(Change::Drop) {
            leave.any(entry.position, entry.rests);
            dropped += 1;
        }
        dropped
    }

    fn requeue_all(&mut self, id: QueueId, holder: Holder) {
        let now = self.now;
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        for delivery in queue.state.held_by(holder) {
            queue.state.apply(Change::Requeue(holder, delivery, now));
            queue.consumers.settled(holder, 1);
        }
    }

    /// An auto-delete queue whose last consumer has left.
    fn is_abandoned(&mut self, id: QueueId) -> bool {
        open_queue(&mut self.queues, id).is_some_and(|queue| {
            queue.meta.auto_delete && queue.consumers.had_consumer && queue.consumers.count() == 0
        })
    }

    fn answer(&mut self, channel: ChannelKey, answer: Result<QueueAnswer, Exception>) {
        self.reply(channel.owner.shard, Mail::Answered { channel, answer });
    }
}

/// The queue, unless it is gone or going.
#[inline(always)]
pub(crate) fn open_queue(queues: &mut [Option<Box<Queue>>], id: QueueId) -> Option<&mut Queue> {
    let queue = queues.get_mut(id.slot as usize)?.as_deref_mut()?;
    (queue.id == id && !queue.closing).then_some(queue)
}

/// Messages that leave a queue one after the other. Those that waited equally long, as those do
/// that came in one turn, have their latencies counted together.
struct Leaving<'a, M> {
    messages: M,
    published_at: Instant,
    ready_at: Instant,
    now: Instant,
    /// Of those that were published at that time.
    count: u64,
    of_queue: &'a mut Waits,
    of_shard: &'a mut ShardLatency,
}

/// Messages that come to rest while they are lent.
struct Handed<'a, M> {
    messages: &'a mut M,
    store: &'a mut Store,
    /// Where they rest.
    ids: &'a mut Vec<MessageId>,
}

/// Messages at rest, as far as they are resident.
struct Resting<'a> {
    ids: slice::Iter<'a, MessageId>,
    reader: Reader<'a>,
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

impl Messages for Resting<'_> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        while let Some(message) = self.ids.next().and_then(|id| self.reader.read(*id)) {
            if !take(message) {
                return;
            }
        }
    }
}

impl<M: Messages> Messages for Leaving<'_, M> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        self.messages.lend(|message| {
            if message.published_at != self.published_at {
                let before = mem::replace(&mut self.published_at, message.published_at);
                let count = mem::take(&mut self.count);
                tell_waits(self.of_queue, self.of_shard, [before, self.ready_at, self.now], count);
            }
            self.count += 1;
            take(message)
        });
    }
}

impl<'a, M> Leaving<'a, M> {
    /// `times`: when they became ready, and now.
    #[inline(always)]
    fn of(
        messages: M,
        (ready_at, now): (Instant, Instant),
        of_queue: &'a mut Waits,
        of_shard: &'a mut ShardLatency,
    ) -> Self {
        let published_at = Instant(0);
        Self { messages, published_at, ready_at, now, count: 0, of_queue, of_shard }
    }

    /// Tells how long the last ones took.
    fn tell(self) {
        let times = [self.published_at, self.ready_at, self.now];
        tell_waits(self.of_queue, self.of_shard, times, self.count);
    }
}

#[inline(never)]
fn tell_waits(
    of_queue: &mut Waits,
    of_shard: &mut ShardLatency,
    [published_at, ready_at, now]: [Instant; 3],
    count: u64,
) {
    if count > 0 {
        of_queue.record_many(published_at, ready_at, now, count);
        of_shard.record_many(published_at, ready_at, now, count);
    }
}

/// The next consumer in turn that has room on its way out, and that way.
#[inline(always)]
fn next_taker(queue: &mut Queue, exits: &mut Exits) -> Option<(Taker, Way)> {
    loop {
        let (taker, granted) = match queue.consumers.next() {
            Next::Take(taker) => (taker, true),
            Next::AskGrant(taker) => (taker, false),
            Next::Nobody => return None,
        };
        match exits.room(&queue.consumers.key(taker.holder)) {
            Room::Yes(way) if granted => return Some((taker, way)),
            room => pass_on(queue, exits, taker, room),
        }
    }
}

/// The consumer in front cannot take a message now.
#[inline(never)]
fn pass_on(queue: &mut Queue, exits: &mut Exits, taker: Taker, room: Room) {
    let key = queue.consumers.key(taker.holder);
    match room {
        Room::Yes(_) if exits.grant(queue.id, &key) => queue.consumers.granted(&taker),
        Room::Yes(_) => queue.consumers.wait_for_grant(&taker),
        Room::Full => {
            queue.consumers.stop_here(taker.holder);
            exits.pass_over(queue.id, key);
        }
        // Its leave is under way.
        Room::Gone => queue.consumers.stop_here(taker.holder),
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

#[inline(always)]
fn delivery_of(
    queue: &Queue,
    home: ShardId,
    taker: &Taker,
    number: Option<u64>,
    redelivered: bool,
) -> Delivery {
    let (consumer, holder) = (queue.consumers.key(taker.holder), taker.holder);
    Delivery {
        consumer,
        queue: queue.id,
        home,
        holder,
        number,
        redelivered,
        granted: taker.granted,
    }
}
