//! A second reader of the log format, written from `docs/STORE_FORMAT.md` alone.
//!
//! It shares no code with the broker's reader, so that a mistake in one of them shows as a
//! difference. It is slow and keeps only what the checks need.

use std::collections::{BTreeMap, BTreeSet};

use leveret_broker::storage::log::{LogId, Place, Position, QueueRef};

use crate::disk::volume::Image;

const BLOCK: usize = 4096;
const MAGIC: &[u8] = b"LEVSEG\r\n";
const RECORD_HEADER: usize = 40;
const PROCESS_QUEUE: LogId = 1 << 63;

/// The content of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The messages of each queue: the place of the record, and a fingerprint of its content.
    pub held: BTreeMap<QueueRef, (Place, u32)>,
    /// Positions of damage.
    pub damage: Vec<Position>,
    /// The log was closed.
    pub clean: bool,
    /// The segments with records.
    pub begun: BTreeMap<u32, BegunSegment>,
    /// Files without records, with their sizes in bytes.
    pub unused: Vec<(u32, u32)>,
    /// The highest epoch.
    pub epoch: u32,
}

/// A segment with records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BegunSegment {
    /// Size of the file.
    pub size_bytes: u32,
    /// End of its last record.
    pub end: u32,
    /// Segments with messages that its settle records name.
    pub settles: BTreeSet<u32>,
    /// The epoch in its header.
    pub epoch: u32,
}

/// A segment while the end of the log is still unknown.
struct Draft<'a> {
    number: u32,
    bytes: &'a [u8],
    /// The epoch, and what the header says about the previous segment.
    header: Option<(u32, (u32, u32))>,
    epoch: u32,
    records: Vec<Found>,
}

/// A valid record: offset, length and kind.
#[derive(Clone, Copy)]
struct Found {
    offset: usize,
    length: usize,
    kind: u8,
}

/// Reads a log.
pub fn read(image: &Image) -> Reading {
    let mut reading = Reading::default();
    let mut drafts = Vec::new();
    for (number, bytes) in image.segments() {
        match draft(number, bytes) {
            Some(draft) => drafts.push(draft),
            None => reading.unused.push((number, bytes.len() as u32)),
        }
    }
    let synced = drafts.iter().map(highest_barrier).max().unwrap_or_default();
    // Segments without records count too, because a process has written there with this epoch.
    reading.epoch = drafts.iter().map(|draft| draft.epoch).max().unwrap_or(0);
    let mut held_in: BTreeMap<QueueRef, BTreeSet<u32>> = BTreeMap::new();
    for index in 0..drafts.len() {
        let draft = &drafts[index];
        let next = drafts[index + 1..].iter().find_map(|draft| draft.header);
        let previous = next.map_or((0, 0), |(_, previous)| previous);
        let covered = Position::new(draft.number, BLOCK as u32) < synced;
        // The header of the next segment names its predecessor in the log.
        let passed_over = next.is_some() && previous.0 < draft.number;
        if draft.header.is_none() {
            if passed_over || !covered {
                reading.unused.push((draft.number, draft.bytes.len() as u32));
                continue;
            }
            reading.damage.push(Position::new(draft.number, 0));
        }
        let ended = if previous.0 == draft.number { previous.1 } else { 0 };
        take_in(draft, ended, synced, &mut reading, &mut held_in);
    }
    // A later process has tried to write, so it may have delivered messages.
    let last = reading.begun.last_key_value();
    reading.clean &= last.is_some_and(|(_, begun)| begun.epoch == reading.epoch);
    reading.unused.sort_unstable();
    reading
}

/// What a file contains of its segment, or `None` if it contains nothing.
fn draft(number: u32, bytes: &[u8]) -> Option<Draft<'_>> {
    let header = header(number, bytes);
    let epoch = match header {
        Some((epoch, _)) => epoch,
        None => {
            let mut blocks = (BLOCK..bytes.len()).step_by(BLOCK);
            blocks.find_map(|at| {
                let epoch = word(bytes, at + 16)?;
                record(number, epoch, bytes, at).map(|_| epoch)
            })?
        }
    };
    let mut records = Vec::new();
    let mut at = BLOCK;
    while at < bytes.len() {
        if let Some((length, kind)) = record(number, epoch, bytes, at) {
            records.push(Found { offset: at, length, kind });
            at += length;
        } else {
            at = (at + 1).next_multiple_of(BLOCK);
        }
    }
    Some(Draft { number, bytes, header, epoch, records })
}

/// The epoch, and number and end of the previous segment.
fn header(number: u32, bytes: &[u8]) -> Option<(u32, (u32, u32))> {
    let block = bytes.get(..BLOCK)?;
    let sum = [&block[..12], &[0; 4], &block[16..]];
    let sum = sum.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part));
    let sound = block.starts_with(MAGIC) && sum == word(block, 12)? && block[8..10] == [1, 0];
    let words = (word(block, 40)?, (word(block, 48)?, word(block, 52)?));
    (sound && word(block, 36)? == number).then_some(words)
}

/// Length and kind of the record at an offset.
fn record(number: u32, epoch: u32, bytes: &[u8], at: usize) -> Option<(usize, u8)> {
    let length = word(bytes, at + 4)? as usize;
    let position = long(bytes, at + 8)?;
    let fits = length >= RECORD_HEADER && length.is_multiple_of(8);
    let here = position >> 32 == u64::from(number) && position as u32 as usize == at;
    if !fits || !here || word(bytes, at + 16)? != epoch {
        return None;
    }
    let record = bytes.get(at..at + length)?;
    (crc32c::crc32c(&record[4..]) == word(record, 0)?).then_some((length, record[20]))
}

fn highest_barrier(draft: &Draft<'_>) -> Position {
    let barriers = draft.records.iter().filter(|record| record.kind == 1);
    let synced = barriers.filter_map(|barrier| long(draft.bytes, barrier.offset + RECORD_HEADER));
    Position(synced.max().unwrap_or(0))
}

/// Takes the records of a segment. Everything before `ended` in it, and before `synced` in the log,
/// was durable at some time.
fn take_in(
    draft: &Draft<'_>,
    ended: u32,
    synced: Position,
    reading: &mut Reading,
    held_in: &mut BTreeMap<QueueRef, BTreeSet<u32>>,
) {
    let position = |offset: usize| Position::new(draft.number, offset as u32);
    let ended = Position::new(draft.number, ended);
    let mut end = BLOCK;
    // The process that began this segment had not closed the log.
    reading.clean = false;
    let mut begun = BegunSegment {
        size_bytes: draft.bytes.len() as u32,
        epoch: draft.epoch,
        ..BegunSegment::default()
    };
    for found in &draft.records {
        if found.offset != end {
            if position(end) >= ended.max(synced) {
                break;
            }
            reading.damage.push(position(end));
        }
        end = found.offset + found.length;
        let record = &draft.bytes[found.offset..end];
        match found.kind {
            3 => publish(record, draft.number, found.offset, reading, held_in),
            4 => settle(record, &mut begun.settles, reading, held_in),
            _ => {}
        }
        if found.kind != 2 && found.kind < 128 {
            reading.clean = found.kind == 6;
        }
    }
    // A barrier in a later segment does not say where this one ended.
    let here = if synced.segment() == draft.number { ended.max(synced) } else { ended };
    if position(end) < here {
        reading.damage.push(position(end));
    }
    // If the batch of a close record is torn, the close was never reported to anyone.
    reading.clean &= end.is_multiple_of(BLOCK);
    begun.end = end as u32;
    reading.begun.insert(draft.number, begun);
}

fn publish(
    record: &[u8],
    segment: u32,
    offset: usize,
    reading: &mut Reading,
    held_in: &mut BTreeMap<QueueRef, BTreeSet<u32>>,
) {
    let place = Place { segment, offset: offset as u32, length: record.len() as u32 };
    let count = word(record, 40).unwrap_or(0) as usize;
    let Some((queues, content)) =
        record.get(64..).and_then(|rest| rest.split_at_checked(16 * count))
    else {
        reading.damage.push(Position::new(segment, offset as u32));
        return;
    };
    let mut length = word(record, 44).unwrap_or(0) as usize
        + word(record, 48).unwrap_or(0) as usize
        + usize::from(record[52])
        + usize::from(record[53]);
    // An extension area, if the flags say so.
    if record[21] & 2 != 0 {
        length += 4 + word(content, length).unwrap_or(0) as usize;
    }
    // What stands there without the flag says nothing.
    let fixed = if record[21] & 1 != 0 { &record[52..64] } else { &record[52..54] };
    let content = content.get(..length).unwrap_or_default();
    let fingerprint = crc32c::crc32c_append(crc32c::crc32c(fixed), content);
    for pair in queues.chunks_exact(16) {
        let (Some(log_id), Some(sequence)) = (long(pair, 0), long(pair, 8)) else { continue };
        if log_id & PROCESS_QUEUE == 0 {
            let queue = QueueRef { log_id, sequence };
            reading.held.insert(queue, (place, fingerprint));
            held_in.entry(queue).or_default().insert(segment);
        }
    }
}

fn settle(
    record: &[u8],
    settles: &mut BTreeSet<u32>,
    reading: &mut Reading,
    held_in: &BTreeMap<QueueRef, BTreeSet<u32>>,
) {
    let count = word(record, 48).unwrap_or(0) as usize;
    let Some((log_id, ranges)) = long(record, 40).zip(record.get(56..56 + 16 * count)) else {
        return;
    };
    for pair in ranges.chunks_exact(16) {
        let (Some(first), Some(last)) = (long(pair, 0), long(pair, 8)) else { continue };
        let range = QueueRef { log_id, sequence: first }..=QueueRef { log_id, sequence: last };
        if first > last {
            continue;
        }
        for (_, segments) in held_in.range(range.clone()) {
            settles.extend(segments);
        }
        let settled: Vec<QueueRef> = reading.held.range(range).map(|(queue, _)| *queue).collect();
        for queue in settled {
            reading.held.remove(&queue);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.first_chunk().copied().map(u64::from_le_bytes)
}
