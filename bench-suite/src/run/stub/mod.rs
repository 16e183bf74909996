//! A broker that speaks just enough AMQP to be put under load, and can be told to do wrong: the
//! truth of the harness is tested against it.
//!
//! ```text
//! connection ──► reader thread ──► State: exchanges ─► queues ─► outboxes ──► writer threads
//! ```
//!
//! A queue delivers to its first consumer at once and keeps what comes while it has none. Prefetch
//! counts are answered and not heeded; what was not acknowledged is not delivered again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use leveret_amqp::encoder::{Deliver, GetOk, encode_content};
use leveret_amqp::method::{
    BasicAck, BasicCancelOk, BasicConsume, BasicConsumeOk, BasicGet, BasicGetEmpty, BasicNack,
    BasicQosOk, ChannelClose, ChannelCloseOk, ChannelOpenOk, ConfirmSelectOk, ConnectionCloseOk,
    ConnectionOpenOk, ConnectionStart, ConnectionTune, Encode, ExchangeDeclareOk, ExchangeDeleteOk,
    QueueBindOk, QueueDeclare, QueueDeclareOk, QueueDeleteOk, QueuePurgeOk, QueueUnbindOk,
    encode_frame,
};
use leveret_amqp::{ContentHeader, Decoder, Frame, Method, TableBuilder};

/// Every message with this remainder of [`PERIOD`] is treated wrongly. The period is prime, so that
/// the victims are spread over queues and streams.
const VICTIM: u64 = 500;
const PERIOD: u64 = 997;

/// The last octet of a stamp.
const STAMP_END: usize = 15;

/// Octets of a body that say which stream it is of.
const STREAM_SIZE: usize = 3;

const FRAME_SIZE_MAX: u32 = 131_072;

/// Octets that may wait in queues and outboxes; above, publishers are not read.
const WAITING_SIZE_MAX: usize = 64 << 20;

/// How often [`Defect::Slow`] delivers what has come due.
const PACE_INTERVAL: Duration = Duration::from_millis(5);

/// What the stub does wrong. Numbers of messages count copies: one for each queue that a publish
/// is routed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    Lose,
    Duplicate,
    /// Delivers a message after its successor of the same stream; without one, never.
    Reorder,
    /// Changes one bit of the stamp.
    Corrupt,
    /// Changes one bit of the last octet.
    CorruptFiller,
    /// Cuts the last octet of the body off.
    Shorten,
    /// Puts a message into another queue that has a consumer; there must be one.
    Misroute,
    /// Takes publishes and says nothing, ever.
    ForgetConfirms,
    /// Says everything twice.
    ConfirmTwice,
    /// Confirms negatively, although it delivers.
    Nack,
    /// Answers `queue.declare` with 404.
    RefuseQueue,
    /// Delivers at most so many messages a second, over all queues.
    Slow {
        per_s: u64,
    },
    /// Neither reads nor writes for the last part, so long, of each period since the start.
    Stall {
        every: Duration,
        length: Duration,
    },
    /// Cuts all connections once so many messages were published, and takes no others.
    Die {
        after: u64,
    },
    /// Accepts connections and says nothing.
    Deaf,
}

/// A running stub. Dropped, it cuts all connections and listens no longer.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Stub {
    /// Listens on a free port of loopback.
    pub(crate) fn start(defect: Defect) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared {
            defect,
            started: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        if let Defect::Slow { per_s } = defect {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.pace(per_s));
        }
        let accepting = Arc::clone(&shared);
        let acceptor = Some(thread::spawn(move || accepting.accept(&listener)));
        Self { address, shared, acceptor }
    }

    /// Messages that were published so far.
    pub(crate) fn published(&self) -> u64 {
        self.shared.lock().published
    }

    /// Deliveries so far, answers to `basic.get` included.
    pub(crate) fn delivered(&self) -> u64 {
        self.shared.lock().delivered
    }

    /// Deliveries that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.lock().acknowledged
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.shared.lock().close();
        self.shared.changed.notify_all();
        // Wakes the acceptor, which sees that it is over.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    defect: Defect,
    started: Instant,
    state: Mutex<State>,
    /// Something is to be written, has been written, or has ended.
    changed: Condvar,
}

impl Shared {
    /// A test that failed elsewhere shall not hide behind a poisoned lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for (id, stream) in (0..).zip(listener.incoming()) {
            let mut state = self.lock();
            if state.is_closed {
                return;
            }
            // A client may have gone already.
            let Ok((stream, writing, handle)) = stream.and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok((stream.try_clone()?, stream.try_clone()?, stream))
            }) else {
                continue;
            };
            let connection =
                Connection { stream: handle, outbox: Vec::new(), channels: BTreeMap::new() };
            state.connections.insert(id, connection);
            drop(state);
            let (reader, writer) = (Arc::clone(self), Arc::clone(self));
            thread::spawn(move || {
                // A client that goes at any time is no failure of the stub.
                let _ = Session::new(&reader, id).read(stream);
                reader.disconnect(id);
            });
            thread::spawn(move || {
                let _ = writer.write(id, writing);
                writer.disconnect(id);
            });
        }
    }

    /// Writes what comes into an outbox, until its connection ends.
    fn write(&self, id: u64, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut state = self.lock();
            let outbox = loop {
                match state.connections.get_mut(&id) {
                    None => return Ok(()),
                    Some(connection) if !connection.outbox.is_empty() => {
                        break std::mem::take(&mut connection.outbox);
                    }
                    Some(_) => state = self.wait(state),
                }
            };
            drop(state);
            self.sit_out_stall();
            stream.write_all(&outbox)?;
            // There is room for publishers.
            self.changed.notify_all();
        }
    }

    fn sit_out_stall(&self) {
        if let Defect::Stall { every, length } = self.defect {
            let at =
                Duration::from_nanos((self.started.elapsed().as_nanos() % every.as_nanos()) as u64);
            if at + length >= every {
                thread::sleep(every.saturating_sub(at));
            }
        }
    }

    /// Delivers so many messages a second; time without messages is not caught up.
    fn pace(&self, per_s: u64) {
        let (mut due, mut last) = (0.0, Instant::now());
        loop {
            thread::sleep(PACE_INTERVAL);
            let elapsed_s = last.elapsed().as_secs_f64();
            (due, last) = (due + elapsed_s * per_s as f64, Instant::now());
            let mut state = self.lock();
            if state.is_closed {
                return;
            }
            let names: Vec<String> = state.queues.keys().cloned().collect();
            for name in names {
                while due >= 1.0 && state.deliver_next(&name) {
                    due -= 1.0;
                }
            }
            due = due.min(1.0);
            drop(state);
            self.changed.notify_all();
        }
    }

    fn disconnect(&self, id: u64) {
        let mut state = self.lock();
        if let Some(connection) = state.connections.remove(&id) {
            // It may be cut already.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        for queue in state.queues.values_mut() {
            queue.consumers.retain(|consumer| consumer.connection != id);
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// All that the connections share.
#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    connections: BTreeMap<u64, Connection>,
    exchanges: BTreeMap<String, Exchange>,
    queues: BTreeMap<String, Queue>,
    published: u64,
    /// Copies: one for each queue.
    routed: u64,
    delivered: u64,
    acknowledged: u64,
    /// Names that were given to queues and consumers without one.
    named: u64,
    /// Octets of bodies in queues.
    queued_size: usize,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    outbox: Vec<u8>,
    channels: BTreeMap<u16, Channel>,
}

#[derive(Debug, Default)]
struct Channel {
    has_confirms: bool,
    published: u64,
    confirmed: u64,
    delivered: u64,
    /// Tags of deliveries that wait for an acknowledgement.
    unacknowledged: BTreeSet<u64>,
}

/// One that is not of kind `direct` sends to all queues, whatever the routing key.
#[derive(Debug, Default)]
struct Exchange {
    is_direct: bool,
    /// Queue and routing key.
    bindings: BTreeSet<(String, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct Queue {
    consumers: Vec<Consumer>,
    ready: VecDeque<Message>,
    /// Those that wait for their successors.
    held: Vec<Message>,
}

#[derive(Debug, Clone)]
struct Consumer {
    connection: u64,
    channel: u16,
    tag: String,
    no_ack: bool,
}

#[derive(Debug, Clone, Default)]
struct Message {
    exchange: Vec<u8>,
    routing_key: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
}

impl State {
    fn close(&mut self) {
        self.is_closed = true;
        for connection in std::mem::take(&mut self.connections).into_values() {
            // It may be cut already.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
    }

    fn waiting_size(&self) -> usize {
        let outboxes = self.connections.values().map(|connection| connection.outbox.len());
        self.queued_size + outboxes.sum::<usize>()
    }

    fn say(&mut self, connection: u64, channel: u16, method: &impl Encode) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            encode_frame(channel, method, &mut connection.outbox);
        }
    }

    fn name(&mut self, name: &str, prefix: &str) -> String {
        if !name.is_empty() {
            return name.to_owned();
        }
        self.named += 1;
        format!("{prefix}{}", self.named)
    }

    fn publish(&mut self, message: &Message, defect: Defect) {
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

    /// Every queue once, whatever the number of its bindings.
    fn route(&self, message: &Message) -> BTreeSet<String> {
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

    fn put(&mut self, queue: &str, mut message: Message, defect: Defect) {
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

    fn hold(&mut self, queue: &str, message: Message) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.held.push(message);
        }
    }

    /// The next one with a consumer, around the end; the same if there is no other.
    fn other_queue(&self, queue: &str) -> String {
        let names = self.queues.iter().filter(|(_, queue)| !queue.consumers.is_empty());
        let mut others = names.map(|(name, _)| name).filter(|name| *name != queue);
        let first = others.clone().next();
        others
            .find(|name| name.as_str() > queue)
            .or(first)
            .map_or_else(|| queue.to_owned(), Clone::clone)
    }

    fn enqueue(&mut self, name: &str, message: Message, defect: Defect) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        self.queued_size += message.body.len();
        queue.ready.push_back(message);
        self.deliver_all(name, defect);
    }

    fn deliver_all(&mut self, queue: &str, defect: Defect) {
        let is_paced = matches!(defect, Defect::Slow { .. });
        while !is_paced && self.deliver_next(queue) {}
    }

    /// False if there is no message, or nobody who takes it.
    fn deliver_next(&mut self, name: &str) -> bool {
        let Some(queue) = self.queues.get_mut(name) else { return false };
        let Some(consumer) = queue.consumers.first().cloned() else { return false };
        let Some(message) = queue.ready.pop_front() else { return false };
        self.queued_size -= message.body.len();
        let connection = self.connections.get_mut(&consumer.connection);
        // Its connection was cut a moment ago: the message is gone with it.
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

    fn get(&mut self, id: u64, channel_number: u16, get: BasicGet<'_>) {
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

    fn message_count(&self, queue: &str) -> u32 {
        self.queues.get(queue).map_or(0, |queue| queue.ready.len() as u32)
    }

    fn purge(&mut self, queue: &str) -> u32 {
        let Some(queue) = self.queues.get_mut(queue) else { return 0 };
        self.queued_size -= queue.ready.iter().map(|message| message.body.len()).sum::<usize>();
        queue.ready.drain(..).count() as u32
    }

    fn settle(&mut self, id: u64, channel: u16, delivery_tag: u64, multiple: bool) -> u64 {
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

    /// Confirms what was published since the last time.
    fn confirm(&mut self, id: u64, defect: Defect) {
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
    fn next_delivery_tag(&mut self, no_ack: bool) -> u64 {
        self.delivered += 1;
        if !no_ack {
            self.unacknowledged.insert(self.delivered);
        }
        self.delivered
    }

    /// Victims get a nack of their own, all others an ack of their own.
    fn confirm_negatively(&self, channel: u16, outbox: &mut Vec<u8>) {
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

/// The reading side of one connection.
struct Session<'a> {
    shared: &'a Shared,
    id: u64,
    /// The message whose body is coming, by channel, and the octets that it shall have.
    coming: BTreeMap<u16, (Message, u64)>,
}

impl<'a> Session<'a> {
    fn new(shared: &'a Shared, id: u64) -> Self {
        Self { shared, id, coming: BTreeMap::new() }
    }

    fn read(mut self, mut stream: TcpStream) -> io::Result<()> {
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

    /// Publishes a message once its body is there. The empty rest of a body frame, its end octet,
    /// may come behind that.
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
                // Those that every broker has are made when they are used.
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

#[cfg(test)]
mod tests;
