//! Queues that do not fit memory, against a model and a disk that takes its time.

mod bench;

use super::*;
use crate::id::ShardId;
use crate::queue::terms::Settlement;
use crate::storage::log::QueueRef;

use bench::{BUDGET_BYTES, Bench, SEGMENT_BYTES};

/// Files beside twice what is held: 4 of garbage are not worth copying for, 2 are ready and 1 is
/// being made ready, 4 are free, and copies are durable before what they replace goes.
const SPARE_SEGMENTS: u64 = 12;

/// The same while the disk lags behind: all of a test's writes may be under way.
const BUSY_SEGMENTS: u64 = 40;

#[test]
fn a_deep_queue_goes_to_disk_and_comes_back_in_order() {
    for persistent in [true, false] {
        let mut bench = Bench::new(1);
        bench.add_queue(0, persistent);
        for number in 0..20_000 {
            bench.publish(&[0], 200 + number % 300, persistent);
            bench.run_disk_a_little();
        }
        bench.run_disk();
        bench.check_memory();
        let absent = bench.home.shared.store.absent_messages();
        assert!(absent > 15_000, "{absent} of 20,000 on disk only");
        bench.consume(0, 1, 0, true);
        bench.run_disk();
        assert_eq!(bench.delivered(), 20_000);
        bench.expect_empty();
    }
}

/// What is in memory has a place in the queue, a slot, a place in the log and one in the list of
/// numbers to be used again, each in a table that may be twice as long as it is full.
const RESIDENT_INDEX_BYTES: usize = 2 * (4 + 8 + 12 + 4);

#[test]
fn a_message_on_disk_only_costs_8_bytes() {
    // A queue of durable messages, one of transient ones, and two side by side.
    for slots in [&[0][..], &[1], &[0, 1]] {
        let mut bench = Bench::new(13);
        bench.add_queue(0, true);
        bench.add_queue(1, false);
        let mut resident = 0;
        for number in 0..60_000 {
            bench.publish(&[slots[number % slots.len()]], 100, true);
            if number % 64 == 0 {
                bench.run_disk_a_little();
            }
            let store = &bench.home.shared.store;
            resident = resident.max(store.messages() - store.absent_messages());
        }
        bench.run_disk();
        let absent = bench.home.shared.store.absent_messages();
        assert!(absent > 50_000, "{absent} of 60,000 on disk only");
        let queues = bench.home.queues.iter().flatten();
        let queues = queues.map(|queue| queue.kind.pageable().memory_bytes());
        let bytes = bench.home.shared.store.index_bytes() + queues.sum::<usize>();
        let most = 8 * absent + RESIDENT_INDEX_BYTES * resident;
        assert!(bytes <= most, "{bytes} bytes for {absent} messages, {resident} in memory");
        bench.wind_up();
        bench.expect_empty();
        assert_eq!(bench.delivered(), 60_000);
    }
}

#[test]
fn reading_ahead_keeps_a_slow_consumer_busy() {
    let mut bench = Bench::new(2);
    bench.add_queue(0, true);
    for number in 0..20_000 {
        bench.publish(&[0], 200 + number % 300, true);
        bench.run_disk_a_little();
    }
    bench.run_disk();
    bench.consume(0, 1, 20, false);
    bench.run_disk();
    let mut waited = 0;
    while bench.model_ready(0) > 0 {
        let before = bench.delivered();
        bench.ack_one(0);
        // The next message is there although the disk has done nothing since.
        waited += u32::from(bench.delivered() == before);
        bench.run_disk();
    }
    assert!(waited < 10, "{waited} times");
    bench.ack_all();
    // Up to the last removal of a file.
    bench.run_disk();
    bench.expect_empty();
}

#[test]
fn random_traffic_is_delivered_once_in_order_from_a_bounded_disk() {
    let (mut reads, mut copies, mut redelivered) = (0, 0, 0);
    for seed in 1..=25 {
        let mut bench = Bench::new(seed);
        for slot in 0..5 {
            bench.add_queue(slot, u32::is_multiple_of(slot, 2));
        }
        for _ in 0..4_000 {
            bench.random_step();
            bench.check_disk(BUSY_SEGMENTS);
        }
        bench.run_disk();
        bench.check_memory();
        bench.check_disk(SPARE_SEGMENTS);
        bench.wind_up();
        bench.expect_empty();
        assert_eq!(bench.home.shared.counts.damaged, 0, "seed {seed}");
        let counts = bench.home.shared.log.as_ref().unwrap().counts();
        (reads, copies) = (reads + counts.reads, copies + counts.copies);
        redelivered += bench.home.shared.counts.redelivered;
    }
    assert!(
        reads > 1_000 && copies > 1_000 && redelivered > 1_000,
        "{reads} {copies} {redelivered}"
    );
}

#[test]
fn a_stuck_queue_does_not_hold_the_disk() {
    let mut bench = Bench::new(3);
    bench.add_queue(0, true);
    bench.add_queue(1, true);
    for number in 0..100_000_u32 {
        // One message in each segment is kept for ever.
        let stuck = number % 60 == 0 && number < 60_000;
        if stuck {
            bench.publish(&[0], 1_000, true);
        } else {
            bench.pass(1, 1_000);
        }
        if number % 16 == 0 {
            bench.run_disk();
            bench.check_disk(SPARE_SEGMENTS);
        }
    }
    assert_eq!(bench.model_ready(0), 1_000);
    assert!(bench.home.shared.log.as_ref().unwrap().counts().copies > 1_000);
    bench.check_memory();
    bench.consume(0, 1, 0, true);
    bench.run_disk();
    bench.expect_empty();
}

#[test]
fn a_get_waits_for_the_disk_and_ends_with_its_queue() {
    let mut bench = Bench::new(4);
    for slot in 0..3 {
        bench.add_queue(slot, true);
        bench.recover(slot as usize, 100);
    }
    for (slot, end) in [(0, "read"), (1, "purged"), (2, "deleted")] {
        bench.get(slot, false);
        assert_eq!(bench.gets_waiting(), 1);
        match end {
            "purged" => bench.purge(slot),
            "deleted" => bench.delete(slot),
            _ => bench.run_disk(),
        }
        assert_eq!(bench.gets_waiting(), 0, "{end}");
        bench.run_disk();
    }
    assert_eq!((bench.gone, bench.empty), (1, 1));
    bench.get(0, false);
    bench.leave();
    bench.run_disk();
    assert_eq!(bench.home.queues[0].as_ref().unwrap().kind.unacked_count(), 0);
    bench.wind_up();
    bench.expect_empty();
}

#[test]
fn consumers_take_turns_by_priority_whether_messages_are_read_or_not() {
    let mut bench = Bench::new(5);
    bench.add_queue(0, true);
    bench.recover(0, 100);
    bench.consume_at(0, 1, 5, false, 1);
    bench.consume_at(0, 2, 3, false, 9);
    bench.run_disk();
    assert_eq!(bench.held_by(1), 5);
    assert_eq!(bench.held_by(2), 3);
    bench.leave();
    bench.wind_up();
    bench.expect_empty();
}

#[test]
fn a_rotten_record_costs_its_message_only() {
    let mut bench = Bench::new(6);
    bench.add_queue(0, true);
    let places = bench.recover(0, 1_000);
    for number in [3, 500, 501] {
        bench.rot(places[number]);
        bench.forget(0, number as u64);
    }
    bench.consume(0, 1, 0, true);
    bench.run_disk();
    assert_eq!(bench.delivered(), 997);
    assert_eq!(bench.home.shared.counts.damaged, 3);
    let found: Vec<_> = bench.home.shared.damage.iter().map(|damage| damage.place).collect();
    assert_eq!(found, [places[3], places[500], places[501]]);
    assert!(
        bench.home.shared.damage.iter().all(|damage| !damage.is_rescued && damage.error.is_none())
    );
    bench.expect_empty();
    let files: BTreeSet<_> = found.iter().map(|place| place.segment).collect();
    assert_eq!(bench.quarantine, files);
}

#[test]
fn a_read_that_fails_once_costs_nothing() {
    let mut bench = Bench::new(7);
    bench.add_queue(0, true);
    bench.recover(0, 3_000);
    bench.fail_reads = 1;
    bench.consume(0, 1, 0, true);
    bench.run_disk();
    assert_eq!((bench.delivered(), bench.home.shared.counts.damaged), (3_000, 0));
    bench.expect_empty();
}

#[test]
fn what_cannot_be_read_stays_on_the_disk_and_the_rest_goes_on() {
    let mut bench = Bench::new(7);
    bench.add_queue(0, true);
    let places = bench.recover(0, 3_000);
    bench.unreadable = Some(places[0].segment);
    bench.lossy = true;
    bench.consume(0, 1, 0, true);
    bench.run_disk();
    let there = places.iter().filter(|place| place.segment == places[0].segment).count() as u64;
    assert_eq!((bench.delivered(), bench.home.shared.counts.damaged), (3_000 - there, there));
    assert!(
        bench.home.shared.damage.len() <= DAMAGE_MAX && bench.home.shared.damage[0].error.is_some()
    );
    assert!(bench.files.contains_key(&places[0].segment) && bench.quarantine.is_empty());
}

#[test]
fn a_rotten_segment_is_emptied_into_quarantine() {
    let mut bench = Bench::new(8);
    bench.add_queue(0, true);
    bench.add_queue(1, true);
    bench.publish(&[0], 500, true);
    bench.publish(&[0], 500, true);
    bench.run_disk();
    let [first, second] = [0, 1].map(|position| {
        let id = bench.known(0, position);
        (id, bench.home.shared.store.log_place(id).unwrap())
    });
    // One of them is in memory too, and nothing but its place on disk is lost.
    bench.home.shared.store.evict(first.0);
    bench.rot(first.1);
    bench.rot(second.1);
    bench.forget(0, 0);
    bench.add_queue(2, true);
    bench.traffic(20, 1, 2);
    assert_eq!(bench.home.shared.counts.damaged, 1);
    let rescued: Vec<_> = bench.home.shared.damage.iter().map(|damage| damage.is_rescued).collect();
    assert_eq!(rescued, [false, true]);
    assert!(bench.quarantine.contains(&first.1.segment));
    bench.home.shared.store.evict(second.0);
    bench.consume(2, 1, 0, true);
    bench.consume(0, 1, 0, true);
    bench.run_disk();
    bench.expect_empty();
}

#[test]
fn a_segment_used_again_under_a_read_is_no_damage() {
    let mut bench = Bench::new(9);
    bench.add_queue(0, true);
    bench.add_queue(1, true);
    let places = bench.recover(0, 50);
    bench.get(0, false);
    let read = bench.take_read();
    bench.purge(0);
    for _ in 0..10 * SEGMENT_BYTES / 1_000 {
        bench.pass(1, 1_000);
        bench.run_disk();
    }
    assert!(!bench.files.contains_key(&places[0].segment));
    // Messages that have the numbers of those that the read was for, and are on disk only too.
    bench.add_queue(2, true);
    bench.recover(2, 100);
    bench.give_back(read);
    bench.run_disk();
    assert_eq!(bench.home.shared.counts.damaged, 0);
    assert!(bench.home.shared.damage.is_empty());
    bench.consume(2, 1, 0, true);
    bench.run_disk();
    bench.expect_empty();
}

#[test]
fn unacknowledged_messages_leave_memory_and_return() {
    let mut bench = Bench::new(10);
    bench.add_queue(0, true);
    for _ in 0..5_000 {
        bench.publish(&[0], 400, true);
        bench.run_disk_a_little();
    }
    bench.run_disk();
    bench.consume(0, 1, 0, false);
    bench.run_disk();
    assert_eq!(bench.held_by(1), 5_000);
    bench.check_memory();
    bench.leave();
    bench.consume(0, 2, 0, true);
    bench.run_disk();
    assert_eq!(bench.delivered(), 10_000);
    assert_eq!(bench.home.shared.counts.redelivered, 5_000);
    bench.expect_empty();
}

#[test]
fn a_copy_leaves_out_the_queues_that_are_done() {
    let mut bench = Bench::new(11);
    for slot in 0..3 {
        bench.add_queue(slot, slot != 1);
    }
    bench.publish(&[0, 1, 2], 500, true);
    bench.consume(0, 1, 0, false);
    bench.run_disk();
    let id = bench.known(2, 0);
    let before = bench.home.shared.store.log_place(id).unwrap();
    bench.purge(1);
    bench.add_queue(3, true);
    bench.add_queue(4, true);
    bench.traffic(20, 3, 4);
    let place = bench.home.shared.store.log_place(id).unwrap();
    assert_ne!(place, before);
    let expected =
        [0, 2].map(|slot| bench.home.queues[slot].as_ref().unwrap().meta.log_id.unwrap());
    assert!(bench.refs_at(place).iter().map(|held| held.log_id).eq(expected));
    bench.settle_one(0, Settlement::Ack);
    bench.purge(2);
    bench.purge(4);
    bench.run_disk();
    bench.expect_empty();
}

#[test]
fn the_log_knows_the_place_in_the_queue_of_each_message_of_a_run() {
    let mut bench = Bench::new(12);
    bench.add_queue(0, true);
    // They take turns until the first has ten.
    bench.consume(0, 1, 10, false);
    bench.consume(0, 2, 0, false);
    bench.publish(&[0], 100, true);
    for count in [30, 1, 600] {
        bench.publish_run(&[0], 100, count, true);
        bench.ack_one(0);
        bench.run_disk();
    }
    let given_out = bench.given_out(0);
    assert_eq!(given_out.len(), 629);
    let log_id = bench.home.queues[0].as_ref().unwrap().log_id.unwrap();
    for (position, known) in given_out {
        assert_eq!(known, QueueRef { log_id, sequence: position });
    }
    bench.ack_all();
    bench.run_disk();
    bench.expect_empty();
}

#[test]
fn numbers_of_process_queues_tell_generations_apart() {
    let mut bench = Bench::new(12);
    bench.add_queue(3, false);
    let meta = std::sync::Arc::clone(&bench.home.queues[3].as_ref().unwrap().meta);
    assert_eq!(meta.home, ShardId(0));
    assert!(bench.home.queue_of(process_queue(meta.id)).is_some());
    let other = QueueId { generation: meta.id.generation + 1, ..meta.id };
    assert!(bench.home.queue_of(process_queue(other)).is_none());
    assert!(bench.home.queue_of(process_queue(QueueId { slot: u32::MAX, ..other })).is_none());
    const { assert!(BUDGET_BYTES < HEAD_BYTES) };
}
