//! A blocking AMQP connection with one channel: little between the load and the socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use leveret_amqp::frame::PROTOCOL_HEADER;
use leveret_amqp::method::{
    BasicConsume, BasicQos, ChannelOpen, ConfirmSelect, ConnectionClose, ConnectionOpen,
    ConnectionStartOk, ConnectionTuneOk, Encode, QueueDeclare, QueueDelete, QueuePurge,
    encode_frame,
};
use leveret_amqp::{Decoder, Frame, Method, TableBuilder, TableRef};

use crate::fault::Fault;

/// The channel that everything runs on.
pub(crate) const CHANNEL: u16 = 1;

/// How long an answer, a connect or a write may take: a broker that pages 10 million messages out
/// may think about a purge for a while.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long one read waits. Whoever reads looks at the state of the run in between.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// The receive buffer of a connection that only asks and is answered: a `connection.start` has
/// less than 2 KiB.
const ANSWER_CHUNK_SIZE: usize = 4 << 10;

/// The receive buffer of a consumer: it and the broker's sends stay in the second cache.
const DELIVERY_CHUNK_SIZE: usize = 128 << 10;

/// A connection; its channel is open once [`Connection::open_channel`] was called.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    chunk: Vec<u8>,
    /// Octets of `chunk` that were received, and of those, that were read.
    filled: usize,
    cursor: usize,
    /// Product and version of the broker, as it says.
    pub(crate) product: String,
}

impl Connection {
    /// Opens the virtual host `/` as `guest`, without heartbeats.
    pub(crate) fn open(address: SocketAddr) -> Result<Self, Fault> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .map_err(Fault::io(format!("connect to {address}")))?;
        let options = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(READ_TIMEOUT)))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        options.map_err(Fault::io("set the options of a socket"))?;
        let mut connection = Self {
            stream,
            decoder: Decoder::new(0),
            chunk: vec![0; ANSWER_CHUNK_SIZE],
            filled: 0,
            cursor: 0,
            product: String::new(),
        };
        connection.log_in()?;
        Ok(connection)
    }

    fn log_in(&mut self) -> Result<(), Fault> {
        self.write(PROTOCOL_HEADER)?;
        self.product = self.expect("connection.start", |method| match method {
            Method::ConnectionStart(start) => Some(product(start.server_properties)),
            _ => None,
        })?;
        let properties = TableBuilder::new().long_str("product", "leveret-bench").finish();
        let start_ok = ConnectionStartOk {
            client_properties: properties.as_ref(),
            mechanism: "PLAIN",
            response: b"\0guest\0guest",
            locale: "en_US",
        };
        self.say(0, &start_ok)?;
        let tune = self.expect("connection.tune", |method| match method {
            Method::ConnectionTune(tune) => Some(tune),
            _ => None,
        })?;
        let (channel_max, frame_max) = (tune.channel_max, tune.frame_max);
        self.say(0, &ConnectionTuneOk { channel_max, frame_max, heartbeat: 0 })?;
        self.decoder.set_frame_size_max(frame_max);
        self.say(0, &ConnectionOpen { virtual_host: "/" })?;
        self.expect("connection.open-ok", |method| {
            matches!(method, Method::ConnectionOpenOk(_)).then_some(())
        })
    }

    /// Opens [`CHANNEL`].
    pub(crate) fn open_channel(&mut self) -> Result<(), Fault> {
        self.say(CHANNEL, &ChannelOpen {})?;
        self.expect("channel.open-ok", |method| {
            matches!(method, Method::ChannelOpenOk(_)).then_some(())
        })
    }

    /// Makes a transient queue that goes with its last consumer, after deleting one that an
    /// aborted run may have left.
    pub(crate) fn make_queue(&mut self, queue: &str) -> Result<(), Fault> {
        self.delete_queue(queue)?;
        self.declare(queue, false).map(drop)
    }

    /// The number of messages ready in a queue. An exception of anything that this channel did
    /// before comes instead of the answer.
    pub(crate) fn message_count(&mut self, queue: &str) -> Result<u64, Fault> {
        self.declare(queue, true)
    }

    fn declare(&mut self, queue: &str, passive: bool) -> Result<u64, Fault> {
        let declare = QueueDeclare {
            queue,
            passive,
            durable: false,
            exclusive: false,
            auto_delete: true,
            nowait: false,
            arguments: TableRef::EMPTY,
        };
        self.say(CHANNEL, &declare)?;
        self.expect("queue.declare-ok", |method| match method {
            Method::QueueDeclareOk(answer) => Some(u64::from(answer.message_count)),
            _ => None,
        })
    }

    /// Drops all messages of a queue; their number.
    pub(crate) fn purge(&mut self, queue: &str) -> Result<u64, Fault> {
        self.say(CHANNEL, &QueuePurge { queue, nowait: false })?;
        self.expect("queue.purge-ok", |method| match method {
            Method::QueuePurgeOk(answer) => Some(u64::from(answer.message_count)),
            _ => None,
        })
    }

    /// Deletes a queue, whether it is there or not.
    pub(crate) fn delete_queue(&mut self, queue: &str) -> Result<(), Fault> {
        let delete = QueueDelete { queue, if_unused: false, if_empty: false, nowait: false };
        self.say(CHANNEL, &delete)?;
        self.expect("queue.delete-ok", |method| {
            matches!(method, Method::QueueDeleteOk(_)).then_some(())
        })
    }

    /// Has every publish confirmed from here on.
    pub(crate) fn select_confirms(&mut self) -> Result<(), Fault> {
        self.say(CHANNEL, &ConfirmSelect { nowait: false })?;
        self.expect("confirm.select-ok", |method| {
            matches!(method, Method::ConfirmSelectOk(_)).then_some(())
        })
    }

    /// Starts a consumer: with a prefetch count it acknowledges, without one it does not.
    pub(crate) fn consume(&mut self, queue: &str, prefetch: Option<u16>) -> Result<(), Fault> {
        if let Some(prefetch_count) = prefetch {
            let qos = BasicQos { prefetch_size: 0, prefetch_count, global: false };
            self.say(CHANNEL, &qos)?;
            self.expect("basic.qos-ok", |method| {
                matches!(method, Method::BasicQosOk(_)).then_some(())
            })?;
        }
        self.chunk.resize(DELIVERY_CHUNK_SIZE, 0);
        let consume = BasicConsume {
            queue,
            consumer_tag: "bench",
            no_local: false,
            no_ack: prefetch.is_none(),
            exclusive: false,
            nowait: false,
            arguments: TableRef::EMPTY,
        };
        self.say(CHANNEL, &consume)?;
        self.expect("basic.consume-ok", |method| {
            matches!(method, Method::BasicConsumeOk(_)).then_some(())
        })
    }

    /// Says goodbye and waits for the answer; deliveries that are still under way are dropped.
    pub(crate) fn close(mut self) -> Result<(), Fault> {
        let close =
            ConnectionClose { reply_code: 200, reply_text: "bye", class_id: 0, method_id: 0 };
        self.say(0, &close)?;
        self.expect("connection.close-ok", |method| {
            matches!(method, Method::ConnectionCloseOk(_)).then_some(())
        })
    }

    /// Sends octets: whole frames.
    pub(crate) fn write(&mut self, wire: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(wire).map_err(Fault::io("write to the broker"))
    }

    /// Sends one method.
    pub(crate) fn say(&mut self, channel: u16, method: &impl Encode) -> Result<(), Fault> {
        let mut wire = Vec::new();
        encode_frame(channel, method, &mut wire);
        self.write(&wire)
    }

    /// Reads once and hands every frame to `each`, with the chunk that its ranges are of. False if
    /// nothing came for [`READ_TIMEOUT`].
    pub(crate) fn receive(
        &mut self,
        mut each: impl FnMut(&[u8], Frame<'_>) -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        if self.cursor == self.filled && !self.fill()? {
            return Ok(false);
        }
        let chunk = &self.chunk[..self.filled];
        while let Some(frame) = self.decoder.next(chunk, &mut self.cursor)? {
            each(chunk, frame)?;
        }
        Ok(true)
    }

    /// Reads until `read` makes something of a method.
    fn expect<T>(
        &mut self,
        expected: &'static str,
        read: impl Fn(Method<'_>) -> Option<T>,
    ) -> Result<T, Fault> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let chunk = &self.chunk[..self.filled];
            while let Some(frame) = self.decoder.next(chunk, &mut self.cursor)? {
                let Frame::Method { payload, .. } = frame else { continue };
                let method = Method::decode(payload)?;
                if let Some(answer) = read(method) {
                    return Ok(answer);
                }
                // Deliveries and confirms may be under way when a question is asked.
                if !matches!(method, Method::BasicDeliver(_) | Method::BasicAck(_)) {
                    return Err(refusal(expected, method));
                }
            }
            if !self.fill()? && Instant::now() > deadline {
                return Err(Fault::Silent { expected, seconds: PATIENCE.as_secs() });
            }
        }
    }

    /// Receives a new chunk; false if nothing came.
    fn fill(&mut self) -> Result<bool, Fault> {
        (self.filled, self.cursor) = (0, 0);
        match self.stream.read(&mut self.chunk) {
            Ok(0) => Err(Fault::Cut),
            Ok(size) => {
                self.filled = size;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(Fault::Cut),
            Err(error) => Err(Fault::io("read from the broker")(error)),
        }
    }
}

/// The fault that a method is which nobody waits for.
pub(crate) fn refusal(expected: &'static str, method: Method<'_>) -> Fault {
    let closed = |what, code, text: &str| Fault::Closed { what, code, text: text.to_owned() };
    match method {
        Method::ConnectionClose(close) => closed("connection", close.reply_code, close.reply_text),
        Method::ChannelClose(close) => closed("channel", close.reply_code, close.reply_text),
        other => Fault::Unexpected { expected, method: other.name() },
    }
}

fn product(server_properties: TableRef<'_>) -> String {
    let text = |name| {
        let value = server_properties.get(name).and_then(|value| value.as_long_str());
        String::from_utf8_lossy(value.unwrap_or(b"?")).into_owned()
    };
    format!("{} {}", text("product"), text("version"))
}
