//! Logs of another minor format: one that 1.0 wrote, and what newer ones may write.

use super::super::blocks::Blocks;
use super::super::record::{self, Arrival, Stamp};
use super::tests::{AT, Disk, Files, SHARD, STORE, Step, World, contents, record_at, recover};
use super::*;

/// What the version before 1.1 wrote: by segment, the rows of 32 bytes that are not all zeros, each
/// with its offset. The last file is a recycled one that was not begun under its new number.
const FORMAT_1_0: &str = include_str!("format_1_0.hex");

const SEGMENT_BYTES: usize = 16 << 10;

/// What is noted of the messages of [`World`], which came 1 ns before they were written.
const CAME: Arrival = Arrival { at: WallTime(AT.wall.0 - 1), priority: 0 };

/// What it holds: log id, sequence, and how long the body is.
const HELD: [(LogId, u64, usize); 8] =
    [(1, 1, 43), (1, 2, 56), (1, 4, 82), (2, 0, 43), (2, 1, 82), (2, 2, 90), (3, 0, 56), (3, 1, 0)];

fn written_by_1_0() -> Files {
    let mut files = Files::new();
    for row in FORMAT_1_0.lines() {
        let (first, second) = row.split_once(' ').unwrap();
        if first == "segment" {
            files.insert(second.parse().unwrap(), vec![0; SEGMENT_BYTES]);
            continue;
        }
        let at = usize::from_str_radix(first, 16).unwrap();
        let file = files.last_entry().unwrap().into_mut();
        for (index, byte) in file[at..at + 32].iter_mut().enumerate() {
            *byte = u8::from_str_radix(&second[2 * index..2 * index + 2], 16).unwrap();
        }
    }
    files
}

/// The bodies count up from the message's first sequence, each octet another one.
fn check_contents(files: &Files, found: &RecoveredLog) {
    let held = contents(files, found);
    let lengths: Vec<_> = held.iter().map(|(key, body)| (key.0, key.1, body.len())).collect();
    assert_eq!(lengths, HELD);
    for body in held.values().filter(|body| !body.is_empty()) {
        assert!(body.iter().zip(0..).all(|(octet, at)| *octet == at ^ body[0]));
    }
}

#[test]
fn a_log_of_format_1_0_reads_as_it_did() {
    let files = written_by_1_0();
    for chunk in [1 << 20, 997] {
        let found = recover(&files, chunk).unwrap();
        assert_eq!((found.store_id, found.shard, found.clean), (Some(STORE), SHARD, true));
        assert_eq!((found.damage.len(), found.torn.len(), found.written_at), (0, 0, None));
        assert_eq!((found.highest_epoch, found.counts.records), (1, 23));
        assert_eq!((found.counts.publishes, found.counts.settles), (6, 1));
        assert_eq!(found.segments.keys().collect::<Vec<_>>(), [&2, &3]);
        let next: Vec<_> = found.queues.values().map(|queue| queue.next_sequence).collect();
        assert_eq!(next, [5, 3, 2]);
        assert!(found.queues.values().all(|queue| queue.delivered_through == 2));
        check_contents(&files, &found);
        for (_, _, place) in found.messages() {
            let record = record_at(&files, place);
            assert_eq!((record.arrival, record.extension), (None, &b""[..]));
            let names = (record.exchange, record.routing_key, record.properties);
            assert_eq!(names, (&b"x"[..], &b"key"[..], &[0x10, 0, 2][..]));
        }
    }
}

#[test]
fn a_log_of_format_1_0_goes_on_in_1_1() {
    let disk = Disk { files: written_by_1_0(), last: None };
    let mut world = World::from_disk(disk, BTreeMap::new(), BTreeMap::new());
    world.step(&Step::Publish { queues: 2, size: 500 });
    world.step(&Step::Copy);
    world.step(&Step::Idle);
    let found = recover(&world.disk.files, 1 << 20).unwrap();
    assert!(found.damage.is_empty() && found.torn.is_empty());
    assert_eq!((found.written_at, found.highest_epoch), (Some(AT.wall), 2));
    assert_eq!(contents(&world.disk.files, &found), world.model);
    let minor = |number: u32| world.disk.files[&number][10];
    let (last, _) = found.segments.last_key_value().unwrap();
    assert_eq!((minor(3), minor(*last)), (0, 1), "both are in one log");
    let mut dated = 0;
    for (log_id, sequence, place) in found.messages() {
        let arrival = record_at(&world.disk.files, place).arrival;
        let is_new = (log_id, sequence) == (1, 5);
        assert_eq!(arrival, is_new.then_some(CAME));
        dated += usize::from(is_new);
        assert!(place.segment > 2, "what was in segment 2 was copied");
    }
    assert_eq!(dated, 1);
}

#[test]
fn copies_keep_when_a_message_came() {
    let mut world = World::new();
    for _ in 0..12 {
        world.step(&Step::Publish { queues: 2, size: 3_000 });
        world.step(&Step::Flush);
    }
    let before = recover(&world.disk.files, 1 << 20).unwrap();
    world.step(&Step::Copy);
    world.step(&Step::Idle);
    let after = recover(&world.disk.files, 1 << 20).unwrap();
    let first = |log: &RecoveredLog| log.messages().next().unwrap().2;
    assert!(first(&before).segment < first(&after).segment);
    for (_, _, place) in after.messages() {
        assert_eq!(record_at(&world.disk.files, place).arrival, Some(CAME));
    }
}

/// Puts a record in front of the last filler of a segment that has room for it. Returns where.
fn plant(files: &mut Files, segment: u32, kind: u8, flags: u8) -> Place {
    let file = files.get_mut(&segment).unwrap();
    let mut filler = None;
    let mut take = |item: Item<'_>| {
        if let Item::Record { offset, length, epoch, record: Record::Filler } = item {
            filler = Some((offset, length as usize, epoch));
        }
    };
    let mut reader = SegmentReader::new(segment, file.len() as u64);
    reader.feed(file, &mut take);
    reader.end(&mut take);
    let (offset, length, epoch) = filler.unwrap();
    let mut blocks = Blocks::default();
    let stamp = Stamp { position: Position::new(segment, offset), epoch };
    record::encode_any(&mut blocks, stamp, kind, flags, &[0; 40]);
    let planted = Place { segment, offset, length: blocks.len() as u32 };
    let behind = Position::new(segment, offset + planted.length);
    let rest = length - planted.length as usize;
    record::encode_filler(&mut blocks, Stamp { position: behind, epoch }, rest);
    file[offset as usize..offset as usize + length].copy_from_slice(blocks.as_slice());
    planted
}

#[test]
fn kinds_from_128_on_are_passed_over() {
    let sound = recover(&written_by_1_0(), 1 << 20).unwrap();
    let mut files = written_by_1_0();
    // In the middle of the log, and behind its close.
    plant(&mut files, 2, 128, 0);
    plant(&mut files, 3, 255, 0xff);
    let found = recover(&files, 1 << 20).unwrap();
    assert_eq!((found.counts.passed_over, found.counts.unknown), (2, 0));
    assert!(found.clean && found.damage.is_empty());
    assert!(found.segments.values().all(|segment| !segment.damaged));
    assert_eq!(found.queues, sound.queues);
}

#[test]
fn other_kinds_and_small_flags_are_read_on() {
    let mut files = written_by_1_0();
    plant(&mut files, 2, 2, 0x0c);
    let found = recover(&files, 1 << 20).unwrap();
    assert!(found.clean && !found.segments[&2].damaged);
    plant(&mut files, 3, 127, 0x0f);
    let found = recover(&files, 1 << 20).unwrap();
    assert_eq!((found.counts.passed_over, found.counts.unknown), (0, 1));
    assert!(!found.clean && found.segments[&3].damaged, "its segment is kept");
    check_contents(&files, &found);
}

#[test]
fn flags_that_must_be_known_refuse_the_directory() {
    for (kind, flags) in [(3, 0x10), (2, 0x20), (5, 0x41), (100, 0x80)] {
        let mut files = written_by_1_0();
        let Place { segment, offset, .. } = plant(&mut files, 2, kind, flags);
        let refusal = recover(&files, 1 << 20).unwrap_err();
        assert_eq!(refusal, Refusal::Newer { segment, offset, kind, flags });
        let text = refusal.to_string();
        assert!(text.starts_with("a newer version wrote segment 2"), "{text}");
        // Rot makes no record of a newer version.
        files.get_mut(&2).unwrap()[offset as usize + 60] ^= 1;
        assert!(recover(&files, 1 << 20).is_ok());
    }
}

#[test]
fn what_is_dropped_with_a_torn_end_refuses_nothing() {
    let mut files = written_by_1_0();
    let planted = plant(&mut files, 3, 3, 0x80);
    let batch = planted.offset as usize / BLOCK_BYTES * BLOCK_BYTES;
    files.get_mut(&3).unwrap()[batch + 20] ^= 1;
    let found = recover(&files, 1 << 20).unwrap();
    assert_eq!((found.torn.len(), found.clean), (1, false));
    check_contents(&files, &found);
}
