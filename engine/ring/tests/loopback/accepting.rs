//! Listeners: many clients, an end, and being woken.

use std::collections::HashSet;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use leveret_ring::{Completion, RingError, Wait};

use crate::world::{DEADLINE, World, listener};

#[test]
fn every_client_is_accepted_once_and_can_be_adopted() {
    let mut world = World::small();
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let id = world.ring.listen(listener).unwrap();
    let clients = thread::spawn(move || {
        (0..200).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>()
    });
    let mut peers = HashSet::new();
    for _ in 0..200 {
        let accepted = world.until(|seen| matches!(seen, Completion::Accepted { .. }));
        let Completion::Accepted { listener, stream } = accepted else { unreachable!() };
        assert_eq!(listener, id);
        peers.insert(stream.peer_addr().unwrap());
        assert!(stream.nodelay().unwrap(), "`adopt_accepted` does not set it");
        world.ring.adopt_accepted(stream).unwrap();
    }
    let clients = clients.join().unwrap();
    let expected: HashSet<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    assert_eq!(peers, expected);
    assert_eq!(world.ring.open_sockets(), 200);
}

#[test]
fn a_stopped_listener_refuses_and_its_place_is_free_again() {
    let mut world = World::small();
    for _ in 0..100 {
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let id = world.ring.listen(listener).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        world.until(|seen| matches!(seen, Completion::Accepted { .. }));
        world.ring.stop_listening(id);
        world.ring.stop_listening(id);
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(address).is_ok() {
            assert!(Instant::now() < deadline, "still listening");
            world.turn_for(Duration::from_micros(100));
        }
    }
    assert!(world.seen.is_empty(), "{:?}", world.seen);
}

#[test]
fn listeners_have_a_limit() {
    let mut world = World::small();
    for _ in 0..64 {
        world.ring.listen(listener()).unwrap();
    }
    let error = world.ring.listen(listener()).unwrap_err();
    assert!(matches!(error, RingError::ListenersExhausted { listeners_max: 64 }));
}

#[test]
fn a_thread_without_a_ring_wakes_one_that_sleeps() {
    let mut world = World::small();
    for _ in 0..50 {
        let waker = world.ring.wake_target().waker();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_micros(300));
            waker.wake();
        });
        world.until(|seen| matches!(seen, Completion::Woken));
        thread.join().unwrap();
    }
    assert_eq!(world.ring.counters().wakes_received, 50);
}

#[test]
fn a_turn_without_anything_to_do_makes_no_system_call() {
    let mut world = World::small();
    world.turn_for(Duration::from_millis(1));
    let before = world.ring.counters().enters;
    for _ in 0..1_000 {
        world.ring.turn(Wait::No, &mut world.seen).unwrap();
        world.ring.turn(Wait::Until(Duration::ZERO), &mut world.seen).unwrap();
    }
    assert_eq!(world.ring.counters().enters, before);
    let start = Instant::now();
    world.ring.turn(Wait::Until(Duration::from_millis(20)), &mut world.seen).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20), "a turn waits as long as it is told");
    assert_eq!(world.ring.counters().enters, before + 1);
}
