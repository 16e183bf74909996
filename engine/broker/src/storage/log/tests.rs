//! The log against a disk that does as it is told.

use std::collections::BTreeMap;

use super::operation::{DiskError, DiskEvent, DiskOperation};
use super::record::{Record, Stamp};
use super::segment::{Header, Identity};
use super::*;
use crate::message::{Body, Likeness};

const IDENTITY: Identity = Identity { store_id: [7; 16], shard: 3, epoch: 1 };
const SEGMENT_BYTES: u32 = 32 << 10;

const AT: Time = Time { now: Instant(1), wall: WallTime(1_000) };

/// Files in memory.
#[derive(Default)]
struct Files {
    segments: BTreeMap<u32, Vec<u8>>,
    commits: usize,
    recycled: usize,
}

impl Files {
    fn carry_out(&mut self, operation: DiskOperation) -> Option<DiskEvent> {
        match operation {
            DiskOperation::Prepare { segment, size_bytes, recycled } => {
                let old = recycled.map(|number| self.segments.remove(&number).unwrap());
                self.recycled += usize::from(old.is_some());
                let file = old.unwrap_or_else(|| vec![0; size_bytes as usize]);
                assert!(file.len() >= size_bytes as usize);
                assert!(self.segments.insert(segment, file).is_none());
                Some(DiskEvent::Prepared { segment, result: Ok(()) })
            }
            DiskOperation::Commit { segment, offset, blocks } => {
                let at = offset as usize;
                assert!(at.is_multiple_of(BLOCK_BYTES) && blocks.len().is_multiple_of(BLOCK_BYTES));
                let file = self.segments.get_mut(&segment).unwrap();
                file[at..at + blocks.len()].copy_from_slice(blocks.as_slice());
                self.commits += 1;
                Some(DiskEvent::Committed { segment, offset, blocks, result: Ok(()) })
            }
            DiskOperation::Read { read, segment, offset, length } => {
                let mut blocks = Blocks::with_capacity(length as usize);
                let at = offset as usize;
                blocks.extend(&self.segments[&segment][at..at + length as usize]);
                Some(DiskEvent::Read { read, result: Ok(blocks) })
            }
            DiskOperation::Remove { segment, .. } => {
                assert!(self.segments.remove(&segment).is_some());
                Some(DiskEvent::Removed { segment })
            }
        }
    }

    fn run(&mut self, log: &mut Log) {
        while let Some(operation) = log.poll_operation(AT.wall) {
            if let Some(event) = self.carry_out(operation) {
                log.handle(event, Instant(1));
            }
        }
    }

    /// What the files say the queues hold: body by queue and sequence.
    fn held(&self) -> BTreeMap<(LogId, u64), Vec<u8>> {
        let mut held = BTreeMap::new();
        for (number, file) in &self.segments {
            let Ok(header) = Header::decode(file) else { continue };
            if header.segment != *number {
                continue;
            }
            let mut at = BLOCK_BYTES;
            while at < file.len() {
                let position = Position::new(*number, at as u32);
                let stamp = Stamp { position, epoch: header.identity.epoch };
                let Some((length, record)) = record::decode(&file[at..], stamp) else { break };
                at += length;
                match record {
                    Record::Publish(publish) => {
                        let Body::Inline(body) = publish.body else { panic!() };
                        for queue in publish.queues.iter() {
                            held.insert((queue.log_id, queue.sequence), body.to_vec());
                        }
                    }
                    Record::Settle(log_id, ranges) => {
                        for (first, last) in ranges.iter() {
                            held.retain(|(id, sequence), _| {
                                *id != log_id || !(first..=last).contains(sequence)
                            });
                        }
                    }
                    _ => {}
                }
            }
        }
        held
    }
}

fn message(body: &[u8]) -> Message<'_> {
    Message {
        exchange: b"x",
        routing_key: b"key",
        properties: &[0x10, 0, 2],
        body: Body::Inline(body),
        published_at: Instant(0),
        likeness: Likeness::UNKNOWN,
    }
}

fn new_log() -> Log {
    Log::new(Segments::new(IDENTITY, SEGMENT_BYTES))
}

#[test]
fn records_are_found_where_their_places_say() {
    let (mut log, mut files) = (new_log(), Files::default());
    let mut expected = BTreeMap::new();
    for sequence in 0..600_u64 {
        let body = vec![sequence as u8; (sequence as usize * 37) % 900];
        let queue = QueueRef { log_id: 1 + sequence % 3, sequence };
        let place = log.publish(&message(&body), &[queue], AT);
        expected.insert(place, (queue, body));
        if sequence % 7 == 0 {
            files.run(&mut log);
            assert_eq!(log.durable().0.next_multiple_of(4096), log.durable().0);
            assert!(log.durable() >= log.appended());
        }
    }
    files.run(&mut log);
    for (place, (queue, body)) in &expected {
        let file = &files.segments[&place.segment];
        let position = Position::new(place.segment, place.offset);
        let stamp = Stamp { position, epoch: 1 };
        let (length, record) = record::decode(&file[place.offset as usize..], stamp).unwrap();
        let Record::Publish(publish) = record else { panic!("{record:?}") };
        assert_eq!(length, place.length as usize);
        assert_eq!(publish.queues.iter().collect::<Vec<_>>(), [*queue]);
        assert!(matches!(publish.body, Body::Inline(found) if found == body));
    }
    assert!(log.segments().begun().len() > 5);
}

#[test]
fn one_commit_is_under_way_and_the_next_gathers() {
    let (mut log, mut files) = (new_log(), Files::default());
    files.run(&mut log);
    log.publish(&message(b"first"), &[QueueRef { log_id: 1, sequence: 0 }], AT);
    let first = log.poll_operation(AT.wall).unwrap();
    assert!(matches!(first, DiskOperation::Commit { .. }));
    for sequence in 1..100 {
        log.publish(&message(b"more"), &[QueueRef { log_id: 1, sequence }], AT);
    }
    let waiting = log.appended();
    while let Some(operation) = log.poll_operation(AT.wall) {
        assert!(!matches!(operation, DiskOperation::Commit { .. }));
        files.carry_out(operation).map(|event| log.handle(event, Instant(1)));
    }
    assert!(log.durable() < waiting);
    let event = files.carry_out(first).unwrap();
    assert!(matches!(log.handle(event, Instant(1)), LogEvent::Durable));
    files.run(&mut log);
    assert!(log.durable() >= waiting);
    assert_eq!(files.commits, 2);
}

#[test]
fn settled_segments_are_used_again_and_nothing_comes_back() {
    let (mut log, mut files) = (new_log(), Files::default());
    let mut waiting = VecDeque::new();
    for sequence in 0..20_000_u64 {
        let queue = QueueRef { log_id: 5, sequence };
        waiting.push_back((queue, log.publish(&message(&[1; 100]), &[queue], AT)));
        while waiting.len() > 50 {
            let (queue, place) = waiting.pop_front().unwrap();
            log.settle(queue, place, Instant(1));
            log.release(place);
        }
        if sequence % 20 == 0 {
            files.run(&mut log);
        }
    }
    log.handle_timeout(Instant(SECOND_NS));
    files.run(&mut log);
    let held: Vec<_> = files.held().into_keys().collect();
    let expected: Vec<_> =
        waiting.iter().map(|(queue, _)| (queue.log_id, queue.sequence)).collect();
    assert_eq!(held, expected);
    assert!(files.recycled > 50, "{} recycled", files.recycled);
    assert!(files.segments.len() < 12, "{} files", files.segments.len());
}

#[test]
fn settlements_alone_are_committed_in_time() {
    let (mut log, mut files) = (new_log(), Files::default());
    let queue = QueueRef { log_id: 1, sequence: 0 };
    let place = log.publish(&message(b"m"), &[queue], AT);
    files.run(&mut log);
    log.settle(queue, place, Instant(1000));
    log.release(place);
    assert!(log.poll_operation(AT.wall).is_none());
    let due = log.next_timeout().unwrap();
    assert!(due <= Instant(1000).after(SETTLE_DELAY_NS));
    log.handle_timeout(due);
    files.run(&mut log);
    assert!(files.held().is_empty());
}

#[test]
fn an_idle_log_writes_one_more_barrier_and_then_rests() {
    let (mut log, mut files) = (new_log(), Files::default());
    log.publish(&message(b"m"), &[QueueRef { log_id: 1, sequence: 0 }], AT);
    files.run(&mut log);
    let end = log.durable();
    let due = log.next_timeout().unwrap();
    log.handle_timeout(due);
    let barrier = log.poll_operation(AT.wall).unwrap();
    let DiskOperation::Commit { segment, offset, blocks } = &barrier else { panic!() };
    let position = Position::new(*segment, *offset);
    let stamp = Stamp { position, epoch: 1 };
    let (_, record) = record::decode(blocks.as_slice(), stamp).unwrap();
    let Record::Barrier(said) = record else { panic!("{record:?}") };
    assert_eq!((said.synced_upto, said.written_at), (end, Some(AT.wall)));
    files.carry_out(barrier).map(|event| log.handle(event, due));
    files.run(&mut log);
    assert_eq!(log.next_timeout(), None);
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let (mut log, mut files) = (new_log(), Files::default());
    let large = vec![9; 3 * SEGMENT_BYTES as usize];
    for sequence in 0..20 {
        let body = if sequence % 5 == 4 { &large[..] } else { b"small" };
        log.publish(&message(body), &[QueueRef { log_id: 1, sequence }], AT);
        if sequence % 3 == 0 {
            files.run(&mut log);
        }
    }
    files.run(&mut log);
    assert_eq!(files.held().len(), 20);
    assert_eq!(files.held()[&(1, 4)], large);
}

#[test]
fn a_full_disk_stops_publishers_and_is_asked_again() {
    let (mut log, mut files) = (new_log(), Files::default());
    files.run(&mut log);
    let mut sequence = 0;
    let mut publish = |log: &mut Log| {
        sequence += 1;
        log.publish(&message(&[2; 2000]), &[QueueRef { log_id: 1, sequence }], AT)
    };
    let mut refused = 0;
    let mut places = Vec::new();
    while !log.is_backed_up() {
        places.push((places.len() as u64 + 1, publish(&mut log)));
        while let Some(operation) = log.poll_operation(AT.wall) {
            let event = match operation {
                DiskOperation::Prepare { segment, recycled: None, .. } => {
                    refused += 1;
                    DiskEvent::Prepared { segment, result: Err(DiskError::Full) }
                }
                operation => files.carry_out(operation).unwrap(),
            };
            log.handle(event, Instant(1));
        }
    }
    assert!(refused > 0 && log.is_full());
    log.handle_timeout(Instant(1).after(FULL_RETRY_NS));
    files.run(&mut log);
    assert!(log.is_relieved());
    assert_eq!(files.held().len(), places.len());
}

#[test]
fn a_failed_commit_is_the_end() {
    let (mut log, mut files) = (new_log(), Files::default());
    files.run(&mut log);
    log.publish(&message(b"m"), &[QueueRef { log_id: 1, sequence: 0 }], AT);
    let Some(DiskOperation::Commit { segment, offset, blocks }) = log.poll_operation(AT.wall)
    else {
        panic!()
    };
    let before = log.durable();
    let result = Err(DiskError::Failed("EIO".to_owned()));
    let event = DiskEvent::Committed { segment, offset, blocks, result };
    assert!(matches!(log.handle(event, Instant(1)), LogEvent::Failed(_)));
    log.publish(&message(b"m"), &[QueueRef { log_id: 1, sequence: 1 }], AT);
    assert!(log.poll_operation(AT.wall).is_none() && log.has_failed());
    assert_eq!(log.durable(), before);
}

/// What the files say to the next process.
fn recovered(files: &Files) -> recovery::RecoveredLog {
    let mut recovery = recovery::Recovery::new(None, IDENTITY.shard);
    for (number, file) in &files.segments {
        recovery.begin(*number, file.len() as u64);
        recovery.feed(file).unwrap();
        recovery.end().unwrap();
    }
    recovery.finish()
}

#[test]
fn a_boot_after_a_clean_stop_is_seen_although_it_writes_nothing_more() {
    let (mut files, mut log) = (Files::default(), new_log());
    let place = log.publish(&message(b"kept"), &[QueueRef { log_id: 1, sequence: 0 }], AT);
    log.close(std::iter::empty());
    files.run(&mut log);
    assert!(log.has_no_room_for_copies(), "nothing may follow a close");
    let mut found = recovered(&files);
    assert!(found.clean);
    let identity = found.next_identity(IDENTITY.store_id);
    let (segments, _) = found.into_segments(identity, SEGMENT_BYTES);
    let mut begun = Log::begin(segments);
    files.run(&mut begun);
    assert!(!recovered(&files).clean);
    let mut segments = begun.into_segments();
    segments.hold(place);
    // What it gives out from here on is not known to the log.
    files.run(&mut Log::new(segments));
    assert!(!recovered(&files).clean);
}

/// What the home does before the log is polled.
fn write_records(log: &mut Log) -> Vec<(u32, Place)> {
    let (mut queues, mut written) = (Vec::new(), Vec::new());
    while let Some(id) = log.take_unwritten(&mut queues) {
        written.push((id.0, log.publish(&message(b"body"), &queues, AT)));
    }
    written
}

fn queue(sequence: u64) -> QueueRef {
    QueueRef { log_id: 1, sequence }
}

#[test]
fn what_is_settled_before_its_commit_begins_is_not_written_and_confirmed_behind_a_flush() {
    let (mut log, mut files) = (new_log(), Files::default());
    files.run(&mut log);
    log.add(MessageId(0), &message(b"body"), &[queue(0)]);
    let first = log.last_added();
    let places = write_records(&mut log);
    let commit = log.poll_operation(AT.wall).unwrap();
    let held = log.add(MessageId(1), &message(b"body"), &[queue(1)]);
    let settled = log.add(MessageId(2), &message(b"body"), &[queue(2)]);
    let last = log.last_added();
    assert!(!held.is_written() && !settled.is_written());
    log.settle(queue(2), settled, Instant(1));
    log.release(settled);
    assert_eq!(write_records(&mut log), [], "a commit is under way");
    assert!(log.confirmed() < first && !log.is_settled());
    let event = files.carry_out(commit).unwrap();
    log.handle(event, Instant(1));
    assert_eq!(log.confirmed(), first);
    let written = write_records(&mut log);
    assert_eq!(written.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1]);
    assert_eq!(log.confirmed(), first, "its commit has not ended");
    files.run(&mut log);
    assert_eq!((log.confirmed(), log.is_settled()), (last, true));
    assert_eq!(files.held().into_keys().collect::<Vec<_>>(), [(1, 0), (1, 1)]);
    // Nothing is left to write, and yet there is a flush before anybody hears of it.
    let settled = log.add(MessageId(2), &message(b"body"), &[queue(3)]);
    log.settle(queue(3), settled, Instant(2));
    log.release(settled);
    assert_eq!(write_records(&mut log), []);
    assert!(log.confirmed() < log.last_added() && !log.is_settled());
    let commits = files.commits;
    files.run(&mut log);
    assert_eq!((log.confirmed(), files.commits), (log.last_added(), commits + 1));
    // What has a record is settled by one.
    log.settle(queue(0), places[0].1, Instant(3));
    log.release(places[0].1);
    log.handle_timeout(Instant(3 + SETTLE_DELAY_NS));
    files.run(&mut log);
    assert_eq!(files.held().into_keys().collect::<Vec<_>>(), [(1, 1)]);
}

#[test]
fn no_more_than_a_batch_is_taken_at_a_time() {
    let (mut log, mut files) = (Log::new(Segments::new(IDENTITY, 16 << 20)), Files::default());
    files.run(&mut log);
    let body = vec![7; 100_000];
    for sequence in 0..30 {
        log.add(MessageId(sequence as u32), &message(&body), &[queue(sequence)]);
    }
    let mut queues = Vec::new();
    let mut commits = Vec::new();
    while log.confirmed() < log.last_added() {
        let mut taken = 0;
        while log.take_unwritten(&mut queues).is_some() {
            log.publish(&message(&body), &queues, AT);
            taken += 1;
        }
        commits.push((taken, log.confirmed()));
        let operation = log.poll_operation(AT.wall).unwrap();
        if let Some(event) = files.carry_out(operation) {
            log.handle(event, Instant(1));
        }
    }
    let most = commits.iter().map(|(taken, _)| *taken).max();
    assert!(most < Some(13), "{commits:?}");
    assert!(commits.is_sorted_by_key(|(_, confirmed)| *confirmed));
    assert!(commits[2].1 > commits[0].1, "told batch by batch: {commits:?}");
    assert_eq!(files.held().len(), 30);
}
