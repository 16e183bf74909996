//! Every way in which a disk can change what it was given: never a panic, never a message that was
//! not published, never silence about what was durable.

use super::tests::{Files, Model, STORE, Step, World, contents, recover};
use super::*;

/// Set to test every bit: `LEVERET_ROT=1 cargo test --release -p leveret-broker rot_tests`.
const EVERY_BIT: Option<&str> = option_env!("LEVERET_ROT");

/// Bits between two that are flipped otherwise: prime, so that all bits of bytes have their turn.
const STRIDE: usize = 211;

/// A store of four segments whose last batch is nothing but a barrier.
fn store() -> (Files, Model) {
    let mut world = World::new();
    for number in 0..60 {
        world.step(&Step::Publish { queues: 2 << (number % 3), size: number * 13 });
        if number % 3 == 0 {
            world.step(&Step::Settle(number));
            world.step(&Step::Flush);
        }
        if number == 40 {
            world.step(&Step::Copy);
        }
    }
    world.flush();
    (world.disk.files, world.model)
}

fn assert_no_phantom(files: &Files, found: &RecoveredLog, ever: &Model, what: &str) {
    for (key, body) in contents(files, found) {
        assert_eq!(ever.get(&key), Some(&body), "{what}: {key:?}");
    }
}

/// Everything that is not as it was is told: what is missing, and what came back.
fn assert_told(files: &Files, sound: &Files, model: &Model, what: &str) {
    let Ok(found) = recover(files, 1 << 16) else { return };
    let silent = found.damage.is_empty() && found.torn.is_empty();
    let held = contents(files, &found);
    assert!(!silent || held == *model, "{what}: silent loss");
    let all = everything(sound);
    for (key, body) in &held {
        assert_eq!(all.get(key), Some(body), "{what}: phantom {key:?}");
    }
}

/// Every message of which a publish record exists.
fn everything(files: &Files) -> Model {
    let mut all = Model::new();
    for (number, file) in files {
        let mut reader = SegmentReader::new(*number, file.len() as u64);
        let mut take = |item: Item<'_>| {
            if let Item::Record { record: Record::Publish(publish), .. } = item {
                let crate::message::Body::Inline(body) = publish.body else { panic!() };
                for queue in publish.queues.iter().filter(is_lasting) {
                    all.insert((queue.log_id, queue.sequence), body.to_vec());
                }
            }
        };
        reader.feed(file, &mut take);
        reader.end(&mut take);
    }
    all
}

#[test]
fn every_flipped_bit_is_harmless_or_told() {
    let (files, model) = store();
    let found = recover(&files, 1 << 16).unwrap();
    let ever = everything(&files);
    let stride = if EVERY_BIT.is_some() { 1 } else { STRIDE };
    let mut flipped = 0;
    for (number, segment) in &found.segments {
        // Behind the end there is nothing of the log.
        for bit in (0..segment.end as usize * 8).step_by(stride) {
            let mut rotten = files.clone();
            rotten.get_mut(number).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let what = format!("segment {number}, bit {bit}");
            let found = recover(&rotten, 1 << 16).unwrap();
            assert!(!found.damage.is_empty() || !found.torn.is_empty(), "{what}: silence");
            assert_no_phantom(&rotten, &found, &ever, &what);
            // One record is lost at most, besides what a lost settlement brings back.
            let held = contents(&rotten, &found);
            let lost = model.keys().filter(|key| !held.contains_key(key)).count();
            assert!(lost <= 1, "{what}: {lost} lost, {:?} {:?}", found.damage, found.torn);
            flipped += 1;
        }
    }
    assert!(flipped > 1_000 && found.segments.len() >= 3, "{flipped}");
}

#[test]
fn a_file_cut_off_anywhere_is_told() {
    let (files, _) = store();
    let (sound, ever) = (recover(&files, 1 << 16).unwrap(), everything(&files));
    for number in sound.segments.keys() {
        let length = files[number].len();
        for cut in (1..length).step_by(if EVERY_BIT.is_some() { 1 } else { 37 }) {
            let mut short = files.clone();
            short.get_mut(number).unwrap().truncate(cut);
            let found = recover(&short, 1 << 16).unwrap();
            assert!(!found.damage.is_empty(), "segment {number} cut at {cut}");
            assert_no_phantom(&short, &found, &ever, &format!("segment {number} cut at {cut}"));
        }
    }
}

#[test]
fn blocks_in_wrong_places_and_lost_blocks_are_told() {
    let (files, model) = store();
    let found = recover(&files, 1 << 16).unwrap();
    let places: Vec<(u32, usize)> = found
        .segments
        .iter()
        .flat_map(|(number, segment)| {
            let blocks = (segment.end as usize).div_ceil(BLOCK_BYTES);
            (0..blocks).map(move |block| (*number, block * BLOCK_BYTES))
        })
        .collect();
    // The last two batches: nothing says that the barrier, all of the last one, was durable.
    let sure = places.len() - 1;
    for (index, (number, at)) in places[..sure].iter().enumerate() {
        for filling in [0, 0xFF] {
            let mut rotten = files.clone();
            rotten.get_mut(number).unwrap()[*at..at + BLOCK_BYTES].fill(filling);
            assert_told(&rotten, &files, &model, &format!("{number}:{at} filled"));
        }
        for (other, other_at) in &places[index + 1..sure] {
            let mut rotten = files.clone();
            let one = files[number][*at..at + BLOCK_BYTES].to_vec();
            let two = files[other][*other_at..other_at + BLOCK_BYTES].to_vec();
            rotten.get_mut(number).unwrap()[*at..at + BLOCK_BYTES].copy_from_slice(&two);
            rotten.get_mut(other).unwrap()[*other_at..other_at + BLOCK_BYTES].copy_from_slice(&one);
            assert_told(&rotten, &files, &model, &format!("{number}:{at} <> {other}:{other_at}"));
        }
    }
}

#[test]
fn files_that_do_not_belong_are_refused_or_unused() {
    let (files, model) = store();
    let first = files.values().next().unwrap();
    for foreign in [vec![0; 16 << 10], vec![0xA5; 16 << 10], first.clone()] {
        let mut more = files.clone();
        more.insert(900, foreign);
        let found = recover(&more, 1 << 16).unwrap();
        assert_eq!(contents(&more, &found), model);
        assert!(found.unused.iter().any(|(number, _)| *number == 900));
    }
    let mut more = files.clone();
    more.insert(900, Vec::new());
    let found = recover(&more, 1 << 16).unwrap();
    assert_eq!(contents(&more, &found), model);
    assert_eq!(found.damage.len(), 1, "a file is named when it has its length");
    let read = |store, shard| {
        let mut recovery = Recovery::new(store, shard);
        recovery.begin(1, first.len() as u64);
        recovery.feed(first)
    };
    assert_eq!(read(Some([8; 16]), 3), Err(Refusal::ForeignStore { segment: 1 }));
    assert_eq!(read(Some(STORE), 4), Err(Refusal::OtherShard { segment: 1, shard: 3 }));
    let mut newer = first.clone();
    newer[8] = 2;
    newer[12..16].fill(0);
    let sum = crc32c::crc32c(&newer[..BLOCK_BYTES]);
    newer[12..16].copy_from_slice(&sum.to_le_bytes());
    let mut recovery = Recovery::new(None, 3);
    recovery.begin(1, newer.len() as u64);
    assert_eq!(recovery.feed(&newer), Err(Refusal::Format { segment: 1, major: 2 }));
}
