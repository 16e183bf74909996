use std::time::Instant;

use leveret_amqp::encoder::{Deliver, encode_content};
use leveret_amqp::method::{ChannelClose, encode_frame};
use leveret_amqp::properties::NO_PROPERTIES;

use super::*;
use crate::load::stamp;

const ARRIVAL: Arrival = Arrival { now_us: 1000, measuring: true };

fn stamp(stream: u32, sequence: u64) -> Stamp {
    Stamp { stream, sequence, intended_us: 900 }
}

/// A delivery to the consumer of queue `tag`.
fn append(wire: &mut Vec<u8>, tag: u16, delivery_tag: u64, body: &[u8], frame_size_max: u32) {
    let consumer_tag = format!("{tag:04x}");
    let deliver = Deliver {
        channel: 1,
        consumer_tag: consumer_tag.as_bytes(),
        delivery_tag,
        redelivered: false,
        exchange: b"x",
        routing_key: b"key",
    };
    encode_content(wire, deliver, NO_PROPERTIES, body, frame_size_max);
}

/// Streams 10 and 11 on queue 0x2a, stream 12 on queue 3.
fn lanes() -> Vec<Lane> {
    vec![
        Lane { tag: 0x2A, streams: 10..12, shared: None },
        Lane { tag: 3, streams: 12..13, shared: None },
    ]
}

fn tally() -> Tally {
    Tally::new(Instant::now(), 10, 3, 1)
}

/// Counts of messages, each with its tag and body, with `total` published to each stream.
fn messages(bodies: &[(u16, Vec<u8>)], total: u64, body_size: usize) -> Messages {
    let mut found = Vec::new();
    for chunk_size in [1, 7, 64, usize::MAX] {
        let mut wire = Vec::new();
        for ((tag, body), delivery_tag) in bodies.iter().zip(1..) {
            append(&mut wire, *tag, delivery_tag, body, 4096);
        }
        let mut deliveries = Deliveries::new(1, lanes(), body_size, 4096).unwrap();
        for chunk in wire.chunks(chunk_size) {
            deliveries.receive(chunk, ARRIVAL).unwrap();
        }
        assert_eq!(deliveries.count(), bodies.len() as u64);
        let tally = tally();
        (10..13).for_each(|stream| tally.close_stream(stream, total));
        found.push(deliveries.finish(&tally).0);
    }
    assert!(found.iter().all(|messages| *messages == found[0]), "{found:?}");
    found[0]
}

fn body_of(stream: u32, sequence: u64, size: usize) -> (u16, Vec<u8>) {
    let tag = if stream < 12 { 0x2A } else { 3 };
    (tag, stamp::body(stamp(stream, sequence), size))
}

fn clean(total: u64, size: usize) -> Vec<(u16, Vec<u8>)> {
    let number = |sequence| (10..13).map(move |stream| body_of(stream, sequence, size));
    (0..total).flat_map(number).collect()
}

const NOTHING_WRONG: Messages = Messages {
    published: 0,
    expected: 12,
    lost: 0,
    duplicated: 0,
    reordered: 0,
    corrupted: 0,
    foreign: 0,
};

#[test]
fn clean_messages_pass_whatever_their_size() {
    for size in [16, 17, 1000, 4088, 4089, 10_000] {
        assert_eq!(messages(&clean(4, size), 4, size), NOTHING_WRONG, "{size} B");
    }
}

#[test]
fn the_stream_may_be_cut_anywhere() {
    let mut wire = Vec::new();
    for ((tag, body), delivery_tag) in clean(4, 40).iter().zip(1..) {
        append(&mut wire, *tag, delivery_tag, body, 0);
    }
    for chunk_size in 1..300 {
        let mut deliveries = Deliveries::new(1, lanes(), 40, 0).unwrap();
        for chunk in wire.chunks(chunk_size) {
            deliveries.receive(chunk, ARRIVAL).unwrap();
        }
        let tally = tally();
        assert!(!deliveries.is_complete(&tally));
        (10..13).for_each(|stream| tally.close_stream(stream, 4));
        assert!(deliveries.is_complete(&tally), "in chunks of {chunk_size}");
        assert_eq!((deliveries.first_tag(), deliveries.tag_jumped()), (1, false));
        let (messages, latency) = deliveries.finish(&tally);
        assert_eq!(messages, NOTHING_WRONG, "in chunks of {chunk_size}");
        let latency = latency.summary().unwrap();
        assert_eq!((latency.count, latency.max_us.round()), (12, 100.0));
    }
}

#[test]
fn each_fault_is_told_apart() {
    for size in [16, 100, 9000] {
        let mut swapped = clean(4, size);
        swapped.swap(3, 6);
        assert_eq!(messages(&swapped, 4, size), Messages { reordered: 1, ..NOTHING_WRONG });
        let mut lost = clean(4, size);
        lost.remove(5);
        assert_eq!(messages(&lost, 4, size), Messages { lost: 1, ..NOTHING_WRONG });
        let mut doubled = clean(4, size);
        doubled.insert(7, doubled[5].clone());
        assert_eq!(messages(&doubled, 4, size), Messages { duplicated: 1, ..NOTHING_WRONG });
        let mut elsewhere = clean(4, size);
        elsewhere[0].0 = 3;
        let expected = Messages { foreign: 1, lost: 1, ..NOTHING_WRONG };
        assert_eq!(messages(&elsewhere, 4, size), expected, "on another queue");
        let mut foreign = clean(4, size);
        foreign.push(body_of(13, 0, size));
        foreign.push(body_of(9, 0, size));
        foreign.push(body_of(10, 4, size));
        assert_eq!(messages(&foreign, 4, size), Messages { foreign: 3, ..NOTHING_WRONG });
    }
}

#[test]
fn every_changed_octet_is_corruption_and_loss() {
    let expected = Messages { corrupted: 1, lost: 1, ..NOTHING_WRONG };
    for (size, step) in [(16, 1), (60, 1), (9000, 800)] {
        for octet in (0..size).step_by(step).chain([size - 1]) {
            let mut changed = clean(4, size);
            changed[4].1[octet] ^= 0x10;
            assert_eq!(messages(&changed, 4, size), expected, "octet {octet} of {size}");
        }
    }
    for wrong in [0, 1, 15, 39, 41, 5000] {
        let mut changed = clean(4, 40);
        changed[4].1 = stamp::body(stamp(11, 1), 5000)[..wrong].to_vec();
        assert_eq!(messages(&changed, 4, 40), expected, "{wrong} B");
    }
}

#[test]
fn a_silent_broker_leaves_a_verdict() {
    let mut deliveries = Deliveries::new(1, lanes(), 16, 0).unwrap();
    let mut wire = Vec::new();
    append(&mut wire, 3, 1, &body_of(12, 2, 16).1, 0);
    deliveries.receive(&wire[..wire.len()], ARRIVAL).unwrap();
    // An incomplete message does not count.
    deliveries.receive(&wire[..wire.len() - 1], ARRIVAL).unwrap();
    let tally = tally();
    tally.close_stream(10, 5);
    let (messages, _) = deliveries.finish(&tally);
    assert_eq!(messages, Messages { expected: 8, lost: 7, ..NOTHING_WRONG });
}

#[test]
fn what_is_no_delivery_is_a_fault() {
    let mut unknown = Vec::new();
    append(&mut unknown, 4, 1, &[0; 16], 0);
    let mut nameless = unknown.clone();
    nameless[12..16].fill(0);
    let mut closed = Vec::new();
    let close = ChannelClose { reply_code: 404, reply_text: "gone", class_id: 0, method_id: 0 };
    encode_frame(1, &close, &mut closed);
    let mut whole = Vec::new();
    append(&mut whole, 3, 1, &[0; 16], 0);
    let body_alone = &whole[whole.len() - 24..];
    let cases = [
        (&unknown[..], "\"0004\""),
        (&nameless[..], "not there"),
        (&closed[..], "channel: 404 gone"),
        (body_alone, "a body frame"),
        (&[1, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF], "broken frame"),
    ];
    for (wire, said) in cases {
        for chunk_size in [1, 1000] {
            let mut deliveries = Deliveries::new(1, lanes(), 16, 4096).unwrap();
            let mut chunks = wire.chunks(chunk_size);
            let fault = chunks.find_map(|chunk| deliveries.receive(chunk, ARRIVAL).err());
            let fault = fault.unwrap().to_string();
            assert!(fault.contains(said), "{fault}");
        }
    }
}

#[test]
fn queues_that_are_no_queues_are_refused() {
    let lane = |tag, streams| Lane { tag, streams, shared: None };
    assert!(Deliveries::new(1, vec![], 16, 0).is_err());
    assert!(Deliveries::new(1, vec![lane(1, 0..1), lane(1, 1..2)], 16, 0).is_err());
    assert!(Deliveries::new(1, vec![lane(1, 0..0)], 16, 0).is_err());
    let shared = Some(Arc::new(SharedCheck::new(0..2)));
    assert!(Deliveries::new(1, vec![Lane { tag: 1, streams: 0..1, shared }], 16, 0).is_err());
}
