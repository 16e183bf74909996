//! What the wire costs, without any meaning of AMQP: frames in, frames out.
//!
//! Stands for the part of every message that no broker can avoid: `decode-publish` is paid once by
//! each message that comes in, `encode-deliver` once by each that goes out. A change in them is a
//! change in the ceiling of the whole broker, in the same nanoseconds; `decode-split` must stay
//! near `decode-publish`, or clients behind a slow network pay for their segments. Each group says
//! what it stands for. Throughput is counted in messages; the octets are in the name.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use leveret_amqp::encoder::{Deliver, Publish, encode_content};
use leveret_amqp::method::{BasicDeliver, BasicPublish, split_ids};
use leveret_amqp::properties::{NO_PROPERTIES, validate};
use leveret_amqp::{
    ArrayBuilder, ContentHeader, Decoder, Frame, OwnedTable, Properties, PropertiesBuilder,
    TableBuilder,
};

/// Frame size that both sides agree on, in octets: what `RabbitMQ` offers.
const FRAME_SIZE_MAX: u32 = 131_072;

/// Octets of one receive buffer of the broker.
const RECEIVE_BUFFER_SIZE: usize = 64 << 10;

/// A kind of message as clients send it.
struct Sample {
    name: &'static str,
    properties: Vec<u8>,
    body: Vec<u8>,
}

/// The smallest, an ordinary one, and one of an application that traces and routes by headers.
fn samples() -> [Sample; 3] {
    let headers = headers();
    let heavy = PropertiesBuilder {
        content_type: Some(b"application/json"),
        headers: Some(headers.as_ref()),
        delivery_mode: Some(2),
        correlation_id: Some(b"c0ffee00-0000-4000-8000-000000000001"),
        message_id: Some(b"c0ffee00-0000-4000-8000-000000000002"),
        timestamp: Some(1_700_000_000),
        ..PropertiesBuilder::default()
    };
    [
        Sample { name: "16B", properties: NO_PROPERTIES.to_vec(), body: vec![b'x'; 16] },
        Sample { name: "1KiB", properties: NO_PROPERTIES.to_vec(), body: vec![b'x'; 1024] },
        Sample { name: "headers/256B", properties: heavy.finish(), body: vec![b'x'; 256] },
    ]
}

/// Twenty fields of all common types, one nested table and one array: about 600 octets.
fn headers() -> OwnedTable {
    let nested = TableBuilder::new().long_str("reason", "rejected").int("count", 3).finish();
    let deaths = ArrayBuilder::new().table(&nested).long_str("work").long_str("retry");
    let mut table = TableBuilder::new()
        .long_str("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .bool("retried", true)
        .long("offset", 1 << 40)
        .timestamp("created", 1_700_000_000)
        .table("origin", &nested)
        .array("x-death", &deaths);
    for number in 0..14 {
        table = table.long_str(format!("x-application-header-{number}"), "some short value");
    }
    table.finish()
}

/// A receive buffer full of publishes, and how many.
fn publishes(sample: &Sample) -> (Vec<u8>, u64) {
    let publish = Publish {
        channel: 1,
        exchange: b"amq.topic",
        routing_key: b"site7.device42.temperature",
        mandatory: false,
        immediate: false,
    };
    let mut one = Vec::new();
    encode_content(&mut one, publish, &sample.properties, &sample.body, FRAME_SIZE_MAX);
    let count = RECEIVE_BUFFER_SIZE / one.len();
    (one.repeat(count), count as u64)
}

/// Reads a chunk as the broker's hot path does: method and header decoded, properties checked,
/// bodies measured. Returns the octets of the bodies.
fn decode(decoder: &mut Decoder, chunk: &[u8]) -> usize {
    let (mut cursor, mut size) = (0, 0);
    while let Some(frame) = decoder.next(chunk, &mut cursor).expect("valid frames") {
        match frame {
            Frame::Method { payload, .. } => {
                let (ids, arguments) = split_ids(payload).expect("a whole method");
                assert_eq!(ids, BasicPublish::IDS);
                black_box(BasicPublish::decode(arguments).expect("a valid publish"));
            }
            Frame::Header { payload, .. } => {
                let header = ContentHeader::decode(payload).expect("a whole header");
                validate(header.properties).expect("valid properties");
                black_box(header);
            }
            Frame::Body { data, .. } => size += data.len(),
            Frame::Heartbeat { .. } => {}
        }
    }
    size
}

/// Stands for the first thing the broker does with a publish: a whole receive buffer of the
/// triple method, content header (properties checked, headers table included) and body.
fn decode_publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/decode-publish");
    for sample in samples() {
        let (wire, count) = publishes(&sample);
        group.throughput(Throughput::Elements(count));
        group.bench_function(sample.name, |bencher| {
            let mut decoder = Decoder::new(FRAME_SIZE_MAX);
            assert_eq!(decode(&mut decoder, &wire), sample.body.len() * count as usize);
            bencher.iter(|| decode(&mut decoder, black_box(&wire)));
        });
    }
    group.finish();
}

/// Stands for a client or network that cuts frames where it likes: the same publishes of 16 B in
/// chunks of a size that never ends with a frame. 1447 is what an Ethernet segment carries, less
/// one; 61 cuts every single message.
fn decode_split(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/decode-split");
    let [sample, ..] = samples();
    let (wire, count) = publishes(&sample);
    group.throughput(Throughput::Elements(count));
    for chunk_size in [61, 1447, 16_381] {
        group.bench_function(BenchmarkId::from_parameter(chunk_size), |bencher| {
            let mut decoder = Decoder::new(FRAME_SIZE_MAX);
            let mut read = || -> usize {
                let chunks = black_box(&wire).chunks(chunk_size);
                chunks.map(|chunk| decode(&mut decoder, chunk)).sum()
            };
            assert_eq!(read(), sample.body.len() * count as usize);
            bencher.iter(read);
        });
    }
    group.finish();
}

/// Stands for the last thing the broker does with a message: deliver, header and a body that is
/// copied, appended to the buffer of a consumer's connection.
fn encode_deliver(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/encode-deliver");
    group.throughput(Throughput::Elements(1));
    for sample in samples() {
        let mut out = Vec::with_capacity(2 * RECEIVE_BUFFER_SIZE);
        encode(&mut out, 1, &sample);
        check_deliver(&out, &sample);
        group.bench_function(sample.name, |bencher| {
            let mut delivery_tag = 0;
            bencher.iter(|| {
                if out.len() > RECEIVE_BUFFER_SIZE {
                    out.clear();
                }
                delivery_tag += 1;
                encode(&mut out, delivery_tag, black_box(&sample));
                out.len()
            });
        });
    }
    group.finish();
}

fn encode(out: &mut Vec<u8>, delivery_tag: u64, sample: &Sample) {
    let deliver = Deliver {
        channel: 1,
        consumer_tag: b"amq.ctag-0123456789abcdef",
        delivery_tag,
        redelivered: false,
        exchange: b"amq.topic",
        routing_key: b"site7.device42.temperature",
    };
    encode_content(out, deliver, &sample.properties, &sample.body, FRAME_SIZE_MAX);
}

/// What was encoded must read as the delivery of this very message.
fn check_deliver(wire: &[u8], sample: &Sample) {
    let (mut decoder, mut cursor) = (Decoder::new(FRAME_SIZE_MAX), 0);
    let mut body = Vec::new();
    while let Some(frame) = decoder.next(wire, &mut cursor).expect("valid frames") {
        match frame {
            Frame::Method { payload, .. } => {
                let (ids, arguments) = split_ids(payload).expect("a whole method");
                assert_eq!(ids, BasicDeliver::IDS);
                let deliver = BasicDeliver::decode(arguments).expect("a valid deliver");
                assert_eq!(deliver.delivery_tag, 1);
            }
            Frame::Header { payload, .. } => {
                let header = ContentHeader::decode(payload).expect("a whole header");
                assert_eq!(header.properties, sample.properties);
            }
            Frame::Body { data, .. } => body.extend_from_slice(&wire[data]),
            Frame::Heartbeat { .. } => panic!("nobody sent a heartbeat"),
        }
    }
    assert_eq!(body, sample.body);
}

/// Stands for the content header of a message that traces and routes by headers: finding its
/// headers among the properties, which were checked on arrival. What tables cost is in `table`.
fn properties(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/properties");
    group.throughput(Throughput::Elements(1));
    let [.., heavy] = samples();
    let parsed = Properties::parse(&heavy.properties).expect("valid properties");
    assert_eq!(parsed.headers().map(|headers| headers.iter().count()), Some(20));
    group.bench_function("parse and find headers", |bencher| {
        bencher.iter(|| Properties::parse(black_box(&heavy.properties)).expect("valid").headers());
    });
    group.finish();
}

criterion_group!(benches, decode_publish, decode_split, encode_deliver, properties);
criterion_main!(benches);
