use std::time::Duration;

use leveret_amqp::encoder::{ContentMethod, Deliver, GetOk};
use leveret_amqp::method::{BasicGetEmpty, ChannelClose};
use leveret_amqp::{Decoder, Frame, Method, Properties};

use super::*;

const STREAM: u32 = 41;

fn caller(question: Question, body_size: usize) -> (Caller, Arc<Tally>) {
    let tally = Arc::new(Tally::new(Instant::now(), STREAM, 1, 1));
    let plan = CallerPlan {
        question,
        body_size,
        stream: STREAM,
        frame_size_max: 4096,
        tally: Arc::clone(&tally),
    };
    (Caller::new(plan), tally)
}

fn deliver_caller(body_size: usize) -> (Caller, Arc<Tally>) {
    caller(Question::Deliver { queue: "own".to_owned() }, body_size)
}

fn sent(endpoint: &mut impl Endpoint, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(endpoint.next_due(now), Some(now));
    endpoint.poll_send(now, &mut out).unwrap();
    out
}

/// Publishes as they were sent: routing key, properties, body; and the names of all methods.
#[derive(Debug, Default, PartialEq)]
struct Published {
    methods: Vec<&'static str>,
    routing_key: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
}

fn read(wire: &[u8]) -> Published {
    let (mut decoder, mut cursor, mut published) = (Decoder::new(4096), 0, Published::default());
    while let Some(frame) = decoder.next(wire, &mut cursor).unwrap() {
        match frame {
            Frame::Method { payload, .. } => {
                let method = Method::decode(payload).unwrap();
                published.methods.push(method.name());
                if let Method::BasicPublish(publish) = method {
                    published.routing_key = publish.routing_key.to_vec();
                }
            }
            Frame::Header { payload, .. } => {
                let header = leveret_amqp::ContentHeader::decode(payload).unwrap();
                published.properties = header.properties.to_vec();
            }
            Frame::Body { data, .. } => published.body.extend_from_slice(&wire[data]),
            Frame::Heartbeat { .. } => panic!("nobody asked for heartbeats"),
        }
    }
    published
}

fn content<'a>(method: impl Into<ContentMethod<'a>>, properties: &[u8], body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    encode_content(&mut wire, method, properties, body, 4096);
    wire
}

fn delivery(properties: &[u8], body: &[u8]) -> Vec<u8> {
    let deliver = Deliver {
        channel: CHANNEL,
        consumer_tag: b"caller",
        delivery_tag: 1,
        redelivered: false,
        exchange: b"",
        routing_key: b"own",
    };
    content(deliver, properties, body)
}

/// The counts of a caller: duplicated, corrupted, foreign.
fn wrongs(caller: &Caller) -> (u64, u64, u64) {
    (caller.messages.duplicated, caller.messages.corrupted, caller.messages.foreign)
}

#[test]
fn a_request_waits_for_its_delivery_however_it_is_cut() {
    for chunk_size in [1, 7, 100, 100_000] {
        let (mut caller, tally) = deliver_caller(10_000);
        tally.measure();
        let mut now = Instant::now();
        for sequence in 0..3 {
            let published = read(&sent(&mut caller, now));
            assert_eq!((&*published.routing_key, published.body.len()), (&b"own"[..], 10_000));
            let stamp = Stamp::decode(published.body.first_chunk().unwrap()).unwrap();
            assert_eq!((stamp.stream, stamp.sequence), (STREAM, sequence));
            assert_eq!(caller.next_due(now), None, "one request at a time");
            now += Duration::from_micros(500);
            for chunk in delivery(NO_PROPERTIES, &published.body).chunks(chunk_size) {
                assert_eq!(tally.consumed(), sequence);
                caller.receive(chunk, now).unwrap();
            }
            assert_eq!(tally.consumed(), sequence + 1);
        }
        let (messages, latencies) = caller.finish();
        assert!(messages.is_clean());
        assert_eq!((messages.published, messages.expected), (3, 3));
        let latency = latencies.summary().unwrap();
        assert_eq!((latency.count, latency.p50_us.round() as u64), (3, 500));
    }
}

#[test]
fn latencies_are_of_the_measured_window_only() {
    let (mut caller, _) = deliver_caller(16);
    let now = Instant::now();
    let body = read(&sent(&mut caller, now)).body;
    caller.receive(&delivery(NO_PROPERTIES, &body), now).unwrap();
    assert!(caller.finish().1.summary().is_none());
}

#[test]
fn a_stopped_caller_ends_with_its_last_reply() {
    let (mut caller, tally) = deliver_caller(16);
    let now = Instant::now();
    let body = read(&sent(&mut caller, now)).body;
    tally.stop();
    assert_eq!((caller.next_due(now), caller.is_done()), (None, false));
    caller.receive(&delivery(NO_PROPERTIES, &body), now).unwrap();
    assert_eq!((caller.is_done(), tally.total(STREAM)), (false, None));
    assert!(sent(&mut caller, now).is_empty());
    assert!(caller.is_done() && caller.next_due(now).is_none());
    assert_eq!(tally.total(STREAM), Some(1));
}

#[test]
fn a_reply_that_never_came_is_lost() {
    let (mut caller, _) = deliver_caller(16);
    sent(&mut caller, Instant::now());
    let (messages, _) = caller.finish();
    assert_eq!((messages.expected, messages.lost), (1, 1));
}

#[test]
fn wrong_replies_are_told_apart() {
    let now = Instant::now();
    let (mut caller, tally) = deliver_caller(40);
    let first = read(&sent(&mut caller, now)).body;
    caller.receive(&delivery(NO_PROPERTIES, &first), now).unwrap();
    // Nothing is awaited at this moment.
    caller.receive(&delivery(NO_PROPERTIES, &first), now).unwrap();
    assert_eq!(wrongs(&caller), (1, 0, 0));
    let second = read(&sent(&mut caller, now)).body;
    caller.receive(&delivery(NO_PROPERTIES, &first), now).unwrap();
    assert_eq!((wrongs(&caller), tally.consumed()), ((2, 0, 0), 1));
    for stamp in [
        Stamp { stream: STREAM + 1, sequence: 1, intended_us: 0 },
        Stamp { stream: STREAM, sequence: 2, intended_us: 0 },
    ] {
        let body = [&stamp.encode()[..], &second[STAMP_SIZE..]].concat();
        caller.receive(&delivery(NO_PROPERTIES, &body), now).unwrap();
    }
    assert_eq!((wrongs(&caller), tally.consumed()), ((2, 0, 2), 1));
    caller.receive(&delivery(NO_PROPERTIES, &second), now).unwrap();
    assert_eq!((wrongs(&caller), tally.consumed()), ((2, 0, 2), 2));
}

#[test]
fn a_changed_reply_is_corrupted_and_ends_the_wait() {
    let (mut caller, tally) = deliver_caller(40);
    let now = Instant::now();
    for count in 1..=43 {
        let mut body = read(&sent(&mut caller, now)).body;
        match count {
            1..=40 => body[count as usize - 1] ^= 1,
            41 => body.truncate(39),
            42 => body.truncate(15),
            _ => body.push(0),
        }
        caller.receive(&delivery(NO_PROPERTIES, &body), now).unwrap();
        assert_eq!((wrongs(&caller), tally.consumed()), ((0, count, 0), count), "{count}");
    }
}

#[test]
fn a_getter_asks_until_its_message_is_there() {
    let (mut caller, tally) = caller(Question::Get { queue: "own".to_owned() }, 16);
    let now = Instant::now();
    let published = read(&sent(&mut caller, now));
    assert_eq!(published.methods, ["basic.publish", "basic.get"]);
    let mut empty = Vec::new();
    encode_frame(CHANNEL, &BasicGetEmpty {}, &mut empty);
    caller.receive(&empty, now).unwrap();
    assert_eq!(read(&sent(&mut caller, now)).methods, ["basic.get"]);
    assert_eq!(caller.next_due(now), None);
    let ok = |body: &[u8]| {
        let get_ok = GetOk {
            channel: CHANNEL,
            delivery_tag: 1,
            redelivered: false,
            exchange: b"",
            routing_key: b"own",
            message_count: 0,
        };
        content(get_ok, NO_PROPERTIES, body)
    };
    // An unexpected message does not end the wait.
    let foreign = Stamp { stream: 1, sequence: 0, intended_us: 0 }.encode();
    caller.receive(&ok(&foreign), now).unwrap();
    assert_eq!((wrongs(&caller), tally.consumed()), ((0, 0, 1), 0));
    assert_eq!(read(&sent(&mut caller, now)).methods, ["basic.get"]);
    caller.receive(&ok(&published.body), now).unwrap();
    assert_eq!(tally.consumed(), 1);
    assert_eq!(read(&sent(&mut caller, now)).methods, ["basic.publish", "basic.get"]);
    let broken = (0..EMPTY_MAX).try_for_each(|_| caller.receive(&empty, now));
    assert!(broken.unwrap_err().to_string().contains("in a row"));
}

#[test]
fn a_call_goes_through_the_server_and_back() {
    let question = Question::Rpc { server_queue: "server".to_owned(), reply_to: "mine".to_owned() };
    let (mut caller, tally) = caller(question, 9000);
    let mut server = RpcServer::new(4096, STREAM..STREAM + 1, Arc::clone(&tally));
    let now = Instant::now();
    for count in 1..=20 {
        let request = read(&sent(&mut caller, now));
        assert_eq!(request.routing_key, b"server");
        assert_eq!(Properties::trusted(&request.properties).reply_to(), Some(&b"mine"[..]));
        for chunk in delivery(&request.properties, &request.body).chunks(1000) {
            assert_eq!(server.next_due(now), None);
            server.receive(chunk, now).unwrap();
        }
        let reply = read(&sent(&mut server, now));
        assert_eq!((&*reply.routing_key, &reply.body), (&b"mine"[..], &request.body));
        caller.receive(&delivery(&reply.properties, &reply.body), now).unwrap();
        assert_eq!(tally.consumed(), count);
    }
    assert!(!server.is_done());
    tally.stop();
    sent(&mut caller, now);
    assert!(server.is_done() && caller.finish().0.is_clean());
}

#[test]
fn a_reply_with_another_correlation_id_is_corrupted() {
    let question = Question::Rpc { server_queue: "server".to_owned(), reply_to: "mine".to_owned() };
    let (mut caller, _) = caller(question, 16);
    let now = Instant::now();
    for (count, id) in [None, Some(&b"0000000000000002"[..])].into_iter().enumerate() {
        let body = read(&sent(&mut caller, now)).body;
        let properties = PropertiesBuilder { correlation_id: id, ..PropertiesBuilder::default() };
        caller.receive(&delivery(&properties.finish(), &body), now).unwrap();
        assert_eq!(wrongs(&caller), (0, count as u64 + 1, 0));
    }
    assert_eq!(correlation_id(0xfedc_ba98_7654_3210), *b"fedcba9876543210");
}

#[test]
fn faults_of_the_broker_end_the_run() {
    let close = ChannelClose { reply_code: 404, reply_text: "gone", class_id: 0, method_id: 0 };
    let mut wire = Vec::new();
    encode_frame(CHANNEL, &close, &mut wire);
    let now = Instant::now();
    let fault = deliver_caller(16).0.receive(&wire, now).unwrap_err().to_string();
    assert!(fault.contains("404 gone"), "{fault}");
    let tally = Arc::new(Tally::new(now, 0, 1, 1));
    let mut server = RpcServer::new(0, 0..1, tally);
    let fault = server.receive(&delivery(NO_PROPERTIES, b"x"), now).unwrap_err().to_string();
    assert!(fault.contains("reply-to"), "{fault}");
    // A body without its method and header.
    let whole = delivery(NO_PROPERTIES, b"x");
    let fault = deliver_caller(16).0.receive(&whole[whole.len() - 9..], now).unwrap_err();
    assert!(fault.to_string().contains("out of order"), "{fault}");
}
