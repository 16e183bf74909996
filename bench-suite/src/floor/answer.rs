//! Answers the methods that the load client uses to set up and to get messages.

use leveret_amqp::limits::{Tune, negotiate};
use leveret_amqp::method::{
    BasicCancelOk, BasicConsume, BasicConsumeOk, BasicGet, BasicGetEmpty, BasicQosOk,
    ChannelCloseOk, ChannelOpenOk, ConfirmSelectOk, ConnectionCloseOk, ConnectionOpenOk,
    ConnectionStart, ConnectionTune, ExchangeDeclare, ExchangeDeclareOk, ExchangeDeleteOk,
    QueueBind, QueueBindOk, QueueDeclare, QueueDeclareOk, QueueDelete, QueueDeleteOk, QueuePurge,
    QueuePurgeOk, QueueUnbind, QueueUnbindOk,
};
use leveret_amqp::{Method, ReplyCode, TableBuilder};

use super::FloorState;
use super::intake::{Channel, End, Intake};
use super::topology::{Consumer, Exchange, NAMES_MAX, Queue};

/// No heartbeats: client and floor are on the same machine, where a client that is gone has closed
/// its socket.
const OFFER: Tune = Tune { heartbeat: 0, ..Tune::SERVER_DEFAULT };

impl Intake {
    pub(super) fn send_start(&self, floor: &mut FloorState) {
        let properties = TableBuilder::new()
            .long_str("product", "floor")
            .long_str("version", env!("CARGO_PKG_VERSION"))
            .finish();
        let start = ConnectionStart {
            version_major: 0,
            version_minor: 9,
            server_properties: properties.as_ref(),
            mechanisms: b"PLAIN",
            locales: b"en_US",
        };
        self.send(floor, 0, &start);
    }

    /// Answers all methods but publishes and acks.
    #[inline(never)]
    pub(super) fn answer(
        &mut self,
        floor: &mut FloorState,
        channel: u16,
        method: Method<'_>,
    ) -> Result<(), End> {
        if method.ids().0 == 10 {
            return self.answer_connection(floor, method);
        }
        if !self.open {
            let text = format!("{} before connection.open", method.name());
            return Err(End::Refused(ReplyCode::CommandInvalid, text));
        }
        match method {
            Method::ChannelOpen(_) => {
                if self.channel(channel).is_ok() || channel == 0 {
                    let text = "second channel.open".to_owned();
                    return Err(End::Refused(ReplyCode::ChannelError, text));
                }
                self.channels.push(Channel::new(channel));
                floor.topology.generation += 1;
                self.send(floor, channel, &ChannelOpenOk {});
                Ok(())
            }
            Method::ChannelClose(_) => {
                if self.close_channel(channel) {
                    floor.cancel(self.slot, Some(channel), None);
                    floor.outlets[self.slot].forget_channel(channel);
                }
                self.send(floor, channel, &ChannelCloseOk {});
                Ok(())
            }
            other => {
                let index = self.channel(channel)?;
                self.answer_on_channel(floor, index, other)
            }
        }
    }

    fn answer_connection(&mut self, floor: &mut FloorState, method: Method<'_>) -> Result<(), End> {
        match method {
            Method::ConnectionStartOk(_) => {
                let Tune { channel_max, frame_max, heartbeat } = OFFER;
                self.send(floor, 0, &ConnectionTune { channel_max, frame_max, heartbeat });
            }
            Method::ConnectionTuneOk(answer) => {
                let (channel_max, frame_max) = (answer.channel_max, answer.frame_max);
                let answer = Tune { channel_max, frame_max, heartbeat: answer.heartbeat };
                let tune = negotiate(OFFER, answer)
                    .map_err(|error| End::Refused(error.reply_code(), error.to_string()))?;
                self.frame_max = tune.frame_max;
            }
            Method::ConnectionOpen(_) => {
                self.open = true;
                self.send(floor, 0, &ConnectionOpenOk {});
            }
            Method::ConnectionClose(_) => {
                self.send(floor, 0, &ConnectionCloseOk {});
                return Err(End::Answered);
            }
            Method::ConnectionCloseOk(_) => return Err(End::Answered),
            other => return Err(not_implemented(other)),
        }
        Ok(())
    }

    fn answer_on_channel(
        &mut self,
        floor: &mut FloorState,
        index: usize,
        method: Method<'_>,
    ) -> Result<(), End> {
        let channel = self.channels[index].number;
        match method {
            Method::ExchangeDeclare(declare) => self.declare_exchange(floor, channel, &declare)?,
            Method::ExchangeDelete(delete) => {
                floor.topology.exchanges.remove(delete.exchange);
                floor.topology.generation += 1;
                if !delete.nowait {
                    self.send(floor, channel, &ExchangeDeleteOk {});
                }
            }
            Method::QueueDeclare(declare) => self.declare_queue(floor, index, &declare)?,
            Method::QueueBind(bind) => self.bind(floor, index, &bind)?,
            Method::QueueUnbind(unbind) => self.unbind(floor, index, &unbind),
            Method::QueuePurge(QueuePurge { queue, nowait }) => {
                let message_count = floor.purge(self.named(index, queue));
                if !nowait {
                    self.send(floor, channel, &QueuePurgeOk { message_count });
                }
            }
            Method::QueueDelete(QueueDelete { queue, nowait, .. }) => {
                let queue = self.named(index, queue);
                let message_count = floor.purge(queue);
                floor.topology.delete(queue);
                if !nowait {
                    self.send(floor, channel, &QueueDeleteOk { message_count });
                }
            }
            Method::BasicConsume(consume) => self.consume(floor, index, &consume)?,
            Method::BasicCancel(cancel) => {
                floor.cancel(self.slot, Some(channel), Some(cancel.consumer_tag));
                if !cancel.nowait {
                    self.send(floor, channel, &BasicCancelOk { consumer_tag: cancel.consumer_tag });
                }
            }
            Method::BasicGet(BasicGet { queue, .. }) => {
                match floor.take_rested(self.named(index, queue)) {
                    Some((message, left)) => {
                        floor.outlets[self.slot].deliver_got(
                            channel,
                            &message,
                            left,
                            self.frame_max,
                        );
                        floor.dirty.push(self.slot);
                    }
                    None => self.send(floor, channel, &BasicGetEmpty {}),
                }
            }
            Method::BasicQos(_) => self.send(floor, channel, &BasicQosOk {}),
            Method::ConfirmSelect(select) => {
                self.select_confirms(index);
                if !select.nowait {
                    self.send(floor, channel, &ConfirmSelectOk {});
                }
            }
            other => return Err(not_implemented(other)),
        }
        Ok(())
    }

    /// The name of a queue; an empty one stands for the queue declared last.
    fn named<'n>(&'n self, index: usize, name: &'n str) -> &'n str {
        if name.is_empty() { &self.channels[index].last_queue } else { name }
    }

    fn declare_exchange(
        &self,
        floor: &mut FloorState,
        channel: u16,
        declare: &ExchangeDeclare<'_>,
    ) -> Result<(), End> {
        let exchanges = &mut floor.topology.exchanges;
        if !exchanges.contains_key(declare.exchange) {
            if declare.passive {
                return Err(not_found("exchange", declare.exchange));
            }
            within_limit(exchanges.len())?;
            let fanout = declare.kind == "fanout";
            let exchange = Exchange { fanout, ..Exchange::default() };
            exchanges.insert(declare.exchange.to_owned(), exchange);
            floor.topology.generation += 1;
        }
        if !declare.nowait {
            self.send(floor, channel, &ExchangeDeclareOk {});
        }
        Ok(())
    }

    fn declare_queue(
        &mut self,
        floor: &mut FloorState,
        index: usize,
        declare: &QueueDeclare<'_>,
    ) -> Result<(), End> {
        let topology = &mut floor.topology;
        let mut name = declare.queue.to_owned();
        if name.is_empty() {
            topology.names_given += 1;
            name = format!("floor.gen-{}", topology.names_given);
        }
        if !topology.queues.contains_key(&name) {
            if declare.passive {
                return Err(not_found("queue", &name));
            }
            within_limit(topology.queues.len())?;
            let owner = declare.exclusive.then_some(self.slot);
            let queue = Queue::new(owner, declare.auto_delete);
            topology.queues.insert(name.clone(), queue);
            topology.generation += 1;
        }
        let (messages, consumers) = topology
            .queues
            .get(&name)
            .map_or((0, 0), |queue| (queue.resting.len(), queue.consumers.len()));
        let channel = self.channels[index].number;
        if !declare.nowait {
            let answer = QueueDeclareOk {
                queue: &name,
                message_count: messages as u32,
                consumer_count: consumers as u32,
            };
            self.send(floor, channel, &answer);
        }
        self.channels[index].last_queue = name;
        Ok(())
    }

    fn bind(&self, floor: &mut FloorState, index: usize, bind: &QueueBind<'_>) -> Result<(), End> {
        let queue = self.named(index, bind.queue);
        if !floor.topology.queues.contains_key(queue) {
            return Err(not_found("queue", queue));
        }
        let Some(exchange) = floor.topology.exchanges.get_mut(bind.exchange) else {
            return Err(not_found("exchange", bind.exchange));
        };
        let key = if exchange.fanout { b"" } else { bind.routing_key };
        within_limit(exchange.bindings.len())?;
        let bound = exchange.bindings.entry(key.to_vec()).or_default();
        if !bound.iter().any(|name| name == queue) {
            within_limit(bound.len())?;
            bound.push(queue.to_owned());
        }
        floor.topology.generation += 1;
        if !bind.nowait {
            self.send(floor, self.channels[index].number, &QueueBindOk {});
        }
        Ok(())
    }

    fn unbind(&self, floor: &mut FloorState, index: usize, unbind: &QueueUnbind<'_>) {
        let queue = self.named(index, unbind.queue);
        if let Some(exchange) = floor.topology.exchanges.get_mut(unbind.exchange) {
            let key: &[u8] = if exchange.fanout { b"" } else { unbind.routing_key };
            if let Some(bound) = exchange.bindings.get_mut(key) {
                bound.retain(|name| name != queue);
            }
        }
        floor.topology.generation += 1;
        self.send(floor, self.channels[index].number, &QueueUnbindOk {});
    }

    fn consume(
        &self,
        floor: &mut FloorState,
        index: usize,
        consume: &BasicConsume<'_>,
    ) -> Result<(), End> {
        let channel = self.channels[index].number;
        let name = self.named(index, consume.queue);
        floor.topology.names_given += 1;
        let tag = match consume.consumer_tag {
            "" => format!("floor.ctag-{}", floor.topology.names_given),
            chosen => chosen.to_owned(),
        };
        let Some(queue) = floor.topology.queues.get_mut(name) else {
            return Err(not_found("queue", name));
        };
        within_limit(queue.consumers.len())?;
        let (slot, frame_max) = (self.slot, self.frame_max);
        queue.consumers.push(Consumer { slot, channel, tag: tag.clone(), frame_max });
        floor.topology.generation += 1;
        if !consume.nowait {
            self.send(floor, channel, &BasicConsumeOk { consumer_tag: &tag });
        }
        floor.wake(name);
        Ok(())
    }
}

fn not_implemented(method: Method<'_>) -> End {
    End::Refused(ReplyCode::NotImplemented, format!("the floor has no {}", method.name()))
}

fn not_found(kind: &str, name: &str) -> End {
    End::Refused(ReplyCode::NotFound, format!("no {kind} '{name}'"))
}

fn within_limit(count: usize) -> Result<(), End> {
    if count < NAMES_MAX {
        return Ok(());
    }
    let text = format!("the floor keeps {NAMES_MAX} names of a kind");
    Err(End::Refused(ReplyCode::ResourceError, text))
}
