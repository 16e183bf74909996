//! The reading side of one connection to the stub.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::TcpStream;

use leveret_amqp::method::{
    BasicCancelOk, BasicConsume, BasicConsumeOk, BasicQosOk, ChannelClose, ChannelCloseOk,
    ChannelOpenOk, ConfirmSelectOk, ConnectionCloseOk, ConnectionOpenOk, ConnectionStart,
    ConnectionTune, Encode, ExchangeDeclareOk, ExchangeDeleteOk, QueueBindOk, QueueDeclare,
    QueueDeclareOk, QueueDeleteOk, QueuePurgeOk, QueueUnbindOk,
};
use leveret_amqp::{ContentHeader, Decoder, Frame, Method, TableBuilder};

use super::state::{Consumer, Exchange, Message, State};
use super::{Defect, FRAME_SIZE_MAX, Shared, WAITING_SIZE_MAX};

/// Reads methods and contents, and answers them.
pub(super) struct Session<'a> {
    shared: &'a Shared,
    id: u64,
    /// Incomplete messages by channel, with the expected size of the body in octets.
    coming: BTreeMap<u16, (Message, u64)>,
}

impl<'a> Session<'a> {
    pub(super) fn new(shared: &'a Shared, id: u64) -> Self {
        Self { shared, id, coming: BTreeMap::new() }
    }

    pub(super) fn read(mut self, mut stream: TcpStream) -> io::Result<()> {
        let mut chunk = vec![0; 64 << 10];
        if self.shared.defect == Defect::Deaf {
            while stream.read(&mut chunk)? > 0 {}
            return Ok(());
        }
        stream.read_exact(&mut chunk[..8])?;
        self.greet();
        let mut decoder = Decoder::new(FRAME_SIZE_MAX);
        loop {
            let size = stream.read(&mut chunk)?;
            if size == 0 {
                return Ok(());
            }
            self.shared.sit_out_stall();
            let mut state = self.shared.lock();
            let (chunk, mut cursor, published) = (&chunk[..size], 0, state.published);
            while let Some(frame) = decoder.next(chunk, &mut cursor).map_err(io::Error::other)? {
                self.take(&mut state, chunk, frame)?;
            }
            state.confirm(self.id, self.shared.defect);
            let has_published = state.published > published;
            self.shared.changed.notify_all();
            while has_published && !state.is_closed && state.waiting_size() > WAITING_SIZE_MAX {
                state = self.shared.wait(state);
            }
        }
    }

    fn greet(&self) {
        let properties =
            TableBuilder::new().long_str("product", "stub").long_str("version", "1").finish();
        let start = ConnectionStart {
            version_major: 0,
            version_minor: 9,
            server_properties: properties.as_ref(),
            mechanisms: b"PLAIN",
            locales: b"en_US",
        };
        self.shared.lock().say(self.id, 0, &start);
        self.shared.changed.notify_all();
    }

    fn take(&mut self, state: &mut State, chunk: &[u8], frame: Frame<'_>) -> io::Result<()> {
        match frame {
            Frame::Method { channel, payload } => {
                let method = Method::decode(payload).map_err(io::Error::other)?;
                self.answer(state, channel, method);
            }
            Frame::Header { channel, payload } => {
                let header = ContentHeader::decode(payload).map_err(io::Error::other)?;
                if let Some((message, body_size)) = self.coming.get_mut(&channel) {
                    message.properties = header.properties.to_vec();
                    *body_size = header.body_size;
                }
                self.end_message(state, channel);
            }
            Frame::Body { channel, data, .. } => {
                if let Some((message, _)) = self.coming.get_mut(&channel) {
                    message.body.extend_from_slice(&chunk[data]);
                }
                self.end_message(state, channel);
            }
            Frame::Heartbeat { .. } => {}
        }
        Ok(())
    }

    /// Publishes a message once its body is complete. An empty rest of the body frame, its end
    /// octet, may follow.
    fn end_message(&mut self, state: &mut State, channel: u16) {
        let is_whole = |(message, size): &(Message, u64)| message.body.len() as u64 >= *size;
        if !self.coming.get(&channel).is_some_and(is_whole) {
            return;
        }
        let Some((message, _)) = self.coming.remove(&channel) else { return };
        if let Some(connection) = state.connections.get_mut(&self.id) {
            connection.channels.entry(channel).or_default().published += 1;
            state.publish(&message, self.shared.defect);
        }
    }

    fn answer(&mut self, state: &mut State, channel: u16, method: Method<'_>) {
        let id = self.id;
        match method {
            Method::ConnectionStartOk(_) => {
                let (channel_max, frame_max) = (2047, FRAME_SIZE_MAX);
                state.say(id, 0, &ConnectionTune { channel_max, frame_max, heartbeat: 0 });
            }
            Method::ConnectionOpen(_) => state.say(id, 0, &ConnectionOpenOk {}),
            Method::ConnectionClose(_) => state.say(id, 0, &ConnectionCloseOk {}),
            Method::ChannelOpen(_) => state.say(id, channel, &ChannelOpenOk {}),
            Method::ChannelClose(_) => {
                self.forget_channel(state, channel);
                state.say(id, channel, &ChannelCloseOk {});
            }
            Method::ConfirmSelect(select) => {
                if let Some(connection) = state.connections.get_mut(&id) {
                    connection.channels.entry(channel).or_default().has_confirms = true;
                }
                self.reply(state, channel, select.nowait, &ConfirmSelectOk {});
            }
            Method::BasicPublish(publish) => {
                let message = Message {
                    exchange: publish.exchange.to_vec(),
                    routing_key: publish.routing_key.to_vec(),
                    ..Message::default()
                };
                self.coming.insert(channel, (message, u64::MAX));
            }
            Method::BasicQos(_) => state.say(id, channel, &BasicQosOk {}),
            Method::BasicConsume(consume) => self.consume(state, channel, consume),
            Method::BasicCancel(cancel) => {
                let is_it = |consumer: &Consumer| {
                    (consumer.connection, consumer.channel) == (id, channel)
                        && consumer.tag == cancel.consumer_tag
                };
                for queue in state.queues.values_mut() {
                    queue.consumers.retain(|consumer| !is_it(consumer));
                }
                let answer = BasicCancelOk { consumer_tag: cancel.consumer_tag };
                self.reply(state, channel, cancel.nowait, &answer);
            }
            Method::BasicGet(get) => state.get(id, channel, get),
            Method::BasicAck(ack) => {
                state.acknowledged += state.settle(id, channel, ack.delivery_tag, ack.multiple);
            }
            Method::BasicNack(nack) => {
                state.settle(id, channel, nack.delivery_tag, nack.multiple);
            }
            Method::BasicReject(reject) => {
                state.settle(id, channel, reject.delivery_tag, false);
            }
            topology => self.change_topology(state, channel, topology),
        }
    }

    fn change_topology(&self, state: &mut State, channel: u16, method: Method<'_>) {
        let own = |name: &str| name.to_owned();
        match method {
            Method::ExchangeDeclare(declare) => {
                let exchange = state.exchanges.entry(own(declare.exchange)).or_default();
                exchange.is_direct = declare.kind == "direct";
                self.reply(state, channel, declare.nowait, &ExchangeDeclareOk {});
            }
            Method::ExchangeDelete(delete) => {
                state.exchanges.remove(delete.exchange);
                self.reply(state, channel, delete.nowait, &ExchangeDeleteOk {});
            }
            Method::QueueDeclare(declare) => self.declare(state, channel, declare),
            Method::QueueBind(bind) => {
                // Exchanges that exist in every broker are created on first use.
                let made =
                    Exchange { is_direct: bind.exchange == "amq.direct", ..Exchange::default() };
                let exchange = state.exchanges.entry(own(bind.exchange)).or_insert(made);
                exchange.bindings.insert((own(bind.queue), bind.routing_key.to_vec()));
                self.reply(state, channel, bind.nowait, &QueueBindOk {});
            }
            Method::QueueUnbind(unbind) => {
                if let Some(exchange) = state.exchanges.get_mut(unbind.exchange) {
                    let binding = (own(unbind.queue), unbind.routing_key.to_vec());
                    exchange.bindings.remove(&binding);
                }
                self.reply(state, channel, false, &QueueUnbindOk {});
            }
            Method::QueuePurge(purge) => {
                let message_count = state.purge(purge.queue);
                self.reply(state, channel, purge.nowait, &QueuePurgeOk { message_count });
            }
            Method::QueueDelete(delete) => {
                let message_count = state.purge(delete.queue);
                state.queues.remove(delete.queue);
                for exchange in state.exchanges.values_mut() {
                    exchange.bindings.retain(|(queue, _)| queue != delete.queue);
                }
                self.reply(state, channel, delete.nowait, &QueueDeleteOk { message_count });
            }
            _ => {}
        }
    }

    fn declare(&self, state: &mut State, channel: u16, declare: QueueDeclare<'_>) {
        let is_missing = declare.passive && !state.queues.contains_key(declare.queue);
        if is_missing || self.shared.defect == Defect::RefuseQueue {
            let (class_id, method_id) = QueueDeclare::IDS;
            let reply_text = "NOT_FOUND - no queue";
            let close = ChannelClose { reply_code: 404, reply_text, class_id, method_id };
            self.forget_channel(state, channel);
            return state.say(self.id, channel, &close);
        }
        let name = state.name(declare.queue, "amq.gen-");
        let queue = state.queues.entry(name.clone()).or_default();
        let answer = QueueDeclareOk {
            queue: &name,
            message_count: queue.ready.len() as u32,
            consumer_count: queue.consumers.len() as u32,
        };
        self.reply(state, channel, declare.nowait, &answer);
    }

    fn consume(&self, state: &mut State, channel: u16, consume: BasicConsume<'_>) {
        let tag = state.name(consume.consumer_tag, "ctag-");
        let answer = BasicConsumeOk { consumer_tag: &tag };
        self.reply(state, channel, consume.nowait, &answer);
        let (connection, no_ack) = (self.id, consume.no_ack);
        let queue = state.queues.entry(consume.queue.to_owned()).or_default();
        queue.consumers.push(Consumer { connection, channel, tag, no_ack });
        state.deliver_all(consume.queue, self.shared.defect);
    }

    fn forget_channel(&self, state: &mut State, channel: u16) {
        if let Some(connection) = state.connections.get_mut(&self.id) {
            connection.channels.remove(&channel);
        }
        for queue in state.queues.values_mut() {
            queue.consumers.retain(|it| (it.connection, it.channel) != (self.id, channel));
        }
    }

    fn reply(&self, state: &mut State, channel: u16, nowait: bool, method: &impl Encode) {
        if !nowait {
            state.say(self.id, channel, method);
        }
    }
}
