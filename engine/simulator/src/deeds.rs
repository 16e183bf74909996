//! What an agent can do on a channel.

use leveret_amqp::TableRef;
use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::method::{
    BasicAck, BasicCancel, BasicConsume, BasicGet, BasicNack, BasicRecover, BasicReject,
    ExchangeDeclare, ExchangeDelete, QueueDeclare, QueuePurge,
};

use crate::agent::Agent;
use crate::identity::Identity;
use crate::oracle::{Oracle, Settlement};
use crate::scene::{
    LASTING_QUEUES, PASSING_QUEUES, WAYS, bind_queue, declare_exchange, declare_queue,
    delete_queue, lasting, may_be_lossy,
};
use crate::seat::{Consumer, Seat, Source, Waiting};
use crate::world::World;

/// Consumers of one channel.
const CONSUMERS_MAX: usize = 3;

impl Agent {
    /// Publishes a few messages the same or different ways.
    pub(crate) fn publish_some(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
        at: usize,
        confirm: bool,
    ) -> String {
        let count = world.random.between(1, 6);
        let mut way = world.random.pick(&WAYS);
        for _ in 0..count {
            if world.random.chance(30) {
                way = world.random.pick(&WAYS);
            }
            let mandatory = world.random.chance(30);
            let (exchange, key, queues) = way;
            let identity = self.publish(world, at, exchange, key, mandatory);
            oracle.published(identity, Some(queues), mandatory, confirm);
        }
        format!("publishes {count} on {} up to {}", self.seats[at].uid, self.seats[at].published)
    }

    fn publish(
        &mut self,
        world: &mut World,
        at: usize,
        exchange: &str,
        key: &str,
        mandatory: bool,
    ) -> Identity {
        let size_max = world.faults().body_max_bytes();
        let size = self.body_size(&mut world.random, size_max);
        let seat = &mut self.seats[at];
        seat.published += 1;
        let identity = Identity { publisher: seat.uid, sequence: seat.published };
        let method = Publish {
            channel: seat.number,
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            mandatory,
            immediate: false,
        };
        let mut out = Vec::new();
        // Cut smaller than need be, now and then.
        let frame_max = world.random.pick(&[self.frame_max, self.frame_max, 600]);
        encode_content(&mut out, method, &[0x10, 0, 2], &identity.body(size), frame_max);
        world.write(self.client.socket, &out);
        identity
    }

    /// Settles deliveries in any order and in all ways.
    pub(crate) fn settle(&mut self, world: &mut World, oracle: &mut Oracle, at: usize) -> String {
        let seat = &mut self.seats[at];
        let tags: Vec<u64> = seat.held.keys().copied().collect();
        let delivery_tag = if world.random.chance(60) { tags[0] } else { world.random.pick(&tags) };
        let multiple = world.random.chance(30);
        let kind = world.random.below(10);
        let number = seat.number;
        let how = match kind {
            0..=5 => {
                self.client.send(world, number, &BasicAck { delivery_tag, multiple });
                Settlement::Done
            }
            6 => {
                let reject = BasicReject { delivery_tag, requeue: false };
                self.client.send(world, number, &reject);
                Settlement::Done
            }
            7 => {
                self.client.send(world, number, &BasicReject { delivery_tag, requeue: true });
                Settlement::Requeue
            }
            8 => {
                let nack = BasicNack { delivery_tag, multiple, requeue: true };
                self.client.send(world, number, &nack);
                Settlement::Requeue
            }
            _ => {
                let nack = BasicNack { delivery_tag, multiple, requeue: false };
                self.client.send(world, number, &nack);
                Settlement::Done
            }
        };
        let multiple = multiple && !matches!(kind, 6 | 7);
        seat.settled(oracle, delivery_tag, multiple, how);
        format!("settles {delivery_tag} (multiple {multiple}) on {}: {how:?}", seat.uid)
    }

    /// Starts or ends a consumer of a lasting queue, or gets a message.
    pub(crate) fn consume_something(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
        at: usize,
    ) -> Option<String> {
        let queue = world.random.index(LASTING_QUEUES);
        let no_ack = may_be_lossy(queue) && world.random.chance(40);
        let seat = &self.seats[at];
        match world.random.below(10) {
            0..=4 if seat.consumers.len() < CONSUMERS_MAX => {
                Some(self.consume(world, at, Source::Lasting(queue), no_ack))
            }
            5 if !seat.consumers.is_empty() => self.cancel(world, at),
            // With a consumer nobody could tell which deliveries came before and which after.
            6 if seat.consumers.is_empty() && !seat.held.is_empty() => {
                Some(self.recover(world, oracle, at))
            }
            7..=8 => Some(self.get(world, at, Source::Lasting(queue), no_ack)),
            _ => None,
        }
    }

    fn recover(&mut self, world: &mut World, oracle: &mut Oracle, at: usize) -> String {
        let seat = &mut self.seats[at];
        self.client.send(world, seat.number, &BasicRecover { requeue: true });
        seat.settled(oracle, u64::MAX - 1, true, Settlement::Requeue);
        seat.waiting = Waiting::Recover;
        format!("recovers on {}", seat.uid)
    }

    fn consume(&mut self, world: &mut World, at: usize, source: Source, no_ack: bool) -> String {
        let seat = &mut self.seats[at];
        seat.consumers_started += 1;
        let (number, prefetch) = (seat.consumers_started, seat.prefetch);
        let tag = format!("tag-{number}");
        let consume = BasicConsume {
            queue: &source.name(),
            consumer_tag: &tag,
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: TableRef::EMPTY,
        };
        self.client.send(world, seat.number, &consume);
        let said = format!("consumes {source:?} on {} (no-ack {no_ack})", seat.uid);
        seat.consumers.insert(tag, Consumer { source, no_ack, prefetch, number });
        seat.waiting = Waiting::Answer;
        said
    }

    fn cancel(&mut self, world: &mut World, at: usize) -> Option<String> {
        let seat = &mut self.seats[at];
        let tags: Vec<String> = seat.consumers.keys().cloned().collect();
        let tag = tags.get(world.random.index(tags.len()))?.clone();
        let cancel = BasicCancel { consumer_tag: &tag, nowait: false };
        self.client.send(world, seat.number, &cancel);
        let said = format!("cancels {tag} on {}", seat.uid);
        seat.waiting = Waiting::Cancel(tag);
        Some(said)
    }

    fn get(&mut self, world: &mut World, at: usize, source: Source, no_ack: bool) -> String {
        let seat = &mut self.seats[at];
        self.client.send(world, seat.number, &BasicGet { queue: &source.name(), no_ack });
        let said = format!("gets from {source:?} on {} (no-ack {no_ack})", seat.uid);
        seat.waiting = Waiting::Get(source, no_ack);
        said
    }

    /// Declares, deletes, fills and empties what comes and goes.
    pub(crate) fn churn(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
        at: usize,
    ) -> Option<String> {
        let queue = format!("passing-{}", world.random.index(PASSING_QUEUES));
        let exchange = format!("passing-x{}", world.random.index(2));
        let number = self.seats[at].number;
        let no_ack = world.random.chance(50);
        let kind = world.random.below(12);
        match kind {
            0..=2 => {
                let exclusive = world.random.chance(20);
                let auto_delete = world.random.chance(40);
                let durable = world.random.chance(40);
                let declare =
                    QueueDeclare { durable, exclusive, auto_delete, ..declare_queue(&queue) };
                self.client.send(world, number, &declare);
            }
            3 => self.client.send(world, number, &delete_queue(&queue)),
            4 => self.client.send(world, number, &QueuePurge { queue: &queue, nowait: false }),
            5 => {
                let kind = world.random.pick(&["fanout", "topic"]);
                let declare = ExchangeDeclare {
                    auto_delete: world.random.chance(50),
                    durable: world.random.chance(50),
                    ..declare_exchange(&exchange, kind, TableRef::EMPTY)
                };
                self.client.send(world, number, &declare);
            }
            6 => self.client.send(world, number, &bind_queue(&queue, &exchange, "#")),
            7 => {
                let delete = ExchangeDelete { exchange: &exchange, if_unused: true, nowait: false };
                self.client.send(world, number, &delete);
            }
            8 => return Some(self.get(world, at, Source::Passing(queue), no_ack)),
            9 if self.seats[at].consumers.len() < CONSUMERS_MAX => {
                return Some(self.consume(world, at, Source::Passing(queue), no_ack));
            }
            9 => return self.cancel(world, at),
            _ => {
                let mandatory = world.random.chance(30);
                let identity = self.publish(world, at, "", &queue, mandatory);
                oracle.published(identity, None, mandatory, false);
                return Some(format!("publishes to {queue}"));
            }
        }
        self.seats[at].waiting = Waiting::Answer;
        Some(format!("churns {queue} and {exchange} ({kind})"))
    }

    /// Does what is not allowed.
    pub(crate) fn err(&mut self, world: &mut World, oracle: &mut Oracle, at: usize) -> String {
        let seat = &mut self.seats[at];
        let number = seat.number;
        oracle.break_channel(seat.uid);
        seat.tell_takers_left(oracle);
        seat.suspect = true;
        seat.waiting = Waiting::Refusal;
        let kind = world.random.below(5);
        match kind {
            0 => {
                let ack = BasicAck { delivery_tag: 1 << 40, multiple: world.random.chance(50) };
                self.client.send(world, number, &ack);
            }
            1 => {
                let get = BasicGet { queue: "nowhere", no_ack: true };
                self.client.send(world, number, &get);
            }
            2 => {
                let declare =
                    QueueDeclare { passive: true, durable: true, ..declare_queue("nowhere") };
                self.client.send(world, number, &declare);
            }
            3 => {
                let declare = QueueDeclare { auto_delete: true, ..declare_queue("lasting-0") };
                self.client.send(world, number, &declare);
            }
            _ => {
                let identity = self.publish(world, at, "no-exchange", "k", true);
                oracle.published(identity, Some(&[]), false, false);
            }
        }
        format!("errs on {} ({kind})", self.seats[at].uid)
    }
}

impl Seat {
    /// Notes what has been settled.
    fn settled(&mut self, oracle: &mut Oracle, tag: u64, multiple: bool, how: Settlement) {
        let settled = if multiple {
            let above = self.held.split_off(&(tag + 1));
            std::mem::replace(&mut self.held, above)
        } else {
            self.held.remove(&tag).into_iter().map(|held| (tag, held)).collect()
        };
        for held in settled.into_values() {
            if let Source::Lasting(queue) = held.source {
                oracle.settled(queue, held.identity, self.uid, how);
            }
        }
    }
}

impl Source {
    /// The name of the queue.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Lasting(queue) => lasting(*queue),
            Self::Passing(name) => name.clone(),
        }
    }
}
