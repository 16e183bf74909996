//! A lean AMQP client of one connection and channel 1: it never blocks but where it is told to,
//! and takes the end of the broker as one more event.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use leveret_amqp::client::Hello;
use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::frame::{HEARTBEAT, PROTOCOL_HEADER};
use leveret_amqp::limits::Tune;
use leveret_amqp::method::{
    BasicAck, BasicConsume, BasicGet, BasicQos, ChannelCloseOk, ChannelOpen, ConfirmSelect,
    ConnectionCloseOk, Encode, ExchangeDeclare, QueueBind, QueueDeclare, encode_frame,
};
use leveret_amqp::{ContentHeader, Decoder, Frame, Method, Properties, TableBuilder, TableRef};

use crate::history::Id;

const FRAME_SIZE_MAX: u32 = 131_072;

/// The channel of everything.
const CHANNEL: u16 = 1;

/// Bounds a hang; an answer takes milliseconds unless the disk is made slow.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks at a socket that had nothing.
const NAP: Duration = Duration::from_micros(300);

/// Why a connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The socket ended or was never there: the broker is down.
    Lost,
    /// The broker closed the channel or the connection: code and text.
    Closed(u16, String),
}

/// What arrives without being asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Confirm {
        tag: u64,
        multiple: bool,
        refused: bool,
    },
    Message(Message),
    /// The queue has no message.
    Empty,
    /// A queue answered a question: its name and how many messages are ready.
    Queue(String, u32),
    Returned(Id),
    Blocked,
    Unblocked,
    Heartbeat,
    /// Any other answer.
    Done,
}

/// A delivery, or the answer to a get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: u64,
    pub(crate) consumer: String,
    pub(crate) redelivered: bool,
    pub(crate) id: Id,
    pub(crate) fingerprint: u32,
    pub(crate) body_size: usize,
}

/// CRC32C over all that a message is.
pub(crate) fn fingerprint(exchange: &[u8], key: &[u8], properties: &[u8], body: &[u8]) -> u32 {
    let envelope = [exchange, b"\0", key, b"\0", properties].concat();
    crc32c::crc32c_append(crc32c::crc32c(&envelope), body)
}

/// What stands before the bodies of a content.
enum Head {
    Message(Message),
    Returned,
}

/// A content that is not whole yet.
struct Content {
    head: Head,
    left: u64,
}

/// One connection with one channel.
pub(crate) struct Wire {
    stream: TcpStream,
    decoder: Decoder,
    chunk: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    content: Option<(Head, Vec<u8>)>,
    body: Option<Content>,
    received: VecDeque<Received>,
    closed: Option<Cut>,
    /// Seconds between the heartbeats that both sides promised; 0 = none.
    heartbeat_s: u16,
    heartbeat_sent: Instant,
    /// When the broker was last heard.
    pub(crate) heard: Instant,
}

impl Wire {
    /// Opens `/` as guest, and channel 1.
    pub(crate) fn open(address: SocketAddr, heartbeat_s: u16) -> Result<Self, Cut> {
        let stream = TcpStream::connect(address).map_err(|_| Cut::Lost)?;
        stream.set_nodelay(true).map_err(|_| Cut::Lost)?;
        stream.set_nonblocking(true).map_err(|_| Cut::Lost)?;
        let now = Instant::now();
        let mut wire = Self {
            stream,
            decoder: Decoder::new(FRAME_SIZE_MAX),
            chunk: vec![0; 128 << 10],
            out: PROTOCOL_HEADER.to_vec(),
            written: 0,
            content: None,
            body: None,
            received: VecDeque::new(),
            closed: None,
            heartbeat_s: 0,
            heartbeat_sent: now,
            heard: now,
        };
        wire.answer()?;
        let capabilities =
            TableBuilder::new().bool("connection.blocked", true).bool("basic.nack", true).finish();
        let properties = TableBuilder::new().table("capabilities", &capabilities).finish();
        let tune = Tune { channel_max: 2047, frame_max: FRAME_SIZE_MAX, heartbeat: heartbeat_s };
        let hello = Hello { properties: properties.as_ref(), tune, ..Hello::GUEST };
        hello.encode_start_ok(&mut wire.out);
        wire.answer()?;
        hello.encode_tune_ok(&mut wire.out);
        hello.encode_open(&mut wire.out);
        wire.answer()?;
        wire.heartbeat_s = heartbeat_s;
        wire.open_channel()?;
        Ok(wire)
    }

    /// Opens channel 1, also again after the broker closed it.
    pub(crate) fn open_channel(&mut self) -> Result<(), Cut> {
        self.closed = None;
        self.call(&ChannelOpen {}).map(drop)
    }

    /// Sends a method and waits for what answers it; all else is kept for [`Wire::poll`].
    pub(crate) fn call(&mut self, method: &impl Encode) -> Result<Received, Cut> {
        self.send(method);
        self.answer()
    }

    /// Buffers a method on the channel.
    pub(crate) fn send(&mut self, method: &impl Encode) {
        self.send_on(CHANNEL, method);
    }

    /// Buffers a message.
    pub(crate) fn publish(&mut self, exchange: &str, key: &str, properties: &[u8], body: &[u8]) {
        self.publish_mandatory(false, exchange, key, properties, body);
    }

    /// Buffers a message that is returned where it reaches no queue.
    pub(crate) fn publish_mandatory(
        &mut self,
        mandatory: bool,
        exchange: &str,
        key: &str,
        properties: &[u8],
        body: &[u8],
    ) {
        let (exchange, routing_key) = (exchange.as_bytes(), key.as_bytes());
        let publish =
            Publish { channel: CHANNEL, exchange, routing_key, mandatory, immediate: false };
        let method = leveret_amqp::encoder::ContentMethod::Publish(publish);
        encode_content(&mut self.out, method, properties, body, FRAME_SIZE_MAX);
    }

    /// Bytes that the broker has not taken yet.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes and reads what is possible now; the next thing received, if there is one.
    pub(crate) fn poll(&mut self) -> Result<Option<Received>, Cut> {
        if self.received.is_empty() {
            self.turn()?;
        }
        match (self.received.pop_front(), &self.closed) {
            (Some(received), _) => Ok(Some(received)),
            (None, Some(cut)) => Err(cut.clone()),
            (None, None) => Ok(None),
        }
    }

    /// As [`Wire::poll`], but waits for something until `deadline`.
    pub(crate) fn poll_until(&mut self, deadline: Instant) -> Result<Option<Received>, Cut> {
        loop {
            match self.poll()? {
                None if Instant::now() < deadline => thread::sleep(NAP),
                received => return Ok(received),
            }
        }
    }

    fn send_on(&mut self, channel: u16, method: &impl Encode) {
        encode_frame(channel, method, &mut self.out);
    }

    fn answer(&mut self) -> Result<Received, Cut> {
        let deadline = Instant::now() + PATIENCE;
        let mut kept = VecDeque::new();
        let answer = loop {
            match self.poll_until(deadline)? {
                Some(answer @ (Received::Done | Received::Queue(..) | Received::Empty)) => {
                    break answer;
                }
                Some(Received::Message(message)) if message.consumer.is_empty() => {
                    break Received::Message(message);
                }
                Some(other) => kept.push_back(other),
                None => panic!("the broker lives but has not answered for {PATIENCE:?}"),
            }
        };
        kept.append(&mut self.received);
        self.received = kept;
        Ok(answer)
    }

    fn turn(&mut self) -> Result<(), Cut> {
        let interval = Duration::from_secs(u64::from(self.heartbeat_s)) / 2;
        if self.heartbeat_s > 0 && self.heartbeat_sent.elapsed() > interval {
            self.heartbeat_sent = Instant::now();
            self.out.extend_from_slice(&HEARTBEAT);
        }
        self.write()?;
        loop {
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return self.lost(),
                Ok(size) => {
                    self.heard = Instant::now();
                    self.read_frames(size);
                    if !self.received.is_empty() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.lost(),
            }
        }
        // What was read may have asked for an answer.
        self.write()
    }

    fn write(&mut self) -> Result<(), Cut> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(size) => self.written += size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The broker's last words may still be there to be read.
                Err(_) => break,
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// The end of the socket; a close that came before it says more.
    fn lost(&mut self) -> Result<(), Cut> {
        if self.closed.is_none() {
            self.closed = Some(Cut::Lost);
        }
        if self.received.is_empty() {
            Err(self.closed.clone().unwrap_or(Cut::Lost))
        } else {
            Ok(())
        }
    }

    fn read_frames(&mut self, size: usize) {
        let chunk = std::mem::take(&mut self.chunk);
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(0));
        let mut cursor = 0;
        while let Some(frame) = decoder.next(&chunk[..size], &mut cursor).expect("frames") {
            match frame {
                Frame::Method { channel, payload } => {
                    self.take_method(channel, Method::decode(payload).expect("a method"));
                }
                Frame::Header { payload, .. } => self.take_header(payload),
                Frame::Body { data, .. } => self.take_body(&chunk[data]),
                Frame::Heartbeat { .. } => self.received.push_back(Received::Heartbeat),
            }
        }
        (self.chunk, self.decoder) = (chunk, decoder);
    }

    fn take_method(&mut self, channel: u16, method: Method<'_>) {
        let received = match method {
            Method::BasicAck(BasicAck { delivery_tag, multiple }) => {
                Received::Confirm { tag: delivery_tag, multiple, refused: false }
            }
            Method::BasicNack(nack) => {
                Received::Confirm { tag: nack.delivery_tag, multiple: nack.multiple, refused: true }
            }
            Method::BasicDeliver(head) => {
                let envelope = envelope(head.exchange, head.routing_key);
                let consumer = head.consumer_tag.to_owned();
                let message = message(head.delivery_tag, consumer, head.redelivered);
                self.content = Some((Head::Message(message), envelope));
                return;
            }
            Method::BasicGetOk(head) => {
                let envelope = envelope(head.exchange, head.routing_key);
                let message = message(head.delivery_tag, String::new(), head.redelivered);
                self.content = Some((Head::Message(message), envelope));
                return;
            }
            Method::BasicReturn(_) => {
                self.content = Some((Head::Returned, Vec::new()));
                return;
            }
            Method::BasicGetEmpty(_) => Received::Empty,
            Method::QueueDeclareOk(ok) => Received::Queue(ok.queue.to_owned(), ok.message_count),
            Method::ConnectionBlocked(_) => Received::Blocked,
            Method::ConnectionUnblocked(_) => Received::Unblocked,
            Method::ChannelClose(close) => {
                self.send_on(channel, &ChannelCloseOk {});
                self.closed = Some(Cut::Closed(close.reply_code, close.reply_text.to_owned()));
                return;
            }
            Method::ConnectionClose(close) => {
                self.send_on(0, &ConnectionCloseOk {});
                self.closed = Some(Cut::Closed(close.reply_code, close.reply_text.to_owned()));
                return;
            }
            _ => Received::Done,
        };
        self.received.push_back(received);
    }

    fn take_header(&mut self, payload: &[u8]) {
        let header = ContentHeader::decode(payload).expect("a content header");
        let properties = Properties::parse(header.properties).expect("properties");
        let id = Id::from_text(properties.message_id().unwrap_or_default());
        let (head, mut envelope) = self.content.take().expect("a method before its header");
        if let Head::Returned = head {
            self.received.push_back(Received::Returned(id));
            self.body = Some(Content { head, left: header.body_size });
        } else if let Head::Message(mut message) = head {
            envelope.extend_from_slice(header.properties);
            message.id = id;
            message.fingerprint = crc32c::crc32c(&envelope);
            message.body_size = header.body_size as usize;
            self.body = Some(Content { head: Head::Message(message), left: header.body_size });
        }
        self.take_body(&[]);
    }

    fn take_body(&mut self, part: &[u8]) {
        let Some(mut content) = self.body.take() else {
            // The end octet of a body frame may come by itself, behind the last of the body.
            assert!(part.is_empty(), "a body without its header");
            return;
        };
        content.left = content.left.checked_sub(part.len() as u64).expect("no more than announced");
        if let Head::Message(message) = &mut content.head {
            message.fingerprint = crc32c::crc32c_append(message.fingerprint, part);
        }
        match content {
            Content { left: 0, head: Head::Message(message) } => {
                self.received.push_back(Received::Message(message));
            }
            Content { left: 0, head: Head::Returned } => {}
            content => self.body = Some(content),
        }
    }
}

/// The calls of the tests, in short.
impl Wire {
    pub(crate) fn declare_queue(&mut self, queue: &str, passive: bool) -> Result<u32, Cut> {
        match self.call(&queue_declare(queue, passive))? {
            Received::Queue(_, ready) => Ok(ready),
            other => panic!("{other:?} instead of queue.declare-ok"),
        }
    }

    pub(crate) fn declare_exchange(
        &mut self,
        exchange: &str,
        kind: &str,
        passive: bool,
    ) -> Result<(), Cut> {
        let (durable, auto_delete, internal, nowait) = (true, false, false, false);
        let arguments = TableRef::EMPTY;
        self.call(&ExchangeDeclare {
            exchange,
            kind,
            passive,
            durable,
            auto_delete,
            internal,
            nowait,
            arguments,
        })
        .map(drop)
    }

    pub(crate) fn bind(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), Cut> {
        let (routing_key, arguments) = (key.as_bytes(), TableRef::EMPTY);
        self.call(&QueueBind { queue, exchange, routing_key, nowait: false, arguments }).map(drop)
    }

    pub(crate) fn select_confirms(&mut self) -> Result<(), Cut> {
        self.call(&ConfirmSelect { nowait: false }).map(drop)
    }

    pub(crate) fn prefetch(&mut self, count: u16) -> Result<(), Cut> {
        let qos = BasicQos { prefetch_size: 0, prefetch_count: count, global: false };
        self.call(&qos).map(drop)
    }

    /// Consumes with manual acks; the tag is the queue's name.
    pub(crate) fn consume(&mut self, queue: &str) -> Result<(), Cut> {
        self.call(&BasicConsume {
            queue,
            consumer_tag: queue,
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: TableRef::EMPTY,
        })
        .map(drop)
    }

    /// Asks for one message, which is to be acknowledged.
    pub(crate) fn get(&mut self, queue: &str) -> Result<Option<Message>, Cut> {
        match self.call(&BasicGet { queue, no_ack: false })? {
            Received::Message(message) => Ok(Some(message)),
            _ => Ok(None),
        }
    }

    pub(crate) fn ack(&mut self, delivery_tag: u64, multiple: bool) {
        self.send(&BasicAck { delivery_tag, multiple });
    }
}

/// A durable queue, or the question whether it exists.
pub(crate) fn queue_declare(queue: &str, passive: bool) -> QueueDeclare<'_> {
    QueueDeclare { passive, durable: true, ..QueueDeclare::named(queue) }
}

fn envelope(exchange: &[u8], key: &[u8]) -> Vec<u8> {
    [exchange, b"\0", key, b"\0"].concat()
}

fn message(tag: u64, consumer: String, redelivered: bool) -> Message {
    Message { tag, consumer, redelivered, id: Id::from_text(b""), fingerprint: 0, body_size: 0 }
}
