//! A blocking AMQP connection, for everything before and after the load: setting up, queries, and
//! cleaning up. Under load its socket belongs to a driver, see [`Connection::into_attached`].

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use leveret_amqp::client::Hello;
use leveret_amqp::frame::{FRAME_HEADER_SIZE, FRAME_OVERHEAD, PROTOCOL_HEADER};
use leveret_amqp::limits::Tune;
use leveret_amqp::method::{
    BasicConsume, BasicQos, ChannelClose, ChannelOpen, ConfirmSelect, ConnectionClose, Encode,
    ExchangeDeclare, ExchangeDelete, QueueBind, QueueDeclare, QueueDelete, QueueUnbind,
    encode_frame,
};
use leveret_amqp::sasl::Credentials;
use leveret_amqp::{Decoder, Frame, Method, OwnedTable, TableBuilder, TableRef};

use crate::broker::Broker;
use crate::fault::Fault;
use crate::load::endpoint::Attached;

/// The channel that is used unless another one is named.
pub(crate) const CHANNEL: u16 = 1;

/// How long an answer, a connect or a write may take. A broker with millions of messages may need a
/// while to delete a queue.
const PATIENCE: Duration = Duration::from_mins(1);

/// The size of one read. A `connection.start` is smaller than 2 KiB.
const READ_SIZE: usize = 4 << 10;

/// The largest frame before the negotiation, in octets. It is far above any `connection.start`, and
/// below the first octets of other protocols when they are read as a size.
const LOGIN_FRAME_SIZE_MAX: u32 = 64 << 10;

/// How many methods are sent before their answers are read. With one round trip each, 100,000
/// bindings would take minutes. Without a limit, a broker that does not read while its answers are
/// not read would wait for this client, and this client for it. 256 answers of at most about 300
/// octets (a `queue.declare-ok` with the longest name) are 77 KiB, which the buffers of a socket
/// hold.
const UNANSWERED_MAX: usize = 256;

/// The limit on deliveries and confirms that arrive during the set-up, in octets. They are kept for
/// the endpoint that takes over. A consumer without a prefetch limit on a long queue would exceed
/// any limit, so a run starts its consumers before its publishers.
const KEPT_SIZE_MAX: usize = 64 << 20;

/// A connection. [`Connection::open_channel`] opens a channel; everything that needs one uses
/// [`CHANNEL`].
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Received octets; those before `cursor` have been read.
    received: Vec<u8>,
    cursor: usize,
    /// Complete frames of deliveries and confirms that arrived while another method was awaited.
    kept: Vec<u8>,
    frame_size_max: u32,
    channel_max: u16,
    patience: Duration,
    /// Product and version of the broker, from its server properties.
    pub(crate) product: String,
}

/// Properties of a queue besides its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueueOptions {
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: OwnedTable,
}

/// A queue bound to an exchange.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Binding {
    pub(crate) queue: String,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    /// For a headers exchange, including `x-match`.
    pub(crate) arguments: OwnedTable,
}

impl Connection {
    /// Connects and logs in, without heartbeats.
    pub(crate) fn open(broker: &Broker) -> Result<Self, Fault> {
        let stream = TcpStream::connect_timeout(&broker.address, PATIENCE)
            .map_err(Fault::io(format!("connect to {broker}")))?;
        let options = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        options.map_err(Fault::io("set the options of a socket"))?;
        let mut connection = Self {
            stream,
            received: Vec::new(),
            cursor: 0,
            kept: Vec::new(),
            frame_size_max: LOGIN_FRAME_SIZE_MAX,
            channel_max: 0,
            patience: PATIENCE,
            product: String::new(),
        };
        connection.log_in(broker)?;
        Ok(connection)
    }

    fn log_in(&mut self, broker: &Broker) -> Result<(), Fault> {
        self.write(PROTOCOL_HEADER)?;
        self.product = self.expect("connection.start", |method| match method {
            Method::ConnectionStart(start) => Some(product(start.server_properties)),
            _ => None,
        })?;
        // With these capabilities a broker reports a wrong password or a deleted queue, instead of
        // cutting the connection or falling silent.
        let capabilities = TableBuilder::new()
            .bool("authentication_failure_close", true)
            .bool("consumer_cancel_notify", true)
            .bool("publisher_confirms", true)
            .bool("basic.nack", true)
            .finish();
        let properties = TableBuilder::new()
            .long_str("product", "leveret-bench")
            .table("capabilities", &capabilities)
            .finish();
        let (username, password) = (broker.user.as_bytes(), broker.password.as_bytes());
        let mut hello = Hello {
            credentials: Credentials { username, password },
            properties: properties.as_ref(),
            virtual_host: &broker.virtual_host,
            ..Hello::GUEST
        };
        let mut wire = Vec::new();
        hello.encode_start_ok(&mut wire);
        self.write(&wire)?;
        let tune = self.expect("connection.tune", |method| match method {
            Method::ConnectionTune(tune) => Some(tune),
            _ => None,
        })?;
        let (channel_max, frame_max) = (tune.channel_max, tune.frame_max);
        hello.tune = Tune { channel_max, frame_max, heartbeat: 0 };
        wire.clear();
        hello.encode_tune_ok(&mut wire);
        self.write(&wire)?;
        (self.channel_max, self.frame_size_max) = (channel_max, frame_max);
        wire.clear();
        hello.encode_open(&mut wire);
        self.write(&wire)?;
        self.expect("connection.open-ok", |method| {
            matches!(method, Method::ConnectionOpenOk(_)).then_some(())
        })
    }

    /// From now on each answer may take this long, instead of a minute.
    pub(crate) fn set_patience(&mut self, patience: Duration) -> Result<(), Fault> {
        self.patience = patience;
        let options = self.stream.set_read_timeout(Some(patience));
        options.map_err(Fault::io("set the options of a socket"))
    }

    /// The negotiated limit on frames in octets; 0 is no limit.
    pub(crate) const fn frame_size_max(&self) -> u32 {
        self.frame_size_max
    }

    /// The negotiated highest channel number; 0 is no limit.
    pub(crate) const fn channel_max(&self) -> u16 {
        self.channel_max
    }

    pub(crate) fn open_channel(&mut self, channel: u16) -> Result<(), Fault> {
        self.say(channel, &ChannelOpen {})?;
        self.expect("channel.open-ok", |method| {
            matches!(method, Method::ChannelOpenOk(_)).then_some(())
        })
    }

    /// Opens this many channels after [`CHANNEL`], which stay idle.
    pub(crate) fn open_idle_channels(&mut self, count: u16) -> Result<(), Fault> {
        // 0 means that only the type of the number limits it.
        let channel_max = if self.channel_max == 0 { u16::MAX } else { self.channel_max };
        if count > channel_max - CHANNEL {
            return Err(Fault::Scenario(format!(
                "{count} idle channels are asked for, but this broker allows {channel_max} on a \
                 connection"
            )));
        }
        let channels: Vec<u16> = (CHANNEL + 1..=CHANNEL + count).collect();
        self.ask_many(
            &channels,
            |channel, wire| encode_frame(*channel, &ChannelOpen {}, wire),
            "channel.open-ok",
            |method| matches!(method, Method::ChannelOpenOk(_)).then_some(()),
        )
    }

    pub(crate) fn close_channel(&mut self, channel: u16) -> Result<(), Fault> {
        let close = ChannelClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 };
        self.say(channel, &close)?;
        self.expect("channel.close-ok", |method| {
            matches!(method, Method::ChannelCloseOk(_)).then_some(())
        })
    }

    /// Puts the channel into confirm mode.
    pub(crate) fn select_confirms(&mut self) -> Result<(), Fault> {
        self.say(CHANNEL, &ConfirmSelect { nowait: false })?;
        self.expect("confirm.select-ok", |method| {
            matches!(method, Method::ConfirmSelectOk(_)).then_some(())
        })
    }

    /// Limits the unacknowledged deliveries of each consumer that is started later.
    pub(crate) fn qos(&mut self, prefetch_count: u16) -> Result<(), Fault> {
        self.say(CHANNEL, &BasicQos { prefetch_size: 0, prefetch_count, global: false })?;
        self.expect("basic.qos-ok", |method| matches!(method, Method::BasicQosOk(_)).then_some(()))
    }

    /// Starts a consumer.
    pub(crate) fn consume(&mut self, queue: &str, tag: &str, no_ack: bool) -> Result<(), Fault> {
        let consume = BasicConsume {
            queue,
            consumer_tag: tag,
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: TableRef::EMPTY,
        };
        self.say(CHANNEL, &consume)?;
        self.expect("basic.consume-ok", |method| {
            matches!(method, Method::BasicConsumeOk(_)).then_some(())
        })
    }

    /// Closes the connection and waits for the answer. Deliveries that are still in flight are
    /// dropped.
    pub(crate) fn close(mut self) -> Result<(), Fault> {
        let close =
            ConnectionClose { reply_code: 200, reply_text: "bye", class_id: 0, method_id: 0 };
        self.say(0, &close)?;
        loop {
            self.kept.clear();
            let answer = self.next_method("connection.close-ok", |method| match method {
                Method::ConnectionCloseOk(_) => Some(Ok(())),
                method if is_unasked(method) => None,
                method => Some(Err(refusal("connection.close-ok", method))),
            })?;
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// Hands the socket to the driver of `endpoint`, with everything that has arrived too early.
    pub(crate) fn into_attached<E>(mut self, endpoint: E) -> Result<Attached<E>, Fault> {
        let options =
            self.stream.set_read_timeout(None).and_then(|()| self.stream.set_write_timeout(None));
        options.map_err(Fault::io("set the options of a socket"))?;
        self.kept.extend_from_slice(&self.received[self.cursor..]);
        Ok(Attached { stream: self.stream, received: self.kept, endpoint })
    }
}

/// Exchanges, queues and bindings.
impl Connection {
    pub(crate) fn declare_exchange(
        &mut self,
        exchange: &str,
        kind: &str,
        durable: bool,
    ) -> Result<(), Fault> {
        let declare = ExchangeDeclare {
            exchange,
            kind,
            passive: false,
            durable,
            auto_delete: false,
            internal: false,
            nowait: false,
            arguments: TableRef::EMPTY,
        };
        self.say(CHANNEL, &declare)?;
        self.expect("exchange.declare-ok", |method| {
            matches!(method, Method::ExchangeDeclareOk(_)).then_some(())
        })
    }

    /// Deletes an exchange, even if it does not exist.
    pub(crate) fn delete_exchange(&mut self, exchange: &str) -> Result<(), Fault> {
        self.say(CHANNEL, &ExchangeDelete { exchange, if_unused: false, nowait: false })?;
        self.expect("exchange.delete-ok", |method| {
            matches!(method, Method::ExchangeDeleteOk(_)).then_some(())
        })
    }

    /// Declares a queue and returns its name; the broker chooses one if `queue` is empty.
    pub(crate) fn declare_queue(
        &mut self,
        queue: &str,
        options: &QueueOptions,
    ) -> Result<String, Fault> {
        self.say(CHANNEL, &declaration(queue, options))?;
        self.expect("queue.declare-ok", |method| match method {
            Method::QueueDeclareOk(answer) => Some(answer.queue.to_owned()),
            _ => None,
        })
    }

    /// Declares queues with the same properties.
    pub(crate) fn declare_many(
        &mut self,
        queues: &[String],
        options: &QueueOptions,
    ) -> Result<(), Fault> {
        self.ask_many(
            queues,
            |queue, wire| encode_frame(CHANNEL, &declaration(queue, options), wire),
            "queue.declare-ok",
            |method| matches!(method, Method::QueueDeclareOk(_)).then_some(()),
        )
    }

    /// Deletes a queue, even if it does not exist.
    pub(crate) fn delete_queue(&mut self, queue: &str) -> Result<(), Fault> {
        self.delete_many(&[queue.to_owned()])
    }

    /// Deletes queues, even if they do not exist.
    pub(crate) fn delete_many(&mut self, queues: &[String]) -> Result<(), Fault> {
        self.ask_many(
            queues,
            |queue, wire| {
                let delete =
                    QueueDelete { queue, if_unused: false, if_empty: false, nowait: false };
                encode_frame(CHANNEL, &delete, wire);
            },
            "queue.delete-ok",
            |method| matches!(method, Method::QueueDeleteOk(_)).then_some(()),
        )
    }

    pub(crate) fn bind(&mut self, binding: &Binding) -> Result<(), Fault> {
        self.bind_many(std::slice::from_ref(binding))
    }

    pub(crate) fn bind_many(&mut self, bindings: &[Binding]) -> Result<(), Fault> {
        self.ask_many(
            bindings,
            |binding, wire| {
                let bind = QueueBind {
                    queue: &binding.queue,
                    exchange: &binding.exchange,
                    routing_key: binding.routing_key.as_bytes(),
                    nowait: false,
                    arguments: binding.arguments.as_ref(),
                };
                encode_frame(CHANNEL, &bind, wire);
            },
            "queue.bind-ok",
            |method| matches!(method, Method::QueueBindOk(_)).then_some(()),
        )
    }

    pub(crate) fn unbind(&mut self, binding: &Binding) -> Result<(), Fault> {
        self.unbind_many(std::slice::from_ref(binding))
    }

    pub(crate) fn unbind_many(&mut self, bindings: &[Binding]) -> Result<(), Fault> {
        self.ask_many(
            bindings,
            |binding, wire| {
                let unbind = QueueUnbind {
                    queue: &binding.queue,
                    exchange: &binding.exchange,
                    routing_key: binding.routing_key.as_bytes(),
                    arguments: binding.arguments.as_ref(),
                };
                encode_frame(CHANNEL, &unbind, wire);
            },
            "queue.unbind-ok",
            |method| matches!(method, Method::QueueUnbindOk(_)).then_some(()),
        )
    }

    /// The number of ready messages in a queue. If an earlier method on this channel caused an
    /// exception, that is returned instead.
    pub(crate) fn message_count(&mut self, queue: &str) -> Result<u64, Fault> {
        let options = QueueOptions::default();
        let declare = QueueDeclare { passive: true, ..declaration(queue, &options) };
        self.say(CHANNEL, &declare)?;
        self.expect("queue.declare-ok", |method| match method {
            Method::QueueDeclareOk(answer) => Some(u64::from(answer.message_count)),
            _ => None,
        })
    }
}

/// Sending methods and reading frames.
impl Connection {
    fn write(&mut self, wire: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(wire).map_err(Fault::io("write to the broker"))
    }

    fn say(&mut self, channel: u16, method: &impl Encode) -> Result<(), Fault> {
        let mut wire = Vec::new();
        encode_frame(channel, method, &mut wire);
        self.write(&wire)
    }

    /// Sends one method per item, [`UNANSWERED_MAX`] at a time, and reads the answers.
    fn ask_many<I>(
        &mut self,
        items: &[I],
        encode: impl Fn(&I, &mut Vec<u8>),
        expected: &'static str,
        read: impl Fn(Method<'_>) -> Option<()>,
    ) -> Result<(), Fault> {
        let mut wire = Vec::new();
        for window in items.chunks(UNANSWERED_MAX) {
            wire.clear();
            for item in window {
                encode(item, &mut wire);
            }
            self.write(&wire)?;
            for _ in window {
                self.expect(expected, &read)?;
            }
        }
        Ok(())
    }

    /// Reads until `read` accepts a method.
    fn expect<T>(
        &mut self,
        expected: &'static str,
        read: impl Fn(Method<'_>) -> Option<T>,
    ) -> Result<T, Fault> {
        loop {
            let answer = self.next_method(expected, |method| match read(method) {
                Some(answer) => Some(Ok(answer)),
                None if is_unasked(method) => None,
                None => Some(Err(refusal(expected, method))),
            })?;
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// Reads the next method. If `read` does not accept it, it is kept together with its content.
    fn next_method<T>(
        &mut self,
        expected: &'static str,
        read: impl Fn(Method<'_>) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let end = loop {
            match self.frame_end() {
                Some(end) if end <= self.received.len() => break end,
                _ => self.fill(expected)?,
            }
        };
        let (mut decoder, mut cursor) = (Decoder::new(self.frame_size_max), 0);
        let wire = &self.received[self.cursor..end];
        let answer = match decoder.next(wire, &mut cursor)? {
            Some(Frame::Method { payload, .. }) => read(Method::decode(payload)?),
            Some(Frame::Header { .. } | Frame::Body { .. }) => None,
            // Heartbeats are ignored.
            _ => {
                self.cursor = end;
                return Ok(None);
            }
        };
        if answer.is_none() {
            if self.kept.len() + wire.len() > KEPT_SIZE_MAX {
                return Err(Fault::Messages(format!(
                    "more than {KEPT_SIZE_MAX} B of messages came before {expected}: start \
                     consumers on empty queues, or with a prefetch count"
                )));
            }
            self.kept.extend_from_slice(wire);
        }
        self.cursor = end;
        Ok(answer)
    }

    /// The end of the frame at the cursor, once its header is there. If the frame is larger than
    /// negotiated, only its header counts: the decoder then reports the error.
    fn frame_end(&self) -> Option<usize> {
        let rest = &self.received[self.cursor..];
        let [_, _, _, size @ ..] = *rest.first_chunk::<FRAME_HEADER_SIZE>()?;
        let size = u32::from_be_bytes(size);
        let is_too_large = self.frame_size_max != 0 && size > self.frame_size_max;
        let size = if is_too_large { 0 } else { size as usize };
        Some(self.cursor + size + FRAME_OVERHEAD)
    }

    /// Receives at least one more octet.
    fn fill(&mut self, expected: &'static str) -> Result<(), Fault> {
        self.received.drain(..self.cursor);
        self.cursor = 0;
        let filled = self.received.len();
        self.received.resize(filled + READ_SIZE, 0);
        let read = self.stream.read(&mut self.received[filled..]);
        self.received.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Fault::Cut),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(Fault::Silent { expected, seconds: self.patience.as_secs() })
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(Fault::Cut),
            Err(error) => Err(Fault::io("read from the broker")(error)),
        }
    }
}

/// The fault for a method that nothing waits for.
pub(crate) fn refusal(expected: &'static str, method: Method<'_>) -> Fault {
    let closed = |what, code, text: &str| Fault::Closed { what, code, text: text.to_owned() };
    match method {
        Method::ConnectionClose(close) => closed("connection", close.reply_code, close.reply_text),
        Method::ChannelClose(close) => closed("channel", close.reply_code, close.reply_text),
        other => Fault::Unexpected { expected, method: other.name() },
    }
}

/// Whether a method may arrive although another one is awaited.
const fn is_unasked(method: Method<'_>) -> bool {
    matches!(method, Method::BasicDeliver(_) | Method::BasicAck(_) | Method::BasicNack(_))
}

fn declaration<'a>(queue: &'a str, options: &'a QueueOptions) -> QueueDeclare<'a> {
    QueueDeclare {
        queue,
        passive: false,
        durable: options.durable,
        exclusive: options.exclusive,
        auto_delete: options.auto_delete,
        nowait: false,
        arguments: options.arguments.as_ref(),
    }
}

fn product(server_properties: TableRef<'_>) -> String {
    let text = |name| {
        let value = server_properties.get(name).and_then(|value| value.as_long_str());
        String::from_utf8_lossy(value.unwrap_or(b"?")).into_owned()
    };
    format!("{} {}", text("product"), text("version"))
}

#[cfg(test)]
mod tests;
