//! The writing half of a channel: its consumers, its unsettled deliveries, and its confirms.
//!
//! It belongs to the writing half of a connection, so that a message can be delivered to a
//! channel while another frame of the same connection is being read.

use leveret_amqp::encoder::Deliver;
use leveret_amqp::envelope::Envelope;

use crate::delivery::confirms::Confirms;
use crate::delivery::unacked::{Run, Source, Unacked};
use crate::id::{ChannelKey, ConsumerKey, Map, QueueId, ShardId, seeded_map};
use crate::mesh::delivery::Delivery;
use crate::message::{Likeness, Message};

/// Consumers on one channel: their slots are 16 bits of [`ConsumerKey::number`].
pub const CONSUMERS_PER_CHANNEL_MAX: usize = 65_535;

/// The writing half of a channel.
#[derive(Debug)]
pub struct Outbound {
    /// The name of the channel towards the homes of its queues.
    pub key: ChannelKey,
    /// Deliveries the client has not settled, by delivery tag.
    pub unacked: Unacked,
    /// Confirm mode, once selected.
    pub confirms: Option<Confirms>,
    /// Confirms may be due; set with each publish and cleared when they are written.
    pub confirms_due: bool,
    /// The channel-wide prefetch (`basic.qos` with global=true).
    pub limit: ChannelLimit,
    /// Homes that know this channel and must be notified of its end.
    pub homes: Vec<ShardId>,
    last_delivery_tag: u64,
    consumers: Vec<Option<Consumer>>,
    tags: Map<Box<str>, u32>,
    consumer_generation: u32,
}

/// A consumer of the channel.
#[derive(Debug)]
pub struct Consumer {
    /// The name of the consumer towards the queue's home.
    pub key: ConsumerKey,
    /// The consumer tag of the client.
    pub tag: Box<str>,
    /// The queue.
    pub queue: QueueId,
    /// Where that queue lives.
    pub home: ShardId,
    /// The client will not acknowledge the deliveries.
    pub no_ack: bool,
    /// A [`Signal::Stop`](crate::queue::terms::Signal::Stop) went to its home: our socket is full.
    pub stopped: bool,
    /// The frames around the body of its last delivery.
    pub envelope: Envelope,
    /// The likeness of the message in that envelope.
    pub last_likeness: Likeness,
}

impl Consumer {
    /// Makes the envelope suit a message. False if the message fits no envelope and has to be
    /// encoded as a whole.
    #[inline(never)]
    pub fn address(
        &mut self,
        message: &Message<'_>,
        delivery: &Delivery,
        delivery_tag: u64,
        frame_size_max: u32,
    ) -> bool {
        let Message { exchange, routing_key, properties, body, .. } = *message;
        self.last_likeness = message.likeness;
        if self.envelope.suits(exchange, routing_key, properties, body.len()) {
            return true;
        }
        let method = method(&self.tag, message, delivery, delivery_tag);
        self.envelope.render(method, properties, body.len(), frame_size_max)
    }

    /// `basic.deliver` for a message.
    pub fn method<'m>(
        &'m self,
        message: &Message<'m>,
        delivery: &Delivery,
        delivery_tag: u64,
    ) -> Deliver<'m> {
        method(&self.tag, message, delivery, delivery_tag)
    }
}

fn method<'m>(
    tag: &'m str,
    message: &Message<'m>,
    delivery: &Delivery,
    delivery_tag: u64,
) -> Deliver<'m> {
    Deliver {
        channel: delivery.consumer.channel.channel,
        consumer_tag: tag.as_bytes(),
        delivery_tag,
        redelivered: delivery.redelivered,
        exchange: message.exchange,
        routing_key: message.routing_key,
    }
}

/// Channel-wide prefetch: each delivery needs a grant, given to the consumers in turn.
#[derive(Debug, Default)]
pub struct ChannelLimit {
    /// Unsettled deliveries the channel may have; 0 = any number.
    pub prefetch: u32,
    /// Unsettled deliveries that count against the limit.
    pub unsettled: u32,
    /// Grants under way.
    pub granted: u32,
    /// Consumers whose queue has a message for them, in the order of their requests.
    pub wanting: std::collections::VecDeque<ConsumerKey>,
}

impl ChannelLimit {
    /// Grants a delivery to the next consumer, if the limit allows one and a consumer wants it.
    pub fn next_grant(&mut self) -> Option<ConsumerKey> {
        if self.prefetch > 0 && self.unsettled + self.granted >= self.prefetch {
            return None;
        }
        let next = self.wanting.pop_front()?;
        self.granted += 1;
        Some(next)
    }
}

impl Outbound {
    /// A channel that has just been opened.
    pub fn new(key: ChannelKey) -> Self {
        Self {
            key,
            unacked: Unacked::default(),
            confirms: None,
            confirms_due: false,
            limit: ChannelLimit::default(),
            homes: Vec::new(),
            last_delivery_tag: 0,
            consumers: Vec::new(),
            // The tags are the client's: one that makes them collide slows down only itself.
            tags: seeded_map(0),
            consumer_generation: 0,
        }
    }

    /// Records a delivery to a consumer; returns its delivery tag and the consumer. `None` if the
    /// consumer is gone.
    #[inline(always)]
    pub fn deliver(&mut self, delivery: &Delivery) -> Option<(u64, &mut Consumer)> {
        // The low 16 bits are the slot, the others a generation: a delivery to a consumer that was
        // cancelled must not reach the next one in its slot.
        let number = delivery.consumer.number;
        let consumer = self.consumers.get_mut((number & 0xFFFF) as usize)?.as_mut()?;
        if consumer.key.number != number {
            return None;
        }
        self.last_delivery_tag += 1;
        if let Some(number) = delivery.number {
            let Delivery { queue, home, holder, .. } = *delivery;
            let source = Source { queue, home, holder, counted: true };
            self.unacked.push(self.last_delivery_tag, source, number);
            self.limit.unsettled += 1;
        }
        if delivery.granted {
            self.limit.granted = self.limit.granted.saturating_sub(1);
        }
        Some((self.last_delivery_tag, consumer))
    }

    /// Records deliveries to a consumer under consecutive tags. `write` gets the first tag and
    /// returns how many it wrote; so does this. `None` if the consumer is gone.
    #[inline]
    pub fn deliver_many(
        &mut self,
        first: &Delivery,
        write: impl FnOnce(u64, &mut Consumer) -> u64,
    ) -> Option<u64> {
        let number = first.consumer.number;
        let consumer = self.consumers.get_mut((number & 0xFFFF) as usize)?.as_mut()?;
        if consumer.key.number != number {
            return None;
        }
        let first_tag = self.last_delivery_tag + 1;
        let count = write(first_tag, consumer);
        self.last_delivery_tag += count;
        if let Some(number) = first.number.filter(|_| count > 0) {
            let Delivery { queue, home, holder, .. } = *first;
            let source = Source { queue, home, holder, counted: true };
            self.unacked.push_many(first_tag, source, number, count);
            self.limit.unsettled += count as u32;
        }
        if first.granted {
            self.limit.granted = self.limit.granted.saturating_sub(count as u32);
        }
        Some(count)
    }

    /// Takes the delivery with this tag, because the client settles it.
    #[inline]
    pub fn settle(&mut self, tag: u64) -> Option<Run> {
        let run = self.unacked.take(tag)?;
        self.settled(&run);
        Some(run)
    }

    /// Takes the oldest run of deliveries with tags up to `tag`: the client settles all of those
    /// (`multiple`), run by run.
    #[inline]
    pub fn settle_through(&mut self, tag: u64) -> Option<Run> {
        let run = self.unacked.take_through(tag)?;
        self.settled(&run);
        Some(run)
    }

    /// Counts deliveries that were settled.
    #[inline]
    pub fn settled(&mut self, run: &Run) {
        if run.source.counted {
            self.limit.unsettled -= run.count() as u32;
        }
    }

    /// Takes the tag of the next delivery.
    #[inline]
    pub fn next_delivery_tag(&mut self) -> u64 {
        self.last_delivery_tag += 1;
        self.last_delivery_tag
    }

    /// The tag of the newest delivery.
    pub fn last_delivery_tag(&self) -> u64 {
        self.last_delivery_tag
    }

    /// The consumer a delivery is for, unless it has been cancelled.
    #[inline]
    pub fn consumer(&self, number: u32) -> Option<&Consumer> {
        let consumer = self.consumers.get((number & 0xFFFF) as usize)?.as_ref()?;
        (consumer.key.number == number).then_some(consumer)
    }

    /// As [`Self::consumer`], mutable.
    pub fn consumer_mut(&mut self, number: u32) -> Option<&mut Consumer> {
        let consumer = self.consumers.get_mut((number & 0xFFFF) as usize)?.as_mut()?;
        (consumer.key.number == number).then_some(consumer)
    }

    /// The consumer with this tag.
    pub fn consumer_by_tag(&self, tag: &str) -> Option<&Consumer> {
        self.consumer(*self.tags.get(tag)?)
    }

    /// All consumers.
    pub fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.consumers.iter().flatten()
    }

    /// All consumers, mutable.
    pub fn consumers_mut(&mut self) -> impl Iterator<Item = &mut Consumer> {
        self.consumers.iter_mut().flatten()
    }

    /// Adds a consumer and returns its key; `None` when the channel has too many.
    pub fn add_consumer(
        &mut self,
        tag: &str,
        queue: QueueId,
        home: ShardId,
        no_ack: bool,
    ) -> Option<ConsumerKey> {
        let slot = match self.consumers.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.consumers.len() < CONSUMERS_PER_CHANNEL_MAX => {
                self.consumers.push(None);
                self.consumers.len() - 1
            }
            None => return None,
        };
        self.consumer_generation = self.consumer_generation.wrapping_add(1);
        let number = (self.consumer_generation << 16) | slot as u32;
        let key = ConsumerKey { channel: self.key, number };
        self.tags.insert(tag.into(), number);
        let tag = tag.into();
        self.consumers[slot] = Some(Consumer {
            key,
            tag,
            queue,
            home,
            no_ack,
            stopped: false,
            envelope: Envelope::default(),
            last_likeness: Likeness::UNKNOWN,
        });
        Some(key)
    }

    /// Forgets a consumer.
    pub fn remove_consumer(&mut self, number: u32) -> Option<Consumer> {
        self.consumer(number)?;
        let consumer = self.consumers[(number & 0xFFFF) as usize].take()?;
        self.tags.remove(&consumer.tag);
        self.limit.wanting.retain(|key| key.number != number);
        Some(consumer)
    }

    /// Remembers a home that must be notified of this channel's end.
    #[inline]
    pub fn know_home(&mut self, home: ShardId) {
        if !self.homes.contains(&home) {
            self.homes.push(home);
        }
    }
}
