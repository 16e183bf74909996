//! A blocking AMQP connection for tests: one socket, bounded reads, everything that comes is an
//! [`Event`] in order of arrival.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use leveret_amqp::client::Hello;
use leveret_amqp::limits::Tune;
use leveret_amqp::method::{Encode, encode_frame};
use leveret_amqp::{
    ContentHeader, Decoder, Frame, Method, Properties, PropertiesBuilder, TableBuilder,
};

/// Both brokers answer within a millisecond; ten seconds of silence is an answer too.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// What both brokers propose, and what the test settles for.
const FRAME_SIZE_MAX: u32 = 131_072;
const CHANNEL_MAX: u16 = 2047;

/// What came from the broker, with the channel it came on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) channel: u16,
    pub(crate) event: Event,
}

/// One thing that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// `queue.declare-ok`
    Declared { queue: String, messages: u32, consumers: u32 },
    /// `basic.consume-ok`
    Consuming { consumer_tag: String },
    /// `channel.flow-ok`
    FlowOk { active: bool },
    /// `channel.open-ok`
    ChannelOpened,
    /// `channel.close-ok`
    ChannelCloseOk,
    /// `connection.close-ok`
    ConnectionCloseOk,
    /// `channel.close`
    ChannelClose(Close),
    /// `connection.close`
    ConnectionClose(Close),
    /// `basic.ack` or `basic.nack` of a publish
    Confirm { tag: u64, multiple: bool, ack: bool },
    /// `basic.cancel` by the broker
    Cancelled { consumer_tag: String },
    /// `basic.deliver` with its content
    Delivered { consumer_tag: String, tag: u64, redelivered: bool, message: Message },
    /// `basic.get-ok` with its content
    Got { tag: u64, redelivered: bool, messages: u32, message: Message },
    /// `basic.return` with its content
    Returned { code: u16, text: String, message: Message },
    /// Any other method: its name and fields.
    Reply(String),
    /// The stream ended.
    End,
    /// Nothing came for ten seconds.
    Silence,
    /// Not AMQP.
    Garbled(String),
}

/// The fields of a close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) ids: (u16, u16),
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Message {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    /// Readable; the raw octets where they are no properties.
    pub(crate) properties: String,
    pub(crate) body: Vec<u8>,
}

/// A method with content whose body has not come yet.
#[derive(Debug)]
struct Partial {
    event: Event,
    body_size: Option<u64>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    decoder: Decoder,
    chunk: Vec<u8>,
    partial: BTreeMap<u16, Partial>,
    pending: VecDeque<Received>,
    out: Vec<u8>,
}

impl Link {
    /// Connects and opens vhost `/` as `guest`.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut link = Self::connect_raw(address)?;
        let capabilities = TableBuilder::new()
            .bool("authentication_failure_close", true)
            .bool("basic.nack", true)
            .bool("connection.blocked", true)
            .bool("consumer_cancel_notify", true)
            .bool("publisher_confirms", true)
            .finish();
        let properties = TableBuilder::new()
            .long_str("product", "differential test")
            .table("capabilities", &capabilities)
            .finish();
        let tune = Tune { channel_max: CHANNEL_MAX, frame_max: FRAME_SIZE_MAX, heartbeat: 0 };
        Hello { properties: properties.as_ref(), tune, ..Hello::GUEST }.encode(&mut link.out);
        link.flush();
        for expected in ["ConnectionStart(", "ConnectionTune(", "ConnectionOpenOk("] {
            match link.receive().event {
                Event::Reply(reply) if reply.starts_with(expected) => {}
                other => {
                    return Err(io::Error::other(format!("{expected}…) expected: {other:?}")));
                }
            }
        }
        Ok(link)
    }

    /// Connects, and sends nothing yet.
    pub(crate) fn connect_raw(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, SILENCE_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_TIMEOUT))?;
        stream.set_write_timeout(Some(SILENCE_TIMEOUT))?;
        Ok(Self {
            stream,
            decoder: Decoder::new(FRAME_SIZE_MAX),
            chunk: vec![0; 65_536],
            partial: BTreeMap::new(),
            pending: VecDeque::new(),
            out: Vec::new(),
        })
    }

    /// Puts a method behind what is to be sent.
    pub(crate) fn method(&mut self, channel: u16, method: &impl Encode) {
        encode_frame(channel, method, &mut self.out);
    }

    /// What is to be sent, for frames that no encoder would build.
    pub(crate) const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Sends. A peer that is gone shows when reading.
    pub(crate) fn flush(&mut self) {
        let _ = self.stream.write_all(&self.out);
        self.out.clear();
    }

    /// The next thing that comes.
    pub(crate) fn receive(&mut self) -> Received {
        loop {
            if let Some(received) = self.pending.pop_front() {
                return received;
            }
            let event = match self.stream.read(&mut self.chunk) {
                Ok(0) => Event::End,
                Ok(size) => {
                    self.decode(size);
                    continue;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Event::Silence,
                    io::ErrorKind::Interrupted => continue,
                    _ => Event::End,
                },
            };
            return Received { channel: 0, event };
        }
    }

    fn decode(&mut self, size: usize) {
        let chunk = &self.chunk[..size];
        let mut cursor = 0;
        loop {
            let frame = match self.decoder.next(chunk, &mut cursor) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    let event = Event::Garbled(error.to_string());
                    self.pending.push_back(Received { channel: 0, event });
                    return;
                }
            };
            let (channel, event) = match frame {
                Frame::Method { channel, payload } => {
                    (channel, begin(&mut self.partial, channel, payload))
                }
                Frame::Header { channel, payload } => {
                    (channel, header(&mut self.partial, channel, payload))
                }
                Frame::Body { channel, data, .. } => {
                    (channel, body(&mut self.partial, channel, &chunk[data]))
                }
                Frame::Heartbeat { .. } => continue,
            };
            if let Some(event) = event {
                self.pending.push_back(Received { channel, event });
            }
        }
    }
}

/// The event of a method, or `None` where its content is yet to come.
fn begin(partial: &mut BTreeMap<u16, Partial>, channel: u16, payload: &[u8]) -> Option<Event> {
    let method = match Method::decode(payload) {
        Ok(method) => method,
        Err(error) => return Some(Event::Garbled(error.to_string())),
    };
    let event = event_of(&method);
    if method.has_content() {
        partial.insert(channel, Partial { event, body_size: None });
        return None;
    }
    Some(event)
}

fn event_of(method: &Method<'_>) -> Event {
    match method {
        Method::QueueDeclareOk(ok) => Event::Declared {
            queue: ok.queue.to_owned(),
            messages: ok.message_count,
            consumers: ok.consumer_count,
        },
        Method::BasicConsumeOk(ok) => Event::Consuming { consumer_tag: ok.consumer_tag.to_owned() },
        Method::ChannelFlowOk(ok) => Event::FlowOk { active: ok.active },
        Method::ChannelOpenOk(_) => Event::ChannelOpened,
        Method::ChannelCloseOk(_) => Event::ChannelCloseOk,
        Method::ConnectionCloseOk(_) => Event::ConnectionCloseOk,
        Method::ChannelClose(close) => Event::ChannelClose(Close {
            code: close.reply_code,
            text: close.reply_text.to_owned(),
            ids: (close.class_id, close.method_id),
        }),
        Method::ConnectionClose(close) => Event::ConnectionClose(Close {
            code: close.reply_code,
            text: close.reply_text.to_owned(),
            ids: (close.class_id, close.method_id),
        }),
        Method::BasicAck(ack) => {
            Event::Confirm { tag: ack.delivery_tag, multiple: ack.multiple, ack: true }
        }
        Method::BasicNack(nack) => {
            Event::Confirm { tag: nack.delivery_tag, multiple: nack.multiple, ack: false }
        }
        Method::BasicCancel(cancel) => {
            Event::Cancelled { consumer_tag: cancel.consumer_tag.to_owned() }
        }
        Method::BasicDeliver(deliver) => Event::Delivered {
            consumer_tag: deliver.consumer_tag.to_owned(),
            tag: deliver.delivery_tag,
            redelivered: deliver.redelivered,
            message: Message::named(deliver.exchange, deliver.routing_key),
        },
        Method::BasicGetOk(got) => Event::Got {
            tag: got.delivery_tag,
            redelivered: got.redelivered,
            messages: got.message_count,
            message: Message::named(got.exchange, got.routing_key),
        },
        Method::BasicReturn(returned) => Event::Returned {
            code: returned.reply_code,
            text: returned.reply_text.to_owned(),
            message: Message::named(returned.exchange, returned.routing_key),
        },
        other => Event::Reply(format!("{other:?}")),
    }
}

impl Message {
    fn named(exchange: &[u8], routing_key: &[u8]) -> Self {
        Self {
            exchange: String::from_utf8_lossy(exchange).into_owned(),
            routing_key: String::from_utf8_lossy(routing_key).into_owned(),
            ..Self::default()
        }
    }
}

impl Partial {
    const fn message(&mut self) -> Option<&mut Message> {
        match &mut self.event {
            Event::Delivered { message, .. }
            | Event::Got { message, .. }
            | Event::Returned { message, .. } => Some(message),
            _ => None,
        }
    }
}

fn header(partial: &mut BTreeMap<u16, Partial>, channel: u16, payload: &[u8]) -> Option<Event> {
    let Ok(header) = ContentHeader::decode(payload) else {
        return Some(Event::Garbled("content header is too short".to_owned()));
    };
    let expected = partial.get_mut(&channel).filter(|partial| partial.body_size.is_none());
    let Some(message) = expected.map(|partial| {
        partial.body_size = Some(header.body_size);
        partial.message()
    }) else {
        return Some(Event::Garbled("content header without a method".to_owned()));
    };
    if let Some(message) = message {
        message.properties = match Properties::parse(header.properties) {
            Ok(properties) => readable(&PropertiesBuilder::from(properties)),
            Err(error) => format!("{error}: {:02x?}", header.properties),
        };
    }
    whole(partial, channel)
}

/// Only the properties that are set.
fn readable(properties: &PropertiesBuilder<'_>) -> String {
    let text = |octets: &[u8]| octets.escape_ascii().to_string();
    let strings = [
        ("content-type", properties.content_type),
        ("content-encoding", properties.content_encoding),
        ("correlation-id", properties.correlation_id),
        ("reply-to", properties.reply_to),
        ("expiration", properties.expiration),
        ("message-id", properties.message_id),
        ("type", properties.kind),
        ("user-id", properties.user_id),
        ("app-id", properties.app_id),
        ("cluster-id", properties.cluster_id),
    ];
    let mut fields: Vec<String> = strings
        .iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name}={}", text(value))))
        .collect();
    fields.extend(properties.headers.map(|headers| format!("headers={headers:?}")));
    fields.extend(properties.delivery_mode.map(|mode| format!("delivery-mode={mode}")));
    fields.extend(properties.priority.map(|priority| format!("priority={priority}")));
    fields.extend(properties.timestamp.map(|seconds| format!("timestamp={seconds}")));
    fields.join(" ")
}

fn body(partial: &mut BTreeMap<u16, Partial>, channel: u16, data: &[u8]) -> Option<Event> {
    let Some(message) = partial.get_mut(&channel).and_then(Partial::message) else {
        return Some(Event::Garbled("body without a content header".to_owned()));
    };
    message.body.extend_from_slice(data);
    whole(partial, channel)
}

/// The event whose body is complete.
fn whole(partial: &mut BTreeMap<u16, Partial>, channel: u16) -> Option<Event> {
    let one = partial.get_mut(&channel)?;
    let body_size = one.body_size?;
    let arrived = one.message().map_or(0, |message| message.body.len() as u64);
    if arrived < body_size {
        return None;
    }
    let event = partial.remove(&channel)?.event;
    if arrived > body_size {
        return Some(Event::Garbled("body is larger than declared".to_owned()));
    }
    Some(event)
}
