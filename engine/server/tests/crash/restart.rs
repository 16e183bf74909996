//! Single messages over single restarts: what the tutorials promise, and what `redelivered` says.

use std::time::{Duration, Instant};

use crate::history::Ack;
use crate::home::Home;
use crate::ledger::Ledger;
use crate::wire::{Message, PATIENCE, Received, Wire};

const QUEUE: &str = "task_queue";

/// Bounds a hang of a stop.
const STOP_PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn the_tutorials_second_lesson() {
    for repetition in 0..20 {
        let home = Home::new("");
        let mut broker = home.start(1 + repetition % 3);
        let mut ledger = Ledger::new(QUEUE);
        let mut sender = home.connect();
        ledger.begin(&mut sender).unwrap();
        ledger.publish(&mut sender, 12);
        ledger.settle(&mut sender, 0).unwrap();
        broker.kill();
        assert_eq!(ledger.confirmed(), 1);
        ledger.next_incarnation();

        let _broker = home.start(1 + repetition % 3);
        let mut worker = home.connect();
        assert_eq!(worker.declare_queue(QUEUE, true), Ok(1), "repetition {repetition}");
        worker.prefetch(1).unwrap();
        worker.consume(QUEUE).unwrap();
        let message = next_message(&mut worker);
        // Deliveries are not logged, so after a crash each might be a second one.
        assert!(message.redelivered);
        worker.ack(message.tag, false);
        ledger.note(&message, Ack::Sent);
        let report = ledger.drain(&mut worker);
        assert!(report.violations.is_empty(), "repetition {repetition}: {report}");
    }
}

#[test]
fn stops_in_order_keep_everything_and_tell_first_deliveries_apart() {
    for (shards, signal) in [(1, "TERM"), (2, "INT")] {
        let home = Home::new("");
        let mut broker = home.start(shards);
        let mut wire = home.connect();
        let mut ledger = Ledger::new(QUEUE);
        ledger.begin(&mut wire).unwrap();
        for size in 0..30 {
            ledger.publish(&mut wire, 100 * size);
        }
        ledger.settle(&mut wire, 0).unwrap();
        wire.prefetch(10).unwrap();
        wire.consume(QUEUE).unwrap();
        let seen: Vec<Message> = (0..10).map(|_| next_message(&mut wire)).collect();
        assert!(seen.iter().all(|message| !message.redelivered));
        for message in &seen {
            ledger.note(message, Ack::None);
        }
        // Three are settled, so three more come.
        wire.ack(seen[1].tag, true);
        wire.ack(seen[5].tag, false);
        let more: Vec<Message> = (0..3).map(|_| next_message(&mut wire)).collect();
        for message in &more {
            ledger.note(message, Ack::None);
        }
        stop(&home, &mut broker, signal, wire);
        ledger.next_incarnation();

        let mut broker = home.start(shards);
        let mut wire = home.connect();
        let all = get_all(&mut wire);
        let serials: Vec<u32> = all.iter().map(|message| message.id.serial()).collect();
        let held: Vec<u32> = (0..30).filter(|serial| ![0, 1, 5].contains(serial)).collect();
        assert_eq!(serials, held, "all that was not acknowledged, in order");
        for message in &all {
            let serial = message.id.serial();
            assert_eq!(message.redelivered, serial < 13, "message {serial}");
            ledger.note(message, Ack::None);
        }
        stop(&home, &mut broker, signal, wire);
        ledger.next_incarnation();

        let _broker = home.start(shards);
        let mut wire = home.connect();
        let all = get_all(&mut wire);
        assert_eq!(all.len(), held.len());
        assert!(all.iter().all(|message| message.redelivered), "all were given out by now");
    }
}

#[test]
fn after_a_crash_every_message_may_be_a_second_one() {
    let home = Home::new("");
    let mut broker = home.start(2);
    let mut wire = home.connect();
    let mut ledger = Ledger::new(QUEUE);
    ledger.begin(&mut wire).unwrap();
    (0..20).for_each(|_| ledger.publish(&mut wire, 1_000));
    ledger.settle(&mut wire, 0).unwrap();
    broker.kill();
    ledger.next_incarnation();
    let _broker = home.start(1);
    let mut wire = home.connect();
    let all = get_all(&mut wire);
    assert!(all.len() == 20 && all.iter().all(|message| message.redelivered), "{all:?}");
}

#[test]
fn a_stop_waits_for_a_disk_that_stands_still() {
    const STALL: Duration = Duration::from_secs(7);
    let home = Home::new("");
    let stall = format!("{}@2", STALL.as_millis());
    let mut broker = home.start_with(1, &[("LEVERET_SLOW_DISK", stall)]);
    let mut wire = home.connect();
    let mut ledger = Ledger::new(QUEUE);
    ledger.begin(&mut wire).unwrap();
    (0..20).for_each(|_| ledger.publish(&mut wire, 1_000));
    wire.consume(QUEUE).unwrap();
    let seen: Vec<Message> = (0..20).map(|_| next_message(&mut wire)).collect();
    // The second commit, perhaps a barrier, is in the way of this.
    wire.ack(seen[14].tag, true);
    // What answers behind the ack has read it: from now on the broker knows.
    assert_eq!(wire.declare_queue(QUEUE, true), Ok(0));
    let asked = Instant::now();
    stop(&home, &mut broker, "TERM", wire);
    assert!(asked.elapsed() > STALL / 2, "the disk did not stand still");
    let _broker = home.start(1);
    let serials: Vec<u32> =
        get_all(&mut home.connect()).iter().map(|message| message.id.serial()).collect();
    assert_eq!(serials, (15..20).collect::<Vec<u32>>(), "what was acknowledged is not there");
}

fn stop(home: &Home, broker: &mut crate::process::Broker, signal: &str, mut wire: Wire) {
    broker.signal(signal);
    // The close is read and answered, else the broker waits for it.
    while wire.poll_until(Instant::now() + PATIENCE).is_ok() {}
    let status = broker.wait(STOP_PATIENCE);
    assert_eq!(status.code(), Some(0), "{}: {}", home.address, broker.drain_stderr());
}

fn next_message(wire: &mut Wire) -> Message {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match wire.poll_until(deadline).expect("the broker lives") {
            Some(Received::Message(message)) => return message,
            Some(_) => {}
            None => panic!("no delivery for {PATIENCE:?}"),
        }
    }
}

/// Everything ready in the queue; nothing is acknowledged.
fn get_all(wire: &mut Wire) -> Vec<Message> {
    std::iter::from_fn(|| wire.get(QUEUE).expect("the queue is there")).collect()
}
