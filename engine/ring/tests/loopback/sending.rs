//! Echo of many sizes, bodies by reference, cuts of all kinds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use leveret_ring::{Completion, Outgoing, RingConfig};

use crate::world::{World, pattern};

fn is_sent(completion: &Completion) -> bool {
    matches!(completion, Completion::Sent { .. })
}

/// Writes in the background what the ring is to receive.
fn write_all(client: &TcpStream, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    let mut client = client.try_clone().unwrap();
    thread::spawn(move || client.write_all(&bytes).unwrap())
}

/// Reads in the background, `step` bytes at a time, with a pause after each.
fn read_all(
    client: &TcpStream,
    length: usize,
    step: usize,
    pause: Duration,
) -> thread::JoinHandle<Vec<u8>> {
    let mut client = client.try_clone().unwrap();
    thread::spawn(move || {
        let mut all = vec![0; length];
        let mut position = 0;
        while position < length {
            let end = length.min(position + step);
            let read = client.read(&mut all[position..end]).unwrap();
            assert!(read > 0, "the stream ended at {position} of {length}");
            position += read;
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
        all
    })
}

#[test]
fn echo_of_many_sizes_copied_and_by_reference() {
    let mut world = World::new(&RingConfig { sockets_max: 8, ..RingConfig::default() });
    let (client, socket) = world.connect();
    world.ring.receive(socket);
    let sizes =
        [1, 2, 3, 100, 4_095, 4_096, 4_097, 65_535, 65_536, 65_537, 200_000, 1 << 20, 5_000_000];
    for (round, size) in sizes.into_iter().enumerate() {
        let sent = pattern(size, round as u64);
        let writer = write_all(&client, sent.clone());
        let reader = read_all(&client, size, usize::MAX >> 1, Duration::ZERO);
        let mut echoed = 0;
        while echoed < size {
            let received = world.until(|seen| matches!(seen, Completion::Received { .. }));
            let Completion::Received { bytes, .. } = received else { unreachable!() };
            echoed += bytes.len();
            let outgoing = if round % 2 == 0 {
                Outgoing { scratch: bytes.to_vec(), bodies: Vec::new() }
            } else {
                Outgoing { scratch: Vec::new(), bodies: vec![(0, bytes)] }
            };
            world.ring.send(socket, outgoing);
            let Completion::Sent { outgoing, .. } = world.until(is_sent) else { unreachable!() };
            assert!(outgoing.bodies.is_empty());
        }
        writer.join().unwrap();
        assert!(reader.join().unwrap() == sent, "{size} bytes came back changed");
    }
    world.close(socket);
    assert_eq!(world.ring.leases_out(), 0);
    assert_eq!(world.ring.counters().stale_completions, 0);
}

#[test]
fn a_reader_of_a_few_bytes_at_a_time_gets_everything_in_order() {
    let mut world = World::small();
    let (client, socket) = world.connect();
    for step in [1, 3, 7] {
        let scratch = pattern(30_000, step as u64);
        let reader = read_all(&client, scratch.len(), step, Duration::ZERO);
        world.ring.send(socket, Outgoing { scratch: scratch.clone(), bodies: Vec::new() });
        let Completion::Sent { outgoing, .. } = world.until(is_sent) else { unreachable!() };
        assert!(outgoing.scratch == scratch, "the scratch comes back as it was sent");
        assert!(reader.join().unwrap() == scratch);
    }
}

#[test]
fn a_writer_of_a_few_bytes_at_a_time_is_heard_in_order() {
    let mut world = World::small();
    let (mut client, socket) = world.connect();
    world.ring.receive(socket);
    client.set_nodelay(true).unwrap();
    let sent = pattern(10_000, 1);
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        for piece in copy.chunks(7) {
            client.write_all(piece).unwrap();
        }
        client
    });
    assert!(world.read(socket, sent.len()) == sent);
    writer.join().unwrap();
}

/// Renders `count` bodies of different lengths between pieces of scratch; the wire bytes as second.
fn interleaved(count: usize, body_max: usize) -> (Outgoing, Vec<u8>) {
    let mut outgoing = Outgoing::default();
    let mut wire = Vec::new();
    for number in 0..count {
        let frame = pattern(number % 29, number as u64);
        outgoing.scratch.extend_from_slice(&frame);
        wire.extend_from_slice(&frame);
        let body = Bytes::from(pattern(number * 37 % body_max, number as u64 + 1));
        wire.extend_from_slice(&body);
        outgoing.bodies.push((outgoing.scratch.len(), body));
    }
    outgoing.scratch.push(0xce);
    wire.push(0xce);
    (outgoing, wire)
}

#[test]
fn bodies_by_reference_arrive_in_order() {
    let mut world = World::small();
    let (client, socket) = world.connect();
    for count in [1, 2, 10, 300] {
        let (outgoing, wire) = interleaved(count, 5_000);
        assert_eq!(outgoing.length_bytes(), wire.len());
        let reader = read_all(&client, wire.len(), 1 << 20, Duration::ZERO);
        world.ring.send(socket, outgoing);
        world.until(is_sent);
        assert!(reader.join().unwrap() == wire, "{count} bodies");
    }
}

#[test]
fn more_bodies_than_one_call_takes_to_a_slow_reader() {
    let mut world = World::small();
    let (client, socket) = world.connect();
    let (outgoing, wire) = interleaved(4_000, 6_000);
    assert!(wire.len() > 8 << 20);
    let reader = read_all(&client, wire.len(), 100_000, Duration::from_micros(200));
    world.ring.send(socket, outgoing);
    world.until(is_sent);
    assert!(reader.join().unwrap() == wire);
    // 4,000 bodies and the scratch between them are about 7,900 pieces: at least eight calls.
    assert!(world.ring.counters().send_continuations >= 7);
}

#[test]
fn one_large_scratch_to_a_slow_reader() {
    let mut world = World::small();
    let (client, socket) = world.connect();
    let scratch = pattern(20 << 20, 3);
    let reader = read_all(&client, scratch.len(), 200_000, Duration::from_micros(100));
    world.ring.send(socket, Outgoing { scratch: scratch.clone(), bodies: Vec::new() });
    world.until(is_sent);
    assert!(reader.join().unwrap() == scratch);
}

#[test]
fn an_empty_send_completes_in_the_next_turn() {
    let mut world = World::small();
    let (_client, socket) = world.connect();
    world.ring.send(socket, Outgoing { scratch: Vec::new(), bodies: vec![(0, Bytes::new())] });
    let Completion::Sent { outgoing, .. } = world.until(is_sent) else { unreachable!() };
    assert!(outgoing.bodies.is_empty());
}

#[test]
#[should_panic(expected = "one send at a time")]
fn a_second_send_before_the_first_completed_is_a_bug() {
    let mut world = World::small();
    let (_client, socket) = world.connect();
    let outgoing = || Outgoing { scratch: vec![1], bodies: Vec::new() };
    world.ring.send(socket, outgoing());
    world.ring.send(socket, outgoing());
}

#[test]
fn hundreds_of_sockets_through_queues_that_are_much_too_small() {
    let mut world = World::new(&RingConfig {
        lend_above_free_buffers: 0,
        sockets_max: 256,
        buffer_count: 16,
        buffer_size_bytes: 4_096,
        submission_entries: 8,
        completion_entries: 16,
    });
    let pairs: Vec<_> = (0..200).map(|_| world.connect()).collect();
    for (mut client, socket) in pairs.iter().map(|(client, socket)| (client, *socket)) {
        world.ring.receive(socket);
        client.write_all(&socket.slot.to_be_bytes()).unwrap();
        world.ring.send(socket, Outgoing { scratch: vec![7; 3], bodies: Vec::new() });
    }
    for (mut client, socket) in pairs.iter().map(|(client, socket)| (client, *socket)) {
        assert_eq!(world.read(socket, 4), socket.slot.to_be_bytes());
        world.until(|seen| matches!(seen, Completion::Sent { socket: of, .. } if *of == socket));
        let mut answer = [0; 3];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [7; 3]);
    }
    for (_, socket) in &pairs {
        world.ring.close(*socket);
    }
    for (_, socket) in &pairs {
        world.until(|seen| matches!(seen, Completion::Closed { socket: of } if of == socket));
    }
    let counters = world.ring.counters();
    assert!(counters.submission_queue_full > 0, "{counters:?}");
    assert_eq!((world.ring.open_sockets(), counters.stale_completions), (0, 0), "{counters:?}");
}
