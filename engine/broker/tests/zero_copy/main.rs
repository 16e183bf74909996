//! Zero-copy, proven twice: by the counters, and by the addresses of what is sent.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

mod world;

use leveret_amqp::TableRef;
use leveret_amqp::method::{BasicGet, BasicRecover, QueueBind, TxCommit, TxSelect};
use leveret_broker::delivery::body_bytes::Copies;
use leveret_broker::message::BODY_COPY_MAX_BYTES;
use leveret_broker::settings::Settings;

use crate::world::{BUFFER_BYTES, Client, Sent, World};

/// The largest and the smallest frame that clients ask for.
const FRAME_MAX: [u32; 2] = [131_072, 4_096];

/// Just over the threshold, some messages to a buffer, about a buffer, cut into many frames.
const LARGE_BODY_BYTES: [usize; 4] = [BODY_COPY_MAX_BYTES + 1, 1_024, 64 << 10, 1 << 20];

/// Bodies that differ in every byte around them, for as much as a few buffers hold.
fn bodies(size: usize) -> Vec<Vec<u8>> {
    let count = (400_000 / size).max(3);
    (0..count).map(|number| (0..size).map(|at| (number * 31 + at) as u8).collect()).collect()
}

fn bytes_of(bodies: &[Vec<u8>]) -> u64 {
    bodies.iter().map(|body| body.len() as u64).sum()
}

/// A world with a client that has declared the queue `q`, and one that publishes.
fn declared(shards: u16, frame_max: u32) -> (World, Client, Client) {
    let mut world = World::new(shards);
    let consumer = world.connect(0, frame_max);
    let publisher = world.connect(shards - 1, frame_max);
    world.declare(consumer, "q");
    (world, publisher, consumer)
}

/// Checks that everything was sent by reference, and as it was published.
fn assert_shared(sent: &Sent, bodies: &[Vec<u8>]) {
    assert_eq!(sent.shared_bytes() as u64, bytes_of(bodies));
    assert_eq!(sent.shared.concat(), bodies.concat());
}

#[test]
fn a_large_body_that_passes_through_is_sent_from_the_receive_buffers() {
    for (shards, frame_max) in [(1, FRAME_MAX[0]), (1, FRAME_MAX[1]), (2, FRAME_MAX[0])] {
        for size in LARGE_BODY_BYTES {
            for offset_bytes in [0, 1, 777, 40_000] {
                let (mut world, publisher, consumer) = declared(shards, frame_max);
                world.consume(consumer, "q", true);
                let bodies = bodies(size);
                let sent = world.publish(publisher, ("", "q"), &bodies, offset_bytes);
                let counted = world.body_bytes();
                let case = format!("{size} B, {frame_max}, {shards} shards, at {offset_bytes}");
                assert_eq!(counted.delivered(), bytes_of(&bodies), "{case}");
                assert_eq!(counted.copied, Copies::default(), "{case}");
                assert_shared(&sent, &bodies);
                for piece in &sent.shared {
                    assert!(world.is_received_memory(piece), "{case}: {} moved", piece.len());
                }
            }
        }
    }
}

/// Bytes of bodies that the end of a receive buffer cut in two.
fn cut_bytes(sent: &Sent, size: usize) -> u64 {
    sent.shared.iter().map(bytes::Bytes::len).filter(|length| *length != size).sum::<usize>() as u64
}

#[test]
fn a_body_that_rests_is_copied_only_if_a_receive_buffer_cuts_it() {
    for size in LARGE_BODY_BYTES {
        let bodies = bodies(size);
        let (mut world, publisher, consumer) = declared(1, FRAME_MAX[0]);
        world.consume(consumer, "q", true);
        let passed = world.publish(publisher, ("", "q"), &bodies, 777);
        let cut = Copies { store: cut_bytes(&passed, size), ..Copies::default() };
        let (mut world, publisher, consumer) = declared(1, FRAME_MAX[0]);
        world.publish(publisher, ("", "q"), &bodies, 777);
        let sent = world.consume(consumer, "q", true);
        let counted = world.body_bytes();
        assert_eq!((counted.delivered(), counted.copied), (bytes_of(&bodies), cut), "{size}");
        assert_shared(&sent, &bodies);
        let received = sent.shared.iter().filter(|piece| world.is_received_memory(piece));
        assert_eq!(
            received.map(bytes::Bytes::len).sum::<usize>() as u64 + cut.store,
            bytes_of(&bodies)
        );
    }
}

#[test]
fn what_has_to_be_acked_rests_although_it_is_sent_from_the_receive_buffers() {
    for size in LARGE_BODY_BYTES {
        let (mut world, publisher, consumer) = declared(1, FRAME_MAX[0]);
        world.consume(consumer, "q", false);
        let bodies = bodies(size);
        let sent = world.publish(publisher, ("", "q"), &bodies, 0);
        let counted = world.body_bytes();
        let cut = Copies { store: cut_bytes(&sent, size), ..Copies::default() };
        assert_eq!((counted.delivered(), counted.copied), (bytes_of(&bodies), cut), "{size}");
        assert_shared(&sent, &bodies);
        assert!(sent.shared.iter().all(|piece| world.is_received_memory(piece)), "{size}");
        let again = world.say(consumer, &BasicRecover { requeue: true });
        assert_eq!(world.body_bytes().copied, cut, "{size}");
        assert_shared(&again, &bodies);
    }
}

#[test]
fn no_more_receive_buffers_are_kept_than_are_allowed() {
    let (mut world, publisher, consumer) = declared(1, FRAME_MAX[0]);
    world.consume(consumer, "q", false);
    let allowed = usize::from(Settings::default().receive_buffers_kept_max);
    let bodies = vec![vec![7; 1_024]; 2 * allowed * BUFFER_BYTES / 1_024];
    world.publish(publisher, ("", "q"), &bodies, 0);
    // Some bytes of a buffer are frames, and each sixteenth of the others made place for itself.
    let copied = world.body_bytes().copied.store;
    let kept = bytes_of(&bodies) - copied;
    let most = (allowed * BUFFER_BYTES) as u64;
    assert!((most / 10 * 9..most).contains(&kept), "{kept} of at most {most}");
}

#[test]
fn queues_share_the_one_copy_of_a_body() {
    for (no_ack, copies) in [(false, 1), (true, 0)] {
        let mut world = World::new(1);
        let publisher = world.connect(0, FRAME_MAX[0]);
        for number in 0..10 {
            let consumer = world.connect(0, FRAME_MAX[0]);
            let queue = format!("q{number}");
            world.declare(consumer, &queue);
            let bind = QueueBind {
                queue: &queue,
                exchange: "amq.fanout",
                routing_key: b"",
                nowait: false,
                arguments: TableRef::EMPTY,
            };
            world.say(consumer, &bind);
            world.consume(consumer, &queue, no_ack);
        }
        let bodies = bodies(64 << 10);
        world.publish(publisher, ("amq.fanout", ""), &bodies, 0);
        let counted = world.body_bytes();
        assert_eq!(counted.delivered(), 10 * bytes_of(&bodies));
        assert_eq!(counted.copied.sum(), copies * bytes_of(&bodies));
    }
}

#[test]
fn small_bodies_are_copied_into_whatever_is_next() {
    let size = BODY_COPY_MAX_BYTES;
    // Into the outbox; into the store and the outbox; into mail to the home and the outbox.
    for (shards, no_ack, copies) in [(1, true, 1), (1, false, 2), (2, true, 2)] {
        let (mut world, publisher, consumer) = declared(shards, FRAME_MAX[0]);
        world.consume(consumer, "q", no_ack);
        let bodies = vec![vec![7; size]; 20];
        let sent = world.publish(publisher, ("", "q"), &bodies, 0);
        let counted = world.body_bytes();
        assert_eq!(counted.delivered(), bytes_of(&bodies));
        assert_eq!(counted.copied.outbox, bytes_of(&bodies));
        assert_eq!(counted.copied.sum(), copies * bytes_of(&bodies), "{shards}, {no_ack}");
        assert_eq!(sent.shared_bytes(), 0);
        assert!(sent.rendered_bytes as u64 > bytes_of(&bodies));
    }
}

#[test]
fn a_get_and_a_transaction_are_counted() {
    let (mut world, publisher, consumer) = declared(1, FRAME_MAX[0]);
    world.say(publisher, &TxSelect {});
    let (small, large) = (vec![1; 100], vec![2; 5_000]);
    world.publish(publisher, ("", "q"), &[small, large], 0);
    assert_eq!(world.body_bytes().copied, Copies { mail: 100, ..Copies::default() });
    world.say(publisher, &TxCommit {});
    for _ in 0..2 {
        world.say(consumer, &BasicGet { queue: "q", no_ack: true });
    }
    let counted = world.body_bytes();
    let expected = Copies { store: 5_100, mail: 200, outbox: 100, ..Copies::default() };
    assert_eq!((counted.delivered(), counted.copied), (5_100, expected));
}

#[test]
fn crumbs_are_gathered_and_counted() {
    let (mut world, publisher, consumer) = declared(1, FRAME_MAX[0]);
    world.consume(consumer, "q", true);
    let body = vec![3; 60_000];
    let mut stream = Vec::new();
    let publish = leveret_amqp::encoder::Publish {
        channel: 1,
        exchange: b"",
        routing_key: b"q",
        mandatory: false,
        immediate: false,
    };
    leveret_amqp::encoder::encode_content(&mut stream, publish, &[0, 0], &body, FRAME_MAX[0]);
    // A slow client: a hundred octets at a time.
    let mut pieces = Vec::new();
    for crumb in stream.chunks(100) {
        pieces.extend(world.feed(publisher, bytes::Bytes::copy_from_slice(crumb)).shared);
    }
    assert_eq!(pieces.concat(), body);
    assert!(pieces.len() < 12, "{} references for 60 kB", pieces.len());
    let counted = world.body_bytes();
    assert_eq!(counted.copied, Copies { assembly: counted.copied.assembly, ..Copies::default() });
    assert!((58_000..60_000).contains(&counted.copied.assembly), "{:?}", counted.copied);
}
