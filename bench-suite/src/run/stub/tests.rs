//! Tests of the stub with raw frames, with and without defects.

use std::io::Read;

use leveret_amqp::client::Hello;
use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::frame::PROTOCOL_HEADER;
use leveret_amqp::method::{
    BasicAck, BasicCancel, BasicConsume, BasicGet, BasicQos, ChannelOpen, ConfirmSelect, Encode,
    ExchangeDeclare, QueueBind, QueueDeclare, QueueDelete, QueuePurge, QueueUnbind, encode_frame,
};
use leveret_amqp::properties::NO_PROPERTIES;
use leveret_amqp::{ContentHeader, Decoder, Frame, Method, TableRef};

use super::state::{PERIOD, VICTIM};
use super::*;

/// Enough for more than one affected message, with others after it.
const COUNT: u32 = 1_600;

/// An event from the stub: a method by its name, a content as tag and body.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Delivery(String, Vec<u8>),
    Got(Vec<u8>),
    Ack(u64),
    Nack(u64),
    Other(&'static str),
}

struct Client {
    stream: TcpStream,
    decoder: Decoder,
}

impl Client {
    /// Logs in and opens channel 1.
    fn open(stub: &Stub) -> Self {
        let stream = TcpStream::connect(stub.address).unwrap();
        let mut client = Self { stream, decoder: Decoder::new(0) };
        client.stream.write_all(PROTOCOL_HEADER).unwrap();
        client.until("connection.start");
        let mut wire = Vec::new();
        Hello::GUEST.encode_start_ok(&mut wire);
        client.stream.write_all(&wire).unwrap();
        client.until("connection.tune");
        wire.clear();
        Hello::GUEST.encode_tune_ok(&mut wire);
        Hello::GUEST.encode_open(&mut wire);
        client.stream.write_all(&wire).unwrap();
        client.until("connection.open-ok");
        client.say(1, &ChannelOpen {});
        client.until("channel.open-ok");
        client
    }

    fn say(&mut self, channel: u16, method: &impl Encode) {
        let mut wire = Vec::new();
        encode_frame(channel, method, &mut wire);
        self.stream.write_all(&wire).unwrap();
    }

    /// The events before a method, which is left out; an error if the connection ends first.
    fn read_until(&mut self, name: &str) -> io::Result<Vec<Event>> {
        let (mut events, mut content, mut body_size) = (Vec::new(), None, 0);
        let mut octet = [0];
        loop {
            // One octet at a time, so that nothing is left over for the next call.
            self.stream.read_exact(&mut octet)?;
            let mut cursor = 0;
            while let Some(frame) = self.decoder.next(&octet, &mut cursor).unwrap() {
                match frame {
                    Frame::Method { payload, .. } => match Method::decode(payload).unwrap() {
                        method if method.name() == name => return Ok(events),
                        Method::BasicDeliver(deliver) => {
                            let tag = deliver.consumer_tag.to_owned();
                            content = Some(Event::Delivery(tag, Vec::new()));
                        }
                        Method::BasicGetOk(_) => content = Some(Event::Got(Vec::new())),
                        Method::BasicAck(ack) => events.push(Event::Ack(ack.delivery_tag)),
                        Method::BasicNack(nack) => events.push(Event::Nack(nack.delivery_tag)),
                        other => events.push(Event::Other(other.name())),
                    },
                    Frame::Header { payload, .. } => {
                        body_size = ContentHeader::decode(payload).unwrap().body_size as usize;
                        if body_size == 0 {
                            events.extend(content.take());
                        }
                    }
                    Frame::Body { data, last, .. } => {
                        if let Some(Event::Delivery(_, body) | Event::Got(body)) = &mut content {
                            body.extend_from_slice(&octet[data]);
                            if last && body.len() == body_size {
                                events.extend(content.take());
                            }
                        }
                    }
                    Frame::Heartbeat { .. } => {}
                }
            }
        }
    }

    fn until(&mut self, name: &str) -> Vec<Event> {
        self.read_until(name).unwrap()
    }

    /// Everything the stub has sent so far. A method is sent, and its answer comes after everything
    /// else.
    fn events(&mut self) -> Vec<Event> {
        self.say(1, &BasicQos { prefetch_size: 0, prefetch_count: 0, global: false });
        self.until("basic.qos-ok")
    }

    fn declare(&mut self, queue: &str) {
        self.say(1, &QueueDeclare::named(queue));
    }

    fn consume(&mut self, queue: &str, consumer_tag: &str) {
        let consume = BasicConsume {
            queue,
            consumer_tag,
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: true,
            arguments: TableRef::EMPTY,
        };
        self.say(1, &consume);
    }

    fn publish(&mut self, exchange: &str, routing_key: &str, body: &[u8]) {
        let publish = Publish {
            channel: 1,
            exchange: exchange.as_bytes(),
            routing_key: routing_key.as_bytes(),
            mandatory: false,
            immediate: false,
        };
        let mut wire = Vec::new();
        encode_content(&mut wire, publish, NO_PROPERTIES, body, 131_072);
        self.stream.write_all(&wire).unwrap();
    }

    fn get(&mut self, queue: &str) {
        self.say(1, &BasicGet { queue, no_ack: true });
    }
}

/// Stamp-like: stream 7, then the number, then filler.
fn body(number: u32) -> Vec<u8> {
    let mut body = vec![0, 0, 7];
    body.extend_from_slice(&number.to_be_bytes());
    body.resize(20, 0xAA);
    body
}

/// Publishes to `q`, which has consumer `c`, while there is another consumer `d`. Returns all
/// events.
fn run(defect: Defect) -> Vec<Event> {
    let stub = Stub::start(defect);
    let mut client = Client::open(&stub);
    for (queue, tag) in [("q", "c"), ("r", "d")] {
        client.declare(queue);
        client.consume(queue, tag);
    }
    client.say(1, &ConfirmSelect { nowait: true });
    assert_eq!(client.events(), ["queue.declare-ok"; 2].map(Event::Other));
    (0..COUNT).for_each(|number| client.publish("", "q", &body(number)));
    let mut events = client.events();
    // Confirms may come after the answers to methods that were read together with the publishes.
    events.extend(client.events());
    assert_eq!(stub.published(), u64::from(COUNT));
    let deliveries = events.iter().filter(|event| matches!(event, Event::Delivery(..)));
    assert_eq!(stub.delivered(), deliveries.count() as u64);
    events
}

fn deliveries(events: &[Event]) -> Vec<(&str, &[u8])> {
    let delivery = |event: &'_ Event| matches!(event, Event::Delivery(..));
    let deliveries = events.iter().filter(|event| delivery(event));
    deliveries
        .filter_map(|event| match event {
            Event::Delivery(tag, body) => Some((tag.as_str(), body.as_slice())),
            _ => None,
        })
        .collect()
}

/// The numbers of the affected messages, from 0.
const VICTIMS: [u32; 2] = [VICTIM as u32 - 1, (VICTIM + PERIOD) as u32 - 1];

#[test]
fn without_a_defect_all_comes_once_and_is_confirmed() {
    let events = run(Defect::None);
    let expected: Vec<Vec<u8>> = (0..COUNT).map(body).collect();
    let expected: Vec<(&str, &[u8])> = expected.iter().map(|body| ("c", &body[..])).collect();
    assert_eq!(deliveries(&events), expected);
    let acks: Vec<u64> = acks(&events);
    assert!(acks.is_sorted_by(|a, b| a < b), "{acks:?}");
    assert_eq!(acks.last(), Some(&u64::from(COUNT)));
}

fn acks(events: &[Event]) -> Vec<u64> {
    let ack = |event: &Event| match event {
        Event::Ack(tag) => Some(*tag),
        _ => None,
    };
    events.iter().filter_map(ack).collect()
}

/// The expected change to the list of bodies around one affected message.
type Wrong = fn(&mut Vec<(&'static str, Vec<u8>)>, usize);

#[test]
fn each_defect_of_messages_hits_the_victims_alone() {
    let wrongs: [(Defect, Wrong); 7] = [
        (Defect::Lose, |all, at| drop(all.remove(at))),
        (Defect::Duplicate, |all, at| all.insert(at, all[at].clone())),
        (Defect::Reorder, |all, at| all.swap(at, at + 1)),
        (Defect::Corrupt, |all, at| all[at].1[15] ^= 1),
        (Defect::CorruptFiller, |all, at| all[at].1[19] ^= 1),
        (Defect::Shorten, |all, at| all[at].1.truncate(19)),
        (Defect::Misroute, |all, at| all[at].0 = "d"),
    ];
    for (defect, wrong) in wrongs {
        let mut expected: Vec<_> = (0..COUNT).map(|number| ("c", body(number))).collect();
        // From the end, so that earlier positions stay valid.
        VICTIMS.iter().rev().for_each(|victim| wrong(&mut expected, *victim as usize));
        let expected: Vec<_> = expected.iter().map(|(tag, body)| (*tag, &body[..])).collect();
        assert_eq!(deliveries(&run(defect)), expected, "{defect:?}");
    }
}

#[test]
fn confirms_can_be_wrong() {
    assert_eq!(acks(&run(Defect::ForgetConfirms)), [0; 0]);
    let twice = acks(&run(Defect::ConfirmTwice));
    assert!(twice.chunks(2).all(|pair| pair[0] == pair[1]) && twice.len() >= 2, "{twice:?}");
    let events = run(Defect::Nack);
    let nacks = events.iter().filter(|event| matches!(event, Event::Nack(_)));
    let expected = VICTIMS.map(|victim| Event::Nack(u64::from(victim) + 1));
    assert_eq!(nacks.cloned().collect::<Vec<_>>(), expected);
    assert_eq!(acks(&events).len(), COUNT as usize - VICTIMS.len());
    assert_eq!(deliveries(&events).len(), COUNT as usize);
}

#[test]
fn exchanges_route_by_kind_and_queues_keep_until_asked() {
    let stub = Stub::start(Defect::None);
    let (mut client, mut other) = (Client::open(&stub), Client::open(&stub));
    for (exchange, kind) in [("all", "fanout"), ("some", "direct")] {
        let declare = ExchangeDeclare {
            exchange,
            kind,
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            nowait: true,
            arguments: TableRef::EMPTY,
        };
        client.say(1, &declare);
    }
    let arguments = TableRef::EMPTY;
    for (queue, routing_key) in [("a", b"1"), ("b", b"2")] {
        client.declare(queue);
        for exchange in ["all", "some"] {
            client.say(1, &QueueBind { queue, exchange, routing_key, nowait: true, arguments });
        }
    }
    let large = vec![7; 300_000];
    client.publish("all", "x", b"");
    client.publish("some", "2", &large);
    client.publish("some", "3", b"nowhere");
    client.say(1, &QueueUnbind { queue: "a", exchange: "all", routing_key: b"1", arguments });
    client.publish("all", "x", b"unbound");
    client.events();
    for queue in ["a", "a", "b"] {
        client.get(queue);
    }
    let got = |body: &[u8]| Event::Got(body.to_vec());
    assert_eq!(client.events(), [got(b""), Event::Other("basic.get-empty"), got(b"")]);
    // Waiting messages are delivered to the next consumer, on any connection.
    other.consume("b", "late");
    let delivery = |body: &[u8]| Event::Delivery("late".to_owned(), body.to_vec());
    assert_eq!(other.events(), [delivery(&large), delivery(b"unbound")]);
    other.say(1, &BasicAck { delivery_tag: 2, multiple: true });
    other.say(1, &BasicAck { delivery_tag: 2, multiple: false });
    other.say(1, &BasicCancel { consumer_tag: "late", nowait: false });
    other.until("basic.cancel-ok");
    assert_eq!((stub.acknowledged(), stub.delivered(), stub.published()), (2, 4, 4));
    client.publish("", "b", b"kept");
    client.say(1, &QueuePurge { queue: "b", nowait: false });
    client.say(1, &QueueDelete { queue: "b", if_unused: false, if_empty: false, nowait: false });
    client.publish("", "b", b"no queue");
    client.get("b");
    let names = ["queue.purge-ok", "queue.delete-ok", "basic.get-empty"];
    assert_eq!(client.events(), names.map(Event::Other));
}

#[test]
fn a_queue_can_be_refused() {
    let stub = Stub::start(Defect::RefuseQueue);
    let mut client = Client::open(&stub);
    client.declare("q");
    assert_eq!(client.events(), [Event::Other("channel.close")]);
}

#[test]
fn a_deaf_stub_says_nothing_and_a_dropped_one_hangs_up() {
    let stub = Stub::start(Defect::Deaf);
    let mut stream = TcpStream::connect(stub.address).unwrap();
    stream.write_all(PROTOCOL_HEADER).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let silence = stream.read(&mut [0]).unwrap_err();
    assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);
    let address = stub.address;
    drop(stub);
    stream.set_read_timeout(None).unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_dying_stub_cuts_all_connections() {
    let stub = Stub::start(Defect::Die { after: 3 });
    let (mut client, mut bystander) = (Client::open(&stub), Client::open(&stub));
    client.declare("q");
    (0..2).for_each(|number| client.publish("", "q", &body(number)));
    assert_eq!(client.events(), [Event::Other("queue.declare-ok")]);
    client.publish("", "q", &body(2));
    assert!(client.read_until("nothing").is_err() && bystander.read_until("nothing").is_err());
}

#[test]
fn a_slow_stub_takes_its_time() {
    let stub = Stub::start(Defect::Slow { per_s: 1_000 });
    let mut client = Client::open(&stub);
    client.declare("q");
    client.consume("q", "c");
    client.events();
    let began = Instant::now();
    (0..100).for_each(|number| client.publish("", "q", &body(number)));
    while stub.delivered() < 100 {
        thread::yield_now();
    }
    // One message may be due at once.
    assert!(began.elapsed() >= Duration::from_millis(90));
}

#[test]
fn a_stalling_stub_answers_nothing_for_a_while() {
    let (every, length) = (Duration::from_millis(200), Duration::from_millis(100));
    let stub = Stub::start(Defect::Stall { every, length });
    let mut client = Client::open(&stub);
    let (mut longest, began) = (Duration::ZERO, Instant::now());
    while began.elapsed() < 3 * every {
        let asked = Instant::now();
        client.events();
        longest = longest.max(asked.elapsed());
    }
    assert!(longest >= length / 2, "{longest:?}");
}
