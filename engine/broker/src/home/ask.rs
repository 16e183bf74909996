//! What channels ask of a queue and wait for, what they say of their consumers, and their end.

use crate::control::Request;
use crate::delivery::outputs::Outputs;
use crate::id::{ChannelKey, ConsumerKey, QueueId};
use crate::mesh::mail::{Mail, QueueAnswer, QueueRequest};
use crate::queue::terms::{Signal, Subscription};
use crate::turn::Turn;

use super::leaving::Reason;
use super::{Home, OpenQueue};

impl Home {
    /// Answers what a channel asks of a queue.
    pub fn ask(&mut self, turn: &Turn, out: &mut Outputs, id: QueueId, request: QueueRequest) {
        let channel = request.channel();
        let Some(mut queue) = self.open(turn, out, id) else {
            return answer(out, channel, QueueAnswer::Gone(id));
        };
        match request {
            QueueRequest::Consume(subscription) => queue.consume(subscription),
            QueueRequest::Cancel(consumer) => queue.cancel(&consumer),
            QueueRequest::Get(channel, no_ack) => queue.get(channel, no_ack),
            QueueRequest::Purge(channel) => queue.purge(channel),
            QueueRequest::Delete { channel, if_unused, if_empty } => {
                queue.delete(channel, if_unused, if_empty);
            }
            QueueRequest::Count(channel) => queue.count(channel),
        }
    }

    /// A word from a consumer's channel.
    pub fn signal(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        id: QueueId,
        consumer: &ConsumerKey,
        signal: Signal,
    ) {
        let unused = match self.open(turn, out, id) {
            Some(mut queue) => queue.signal(consumer, signal),
            None => u32::from(signal == Signal::Grant),
        };
        for _ in 0..unused {
            out.reply(consumer.channel.owner.shard, Mail::GrantUnused(*consumer));
        }
    }

    /// Channels ended: their consumers go, and what they had returns to its place before any other
    /// consumer is served, so that the next one sees the old order. `asker` is answered when that
    /// is done and the auto-delete queues they leave behind are gone.
    pub fn end_channels(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        asker: ChannelKey,
        channels: &[ChannelKey],
    ) {
        let mut visited = Vec::new();
        for channel in channels {
            for id in self.shared.channel_queues.remove(channel).unwrap_or_default() {
                let Some(OpenQueue { queue, .. }) = self.open(turn, out, id) else { continue };
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
            if let Some(mut queue) = self.open(turn, out, *id) {
                for holder in holders {
                    queue.requeue_all(*holder);
                }
            }
        }
        let mut last_abandoned: Option<QueueId> = None;
        for (id, _, had_consumers) in visited {
            let Some(mut queue) = self.open(turn, out, id) else { continue };
            if !had_consumers || !queue.is_abandoned() {
                queue.pump();
            } else if let Some(before) = last_abandoned.replace(id)
                && let Some(mut queue) = self.open(turn, out, before)
            {
                queue.retire(None);
            }
        }
        // The control state answers in the order it was asked in.
        match last_abandoned.and_then(|last| self.open(turn, out, last)) {
            Some(mut last) => last.retire(Some((asker, 0))),
            None => answer(out, asker, QueueAnswer::Done),
        }
    }
}

impl OpenQueue<'_> {
    fn consume(&mut self, subscription: Subscription) {
        let consumer = subscription.consumer;
        self.home.channel_queues.entry(consumer.channel).or_default().insert(self.queue.id);
        let answer = match self.queue.consumers.add(subscription) {
            Ok(()) => {
                // Deliveries start when the channel has written consume-ok.
                self.queue.consumers.signal(&consumer, Signal::Stop);
                QueueAnswer::Done
            }
            Err(_) => QueueAnswer::ExclusiveUse,
        };
        self.answer(consumer.channel, answer);
    }

    fn cancel(&mut self, consumer: &ConsumerKey) {
        let was_there = self.queue.consumers.cancel(consumer);
        if was_there && self.is_abandoned() {
            // RabbitMQ answers after the queue is gone, and so do we.
            self.retire(Some((consumer.channel, 0)));
        } else {
            self.backlog_shrank();
            self.answer(consumer.channel, QueueAnswer::Done);
        }
    }

    fn purge(&mut self, channel: ChannelKey) {
        let purged = self.queue.kind.ready_count();
        let log_id = self.queue.log_id;
        let mut departures = self.home.departures(log_id, Reason::Purged, self.turn.now);
        self.queue.kind.drop_front(purged as u64, |message| departures.leave_placed(message));
        drop(departures);
        self.serve_getters();
        self.backlog_shrank();
        self.answer(channel, QueueAnswer::Purged(purged as u32));
    }

    fn delete(&mut self, channel: ChannelKey, if_unused: bool, if_empty: bool) {
        if if_unused && self.queue.consumers.count() > 0 {
            self.answer(channel, QueueAnswer::InUse);
        } else if if_empty && !self.queue.kind.is_empty() {
            self.answer(channel, QueueAnswer::NotEmpty);
        } else {
            let messages = self.queue.kind.ready_count() as u32;
            self.retire(Some((channel, messages)));
        }
    }

    fn count(&mut self, channel: ChannelKey) {
        let messages = self.queue.kind.ready_count() as u32;
        let consumers = self.queue.consumers.count() as u32;
        self.answer(channel, QueueAnswer::Counted { messages, consumers });
    }

    /// Returns how many grants found nothing to deliver.
    fn signal(&mut self, consumer: &ConsumerKey, signal: Signal) -> u32 {
        let is_known = self.queue.consumers.signal(consumer, signal);
        self.pump();
        match signal {
            Signal::Grant if is_known => self.queue.consumers.return_grants(consumer),
            Signal::Grant => 1,
            _ => 0,
        }
    }

    /// Takes the queue out of service and has its name forgotten.
    fn retire(&mut self, asker: Option<(ChannelKey, u32)>) {
        self.end_service();
        let request = Request::QueueGone { queue: self.queue.id, asker };
        self.out.work(self.turn.control(), Mail::Control(Box::new(request)));
    }

    /// Ends service: consumers hear of it, and the queue is open for nothing any more. Messages
    /// stay until the control state has forgotten the queue: before that a crash would bring it
    /// back.
    pub(super) fn end_service(&mut self) {
        self.queue.closing = true;
        self.end_backlog();
        let (id, queue) = (self.queue.id, &mut *self.queue);
        let getters = queue.pages.take().map(|pages| pages.getters).unwrap_or_default();
        for channel in queue.consumers.channels() {
            if let Some(queues) = self.home.channel_queues.get_mut(&channel) {
                queues.remove(&id);
            }
        }
        for (channel, _) in getters {
            answer(self.out, channel, QueueAnswer::Gone(id));
        }
        for consumer in queue.consumers.keys() {
            queue.consumers.cancel(&consumer);
            self.out.reply(consumer.channel.owner.shard, Mail::Cancelled(consumer));
        }
    }

    /// An auto-delete queue whose last consumer has left.
    fn is_abandoned(&self) -> bool {
        let consumers = &self.queue.consumers;
        self.queue.meta.auto_delete && consumers.had_consumer && consumers.count() == 0
    }

    pub(super) fn answer(&mut self, channel: ChannelKey, what: QueueAnswer) {
        answer(self.out, channel, what);
    }
}

fn answer(out: &mut Outputs, channel: ChannelKey, answer: QueueAnswer) {
    out.reply(channel.owner.shard, Mail::Answered { channel, answer });
}
