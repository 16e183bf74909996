//! Ends of connections, from either side, and slots used again.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use leveret_ring::{Completion, Outgoing, Ring, RingConfig, RingError, SocketId, Wait};

use crate::world::{DEADLINE, World, pair, small};

fn scratch(length: usize) -> Outgoing {
    Outgoing { scratch: vec![5; length], bodies: Vec::new() }
}

/// Makes the next drop of the stream a reset instead of an orderly end.
fn linger_zero(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: passes one linger that lives over the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    };
    assert_eq!(result, 0);
}

#[test]
fn the_peer_ends_its_stream_and_is_still_answered() {
    let mut world = World::small();
    let (mut client, socket) = world.connect();
    world.ring.receive(socket);
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(world.read(socket, 10), b"last words");
    world.until(|seen| matches!(seen, Completion::EndOfStream { socket: of } if *of == socket));
    world.ring.send(socket, scratch(3));
    world.until(|seen| matches!(seen, Completion::Sent { .. }));
    world.close(socket);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [5; 3]);
    assert_eq!(world.ring.free_buffers(), 62, "an end of stream keeps no buffer");
}

#[test]
fn we_end_our_side_and_still_receive() {
    let mut world = World::small();
    let (mut client, socket) = world.connect();
    world.ring.receive(socket);
    world.ring.shutdown_send(socket);
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert!(all.is_empty());
        client.write_all(b"heard you").unwrap();
    });
    assert_eq!(world.read(socket, 9), b"heard you");
    reader.join().unwrap();
    world.close(socket);
}

#[test]
fn a_reset_by_the_peer_is_reported_once() {
    for sending in [false, true] {
        let mut world = World::small();
        let (client, socket) = world.connect();
        world.ring.receive(socket);
        if sending {
            // A send that cannot end, so that both directions are under way.
            world.ring.send(socket, scratch(32 << 20));
        }
        world.turn_for(Duration::from_millis(5));
        linger_zero(&client);
        drop(client);
        let failed = world.until(|seen| matches!(seen, Completion::Failed { .. }));
        let Completion::Failed { error, .. } = failed else { unreachable!() };
        let code = error.raw_os_error();
        assert!(matches!(code, Some(libc::ECONNRESET | libc::EPIPE)), "{error}");
        world.turn_for(Duration::from_millis(10));
        // The kernel tells its error once: if the send got it, the receive sees a mere end.
        world.seen.retain(|seen| !sending || !matches!(seen, Completion::EndOfStream { .. }));
        // Whatever is asked of a broken socket changes nothing.
        world.ring.receive(socket);
        world.ring.send(socket, scratch(1));
        world.close(socket);
        assert!(world.seen.is_empty(), "{:?}", world.seen);
    }
}

#[test]
fn closing_with_everything_under_way_ends_soon_and_completely() {
    let mut world = World::small();
    for round in 0..20_u64 {
        let (client, socket) = world.connect();
        world.ring.receive(socket);
        world.ring.send(socket, scratch(64 << 20));
        world.turn_for(Duration::from_micros(500 * (round % 3)));
        let before = Instant::now();
        if round % 2 == 0 {
            world.ring.pause(socket);
        }
        world.close(socket);
        assert!(before.elapsed() < Duration::from_secs(2));
        assert!(world.seen.is_empty(), "{:?}", world.seen);
        assert_eq!(world.ring.open_sockets(), 0);
        drop(client);
    }
    assert_eq!(world.ring.counters().stale_completions, 0);
}

#[test]
fn a_closed_id_is_dead_for_every_call() {
    let mut world = World::small();
    let (_client, socket) = world.connect();
    world.close(socket);
    let (_other, successor) = world.connect();
    assert_eq!(socket.slot, successor.slot);
    assert_ne!(socket.generation, successor.generation);
    world.ring.receive(socket);
    world.ring.pause(socket);
    world.ring.send(socket, scratch(1));
    world.ring.shutdown_send(socket);
    world.ring.close(socket);
    world.ring.close(SocketId { slot: u32::MAX, generation: 0 });
    world.turn_for(Duration::from_millis(2));
    assert!(world.seen.is_empty(), "{:?}", world.seen);
    assert_eq!(world.ring.open_sockets(), 1);
}

#[test]
fn a_full_table_refuses_and_recovers() {
    let mut config = small();
    config.sockets_max = 3;
    let mut world = World::new(&config);
    let pairs: Vec<_> = (0..3).map(|_| world.connect()).collect();
    let (mut refused, server) = pair();
    let error = world.ring.adopt(server).unwrap_err();
    assert!(matches!(error, RingError::SocketsExhausted { sockets_max: 3 }));
    assert_eq!(refused.read(&mut [0]).unwrap(), 0, "the refused connection is closed");
    world.close(pairs[1].1);
    world.connect();
}

#[test]
fn two_thousand_sockets_come_and_go_without_a_stale_report() {
    let mut config = small();
    config.sockets_max = 40;
    let mut world = World::new(&config);
    let (mut opened, mut closed) = (0_usize, HashSet::new());
    let mut live: Vec<(TcpStream, SocketId)> = Vec::new();
    let mut closing: HashSet<SocketId> = HashSet::new();
    let deadline = Instant::now() + 3 * DEADLINE;
    while closed.len() < 2_000 {
        assert!(Instant::now() < deadline, "{} closed", closed.len());
        while opened < 2_000 && (world.ring.open_sockets() as usize) < 40 {
            let (mut client, socket) = world.connect();
            assert!(!closed.contains(&socket), "an id came twice");
            opened += 1;
            world.ring.receive(socket);
            client.write_all(&socket.generation.to_be_bytes()).unwrap();
            live.push((client, socket));
        }
        // End some from this side, at whatever stage they are, some from the other.
        for number in 0..live.len().min(7) {
            let (client, socket) = live.swap_remove((opened * 13 + number) % live.len());
            match number % 3 {
                0 => drop(client),
                1 => {
                    linger_zero(&client);
                    drop(client);
                }
                _ => {}
            }
            world.ring.send(socket, scratch(1_000));
            world.ring.close(socket);
            closing.insert(socket);
        }
        world.ring.turn(Wait::Until(Duration::from_millis(1)), &mut world.seen).unwrap();
        for seen in world.seen.drain(..) {
            match seen {
                Completion::Received { socket, bytes } => {
                    assert!(!closing.contains(&socket) && !closed.contains(&socket));
                    assert_eq!(bytes, &socket.generation.to_be_bytes()[..], "another one's bytes");
                }
                Completion::Closed { socket } => {
                    assert!(closing.remove(&socket) && closed.insert(socket));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(world.ring.open_sockets(), 0);
    assert_eq!(world.ring.counters().stale_completions, 0);
    world.turn_for(Duration::from_millis(1));
    assert_eq!(world.ring.leases_out(), 0);
}

#[test]
fn rings_made_and_dropped_on_one_thread_leave_nothing_open() {
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // Other tests open files at the same time; a leak would show as one or more per ring.
    let before = open_files();
    for _ in 0..300 {
        // Small queues, for the kernel gives locked memory back only some time after a close.
        let mut world = World::new(&RingConfig {
            buffer_count: 4,
            submission_entries: 8,
            completion_entries: 16,
            ..small()
        });
        let (client, socket) = world.connect();
        world.ring.receive(socket);
        drop(world);
        drop(client);
    }
    assert!(open_files() < before + 250);
}

#[test]
fn a_dropped_ring_closes_its_sockets_even_when_others_can_wake_it() {
    let mut ring = Ring::new(&small()).unwrap();
    let target = ring.wake_target();
    let (mut client, server) = pair();
    let socket = ring.adopt(server).unwrap();
    ring.receive(socket);
    ring.send(socket, scratch(64 << 20));
    ring.turn(Wait::No, &mut Vec::new()).unwrap();
    let before = Instant::now();
    drop(ring);
    assert!(before.elapsed() < Duration::from_secs(1));
    let mut sink = Vec::new();
    // The end, or a reset: in any case not the read's timeout.
    if let Err(error) = client.read_to_end(&mut sink) {
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    }
    target.waker().wake();
}
