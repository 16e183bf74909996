//! Receive buffers: leases, starvation, pause and resume.

use std::collections::BTreeSet;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use leveret_ring::{Completion, Ring, RingConfig, SocketId, Wait};

use crate::world::{DEADLINE, World, is_received, pattern};

fn tiny_config() -> RingConfig {
    RingConfig {
        sockets_max: 16,
        buffer_count: 4,
        buffer_size_bytes: 4_096,
        lend_above_free_buffers: 0,
        ..RingConfig::default()
    }
}

/// Four buffers of 4 KiB: three for all, one in reserve.
fn tiny() -> World {
    World::new(&tiny_config())
}

/// Takes what was received so far, without giving it back.
fn take_received(world: &mut World, socket: SocketId) -> Vec<Bytes> {
    let mut taken = Vec::new();
    while let Some(position) = world.seen.iter().position(|seen| is_received(seen, socket)) {
        let Completion::Received { bytes, .. } = world.seen.remove(position) else {
            unreachable!()
        };
        taken.push(bytes);
    }
    taken
}

#[test]
fn held_leases_starve_the_ring_and_leases_dropped_elsewhere_feed_it_again() {
    let mut world = tiny();
    let (mut client, socket) = world.connect();
    let sent = pattern(300_000, 1);
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        client.write_all(&copy).unwrap();
        client
    });
    world.ring.receive(socket);
    let mut all = Vec::new();
    while all.len() < sent.len() {
        // Hold everything until nothing more can come: all four buffers, the reserve included.
        let mut held = Vec::new();
        while held.len() < 4 && all.len() + held.iter().map(Bytes::len).sum::<usize>() < sent.len()
        {
            let received = world.until(|seen| is_received(seen, socket));
            let Completion::Received { bytes, .. } = received else { unreachable!() };
            held.push(bytes);
        }
        if held.len() == 4 {
            assert_eq!((world.ring.free_buffers(), world.ring.leases_out()), (0, 4));
            world.turn_for(Duration::from_millis(2));
            assert!(take_received(&mut world, socket).is_empty(), "a fifth buffer of four");
        }
        for bytes in &held {
            all.extend_from_slice(bytes);
        }
        // The ring sleeps while the leases end on another thread; that alone has to wake it.
        let dropper = thread::spawn(move || {
            thread::sleep(Duration::from_millis(1));
            drop(held);
        });
        if all.len() < sent.len() {
            let before = Instant::now();
            while !world.seen.iter().any(|seen| is_received(seen, socket)) {
                world.ring.turn(Wait::Until(DEADLINE), &mut world.seen).unwrap();
            }
            assert!(before.elapsed() < DEADLINE, "only the timeout woke the ring");
        }
        dropper.join().unwrap();
    }
    writer.join().unwrap();
    assert!(all == sent);
    world.turn_for(Duration::from_millis(1));
    assert_eq!((world.ring.free_buffers(), world.ring.leases_out()), (3, 0));
    let counters = world.ring.counters();
    assert!(counters.starvations > 0 && counters.reserve_receives > 0, "{counters:?}");
}

#[test]
fn whoever_holds_leases_stops_nobody_while_scarce_buffers_are_copied() {
    let config = RingConfig { buffer_count: 16, lend_above_free_buffers: 8, ..tiny_config() };
    let mut world = World::new(&config);
    let (mut client, socket) = world.connect();
    world.ring.receive(socket);
    let sent = pattern(300_000, 4);
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        client.write_all(&copy).unwrap();
        client
    });
    let mut held: Vec<Bytes> = Vec::new();
    while held.iter().map(Bytes::len).sum::<usize>() < sent.len() {
        let received = world.until(|seen| is_received(seen, socket));
        let Completion::Received { bytes, .. } = received else { unreachable!() };
        held.push(bytes);
    }
    writer.join().unwrap();
    assert!(held.concat() == sent);
    world.turn_for(Duration::from_millis(1));
    let leases = world.ring.leases_out() as usize;
    assert!(leases <= 8, "{leases} leases");
    let copied = world.ring.counters().received_bytes_copied as usize;
    assert!(copied < sent.len() && copied >= sent.len() - leases * 4_096, "{copied} copied");
}

#[test]
fn leases_dropped_on_the_ring_s_own_thread_feed_it_in_the_next_turn() {
    let mut world = tiny();
    let (mut client, socket) = world.connect();
    world.ring.receive(socket);
    let sent = pattern(100_000, 2);
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        client.write_all(&copy).unwrap();
        client
    });
    assert!(world.read(socket, sent.len()) == sent);
    writer.join().unwrap();
}

#[test]
fn the_reserve_serves_the_others_while_one_holds_all_common_buffers() {
    let mut world = tiny();
    let (mut greedy, greedy_socket) = world.connect();
    world.ring.receive(greedy_socket);
    greedy.write_all(&pattern(3 * 4_096, 1)).unwrap();
    let mut held = Vec::new();
    while held.len() < 3 {
        let received = world.until(|seen| is_received(seen, greedy_socket));
        let Completion::Received { bytes, .. } = received else { unreachable!() };
        held.push(bytes);
    }
    assert_eq!(world.ring.free_buffers(), 0);
    let mut others: Vec<_> = (0..5).map(|_| world.connect()).collect();
    for round in 0..20 {
        for (client, socket) in &mut others {
            world.ring.receive(*socket);
            client.write_all(&[round, socket.slot as u8]).unwrap();
        }
        for (_, socket) in &others {
            assert_eq!(world.read(*socket, 2), [round, socket.slot as u8]);
        }
    }
    world.turn_for(Duration::from_millis(1));
    assert_eq!((world.ring.leases_out(), world.ring.free_buffers()), (3, 0));
    assert!(world.ring.counters().reserve_receives >= 100);
}

/// 64 buffers of 4 KiB: 62 for all.
fn many() -> World {
    World::new(&RingConfig { buffer_count: 64, ..tiny_config() })
}

#[test]
fn what_came_back_last_is_received_into_first() {
    let mut world = many();
    let (mut client, socket) = world.connect();
    world.ring.receive(socket);
    let mut addresses = BTreeSet::new();
    for _ in 0..200 {
        client.write_all(b"little").unwrap();
        let received = world.until(|seen| is_received(seen, socket));
        let Completion::Received { bytes, .. } = received else { unreachable!() };
        addresses.insert(bytes.as_ptr() as usize);
    }
    assert!(addresses.len() <= 16, "{} buffers for one at a time", addresses.len());
    assert_eq!(world.ring.free_buffers() + world.ring.leases_out(), 62);
}

#[test]
fn a_burst_finds_all_buffers_although_the_kernel_has_few() {
    let mut world = many();
    let (mut client, socket) = world.connect();
    let sent = pattern(60 * 4_096, 5);
    client.write_all(&sent).unwrap();
    world.ring.receive(socket);
    let mut held: Vec<Bytes> = Vec::new();
    while held.iter().map(Bytes::len).sum::<usize>() < sent.len() {
        let received = world.until(|seen| is_received(seen, socket));
        let Completion::Received { bytes, .. } = received else { unreachable!() };
        held.push(bytes);
    }
    assert!(held.concat() == sent);
    let counters = world.ring.counters();
    assert_eq!((counters.starvations, counters.reserve_receives), (0, 0), "{counters:?}");
    assert!(counters.receive_rearms > 0 && held.len() > 16, "{counters:?}");
}

#[test]
fn a_paused_socket_is_silent_and_goes_on_where_it_was() {
    let mut world = World::small();
    let (mut client, socket) = world.connect();
    world.ring.receive(socket);
    client.write_all(b"before").unwrap();
    assert_eq!(world.read(socket, 6), b"before");
    world.ring.pause(socket);
    world.turn_for(Duration::from_millis(2));
    client.write_all(b"during").unwrap();
    world.turn_for(Duration::from_millis(20));
    assert!(take_received(&mut world, socket).is_empty());
    world.ring.receive(socket);
    client.write_all(b"after").unwrap();
    assert_eq!(world.read(socket, 11), b"duringafter");
}

#[test]
fn bytes_received_before_the_pause_are_still_reported() {
    let mut world = World::small();
    let (mut client, socket) = world.connect();
    world.ring.receive(socket);
    world.turn_for(Duration::from_millis(1));
    client.write_all(b"early").unwrap();
    // Loopback delivers within the write; the completion waits in the ring.
    world.ring.pause(socket);
    world.turn_for(Duration::from_millis(20));
    let early: Vec<u8> = take_received(&mut world, socket).concat();
    world.ring.receive(socket);
    // Either it was received before the cancel, or it waits in the socket; never is it lost.
    let rest = world.read(socket, 5 - early.len());
    assert_eq!([early, rest].concat(), b"early");
}

#[test]
fn pausing_and_resuming_at_any_time_loses_nothing() {
    let mut world = tiny();
    let (mut client, socket) = world.connect();
    let sent = pattern(4 << 20, 9);
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        client.write_all(&copy).unwrap();
        client
    });
    let mut all: Vec<u8> = Vec::new();
    let mut round = 0_u32;
    let deadline = Instant::now() + DEADLINE;
    while all.len() < sent.len() {
        assert!(Instant::now() < deadline, "stuck at {}", all.len());
        round += 1;
        // All orders of the two calls between two turns.
        for call in 0..round % 4 {
            if (round / 4 + call).is_multiple_of(2) {
                world.ring.receive(socket);
            } else {
                world.ring.pause(socket);
            }
        }
        world.ring.turn(Wait::Until(Duration::from_micros(200)), &mut world.seen).unwrap();
        for bytes in take_received(&mut world, socket) {
            all.extend_from_slice(&bytes);
        }
    }
    writer.join().unwrap();
    assert!(all == sent);
    assert!(round > 100);
}

#[test]
fn a_starved_socket_can_be_paused_and_closed() {
    let mut world = tiny();
    let (mut client, socket) = world.connect();
    world.ring.receive(socket);
    client.write_all(&pattern(64 * 1024, 1)).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut held = Vec::new();
    while held.len() < 4 {
        assert!(Instant::now() < deadline);
        world.ring.turn(Wait::Until(Duration::from_millis(10)), &mut world.seen).unwrap();
        held.extend(take_received(&mut world, socket));
    }
    world.turn_for(Duration::from_millis(2));
    world.ring.pause(socket);
    drop(held);
    world.turn_for(Duration::from_millis(20));
    assert!(take_received(&mut world, socket).is_empty(), "paused");
    world.ring.receive(socket);
    world.until(|seen| is_received(seen, socket));
    world.close(socket);
    drop(client);
    let (mut client, socket) = world.connect();
    world.ring.receive(socket);
    client.write_all(b"next").unwrap();
    assert_eq!(world.read(socket, 4), b"next");
}

#[test]
fn leases_outlive_their_socket_and_their_ring() {
    let bytes = thread::spawn(|| {
        let mut world = World::small();
        let (mut client, socket) = world.connect();
        world.ring.receive(socket);
        client.write_all(b"kept").unwrap();
        let received = world.until(|seen| is_received(seen, socket));
        let Completion::Received { bytes, .. } = received else { unreachable!() };
        world.close(socket);
        bytes
    })
    .join()
    .unwrap();
    assert_eq!(&bytes[..], b"kept");
}

#[test]
fn the_default_pool_works_within_8_mib_of_locked_memory() {
    let ring = Ring::new(&RingConfig::default()).unwrap();
    assert_eq!((ring.free_buffers(), ring.leases_out()), (248, 0));
}
