//! The queues that live on this shard.
//!
//! Publishing (`home/publish.rs`) and settling are the two hot ways in, `home/deliver.rs` is the
//! way out. Everything a channel asks and waits for comes through `Core::ask`, also from channels
//! of this shard, as mail to itself.

pub mod backlog;
pub mod compaction;
mod deliver;
pub mod durability;
pub(crate) mod memory;
pub mod paging;
mod publish;

use crate::control::Request;
use crate::error::Exception;
use crate::home::durability::Leave;
use crate::id::{ChannelKey, ConsumerKey, QueueId};
use crate::mesh::mail::{Got, Lane, Mail, QueueAnswer, QueueRequest};
use crate::queue::Queue;
use crate::queue::state::{Change, Checkout, Effect};
use crate::queue::terms::{Deliveries, Holder, Settlement, Signal, Subscription};
use crate::shard::core::Core;
use crate::storage::store::Where;

impl Core {
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
