//! Data directories that a real [`Log`] wrote.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use leveret_broker::id::{Instant, Time, WallTime};
use leveret_broker::message::{Body, Likeness, Message};
use leveret_broker::storage::log::blocks::Blocks;
use leveret_broker::storage::log::operation::{DiskEvent, DiskOperation};
use leveret_broker::storage::log::record::{self, BARRIER_BYTES, MarkRecord, Stamp};
use leveret_broker::storage::log::segment::{Identity, Segments};
use leveret_broker::storage::log::{BLOCK_BYTES, Log, LogId, Position, QueueRef};

use super::*;

const STORE: [u8; 16] = [5; 16];
const SEGMENT_BYTES: u32 = 1 << 20;

/// 2026-03-04 05:06:07.008 UTC.
const AT: Time = Time { now: Instant(1), wall: WallTime(1_772_600_767_008_000_001) };

/// What is noted of the messages here, which came 1 ns before.
const CAME: WallTime = WallTime(1_772_600_767_008_000_000);

/// A disk of plain files.
fn carry_out(data_dir: &Path, shard: u16, operation: DiskOperation) -> Option<DiskEvent> {
    let directory = shard_directory(data_dir, shard);
    fs::create_dir_all(&directory).unwrap();
    match operation {
        DiskOperation::Prepare { segment, size_bytes, recycled } => {
            let path = segment_path(&directory, segment);
            if let Some(recycled) = recycled {
                fs::rename(segment_path(&directory, recycled), &path).unwrap();
            }
            let file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.set_len(u64::from(size_bytes)).unwrap();
            Some(DiskEvent::Prepared { segment, result: Ok(()) })
        }
        DiskOperation::Commit { segment, offset, blocks } => {
            let path = segment_path(&directory, segment);
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(blocks.as_slice(), u64::from(offset)).unwrap();
            Some(DiskEvent::Committed { segment, offset, blocks, result: Ok(()) })
        }
        DiskOperation::Read { read, length, .. } => {
            Some(DiskEvent::Read { read, result: Ok(Blocks::zeroed(length as usize)) })
        }
        DiskOperation::Remove { segment, .. } => {
            fs::remove_file(segment_path(&directory, segment)).unwrap();
            Some(DiskEvent::Removed { segment })
        }
    }
}

fn write_log(data_dir: &Path, shard: u16, messages: &[(&[LogId], Vec<u8>)], clean: bool) {
    let identity = Identity { store_id: STORE, shard, epoch: 1 };
    let mut log = Log::new(Segments::new(identity, SEGMENT_BYTES));
    for (sequence, (queues, body)) in messages.iter().enumerate() {
        let sequence = sequence as u64;
        let queues: Vec<_> =
            queues.iter().map(|log_id| QueueRef { log_id: *log_id, sequence }).collect();
        let (exchange, routing_key, properties) = (&b"x"[..], &b"key"[..], &[0, 0][..]);
        let (body, published_at) = (Body::Inline(body), Instant(0));
        let likeness = Likeness::UNKNOWN;
        let message = Message { exchange, routing_key, properties, body, published_at, likeness };
        log.publish(&message, &queues, AT);
        if sequence.is_multiple_of(64) {
            run(data_dir, shard, &mut log);
        }
    }
    if clean {
        let mark = |log_id| MarkRecord { log_id, next_sequence: 90, delivered_through: 2 };
        log.close([1, 2, 3].map(mark).into_iter());
    }
    run(data_dir, shard, &mut log);
    if let Some(due) = log.next_timeout() {
        log.handle_timeout(due);
        run(data_dir, shard, &mut log);
    }
}

fn run(data_dir: &Path, shard: u16, log: &mut Log) {
    while let Some(operation) = log.poll_operation(AT.wall) {
        if let Some(event) = carry_out(data_dir, shard, operation) {
            log.handle(event, Instant(1));
        }
    }
}

fn bodies(data_dir: &Path, log: &RecoveredLog, log_id: LogId) -> Vec<Vec<u8>> {
    let directory = shard_directory(data_dir, log.shard);
    let bodies = log.queues[&log_id].messages.iter().map(|(_, place)| {
        let path = segment_path(&directory, place.segment);
        let bytes = read::read_record(&path, place.offset, place.length).unwrap();
        // After the fixed part, 16 bytes per queue, "x", "key" and the properties.
        let queues = u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize;
        let length = u32::from_le_bytes(bytes[48..52].try_into().unwrap()) as usize;
        let start = 64 + 16 * queues + 1 + 3 + 2;
        bytes[start..start + length].to_vec()
    });
    bodies.collect()
}

#[test]
fn queues_move_to_other_shards_with_order_and_memory_of_deliveries() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path();
    let body = |number: u8| vec![number; 100 + usize::from(number)];
    let shared: Vec<(&[LogId], Vec<u8>)> =
        (0..5).map(|number| (&[1, 2, 3][..], body(number))).collect();
    write_log(data_dir, 1, &shared, true);
    write_log(data_dir, 0, &[(&[7][..], body(77))], true);
    let mut logs = recover(data_dir, Some(STORE)).unwrap();
    assert!(logs[&0].clean && logs[&1].clean);
    let moves = [(1, 11), (2, 12)].map(|(old, new)| Move { from: 1, old, to: 0, new });
    let mut disk = |shard, operation| carry_out(data_dir, shard, operation);
    rehome(data_dir, STORE, SEGMENT_BYTES, AT.wall, &mut logs, &moves, &mut disk).unwrap();
    // A crash at this point would leave both; the old records are still complete.
    let again = recover(data_dir, Some(STORE)).unwrap();
    assert_eq!(again[&1].queues[&1].messages.len(), 5);
    let home = &again[&0];
    assert!(home.clean && home.damage.is_empty());
    assert_eq!(bodies(data_dir, home, 11), (0..5).map(body).collect::<Vec<_>>());
    assert_eq!(bodies(data_dir, home, 7), [body(77)]);
    assert_eq!(home.queues[&11].messages, home.queues[&12].messages, "copied once");
    for (_, place) in &home.queues[&11].messages {
        let path = segment_path(&shard_directory(data_dir, 0), place.segment);
        let bytes = read::read_record(&path, place.offset, place.length).unwrap();
        let came = u64::from_le_bytes(bytes[56..64].try_into().unwrap());
        assert_eq!((bytes[21], WallTime(came)), (1, CAME), "as it was where it came from");
    }
    assert_eq!((home.queues[&11].next_sequence, home.queues[&11].delivered_through), (90, 2));
    // Queue 3 still lives there; later it does not.
    tidy_up(data_dir, 1, &again, |shard, log_id| (shard, log_id) == (1, 3)).unwrap();
    assert!(shard_directory(data_dir, 1).exists());
    tidy_up(data_dir, 1, &again, |_, _| false).unwrap();
    assert!(!shard_directory(data_dir, 1).exists() && shard_directory(data_dir, 0).exists());
}

#[test]
fn damage_is_found_and_does_not_stop_the_boot() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path();
    let messages: Vec<(&[LogId], Vec<u8>)> =
        (0..200).map(|number| (&[4][..], vec![number; 500])).collect();
    write_log(data_dir, 0, &messages, false);
    assert_eq!(check::run(data_dir), 1, "nobody knows whose messages these are");
    let path = segment_path(&shard_directory(data_dir, 0), 1);
    let before = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[before[20_000] ^ 4], 20_000).unwrap();
    let logs = recover(data_dir, Some(STORE)).unwrap();
    let log = &logs[&0];
    assert_eq!((log.damage.len(), log.queues[&4].messages.len()), (1, 199));
    assert!(log.damage[0].suspects.contains(&4) && log.segments[&1].damaged);
    let Err(failure) = recover(data_dir, Some([6; 16])) else { panic!("a foreign log") };
    assert!(failure.to_string().contains("another data directory"), "{failure}");
    assert_eq!(check::run(&data_dir.join("missing")), 2);
    fs::rename(shard_directory(data_dir, 0), shard_directory(data_dir, 9)).unwrap();
    let Err(failure) = recover(data_dir, Some(STORE)) else { panic!("another shard's log") };
    assert!(failure.to_string().contains("belongs to shard 0"), "{failure}");
}

#[test]
fn a_log_of_a_newer_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path();
    write_log(data_dir, 0, &[(&[4][..], vec![1; 500])], false);
    let path = segment_path(&shard_directory(data_dir, 0), 1);
    let mut bytes = fs::read(&path).unwrap();
    // The first record behind the barrier, with a flag that has no meaning yet.
    let at = BLOCK_BYTES + BARRIER_BYTES;
    let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    let record = &mut bytes[at..at + length];
    assert_eq!(record[20], 3, "a message");
    record[21] |= 0x40;
    let sum = crc32c::crc32c(&record[4..]);
    record[..4].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let Err(failure) = recover(data_dir, Some(STORE)) else { panic!("it was read") };
    let text = failure.to_string();
    for part in ["a newer version wrote segment 1", "flags 0x41", "Nothing was changed. Start the"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert_eq!(check::run(data_dir), 2);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn many_messages_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let count = std::env::var("LEVERET_RECOVERY_MESSAGES").ok().and_then(|text| text.parse().ok());
    let count: usize = count.unwrap_or(20_000);
    let messages: Vec<(&[LogId], Vec<u8>)> = vec![(&[4][..], vec![7; 100]); count];
    write_log(directory.path(), 0, &messages, false);
    let start = std::time::Instant::now();
    let logs: BTreeMap<u16, RecoveredLog> = recover(directory.path(), Some(STORE)).unwrap();
    // For information only; the test passes by what was read.
    eprintln!("{count} messages in {:?}", start.elapsed());
    assert_eq!(logs[&0].queues[&4].messages.len(), count);
    assert!(!logs[&0].clean && logs[&0].damage.is_empty());
}

#[test]
fn a_late_write_of_a_dead_process_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path();
    write_log(data_dir, 0, &[(&[1][..], vec![1; 50])], false);
    let path = segment_path(&shard_directory(data_dir, 0), 1);
    let mut log = recover(data_dir, Some(STORE)).unwrap().remove(&0).unwrap();
    let held = log.queues[&1].messages.clone();
    let identity = log.next_identity(STORE);
    let (segments, _) = log.into_segments(identity, SEGMENT_BYTES);
    let end = segments.begun()[&1].end as usize;
    let mut next = Log::begin(segments);
    run(data_dir, 0, &mut next);
    // A write of the dead process, which settles the message, arrives only now.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut late = Blocks::default();
    let stamp = Stamp { position: Position::new(1, end as u32), epoch: 1 };
    record::encode_settle(&mut late, stamp, 1, &[(0, 0)]);
    file.write_all_at(late.as_slice(), end as u64).unwrap();
    let again = recover(data_dir, Some(STORE)).unwrap().remove(&0).unwrap();
    assert_eq!(again.queues[&1].messages, held);
    assert!(again.damage.is_empty(), "{:?}", again.damage);
}
