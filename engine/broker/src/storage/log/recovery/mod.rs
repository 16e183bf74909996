//! Reading a log back: segments in, what the queues hold out.
//!
//! ```text
//!   begin(7) feed … feed end()   begin(8) feed … feed end()   …   finish() ──► RecoveredLog
//! ```
//! A gap in a segment is damage if later bytes prove that it was durable once: a barrier behind it,
//! a later segment of the same epoch (one commit is under way at a time), or the next segment's
//! `previous end`. What stands behind a gap waits until one of them is seen; otherwise the gap is
//! the torn end of what was never confirmed, and what stands behind it is dropped.
//! Evidence of another epoch does not count: its writer had cut off that torn end.

mod held;
mod reader;
mod recovered;

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod rot_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

pub use self::held::RecoveredQueue;
pub use self::reader::{Gap, Item, SegmentReader};
pub use self::recovered::{Damage, DamageKind, RecoveredLog, RecoveryCounts, Torn};

use self::held::Held;
use super::record::{MarkRecord, Record};
use super::segment::{Header, HeaderError, Segment};
use super::{BLOCK_BYTES, LogId, PROCESS_QUEUE, Place, Position, QueueRef};
use crate::id::WallTime;

/// Why a log is not read at all: nothing here is ours to judge, and nothing is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A segment of another data directory.
    #[error("segment {segment} belongs to another data directory")]
    ForeignStore {
        /// Which.
        segment: u32,
    },
    /// A segment of another shard.
    #[error("segment {segment} belongs to shard {shard}")]
    OtherShard {
        /// Which.
        segment: u32,
        /// Whose it is.
        shard: u16,
    },
    /// A segment in a format that this version does not read.
    #[error("segment {segment} has format {major}, this version reads format 1")]
    Format {
        /// Which.
        segment: u32,
        /// Its major format number.
        major: u16,
    },
    /// A record that cannot be read without knowing what its flags mean.
    #[error(
        "a newer version wrote segment {segment}: the record at {offset} has kind {kind} and flags \
         {flags:#04x}, of which this version does not know the meaning and needs it"
    )]
    Newer {
        /// Which.
        segment: u32,
        /// Where in it.
        offset: u32,
        /// The record's kind.
        kind: u8,
        /// All its flags.
        flags: u8,
    },
}

/// Reads the segments of one shard in the order of their numbers.
#[derive(Debug)]
pub struct Recovery {
    store_id: Option<[u8; 16]>,
    shard: u16,
    held: Held,
    /// Of the segment being read.
    current: Option<Current>,
    /// What stands at and behind the first gap that nothing has proven to be damage yet.
    pending: VecDeque<Pending>,
    /// The last segment with records.
    last: Option<(u32, u32)>,
    marks: BTreeMap<LogId, MarkRecord>,
    closed: bool,
    log: RecoveredLog,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Current {
    number: u32,
    file_bytes: u64,
    header: Option<Header>,
    /// It has a sound header or a valid record.
    is_begun: bool,
    /// What stands before its first valid record, where it has no sound header.
    first_gap: Option<Gap>,
    reader: Option<SegmentReader>,
}

#[derive(Debug)]
enum Pending {
    Gap(u32, Gap, DamageKind),
    Effect(Effect),
}

/// A record, apart from the bytes it was read from.
#[derive(Debug)]
enum Effect {
    Publish(Place, Vec<QueueRef>),
    Settle(Place, LogId, Vec<(u64, u64)>),
    Mark(Place, MarkRecord),
    Close(Place),
    Barrier(Place, Option<WallTime>),
    /// Of a kind that this version does not know.
    Unknown(Place),
    /// Of a kind that this version does not know and may pass over.
    PassedOver(Place),
    /// Kind and flags of what cannot be read.
    Newer(Place, u8, u8),
    /// Nothing, but it was read.
    Filler(Place),
}

impl Recovery {
    /// Of this data directory (`None`: of the first one met) and shard.
    pub fn new(store_id: Option<[u8; 16]>, shard: u16) -> Self {
        Self {
            store_id,
            shard,
            held: Held::default(),
            current: None,
            pending: VecDeque::new(),
            last: None,
            marks: BTreeMap::new(),
            closed: false,
            log: RecoveredLog::default(),
            refusal: None,
        }
    }

    /// The next file, by the number in its name, which is higher than those before.
    pub fn begin(&mut self, number: u32, file_bytes: u64) {
        self.current = Some(Current {
            number,
            file_bytes,
            header: None,
            is_begun: false,
            first_gap: None,
            reader: Some(SegmentReader::new(number, file_bytes)),
        });
    }

    /// The file's next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(mut reader) = self.take_reader() else { return Ok(()) };
        self.log.counts.bytes += bytes.len() as u64;
        reader.feed(bytes, &mut |item| self.take(item));
        if let Some(current) = &mut self.current {
            current.reader = Some(reader);
        }
        self.refusal.map_or(Ok(()), Err)
    }

    /// The end of the file.
    pub fn end(&mut self) -> Result<(), Refusal> {
        if let Some(reader) = self.take_reader() {
            reader.end(&mut |item| self.take(item));
        }
        if let Some(current) = self.current.take().filter(|current| !current.is_begun) {
            let (number, file_bytes) = (current.number, current.file_bytes);
            self.log.unused.push((number, file_bytes));
            // Files get their names when they are laid out: this one was longer.
            if file_bytes < 2 * BLOCK_BYTES as u64 {
                self.lose(number, (file_bytes as u32, 0), DamageKind::Truncated);
            }
        }
        self.refusal.map_or(Ok(()), Err)
    }

    /// Messages held as far as the log was read, for a report on the way.
    pub fn held_so_far(&self) -> u64 {
        self.held.count()
    }

    /// What the log holds.
    pub fn finish(mut self) -> RecoveredLog {
        self.cut();
        let Self { held, mut log, marks, closed, store_id, shard, .. } = self;
        for (number, segment) in &mut log.segments {
            segment.settles = held.settled_segments(*number);
        }
        let numbers: Vec<u32> = log.segments.keys().copied().collect();
        for segment in log.segments.values_mut() {
            segment.settles.retain(|other| numbers.binary_search(other).is_ok());
        }
        (log.clean, log.store_id, log.shard) = (closed, store_id, shard);
        let marks = if closed { marks } else { BTreeMap::new() };
        log.queues = held.finish(&marks);
        log
    }

    fn take_reader(&mut self) -> Option<SegmentReader> {
        self.current.as_mut()?.reader.take()
    }

    fn take(&mut self, item: Item<'_>) {
        if self.refusal.is_some() {
            return;
        }
        match item {
            Item::Header(header) => self.take_header(header),
            Item::Record { offset, length, epoch, record } => {
                self.begin_segment(epoch);
                let Some(current) = &self.current else { return };
                let place = Place { segment: current.number, offset, length };
                self.take_record(place, &record);
            }
            Item::Gap(gap) => self.take_gap(gap),
        }
    }

    fn take_header(&mut self, header: Result<Header, HeaderError>) {
        let Some(current) = &mut self.current else { return };
        let segment = current.number;
        let header = match header {
            Ok(header) => header,
            Err(HeaderError::Format(major)) => {
                self.refusal = Some(Refusal::Format { segment, major });
                return;
            }
            Err(HeaderError::Blank | HeaderError::Damaged) => return,
        };
        let shard = header.identity.shard;
        if *self.store_id.get_or_insert(header.identity.store_id) != header.identity.store_id {
            self.refusal = Some(Refusal::ForeignStore { segment });
        } else if shard != self.shard {
            self.refusal = Some(Refusal::OtherShard { segment, shard });
        } else if header.segment == segment {
            current.header = Some(header);
            self.begin_segment(header.identity.epoch);
        }
    }

    /// The file being read is a part of the log: what was open about the one before is decided.
    fn begin_segment(&mut self, epoch: u32) {
        let Some(current) = &mut self.current else { return };
        if std::mem::replace(&mut current.is_begun, true) {
            return;
        }
        let (number, file_bytes, header) = (current.number, current.file_bytes, current.header);
        self.log.highest_epoch = self.log.highest_epoch.max(epoch);
        let first_gap = current.first_gap.take();
        match (self.last, header.map(|header| header.previous)) {
            (Some((last, _)), Some((named, end))) if last == named => {
                self.prove(Position::new(named, end));
            }
            (last, previous) => {
                if let Some(previous) = previous {
                    self.miss(previous);
                }
                self.prove_by_epoch(last, epoch);
            }
        }
        self.cut();
        let mut segment = Segment::default();
        segment.size_bytes = file_bytes.min(u64::from(u32::MAX)) as u32;
        segment.end = BLOCK_BYTES as u32;
        segment.epoch = epoch;
        self.log.segments.insert(number, segment);
        self.last = Some((number, epoch));
        self.closed = false;
        if header.is_none() {
            let gap = Gap { start: 0, end: BLOCK_BYTES as u32, ..Gap::default() };
            self.pending.push_back(Pending::Gap(number, gap, DamageKind::Header));
            let gaps = first_gap.into_iter();
            self.pending.extend(gaps.map(|gap| Pending::Gap(number, gap, DamageKind::Record)));
        }
    }

    /// A header names a segment before its own that ended at `end`. If its file is there and has
    /// nothing of it, that is a loss: a file that is used again has another name.
    fn miss(&mut self, (number, end): (u32, u32)) {
        if end as usize > BLOCK_BYTES {
            self.lose(number, (0, end), DamageKind::Lost);
        }
    }

    /// A file without records that must have had some is kept for people.
    fn lose(&mut self, number: u32, (start, end): (u32, u32), kind: DamageKind) {
        let found = self.log.unused.iter().position(|(unused, _)| *unused == number);
        let Some(index) = found else { return };
        let (_, file_bytes) = self.log.unused.swap_remove(index);
        let mut segment = Segment::default();
        segment.size_bytes = file_bytes.min(u64::from(u32::MAX)) as u32;
        segment.end = BLOCK_BYTES as u32;
        self.log.segments.insert(number, segment);
        self.report(number, (start, end), kind, Gap::default());
    }

    /// A later segment of the same epoch was begun after everything before it was durable. How far
    /// that went, nobody tells: what looks like the unused rest is taken for it.
    fn prove_by_epoch(&mut self, last: Option<(u32, u32)>, epoch: u32) {
        if last.is_some_and(|(_, last_epoch)| last_epoch == epoch) {
            if let Some(Pending::Gap(_, gap, _)) = self.pending.back()
                && gap.is_unused_rest()
            {
                self.pending.pop_back();
            }
            self.prove(Position(u64::MAX));
        }
    }

    /// All gaps that start before `durable` are damage; what stands behind them counts.
    fn prove(&mut self, durable: Position) {
        while let Some(pending) = self.pending.pop_front() {
            match pending {
                Pending::Gap(number, gap, kind) => {
                    if Position::new(number, gap.start) >= durable {
                        self.pending.push_front(Pending::Gap(number, gap, kind));
                        return;
                    }
                    let mut end = gap.end;
                    if gap.is_last && durable.segment() == number {
                        end = durable.offset();
                    }
                    self.report(number, (gap.start, end), kind, gap);
                }
                Pending::Effect(effect) => self.apply(effect),
            }
        }
    }

    fn report(&mut self, segment: u32, (start, end): (u32, u32), kind: DamageKind, gap: Gap) {
        if let Some(segment) = self.log.segments.get_mut(&segment) {
            segment.damaged = true;
            if kind != DamageKind::Truncated {
                segment.end = segment.end.max(end);
            }
        }
        let (length, suspects) = (end.saturating_sub(start), gap.suspects);
        self.log.damage.push(Damage { segment, offset: start, length, kind, suspects });
    }

    /// What is still open was never confirmed: the segment ends before it.
    fn cut(&mut self) {
        let mut pending = std::mem::take(&mut self.pending).into_iter();
        let Some(Pending::Gap(segment, gap, kind)) = pending.next() else { return };
        if kind == DamageKind::Header {
            // Its first batch was torn: it was not begun.
            if let Some(segment_found) = self.log.segments.remove(&segment) {
                self.log.unused.push((segment, u64::from(segment_found.size_bytes)));
            }
        }
        let mut end = gap.end;
        for behind in pending {
            match behind {
                Pending::Gap(_, gap, _) if gap.is_unused_rest() => {}
                Pending::Gap(_, gap, _) => end = gap.end,
                Pending::Effect(effect) => end = effect.place().offset + effect.place().length,
            }
        }
        if !gap.is_unused_rest() {
            // Something was written behind the close, or not wholly.
            self.closed = false;
            let length = end.saturating_sub(gap.start);
            self.log.torn.push(Torn { segment, offset: gap.start, length });
        }
    }

    fn take_gap(&mut self, gap: Gap) {
        let Some(current) = &mut self.current else { return };
        let number = current.number;
        if !current.is_begun {
            // What stands before the first valid record belongs to the segment; what none follows
            // is not of this log.
            current.first_gap = Some(gap).filter(|gap| !gap.is_last);
            return;
        }
        let promised = current.header.map_or(0, |header| header.size_bytes);
        if gap.is_last && u64::from(promised) > current.file_bytes {
            let lost = Gap { start: gap.end, end: promised, ..Gap::default() };
            self.report(number, (gap.end, promised), DamageKind::Truncated, lost);
        }
        self.pending.push_back(Pending::Gap(number, gap, DamageKind::Record));
    }

    fn take_record(&mut self, place: Place, record: &Record<'_>) {
        self.log.counts.records += 1;
        // Queues of the process that wrote them are gone with it.
        let record = match record {
            Record::Settle(log_id, _) if log_id & PROCESS_QUEUE != 0 => &Record::Filler,
            other => other,
        };
        if self.pending.is_empty() {
            // The way of nearly all records: nothing is kept of them but what they say.
            self.extend(place);
            match record {
                Record::Publish(publish) => {
                    self.reopen();
                    self.log.counts.publishes += 1;
                    self.held.publish(place, publish.queues.iter().filter(is_lasting));
                    return;
                }
                Record::Settle(log_id, ranges) => {
                    self.reopen();
                    self.log.counts.settles += 1;
                    self.held.settle(place.segment, *log_id, ranges.iter());
                    return;
                }
                Record::Barrier(barrier) => {
                    self.log.written_at = barrier.written_at;
                    return;
                }
                Record::Filler => return,
                _ => {}
            }
        }
        let effect = match record {
            Record::Publish(publish) => {
                let queues = publish.queues.iter().filter(is_lasting).collect();
                Effect::Publish(place, queues)
            }
            Record::Settle(log_id, ranges) => {
                Effect::Settle(place, *log_id, ranges.iter().collect())
            }
            Record::Mark(mark) => Effect::Mark(place, *mark),
            Record::Close => Effect::Close(place),
            Record::Filler => Effect::Filler(place),
            Record::Unknown(_) => Effect::Unknown(place),
            Record::PassedOver(_) => Effect::PassedOver(place),
            Record::Newer { kind, flags } => Effect::Newer(place, *kind, *flags),
            Record::Barrier(barrier) => {
                // One of another segment says nothing that this one's beginning did not.
                if barrier.synced_upto.segment() == place.segment {
                    self.prove(barrier.synced_upto);
                }
                Effect::Barrier(place, barrier.written_at)
            }
        };
        if self.pending.is_empty() {
            self.apply(effect);
        } else {
            self.pending.push_back(Pending::Effect(effect));
        }
    }

    fn apply(&mut self, effect: Effect) {
        self.extend(effect.place());
        match effect {
            Effect::Publish(place, queues) => {
                self.reopen();
                self.log.counts.publishes += 1;
                self.held.publish(place, queues.into_iter());
            }
            Effect::Settle(place, log_id, ranges) => {
                self.reopen();
                self.log.counts.settles += 1;
                self.held.settle(place.segment, log_id, ranges.into_iter());
            }
            Effect::Mark(_, mark) => {
                self.held.mark(mark);
                self.marks.insert(mark.log_id, mark);
            }
            Effect::Close(_) => self.closed = true,
            Effect::Barrier(_, written_at) => self.log.written_at = written_at,
            Effect::Filler(_) => {}
            Effect::PassedOver(_) => self.log.counts.passed_over += 1,
            Effect::Newer(Place { segment, offset, .. }, kind, flags) => {
                self.refusal = Some(Refusal::Newer { segment, offset, kind, flags });
            }
            Effect::Unknown(place) => {
                self.reopen();
                self.log.counts.unknown += 1;
                // Nobody knows whether it is still needed: the file is kept.
                if let Some(segment) = self.log.segments.get_mut(&place.segment) {
                    segment.damaged = true;
                }
            }
        }
    }

    fn extend(&mut self, place: Place) {
        if let Some(segment) = self.log.segments.get_mut(&place.segment) {
            segment.end = place.offset + place.length;
        }
    }

    /// A record that a closed log would not have: an earlier close and its marks are history.
    fn reopen(&mut self) {
        if self.closed || !self.marks.is_empty() {
            self.closed = false;
            self.marks.clear();
        }
    }
}

impl Effect {
    fn place(&self) -> Place {
        match self {
            Self::Publish(place, _)
            | Self::Settle(place, _, _)
            | Self::Mark(place, _)
            | Self::Close(place)
            | Self::Barrier(place, _)
            | Self::Filler(place)
            | Self::PassedOver(place)
            | Self::Newer(place, _, _)
            | Self::Unknown(place) => *place,
        }
    }
}

/// Whether a queue outlives the process.
fn is_lasting(queue: &QueueRef) -> bool {
    queue.log_id & PROCESS_QUEUE == 0
}
