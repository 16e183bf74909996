//! Messages that a queue holds stay readable, and the others are freed.

use proptest::prelude::*;

use super::*;
use crate::id::Instant;
use crate::message::Likeness;

fn message(body: &[u8]) -> Message<'_> {
    Message {
        exchange: b"amq.topic",
        routing_key: b"a.b.c",
        properties: &[0x10, 0, 2],
        body: Body::Inline(body),
        published_at: Instant(42),
        likeness: Likeness::UNKNOWN,
    }
}

fn body_of(store: &Store, id: MessageId) -> Vec<u8> {
    let message = store.message(id);
    assert_eq!(message.exchange, b"amq.topic");
    assert_eq!(message.routing_key, b"a.b.c");
    assert_eq!(message.properties, [0x10, 0, 2]);
    assert_eq!(message.published_at, Instant(42));
    match message.body {
        Body::Inline(bytes) => bytes.to_vec(),
        Body::Pieces(pieces) => pieces.concat(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn keeps_what_is_held_and_frees_the_rest(
        steps in prop::collection::vec((0u8..4, 0usize..700, any::<u16>()), 1..1500),
        run in 1usize..40,
    ) {
        let mut store = Store::default();
        let mut held: Vec<(MessageId, Vec<u8>)> = Vec::new();
        for (step, size, pick) in steps {
            if step > 0 {
                for nth in 0..run as u16 {
                    let fill = pick ^ nth;
                    let body: Vec<u8> = (0..size).map(|at| (at as u16 ^ fill) as u8).collect();
                    held.push((store.put(&message(&body), 1), body));
                }
            } else {
                release_some(&mut store, &mut held, run, usize::from(pick));
            }
            prop_assert_eq!(store.messages(), held.len());
        }
        while !held.is_empty() {
            release_some(&mut store, &mut held, run, run);
        }
        prop_assert_eq!(store.live_bytes(), 0);
    }
}

/// Releases messages from all over the segments: the next one is usually in another segment.
fn release_some(
    store: &mut Store,
    held: &mut Vec<(MessageId, Vec<u8>)>,
    count: usize,
    mut pick: usize,
) {
    let mut run = Vec::new();
    for _ in 0..count.min(held.len()) {
        pick = pick.wrapping_mul(25_173).wrapping_add(13_849);
        run.push(held.swap_remove(pick % held.len()));
    }
    for (id, body) in &run {
        assert_eq!(&body_of(store, *id), body);
    }
    let mut releases = store.releases();
    for (id, _) in run {
        releases.release(id);
    }
}

/// Counting the records freed in one segment may copy the next message of the sequence elsewhere.
#[test]
fn a_run_of_releases_meets_segments_that_are_copied_forward() {
    let mut store = Store::default();
    let body = [7; 400];
    let ids: Vec<_> = (0..50_000).map(|_| store.put(&message(&body), 1)).collect();
    let (ends, middles): (Vec<_>, Vec<_>) =
        ids.into_iter().enumerate().partition(|(index, _)| index % 100 == 0);
    let mut releases = store.releases();
    let (last, first) = middles.split_at(middles.len() / 2);
    for ((_, one), (_, other)) in first.iter().zip(last) {
        assert_eq!((releases.release(*one), releases.release(*other)), (None, None));
    }
    drop(releases);
    for (_, id) in &ends {
        assert_eq!(body_of(&store, *id), body);
    }
    let mut releases = store.releases();
    for (_, id) in ends {
        assert_eq!(releases.release(id), None);
    }
    drop(releases);
    assert_eq!((store.messages(), store.live_bytes()), (0, 0));
}

/// A receive buffer with `count` bodies of `size` bytes in it, number `fill` and on.
fn received(count: u8, size: usize, fill: u8) -> Bytes {
    (0..count).flat_map(|nth| vec![fill + nth; size]).collect()
}

/// Puts all messages of a receive buffer in the store.
fn put_received(store: &mut Store, buffer: &Bytes, size: usize) -> Vec<MessageId> {
    store.begin_received(buffer);
    let bodies = (0..buffer.len() / size).map(|nth| buffer.slice(nth * size..(nth + 1) * size));
    let ids = bodies.map(|body| {
        let pieces = [body];
        store.put(&Message { body: Body::Pieces(&pieces), ..message(&[]) }, 1)
    });
    let ids = ids.collect();
    store.end_received();
    ids
}

#[test]
fn a_body_stays_in_its_receive_buffer_until_that_is_wanted() {
    let (mut store, size) = (Store::default(), 1_000);
    store.limit_received(2);
    let mut ids = Vec::new();
    for fill in 0..40 {
        let buffer = received(5, size, fill);
        ids.extend((fill..).zip(put_received(&mut store, &buffer, size)));
        if fill == 16 {
            // The first buffer still lists two of these when it is emptied. Their numbers are then
            // vacant: the bodies that come before take the numbers of the other five.
            let gone: Vec<_> = ids.drain(25..30).collect();
            for (_, id) in ids.drain(..2).chain(gone) {
                store.release(id);
            }
        }
    }
    // Every sixteenth refused buffer makes room for one: the bodies of 18 and 35 stay uncopied.
    assert_eq!(store.copied_body_bytes(), 38 * 5_000 - 2_000);
    assert_eq!(store.live_bytes() - store.live_bytes, 40 * 5_000 - 7_000);
    for (fill, id) in &ids {
        assert_eq!(body_of(&store, *id), vec![*fill; size]);
    }
    for (_, id) in ids {
        store.release(id);
    }
    assert_eq!((store.messages(), store.live_bytes()), (0, 0));
    put_received(&mut store, &received(5, size, 0), size);
    assert_eq!(store.copied_body_bytes(), 38 * 5_000 - 2_000);
}

#[test]
fn stragglers_do_not_pin_segments() {
    let mut store = Store::default();
    let body = [7; 400];
    let ids: Vec<_> = (0..50_000).map(|_| store.put(&message(&body), 1)).collect();
    let full = store.segment_bytes();
    let (kept, dropped): (Vec<_>, Vec<_>) =
        ids.into_iter().enumerate().partition(|(index, _)| index % 500 == 0);
    for (_, id) in dropped {
        store.release(id);
    }
    let used = store.segments.len() - store.unused.len();
    assert!(used <= EVACUATION_FLOOR_SEGMENTS + 1, "{used} segments of {full} bytes");
    for (_, id) in kept {
        assert_eq!(body_of(&store, id), body);
    }
}

#[test]
fn a_message_lives_until_its_last_reference() {
    let mut store = Store::default();
    let large = vec![3; 200_000];
    let id = store.put(&message(&large), 2);
    store.release(id);
    assert_eq!(body_of(&store, id), large);
    store.release(id);
    assert_eq!((store.messages(), store.live_bytes()), (0, 0));
}

#[test]
fn an_emptied_segment_is_started_over() {
    let mut store = Store::default();
    for _ in 0..100_000 {
        let id = store.put(&message(&[1; 300]), 1);
        store.release(id);
    }
    assert_eq!(store.segment_bytes(), slabs::SLAB_BYTES);
    assert_eq!(store.segments.len(), 1);
}

fn place(number: u32) -> log::Place {
    log::Place { segment: 1 + number / 100, offset: 4096 + 8 * (number % 100), length: 80 }
}

#[test]
fn a_logged_message_gives_up_its_memory_and_takes_it_again() {
    let mut store = Store::default();
    for size in [10, 400, 5_000, 300_000] {
        let body: Vec<u8> = (0..size).map(|at| at as u8).collect();
        let id = store.put(&message(&body), 2);
        assert_eq!(store.log_place(id), None);
        store.logged(id, place(size));
        store.evict(id);
        assert!(!store.is_resident(id) && !store.is_lost(id));
        assert_eq!((store.live_bytes(), store.messages(), store.absent_messages()), (0, 1, 1));
        store.load(id, &message(&body));
        assert_eq!(body_of(&store, id), body);
        assert_eq!(store.release(id), None);
        assert_eq!(store.release(id), Some(place(size)));
        assert_eq!((store.live_bytes(), store.messages(), store.absent_messages()), (0, 0, 0));
    }
}

#[test]
fn what_was_recovered_has_a_place_and_no_memory() {
    let mut store = Store::default();
    let resident = store.put(&message(b"resident"), 1);
    let ids: Vec<_> = (0..1_000).map(|number| store.recovered(place(number), 1)).collect();
    assert_eq!(store.absent_messages(), 1_000);
    let found: Vec<_> = store.logged_in(3, 0, usize::MAX >> 1).unwrap().collect();
    let expected: Vec<_> = (200..300).map(|number| (place(number), ids[number as usize])).collect();
    assert_eq!(found, expected);
    assert!(store.logged_in(3, 1_001, 10).is_none());
    store.moved(ids[7], place(5_000));
    for (number, id) in ids.into_iter().enumerate() {
        let expected = place(if number == 7 { 5_000 } else { number as u32 });
        assert_eq!(store.release(id), Some(expected));
    }
    assert_eq!(store.release(resident), None);
    assert_eq!(store.put(&message(b"new"), 1), resident);
    assert_eq!(store.log_place(resident), None);
}

#[test]
fn over_budget_what_was_read_for_one_queue_is_not_kept_for_another() {
    let mut store = Store::default();
    for (budget, kept) in [(1 << 20, true), (10, false)] {
        store.set_budget(budget);
        let id = store.put(&message(b"some body"), 3);
        store.logged(id, place(1));
        assert_eq!(store.release(id), None);
        // Its record may not be durable yet.
        assert!(store.is_resident(id));
        store.evict(id);
        store.load(id, &message(b"some body"));
        assert_eq!(store.release(id), None);
        assert_eq!(store.is_resident(id), kept);
        assert_eq!(store.release(id), Some(place(1)));
    }
}

#[test]
fn eviction_from_the_middle_leaves_no_memory_behind() {
    let mut store = Store::default();
    let ids: Vec<_> = (0..50_000).map(|_| store.put(&message(&[7; 400]), 1)).collect();
    for (number, id) in ids.iter().enumerate().filter(|(number, _)| number % 500 != 0) {
        store.logged(*id, place(number as u32));
        store.evict(*id);
    }
    let used = store.segments.len() - store.unused.len();
    assert!(used <= EVACUATION_FLOOR_SEGMENTS + 1, "{used} segments");
    for id in ids.iter().step_by(500) {
        assert_eq!(body_of(&store, *id), [7; 400]);
    }
    assert_eq!(size_of::<Slot>() + size_of::<log::Place>(), 20);
}
