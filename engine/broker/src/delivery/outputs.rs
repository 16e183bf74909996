//! The ways out of a shard: to the sockets of its connections, to the other members of the mesh,
//! and to its driver.

use std::collections::VecDeque;

use leveret_amqp::encode_frame;
use leveret_amqp::method::BasicCancel;

use crate::delivery::body_bytes::BodyBytes;
use crate::delivery::channel::Outbound;
use crate::delivery::confirms::ConfirmRun;
use crate::delivery::operation::Operation;
use crate::delivery::writers::{Capacity, Sink, Writers};
use crate::id::{ChannelKey, ConnectionId, ConsumerKey, QueueId, ShardId};
use crate::mesh::delivery::Delivery;
use crate::mesh::mail::{Lane, Mail};
use crate::mesh::outgoing::Outgoing;
use crate::message::{Message, Messages, Upcoming};
use crate::pressure::Pressure;
use crate::queue::terms::Signal;

/// The outputs of a shard's queues and connections.
#[derive(Debug)]
pub struct Outputs {
    /// Which shard this is.
    shard: ShardId,
    /// The connections of this shard.
    pub writers: Writers,
    /// Mail for the other members, and for this shard itself.
    pub mesh: Outgoing,
    /// Bytes of bodies copied on the way out; the store and the log count their own.
    pub body_bytes: BodyBytes,
    /// Confirms of one channel, gathered and not yet counted there.
    pub(super) confirm_run: ConfirmRun,
    /// Publishes on channels in confirm mode since the start.
    pub published_confirm: u64,
    /// Connections that may read on, each with the pressure that ended. The shard resumes them
    /// before the turn ends.
    pub resumed: Vec<(ConnectionId, Pressure)>,
    /// Work for the driver, sends and disk operations excepted.
    pub operations: VecDeque<Operation>,
}

impl Outputs {
    /// For a shard without connections in a mesh of `members`, including the control state.
    pub fn new(shard: ShardId, members: u16) -> Self {
        Self {
            shard,
            writers: Writers::default(),
            mesh: Outgoing::new(members),
            body_bytes: BodyBytes::default(),
            confirm_run: ConfirmRun::default(),
            published_confirm: 0,
            resumed: Vec::new(),
            operations: VecDeque::new(),
        }
    }

    /// Sends mail on the lane for requests.
    pub fn work(&mut self, to: ShardId, mail: Mail) {
        self.mesh.send(to, Lane::Work, mail);
    }

    /// Sends mail on the lane for consequences of the receiver's requests.
    pub fn reply(&mut self, to: ShardId, mail: Mail) {
        self.mesh.send(to, Lane::Reply, mail);
    }

    /// Whether a delivery to this consumer would find room, and where.
    #[inline(always)]
    pub fn capacity(&mut self, consumer: &ConsumerKey) -> Capacity {
        let shard = consumer.channel.owner.shard;
        if shard == self.shard {
            self.writers.capacity(consumer)
        } else if self.mesh.is_backed_up(shard, Lane::Reply) {
            Capacity::Full
        } else {
            Capacity::Room(Sink::Shard(shard))
        }
    }

    /// Asks the channel of a consumer for a grant under the channel-wide limit. True if it was
    /// given at once; else it may come later.
    pub fn ask_grant(&mut self, queue: QueueId, consumer: &ConsumerKey) -> bool {
        let shard = consumer.channel.owner.shard;
        if shard != self.shard {
            let wants = Mail::Wants { consumer: *consumer, queue };
            self.mesh.send(shard, Lane::Reply, wants);
            return false;
        }
        let Some((writer, index)) = self.writers.channel(consumer.channel) else { return false };
        let limit = &mut writer.channel_at(index).limit;
        limit.wanting.push_back(*consumer);
        // Consumers that asked earlier are served first.
        limit.wanting.len() == 1 && limit.next_grant().is_some()
    }

    /// Gives waiting consumers as many grants as the channel's limit allows.
    pub fn grant_waiting(&mut self, channel: ChannelKey) {
        loop {
            let Some((writer, index)) = self.writers.channel(channel) else { return };
            let outbound = writer.channel_at(index);
            let Some(key) = outbound.limit.next_grant() else { return };
            let Some(consumer) = outbound.consumer(key.number) else {
                // The consumer is gone: the grant goes to the next one.
                outbound.limit.granted -= 1;
                continue;
            };
            let (home, queue) = (consumer.home, consumer.queue);
            let mail = Mail::Consumer { queue, consumer: key, signal: Signal::Grant };
            self.mesh.send(home, Lane::Work, mail);
        }
    }

    /// A queue has a message for a consumer under the channel-wide limit.
    pub fn consumer_wants(&mut self, consumer: ConsumerKey) {
        if let Some((writer, index)) = self.writers.channel(consumer.channel) {
            writer.channel_at(index).limit.wanting.push_back(consumer);
            self.grant_waiting(consumer.channel);
        }
    }

    /// A grant comes back: its queue had no message to deliver.
    pub fn grant_unused(&mut self, consumer: ConsumerKey) {
        if let Some((writer, index)) = self.writers.channel(consumer.channel) {
            let limit = &mut writer.channel_at(index).limit;
            limit.granted = limit.granted.saturating_sub(1);
            self.grant_waiting(consumer.channel);
        }
    }

    /// Remembers that a consumer found no room: its queue continues when there is room again.
    pub fn pass_over(&mut self, queue: QueueId, consumer: ConsumerKey) {
        let shard = consumer.channel.owner.shard;
        if shard == self.shard {
            self.writers.pass_over(queue, consumer);
        } else {
            self.mesh.pass_over(shard, queue, consumer);
        }
    }

    /// Sends a delivery to the sink where [`Self::capacity`] found room.
    #[inline(always)]
    pub fn deliver(&mut self, sink: Sink, make: impl Fn() -> Delivery, message: &Message<'_>) {
        // Made in each arm: the mesh takes it by reference, which would force it into memory for
        // sockets too, where it can stay in registers.
        match sink {
            Sink::Socket(slot) => {
                let delivery = make();
                self.writers.deliver_at(slot, &delivery, message);
                if delivery.granted && delivery.number.is_none() {
                    // Without ack the delivery is never unsettled, so the limit has room again.
                    self.grant_waiting(delivery.consumer.channel);
                }
            }
            Sink::Shard(shard) => {
                self.mail_deliveries(shard, &make(), &mut Some(message));
            }
        }
    }

    /// Sends deliveries of one source to the sink where [`Self::capacity`] found room, until it is
    /// full or no message is left: at least one, if there is one. Returns how many it took from
    /// `messages`.
    #[inline(always)]
    pub fn deliver_many(
        &mut self,
        sink: Sink,
        first: Delivery,
        messages: &mut impl Messages,
    ) -> u64 {
        match sink {
            Sink::Socket(slot) => {
                let taken = self.writers.deliver_many_at(slot, &first, messages);
                if first.granted && first.number.is_none() {
                    // As in `deliver`.
                    self.grant_waiting(first.consumer.channel);
                }
                taken
            }
            Sink::Shard(shard) => self.mail_deliveries(shard, &first, messages),
        }
    }

    /// Mails deliveries of one source to the shard of their consumer, until there are no more or
    /// the lane is backed up. Returns how many.
    #[inline(never)]
    fn mail_deliveries(
        &mut self,
        shard: ShardId,
        first: &Delivery,
        messages: &mut impl Messages,
    ) -> u64 {
        let mut taken = 0;
        loop {
            let number = first.number.map(|number| number + taken);
            let batch = self.mesh.open(shard, Lane::Reply);
            let packed = batch.deliver(&Delivery { number, ..*first }, messages);
            taken += packed.count;
            self.body_bytes.copied.mail += packed.copied_bytes;
            // A batch that is not full has taken all messages.
            if !batch.is_full() || self.mesh.is_backed_up(shard, Lane::Reply) {
                return taken;
            }
        }
    }

    /// Mails messages to the home of their queues. It confirms them to the channel `confirm`.
    #[inline(never)]
    pub fn mail_publishes(
        &mut self,
        home: ShardId,
        queues: impl Iterator<Item = QueueId> + Clone,
        messages: &impl Upcoming,
        confirm: Option<ChannelKey>,
    ) {
        // Not limited by the lane, unlike deliveries: these were read from a socket and have to go
        // somewhere. Pausing their connection bounds them.
        let mut messages = messages.clone();
        while messages.count() > 0 {
            let batch = self.mesh.open(home, Lane::Work);
            let packed = batch.publish(queues.clone(), &mut messages, confirm);
            self.body_bytes.copied.mail += packed.copied_bytes;
        }
    }

    /// The queue of a consumer is gone: the client gets `basic.cancel`, if it declared that it
    /// understands that.
    pub fn consumer_cancelled(&mut self, consumer: &ConsumerKey) {
        let Some((writer, index)) = self.writers.channel(consumer.channel) else {
            return;
        };
        let removed = writer.channel_at(index).remove_consumer(consumer.number);
        if let Some(removed) = removed
            && writer.cancel_notify
        {
            let cancel = BasicCancel { consumer_tag: &removed.tag, nowait: true };
            encode_frame(consumer.channel.channel, &cancel, &mut writer.outbox.scratch);
        }
    }

    /// After deliveries from another shard: if the socket is full, stops the consumer at its home.
    pub fn stop_full_consumer(&mut self, consumer: &ConsumerKey) {
        let here = self.shard;
        let Some((writer, index)) = self.writers.channel(consumer.channel) else {
            return;
        };
        if !writer.is_full() {
            return;
        }
        let found = writer.channel_at(index).consumer_mut(consumer.number);
        let Some(found) = found.filter(|found| !found.stopped && found.home != here) else {
            return;
        };
        found.stopped = true;
        let (home, queue, consumer) = (found.home, found.queue, found.key);
        writer.remote_stopped = true;
        self.work(home, Mail::Consumer { queue, consumer, signal: Signal::Stop });
    }

    /// After a send: if at most `low_bytes` wait, starts the stopped consumers at their homes.
    pub fn start_remote_consumers(&mut self, id: ConnectionId, low_bytes: usize) {
        let Some(writer) = self.writers.get_mut(id) else {
            return;
        };
        if !writer.remote_stopped || writer.outbox.len() > low_bytes {
            return;
        }
        writer.remote_stopped = false;
        let mut started = Vec::new();
        for consumer in writer.channels_mut().flat_map(Outbound::consumers_mut) {
            if std::mem::take(&mut consumer.stopped) {
                started.push((consumer.home, consumer.queue, consumer.key));
            }
        }
        for (home, queue, consumer) in started {
            self.work(home, Mail::Consumer { queue, consumer, signal: Signal::Start });
        }
    }
}
