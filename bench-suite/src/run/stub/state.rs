//! The state of the stub: connections, exchanges, queues, and the effect of a publish on them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Shutdown, TcpStream};

use leveret_amqp::encoder::{Deliver, GetOk, encode_content};
use leveret_amqp::method::{BasicAck, BasicGet, BasicGetEmpty, BasicNack, Encode, encode_frame};

use super::{Defect, FRAME_SIZE_MAX};

/// Every message with this remainder of [`PERIOD`] is affected by the defect. The period is prime,
/// so that these messages are spread over queues and streams.
pub(super) const VICTIM: u64 = 500;
pub(super) const PERIOD: u64 = 997;

/// The last octet of a stamp.
const STAMP_END: usize = 15;

/// The octets of a body that contain the stream.
const STREAM_SIZE: usize = 3;

/// State that all connections share.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) is_closed: bool,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) exchanges: BTreeMap<String, Exchange>,
    pub(super) queues: BTreeMap<String, Queue>,
    pub(super) published: u64,
    /// Copies: one for each queue.
    pub(super) routed: u64,
    pub(super) delivered: u64,
    pub(super) acknowledged: u64,
    /// Names that were generated for queues and consumers.
    pub(super) named: u64,
    /// Octets of bodies in queues.
    pub(super) queued_size: usize,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) outbox: Vec<u8>,
    pub(super) channels: BTreeMap<u16, Channel>,
}

#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) has_confirms: bool,
    pub(super) published: u64,
    pub(super) confirmed: u64,
    pub(super) delivered: u64,
    /// Delivery tags of unacknowledged deliveries.
    pub(super) unacknowledged: BTreeSet<u64>,
}

/// An exchange that is not of kind `direct` routes to all its queues, whatever the routing key is.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) is_direct: bool,
    /// Queue and routing key.
    pub(super) bindings: BTreeSet<(String, Vec<u8>)>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) consumers: Vec<Consumer>,
    pub(super) ready: VecDeque<Message>,
    /// Messages that wait for the next one of their stream.
    pub(super) held: Vec<Message>,
}

#[derive(Debug, Clone)]
pub(super) struct Consumer {
    pub(super) connection: u64,
    pub(super) channel: u16,
    pub(super) tag: String,
    pub(super) no_ack: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    pub(super) exchange: Vec<u8>,
    pub(super) routing_key: Vec<u8>,
    pub(super) properties: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl State {
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        for connection in std::mem::take(&mut self.connections).into_values() {
            // The connection may be cut already.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn waiting_size(&self) -> usize {
        let outboxes = self.connections.values().map(|connection| connection.outbox.len());
        self.queued_size + outboxes.sum::<usize>()
    }

    pub(super) fn say(&mut self, connection: u64, channel: u16, method: &impl Encode) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            encode_frame(channel, method, &mut connection.outbox);
        }
    }

    pub(super) fn name(&mut self, name: &str, prefix: &str) -> String {
        if !name.is_empty() {
            return name.to_owned();
        }
        self.named += 1;
        format!("{prefix}{}", self.named)
    }

    pub(super) fn publish(&mut self, message: &Message, defect: Defect) {
        self.published += 1;
        if let Defect::Die { after } = defect
            && self.published >= after
        {
            self.close();
            return;
        }
        for queue in self.route(message) {
            self.put(&queue, message.clone(), defect);
        }
    }

    /// Each queue once, even if several bindings match.
    pub(super) fn route(&self, message: &Message) -> BTreeSet<String> {
        if message.exchange.is_empty() {
            let queue = String::from_utf8_lossy(&message.routing_key).into_owned();
            return self.queues.contains_key(&queue).then_some(queue).into_iter().collect();
        }
        let exchange = self.exchanges.get(&*String::from_utf8_lossy(&message.exchange));
        exchange.map_or_else(BTreeSet::new, |exchange| {
            let fits = |key: &Vec<u8>| !exchange.is_direct || *key == message.routing_key;
            let bindings = exchange.bindings.iter().filter(|(_, key)| fits(key));
            bindings.map(|(queue, _)| queue.clone()).collect()
        })
    }

    pub(super) fn put(&mut self, queue: &str, mut message: Message, defect: Defect) {
        self.routed += 1;
        let is_victim = self.routed % PERIOD == VICTIM;
        let mut target = queue.to_owned();
        if is_victim {
            match defect {
                Defect::Lose => return,
                Defect::Reorder => return self.hold(queue, message),
                Defect::Duplicate => self.enqueue(queue, message.clone(), defect),
                Defect::Corrupt => flip(message.body.get_mut(STAMP_END)),
                Defect::CorruptFiller => flip(message.body.last_mut()),
                Defect::Shorten => drop(message.body.pop()),
                Defect::Misroute => target = self.other_queue(queue),
                _ => {}
            }
        }
        let stream = message.body.get(..STREAM_SIZE).map(<[u8]>::to_vec);
        self.enqueue(&target, message, defect);
        let Some(waiting) = self.queues.get_mut(queue) else { return };
        let is_next = |held: &mut Message| held.body.get(..STREAM_SIZE) == stream.as_deref();
        let held: Vec<Message> = waiting.held.extract_if(.., is_next).collect();
        for message in held {
            self.enqueue(queue, message, defect);
        }
    }

    pub(super) fn hold(&mut self, queue: &str, message: Message) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.held.push(message);
        }
    }

    /// The next queue with a consumer, in a circle; the same queue if there is no other.
    pub(super) fn other_queue(&self, queue: &str) -> String {
        let names = self.queues.iter().filter(|(_, queue)| !queue.consumers.is_empty());
        let mut others = names.map(|(name, _)| name).filter(|name| *name != queue);
        let first = others.clone().next();
        others
            .find(|name| name.as_str() > queue)
            .or(first)
            .map_or_else(|| queue.to_owned(), Clone::clone)
    }

    pub(super) fn enqueue(&mut self, name: &str, message: Message, defect: Defect) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        self.queued_size += message.body.len();
        queue.ready.push_back(message);
        self.deliver_all(name, defect);
    }

    pub(super) fn deliver_all(&mut self, queue: &str, defect: Defect) {
        let is_paced = matches!(defect, Defect::Slow { .. });
        while !is_paced && self.deliver_next(queue) {}
    }

    /// False if there is no message or no consumer.
    pub(super) fn deliver_next(&mut self, name: &str) -> bool {
        let Some(queue) = self.queues.get_mut(name) else { return false };
        let Some(consumer) = queue.consumers.first().cloned() else { return false };
        let Some(message) = queue.ready.pop_front() else { return false };
        self.queued_size -= message.body.len();
        let connection = self.connections.get_mut(&consumer.connection);
        // The connection has just been cut, and the message is lost with it.
        let Some(connection) = connection else { return true };
        let channel = connection.channels.entry(consumer.channel).or_default();
        let deliver = Deliver {
            channel: consumer.channel,
            consumer_tag: consumer.tag.as_bytes(),
            delivery_tag: channel.next_delivery_tag(consumer.no_ack),
            redelivered: false,
            exchange: &message.exchange,
            routing_key: &message.routing_key,
        };
        let (properties, body) = (&message.properties, &message.body);
        encode_content(&mut connection.outbox, deliver, properties, body, FRAME_SIZE_MAX);
        self.delivered += 1;
        true
    }

    pub(super) fn get(&mut self, id: u64, channel_number: u16, get: BasicGet<'_>) {
        let queue = self.queues.get_mut(get.queue);
        let Some(message) = queue.and_then(|queue| queue.ready.pop_front()) else {
            return self.say(id, channel_number, &BasicGetEmpty {});
        };
        self.queued_size -= message.body.len();
        let message_count = self.message_count(get.queue);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let channel = connection.channels.entry(channel_number).or_default();
        let answer = GetOk {
            channel: channel_number,
            delivery_tag: channel.next_delivery_tag(get.no_ack),
            redelivered: false,
            exchange: &message.exchange,
            routing_key: &message.routing_key,
            message_count,
        };
        let (properties, body) = (&message.properties, &message.body);
        encode_content(&mut connection.outbox, answer, properties, body, FRAME_SIZE_MAX);
        self.delivered += 1;
    }

    pub(super) fn message_count(&self, queue: &str) -> u32 {
        self.queues.get(queue).map_or(0, |queue| queue.ready.len() as u32)
    }

    pub(super) fn purge(&mut self, queue: &str) -> u32 {
        let Some(queue) = self.queues.get_mut(queue) else { return 0 };
        self.queued_size -= queue.ready.iter().map(|message| message.body.len()).sum::<usize>();
        queue.ready.drain(..).count() as u32
    }

    pub(super) fn settle(
        &mut self,
        id: u64,
        channel: u16,
        delivery_tag: u64,
        multiple: bool,
    ) -> u64 {
        let connection = self.connections.get_mut(&id);
        let channel = connection.and_then(|connection| connection.channels.get_mut(&channel));
        let Some(channel) = channel else { return 0 };
        let before = channel.unacknowledged.len();
        match (multiple, delivery_tag) {
            (false, tag) => drop(channel.unacknowledged.remove(&tag)),
            (true, 0) => channel.unacknowledged.clear(),
            (true, tag) => channel.unacknowledged = channel.unacknowledged.split_off(&(tag + 1)),
        }
        (before - channel.unacknowledged.len()) as u64
    }

    /// Confirms the publishes since the last call.
    pub(super) fn confirm(&mut self, id: u64, defect: Defect) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        for (number, channel) in &mut connection.channels {
            if !channel.has_confirms || channel.confirmed == channel.published {
                continue;
            }
            let mut ack = |delivery_tag| {
                let ack = BasicAck { delivery_tag, multiple: true };
                encode_frame(*number, &ack, &mut connection.outbox);
            };
            match defect {
                Defect::ForgetConfirms => {}
                Defect::ConfirmTwice => {
                    ack(channel.published);
                    ack(channel.published);
                }
                Defect::Nack => channel.confirm_negatively(*number, &mut connection.outbox),
                _ => ack(channel.published),
            }
            channel.confirmed = channel.published;
        }
    }
}

impl Channel {
    pub(super) fn next_delivery_tag(&mut self, no_ack: bool) -> u64 {
        self.delivered += 1;
        if !no_ack {
            self.unacknowledged.insert(self.delivered);
        }
        self.delivered
    }

    /// Affected publishes get a nack each, all others an ack each.
    pub(super) fn confirm_negatively(&self, channel: u16, outbox: &mut Vec<u8>) {
        for delivery_tag in self.confirmed + 1..=self.published {
            if delivery_tag % PERIOD == VICTIM {
                let nack = BasicNack { delivery_tag, multiple: false, requeue: false };
                encode_frame(channel, &nack, outbox);
            } else {
                encode_frame(channel, &BasicAck { delivery_tag, multiple: false }, outbox);
            }
        }
    }
}

fn flip(octet: Option<&mut u8>) {
    if let Some(octet) = octet {
        *octet ^= 1;
    }
}
