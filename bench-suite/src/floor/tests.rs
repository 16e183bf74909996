use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::method::{
    BasicConsume, BasicGet, ChannelOpen, ConfirmSelect, Encode, ExchangeDeclare, QueueBind,
    QueueDeclare, QueueDelete, TxSelect, encode_frame,
};
use leveret_amqp::properties::NO_PROPERTIES;
use leveret_amqp::{Decoder, Frame, Method, TableRef};

use super::*;
use crate::broker::Broker;
use crate::client::{CHANNEL, Connection};
use crate::load::endpoint::Attached;

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a floor that serves as long as the test process lives.
fn start_floor() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || FloorServer::new(listener).unwrap().run().unwrap());
    address
}

/// A connection with an open channel, and its received frames.
struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
    decoder: Decoder,
    product: String,
}

impl Peer {
    fn write(&mut self, wire: &[u8]) {
        self.stream.write_all(wire).unwrap();
    }

    fn send(&mut self, channel: u16, method: &impl Encode) {
        let mut wire = Vec::new();
        encode_frame(channel, method, &mut wire);
        self.write(&wire);
    }

    /// Reads once and passes on every complete frame.
    fn receive(&mut self, mut each: impl FnMut(&[u8], Frame<'_>)) -> io::Result<()> {
        if self.received.is_empty() {
            self.received.resize(256 << 10, 0);
            let size = self.stream.read(&mut self.received)?;
            self.received.truncate(size);
            if size == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let (chunk, mut cursor) = (std::mem::take(&mut self.received), 0);
        while let Some(frame) = self.decoder.next(&chunk, &mut cursor).unwrap() {
            each(&chunk, frame);
        }
        Ok(())
    }

    /// Waits for the answer to a passive declaration; by then the floor has processed everything
    /// sent before. The error is the code of a close, or 0.
    fn message_count(&mut self, queue: &str) -> Result<u32, u16> {
        self.send(CHANNEL, &declaration(queue, true));
        let mut answer = None;
        while answer.is_none() {
            let received = self.receive(|_, frame| {
                let Frame::Method { payload, .. } = frame else { return };
                match Method::decode(payload).unwrap() {
                    Method::QueueDeclareOk(ok) => answer = Some(Ok(ok.message_count)),
                    Method::ConnectionClose(close) => answer = Some(Err(close.reply_code)),
                    // A confirm may arrive first.
                    _ => {}
                }
            });
            if received.is_err() {
                return Err(0);
            }
        }
        answer.unwrap()
    }
}

fn connect(address: SocketAddr) -> Peer {
    let mut connection = Connection::open(&Broker::floor(address, 0)).unwrap();
    connection.open_channel(CHANNEL).unwrap();
    let product = connection.product.clone();
    let Attached { stream, received, .. } = connection.into_attached(()).unwrap();
    // If the floor hangs, the test fails instead of hanging too.
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Peer { stream, received, decoder: Decoder::new(0), product }
}

fn declaration(queue: &str, passive: bool) -> QueueDeclare<'_> {
    QueueDeclare { passive, nowait: !passive, ..QueueDeclare::named(queue) }
}

fn declare(connection: &mut Peer, queue: &str) {
    connection.send(CHANNEL, &declaration(queue, false));
}

fn consume(connection: &mut Peer, queue: &str, consumer_tag: &str) {
    let consume = BasicConsume {
        queue,
        consumer_tag,
        no_local: false,
        no_ack: true,
        exclusive: false,
        nowait: true,
        arguments: TableRef::EMPTY,
    };
    connection.send(CHANNEL, &consume);
    // After this answer, everything sent before has been processed.
    connection.message_count(queue).unwrap();
}

fn publish(exchange: &str, routing_key: &str, body: &[u8]) -> Vec<u8> {
    publish_on(CHANNEL, exchange, routing_key, body)
}

fn publish_on(channel: u16, exchange: &str, routing_key: &str, body: &[u8]) -> Vec<u8> {
    let publish = Publish {
        channel,
        exchange: exchange.as_bytes(),
        routing_key: routing_key.as_bytes(),
        mandatory: false,
        immediate: false,
    };
    let mut wire = Vec::new();
    encode_content(&mut wire, publish, NO_PROPERTIES, body, 131_072);
    wire
}

fn body(seed: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 + seed * 7 + (at >> 8)) as u8).collect()
}

/// Tag, delivery tag and body of this many deliveries, or of answers to gets, which have no
/// consumer tag.
fn deliveries(connection: &mut Peer, count: usize) -> Vec<(String, u64, Vec<u8>)> {
    let mut got: Vec<(String, u64, Vec<u8>, u64)> = Vec::new();
    let whole = |got: &[(String, u64, Vec<u8>, u64)]| {
        got.iter().filter(|(_, _, body, size)| body.len() as u64 == *size).count()
    };
    while whole(&got) < count {
        let received = connection.receive(|chunk, frame| match frame {
            Frame::Method { payload, .. } => match Method::decode(payload).unwrap() {
                Method::BasicDeliver(deliver) => {
                    let tag = deliver.consumer_tag.to_owned();
                    got.push((tag, deliver.delivery_tag, Vec::new(), u64::MAX));
                }
                Method::BasicGetOk(ok) => {
                    got.push((String::new(), ok.delivery_tag, Vec::new(), u64::MAX));
                }
                Method::QueueDeclareOk(_) => {}
                other => panic!("{}", other.name()),
            },
            Frame::Header { payload, .. } => {
                let header = leveret_amqp::ContentHeader::decode(payload).unwrap();
                assert_eq!(header.properties, NO_PROPERTIES);
                got.last_mut().unwrap().3 = header.body_size;
            }
            Frame::Body { data, channel, .. } => {
                assert_eq!(channel, CHANNEL);
                got.last_mut().unwrap().2.extend_from_slice(&chunk[data]);
            }
            Frame::Heartbeat { .. } => panic!("no heartbeats were agreed upon"),
        });
        received.unwrap();
    }
    got.into_iter().map(|(tag, delivery_tag, body, _)| (tag, delivery_tag, body)).collect()
}

const SIZES: [usize; 5] = [0, 16, 1 << 10, 64 << 10, 1 << 20];

fn bodies() -> Vec<Vec<u8>> {
    (0..200).map(|index| body(index, SIZES[index % SIZES.len()])).collect()
}

fn assert_bodies(got: Vec<(String, u64, Vec<u8>)>, tag: &str, bodies: &[Vec<u8>]) {
    assert_eq!(got.len(), bodies.len());
    for (index, ((of, delivery_tag, got), body)) in got.into_iter().zip(bodies).enumerate() {
        assert_eq!((of.as_str(), delivery_tag), (tag, index as u64 + 1));
        assert!(got == *body, "body {index} of {} octets changed", body.len());
    }
}

#[test]
fn bodies_of_all_sizes_arrive_unchanged_and_in_order() {
    let address = start_floor();
    for channel in [CHANNEL, 9] {
        let mut consumer = connect(address);
        assert!(consumer.product.starts_with("floor "));
        declare(&mut consumer, "q");
        consume(&mut consumer, "q", "00aa");
        let mut publisher = connect(address);
        if channel != CHANNEL {
            publisher.send(channel, &ChannelOpen {});
        }
        let bodies = bodies();
        let wire: Vec<u8> =
            bodies.iter().flat_map(|body| publish_on(channel, "", "q", body)).collect();
        // More than all buffers hold, so the publisher is held back until the consumer reads.
        // Closing with unread answers would reset the connection and drop unsent data.
        let writer = thread::spawn(move || {
            publisher.write(&wire);
            publisher
        });
        assert_bodies(deliveries(&mut consumer, bodies.len()), "00aa", &bodies);
        writer.join().unwrap();
        let delete = QueueDelete { queue: "q", if_unused: false, if_empty: false, nowait: true };
        consumer.send(CHANNEL, &delete);
        assert!(consumer.message_count("q").is_err(), "deleted");
    }
}

#[test]
fn what_is_published_before_there_is_a_consumer_waits() {
    let address = start_floor();
    let mut publisher = connect(address);
    declare(&mut publisher, "q");
    publisher.send(CHANNEL, &ConfirmSelect { nowait: true });
    let bodies: Vec<_> = (0..50).map(|index| body(index, 500 * index)).collect();
    for body in &bodies {
        publisher.write(&publish("", "q", body));
    }
    assert_eq!(publisher.message_count("q").unwrap(), 50);
    let mut consumer = connect(address);
    consume(&mut consumer, "q", "t");
    // `consume` waits for its answer and drops the deliveries that came before it.
    assert_eq!(consumer.message_count("q").unwrap(), 0);
    publisher.write(&publish("", "q", b"after"));
    let got = deliveries(&mut consumer, 1);
    assert_eq!(got[0], ("t".to_owned(), 51, b"after".to_vec()));
}

#[test]
fn a_fanout_reaches_every_queue_and_a_key_its_own() {
    let address = start_floor();
    let mut consumer = connect(address);
    for (exchange, kind) in [("f", "fanout"), ("d", "direct")] {
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
        consumer.send(CHANNEL, &declare);
        for queue in ["a", "b"] {
            self::declare(&mut consumer, queue);
            let arguments = TableRef::EMPTY;
            let routing_key = queue.as_bytes();
            let bind = QueueBind { queue, exchange, routing_key, nowait: true, arguments };
            consumer.send(CHANNEL, &bind);
        }
    }
    consume(&mut consumer, "a", "A");
    consume(&mut consumer, "b", "B");
    let mut publisher = connect(address);
    let messages =
        [publish("f", "", b"all"), publish("d", "b", b"one"), publish("d", "x", b"none")];
    publisher.write(&[messages.concat(), publish("", "a", b"last")].concat());
    let got = deliveries(&mut consumer, 4);
    let seen = |tag: &str| {
        let of_tag = got.iter().filter(|(of, _, _)| of == tag);
        of_tag.map(|(_, _, body)| String::from_utf8(body.clone()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(seen("A"), ["all", "last"]);
    assert_eq!(seen("B"), ["all", "one"]);
}

#[test]
fn every_publish_is_confirmed_once() {
    let address = start_floor();
    let mut consumer = connect(address);
    declare(&mut consumer, "q");
    consume(&mut consumer, "q", "t");
    let mut publisher = connect(address);
    publisher.write(&publish("", "q", b"not counted"));
    publisher.send(CHANNEL, &ConfirmSelect { nowait: true });
    let wire: Vec<u8> = (0..5_000).flat_map(|index| publish("", "q", &body(index, 20))).collect();
    publisher.write(&wire);
    let mut confirmed = 0;
    while confirmed < 5_000 {
        let received = publisher.receive(|_, frame| {
            let Frame::Method { payload, .. } = frame else { panic!("{frame:?}") };
            let Method::BasicAck(ack) = Method::decode(payload).unwrap() else { panic!("no ack") };
            assert!(ack.multiple && ack.delivery_tag > confirmed && ack.delivery_tag <= 5_000);
            confirmed = ack.delivery_tag;
        });
        received.unwrap();
    }
    assert_eq!(deliveries(&mut consumer, 5_001).last().unwrap().2, body(4_999, 20));
}

#[test]
fn a_get_gives_the_oldest_message_or_none() {
    let mut connection = connect(start_floor());
    declare(&mut connection, "q");
    let get = BasicGet { queue: "q", no_ack: true };
    connection.write(&[publish("", "q", b"1"), publish("", "q", b"2")].concat());
    for (index, body) in [b"1", b"2"].into_iter().enumerate() {
        connection.send(CHANNEL, &get);
        let got = deliveries(&mut connection, 1);
        assert_eq!(got, [(String::new(), index as u64 + 1, body.to_vec())]);
    }
    connection.send(CHANNEL, &get);
    let mut empty = false;
    while !empty {
        let received = connection.receive(|_, frame| {
            let Frame::Method { payload, .. } = frame else { panic!("{frame:?}") };
            empty = matches!(Method::decode(payload).unwrap(), Method::BasicGetEmpty(_));
            assert!(empty);
        });
        received.unwrap();
    }
}

#[test]
fn consumers_of_one_queue_take_turns() {
    let address = start_floor();
    let mut consumers = [connect(address), connect(address)];
    for consumer in &mut consumers {
        declare(consumer, "q");
        consume(consumer, "q", "t");
    }
    let wire: Vec<u8> = (0..100).flat_map(|_| publish("", "q", b"turn")).collect();
    connect(address).write(&wire);
    for consumer in &mut consumers {
        assert_eq!(deliveries(consumer, 50).len(), 50);
    }
}

#[test]
fn broken_input_ends_its_connection_and_no_other() {
    let address = start_floor();
    let mut bystander = connect(address);
    declare(&mut bystander, "q");
    consume(&mut bystander, "q", "t");
    let header_too_early = &publish("", "q", b"x")[20..];
    let broken: [&[u8]; 4] = [
        b"\x09\x00\x01\x00\x00\x00\x00\xce",
        b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x28\xce",
        b"\x01\x00\x01\xff\xff\xff\xff\x00\x3c\x00\x28\xce",
        header_too_early,
    ];
    for (index, octets) in broken.into_iter().enumerate() {
        let mut connection = connect(address);
        connection.write(octets);
        assert!(connection.message_count("q").is_err(), "{index}");
    }
    let mut connection = connect(address);
    connection.send(CHANNEL, &TxSelect {});
    assert_eq!(connection.message_count("q"), Err(540));
    // Only the right protocol header is answered.
    let mut wrong = TcpStream::connect(address).unwrap();
    wrong.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    match wrong.read(&mut [0]) {
        Ok(size) => assert_eq!(size, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    connect(address).write(&publish("", "q", b"still there"));
    assert_eq!(deliveries(&mut bystander, 1)[0].2, b"still there");
}
