//! The durable log of one shard, as a value; its format is `docs/STORE_FORMAT.md`.
//!
//! ```text
//!   add ──► unwritten ──publish──► open batch ──► closed batches ──► one Commit under way
//!               │                      ▲                              │
//!               └── settled: nothing   └── settle                     └──► durable, next one
//! ```
//! Group commit has no timer of its own: while one commit is under way, messages gather, and its
//! end starts the next. So a lone record waits for one device write and a crowd of them shares it.

pub mod blocks;
pub mod bug;
mod commit;
pub mod operation;
pub mod record;
pub mod recovery;
pub mod segment;
mod settles;
mod unwritten;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::id::{Instant, QueueId, SECOND_NS, Time, WallTime};
use crate::message::Message;
use crate::storage::store::MessageId;

use self::blocks::Blocks;
use self::bug::{Bug, Planted};
use self::commit::{Batch, Commits};
use self::operation::{DiskError, DiskEvent, DiskOperation, ReadId};
use self::record::{MarkRecord, PublishRecord};
use self::segment::Segments;
use self::settles::Settles;
use self::unwritten::Unwritten;

pub use self::unwritten::Ticket;

/// The unit of reading and writing: what direct I/O aligns to everywhere.
pub const BLOCK_BYTES: usize = 4096;

/// How long settlements may wait for a commit that others start: half of the 10 ms within which
/// they are to be durable, so that the commit has the other half.
const SETTLE_DELAY_NS: u64 = 5_000_000;

/// How soon an idle log writes a last barrier, which narrows what rot can hide behind.
const IDLE_BARRIER_NS: u64 = 10_000_000;

/// How soon a full disk is asked again.
const FULL_RETRY_NS: u64 = SECOND_NS;

/// Bytes waiting to be written at which publishers have to wait: eight commits of full size, some
/// milliseconds of a fast device and a bound in memory for a slow one.
const BACKED_UP_BYTES: usize = 8 << 20;

/// Bytes at which they go on.
const RELIEVED_BYTES: usize = BACKED_UP_BYTES / 4;

/// A queue in the log; see [`crate::catalog::object::QueueMeta::log_id`].
pub type LogId = u64;

/// Marks the number of a queue that does not outlive the process: its slot and generation follow.
pub const PROCESS_QUEUE: LogId = 1 << 63;

/// Bits of a generation in the log id of such a queue.
const GENERATION_BITS: u32 = 31;

/// The log id of a queue that does not outlive the process, or of one that does for messages that
/// do not.
pub fn process_queue(queue: QueueId) -> LogId {
    let QueueId { slot, generation } = queue;
    let generation = u64::from(generation) & ((1 << GENERATION_BITS) - 1);
    PROCESS_QUEUE | u64::from(slot) << GENERATION_BITS | generation
}

/// The slot of the queue that [`process_queue`] made the id of.
pub fn process_queue_slot(log_id: LogId) -> Option<u32> {
    (log_id & PROCESS_QUEUE != 0).then_some((log_id >> GENERATION_BITS) as u32)
}

/// An address in a log: segment, then offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The address of an offset in a segment.
    #[inline]
    pub fn new(segment: u32, offset: u32) -> Self {
        Self(u64::from(segment) << 32 | u64::from(offset))
    }

    /// Which segment.
    pub fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Where in it.
    pub fn offset(self) -> u32 {
        self.0 as u32
    }
}

/// Where the publish record of a message is, or will be ([`Place::is_written`]). 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment.
    pub segment: u32,
    /// The record's offset in it.
    pub offset: u32,
    /// The record's length.
    pub length: u32,
}

/// A message's place in one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueRef {
    /// The queue.
    pub log_id: LogId,
    /// The message's position in it.
    pub sequence: u64,
}

/// What [`Log::handle`] has to say.
#[derive(Debug)]
pub enum LogEvent {
    /// Nothing to act on.
    None,
    /// [`Log::durable`] has moved.
    Durable,
    /// A read that was asked for by [`Log::read`].
    Read(ReadId, Result<Blocks, DiskError>),
    /// The log is at its end: nothing more becomes durable, and nobody knows what the disk has of
    /// what was under way. The process has to go.
    Failed(DiskError),
}

/// The log of one shard.
#[derive(Debug)]
pub struct Log {
    segments: Segments,
    commits: Commits,
    settles: Settles,
    unwritten: Unwritten,
    /// All messages before this have a record in a batch, or need none.
    written: Ticket,
    /// Up to which position the log has to be durable for the messages before a ticket; both
    /// ascend, in one step for each batch.
    steps: VecDeque<(Ticket, Position)>,
    /// All messages before this have a durable record, or need none.
    confirmed: Ticket,
    operations: VecDeque<DiskOperation>,
    next_read: u64,
    failed: bool,
    closed: bool,
    retry_at: Option<Instant>,
    /// When the oldest settlement that waits came in, plus [`SETTLE_DELAY_NS`].
    settle_due: Option<Instant>,
    /// When the last commit ended, plus [`IDLE_BARRIER_NS`], unless it was but a barrier.
    barrier_due: Option<Instant>,
    counts: LogCounts,
    planted: Planted,
}

/// What a log has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Commits that ended well.
    pub commits: u64,
    /// Bytes of those, barriers and fillers included.
    pub committed_bytes: u64,
    /// Publish records, copies not counted.
    pub publishes: u64,
    /// Bytes of those.
    pub publish_bytes: u64,
    /// Publish records copied forward to empty a segment.
    pub copies: u64,
    /// Bytes of those.
    pub copied_bytes: u64,
    /// Body bytes of publish records and of their copies.
    pub body_bytes: u64,
    /// Settle records.
    pub settles: u64,
    /// Segments taken into use again.
    pub recycled: u64,
    /// Reads.
    pub reads: u64,
}

impl Log {
    /// The log of a shard that has none yet, or the continuation of the one that `segments` were
    /// recovered from; see [`Segments::recovered`].
    pub fn new(segments: Segments) -> Self {
        let (mut segments, mut operations) = (segments, VecDeque::new());
        // So that the first publish does not wait for a file.
        let (segment, size_bytes) = segments.turn_to_next(0, 0, &mut operations);
        let commits = Commits::new(segments.identity().epoch, segment, size_bytes);
        let unwritten = Unwritten::default();
        Self {
            segments,
            commits,
            settles: Settles::default(),
            written: unwritten.first(),
            confirmed: unwritten.first(),
            unwritten,
            steps: VecDeque::new(),
            operations,
            next_read: 0,
            failed: false,
            closed: false,
            retry_at: None,
            settle_due: None,
            barrier_due: None,
            counts: LogCounts::default(),
            planted: Planted::default(),
        }
    }

    /// From now on it makes a mistake, so that tests can see whether they notice.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: Bug) {
        self.planted = Planted::of(bug);
        self.commits.plant(self.planted);
        self.segments.plant(self.planted);
    }

    /// Adds a message that these queues of the shard hold now. Its record is to be written when
    /// [`Self::take_unwritten`] asks for it; until then the store knows its place as one that is
    /// not written.
    #[inline]
    pub fn add(&mut self, id: MessageId, message: &Message<'_>, queues: &[QueueRef]) -> Place {
        self.unwritten.add(id, PublishRecord::length_of(message, queues.len()), queues)
    }

    /// The next message whose record is to be written now by [`Self::publish`], and the queues that
    /// hold it still: while a commit is to begin that has room for it. To be asked until there is
    /// none before each [`Self::poll_operation`].
    #[inline]
    pub fn take_unwritten(&mut self, queues: &mut Vec<QueueRef>) -> Option<MessageId> {
        if self.commits.is_under_way() || self.commits.has_closed() || self.failed {
            return None;
        }
        self.written = self.unwritten.first();
        self.unwritten.take(queues)
    }

    /// As [`Self::take_unwritten`], however much there is: for a log that is to be closed.
    pub fn take_all_unwritten(&mut self, queues: &mut Vec<QueueRef>) -> Option<MessageId> {
        self.written = self.unwritten.first();
        self.unwritten.take(queues)
    }

    /// Behind the last message added.
    #[inline]
    pub fn last_added(&self) -> Ticket {
        self.unwritten.end()
    }

    /// All messages before this have a record in a batch, or need none.
    #[inline]
    pub fn written(&self) -> Ticket {
        self.written
    }

    /// All messages before this are durable, or were settled before a commit began that told so.
    #[inline]
    pub fn confirmed(&self) -> Ticket {
        self.confirmed
    }

    /// Writes the record of a message, which came at or before `time`. It can be addressed at once
    /// and read once [`Self::durable`] has passed it.
    #[inline]
    pub fn publish(&mut self, message: &Message<'_>, queues: &[QueueRef], time: Time) -> Place {
        self.take_over(&PublishRecord::of(message, queues, time))
    }

    /// Writes a message with all that its record in another log says of it.
    #[inline]
    pub fn take_over(&mut self, record: &PublishRecord<'_>) -> Place {
        let place = self.append(record);
        self.counts.publishes += 1;
        self.counts.publish_bytes += u64::from(place.length);
        place
    }

    /// Adds a message again, so that the segment of `from` can be recycled, with the queues that
    /// still hold it.
    pub fn copy_forward(&mut self, record: &PublishRecord<'_>, from: u32) -> Place {
        let place = self.append(record);
        self.segments.copied_from(from, self.commits.appended());
        self.counts.copies += 1;
        self.counts.copied_bytes += u64::from(place.length);
        place
    }

    /// A queue no longer holds a message whose record is at `place`.
    #[inline]
    pub fn settle(&mut self, queue: QueueRef, place: Place, now: Instant) {
        if !place.is_written() {
            return self.unwritten.settle(place, queue.log_id);
        }
        if self.settle_due.is_none() {
            self.settle_due = Some(now.after(SETTLE_DELAY_NS));
        }
        self.settles.add(queue, place.segment);
        if self.settles.is_full() {
            self.write_settles();
        }
    }

    /// No queue holds the message any more: its record is dead.
    #[inline]
    pub fn release(&mut self, place: Place) {
        if !place.is_written() {
            return self.unwritten.release(place);
        }
        if self.segments.release(place) {
            self.segments.collect(self.commits.durable(), &mut self.operations);
        }
    }

    /// Ends the log in order: what each queue has to remember, then a close. It is done when
    /// [`Self::durable`] has reached [`Self::appended`].
    pub fn close(&mut self, marks: impl Iterator<Item = MarkRecord>) {
        self.write_settles();
        for mark in marks {
            self.make_room(record::MARK_BYTES);
            self.commits.append(|bytes, stamp| record::encode_mark(bytes, stamp, &mark));
        }
        self.make_room(record::CLOSE_BYTES);
        self.commits.append(record::encode_close);
        self.closed = true;
        self.barrier_due = None;
    }

    /// A log that only writes a barrier, so that a close before it is no longer the log's end: what
    /// is given out from now on is not known to it. Nothing is held in `segments` yet; when the
    /// barrier is durable, [`Self::into_segments`] gives them back.
    pub fn begin(mut segments: Segments) -> Self {
        segments.keep_all();
        let mut log = Self::new(segments);
        log.open_batch(0);
        log
    }

    /// The segments for another writer of the same boot. Everything has to be durable.
    pub fn into_segments(self) -> Segments {
        debug_assert!(self.commits.is_idle());
        self.segments.ended(self.commits.durable().offset())
    }

    /// Asks for whole blocks of a segment; [`LogEvent::Read`] brings them.
    pub fn read(&mut self, segment: u32, offset: u32, length: u32) -> ReadId {
        let read = ReadId(self.next_read);
        self.next_read += 1;
        self.counts.reads += 1;
        self.operations.push_back(DiskOperation::Read { read, segment, offset, length });
        read
    }

    /// Behind the last record added.
    #[inline]
    pub fn appended(&self) -> Position {
        self.commits.appended()
    }

    /// Everything before this is written and, in the mode `flush`, durable.
    #[inline]
    pub fn durable(&self) -> Position {
        self.commits.durable()
    }

    /// Whether everything added is durable.
    pub fn is_settled(&self) -> bool {
        self.settles.is_empty() && self.commits.is_idle() && self.confirmed == self.unwritten.end()
    }

    /// Whether publishers have to wait: too much is waiting to be written, or the last segment is
    /// kept for settlements and copies.
    #[inline]
    pub fn is_backed_up(&self) -> bool {
        self.waiting_bytes() > BACKED_UP_BYTES || self.is_full()
    }

    /// Whether publishers that waited may go on.
    pub fn is_relieved(&self) -> bool {
        self.waiting_bytes() < RELIEVED_BYTES && !self.is_full()
    }

    /// Whether the disk is full: what is left is for settlements and copies.
    pub fn is_full(&self) -> bool {
        self.segments.is_full()
    }

    /// Whether a write failed and the process has to go.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The segments, for reports and for finding out what to copy.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// A segment has damage: its file is kept for people when it is empty.
    pub fn set_damaged(&mut self, segment: u32) {
        self.segments.set_damaged(segment);
    }

    /// A segment has records that cannot be read and may be sound: its file stays where it is.
    pub fn keep_segment(&mut self, segment: u32) {
        self.segments.keep_segment(segment);
    }

    /// Whether a record is on the disk wholly, so that it can be read.
    #[inline]
    pub fn can_be_read(&self, place: Place) -> bool {
        Position::new(place.segment, place.offset + place.length) <= self.durable()
    }

    /// Whether the log was ended in order: nothing may be added behind that.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether copies have to wait: they leave half of the room to publishers, and none may follow
    /// a close.
    pub fn has_no_room_for_copies(&self) -> bool {
        self.failed || self.closed || self.waiting_bytes() > BACKED_UP_BYTES / 2
    }

    /// Counters since the start.
    pub fn counts(&self) -> LogCounts {
        LogCounts { recycled: self.segments.recycled_count(), ..self.counts }
    }

    /// Bytes in memory that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.commits.waiting_bytes() + self.unwritten.bytes()
    }

    /// The next thing for the disk to do; `now` is for the barrier of a batch.
    pub fn poll_operation(&mut self, now: WallTime) -> Option<DiskOperation> {
        if self.failed {
            return None;
        }
        if let Some(operation) = self.operations.pop_front() {
            return Some(operation);
        }
        if self.commits.is_under_way() {
            return None;
        }
        // What was taken out is in a batch now.
        self.written = self.unwritten.first();
        if self.written > self.last_step() && !self.commits.has_batches() {
            // Whoever waits for what needs no record waits for a flush all the same.
            self.open_batch(0);
        }
        if self.commits.has_batches() {
            // They ride along for nothing.
            self.write_settles();
        }
        self.note_step();
        let segments = &self.segments;
        let Batch { segment, offset, blocks } =
            self.commits.next(now, |segment| segments.is_ready(segment))?;
        if offset == 0 {
            self.segments.use_tail(&mut self.operations);
        }
        Some(DiskOperation::Commit { segment, offset, blocks })
    }

    /// Takes what the disk answers.
    pub fn handle(&mut self, event: DiskEvent, now: Instant) -> LogEvent {
        match event {
            DiskEvent::Prepared { segment, result: Ok(()) } => {
                self.retry_at = None;
                self.segments.prepared(segment, &mut self.operations);
                self.segments.collect(self.commits.durable(), &mut self.operations);
                LogEvent::None
            }
            DiskEvent::Prepared { segment, result: Err(DiskError::Full) } => {
                self.segments.refused(segment, &mut self.operations);
                self.retry_at = Some(now.after(FULL_RETRY_NS));
                LogEvent::None
            }
            DiskEvent::Prepared { result: Err(error), .. }
            | DiskEvent::Committed { result: Err(error), .. } => {
                self.failed = true;
                LogEvent::Failed(error)
            }
            DiskEvent::Committed { segment, offset, blocks, result: Ok(()) } => {
                self.counts.commits += 1;
                self.counts.committed_bytes += blocks.len() as u64;
                let data = self.commits.committed(segment, offset, blocks);
                let durable = self.commits.durable();
                while let Some((ticket, _)) = self.steps.pop_front_if(|step| step.1 <= durable) {
                    self.confirmed = ticket;
                }
                // Nothing may follow a close.
                self.barrier_due = (data && !self.closed).then(|| now.after(IDLE_BARRIER_NS));
                self.segments.collect(self.commits.durable(), &mut self.operations);
                LogEvent::Durable
            }
            DiskEvent::Removed { segment } => {
                self.segments.gone(segment);
                self.segments.collect(self.commits.durable(), &mut self.operations);
                LogEvent::None
            }
            DiskEvent::Read { read, result } => LogEvent::Read(read, result),
        }
    }

    /// When [`Self::handle_timeout`] is to be called at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.failed {
            return None;
        }
        let idle = self.barrier_due.filter(|_| self.commits.is_idle());
        let settle = self.settle_due.filter(|_| !self.commits.is_under_way());
        [self.retry_at, settle, idle].into_iter().flatten().min()
    }

    /// Takes the time in.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.segments.retry(&mut self.operations);
        }
        if self.settle_due.is_some_and(|at| at <= now) && !self.commits.is_under_way() {
            self.write_settles();
        }
        if self.barrier_due.is_some_and(|at| at <= now) && self.commits.is_idle() {
            self.barrier_due = None;
            self.open_batch(0);
        }
    }

    fn write_settles(&mut self) {
        self.settle_due = None;
        if self.settles.is_empty() {
            return;
        }
        let (queues, settled) = self.settles.take();
        if self.planted.is(Bug::SettlesDropped) && self.counts.commits % 4 == 3 {
            return;
        }
        for (log_id, ranges) in queues {
            self.make_room(record::settle_bytes(ranges.len()));
            self.commits.append(|blocks, stamp| {
                record::encode_settle(blocks, stamp, log_id, &ranges);
            });
            self.segments.settled(settled.iter().copied());
            self.counts.settles += 1;
        }
    }

    #[inline(always)]
    fn append(&mut self, record: &PublishRecord<'_>) -> Place {
        let length = record.length();
        self.make_room(length);
        let position = self.commits.append(|bytes, stamp| record.encode(bytes, stamp));
        let (segment, offset) = (position.segment(), position.offset());
        let place = Place { segment, offset, length: length as u32 };
        self.counts.body_bytes += record.body.len() as u64;
        self.segments.hold(place);
        place
    }

    fn last_step(&self) -> Ticket {
        self.steps.back().map_or(self.confirmed, |(ticket, _)| *ticket)
    }

    /// All messages before [`Self::written`] are in batches, or in none, that end here.
    fn note_step(&mut self) {
        if self.written > self.last_step() {
            let through = self.commits.appended();
            self.steps.pop_back_if(|(_, position)| *position == through);
            self.steps.push_back((self.written, through));
        }
    }

    #[inline]
    fn make_room(&mut self, length: usize) {
        if !self.commits.has_room(length) {
            self.open_batch(length);
        }
    }

    /// Opens a batch for a record of `length`, in a new segment if this one is full.
    #[cold]
    fn open_batch(&mut self, length: usize) {
        self.note_step();
        self.commits.close_batch();
        if !self.commits.fits_behind(length) {
            let end = self.commits.appended().offset();
            let needed = Commits::bytes_in_new_segment(length) as u32;
            let tail = self.segments.turn_to_next(end, needed, &mut self.operations);
            self.commits.turn_to(tail);
        }
        let segments = &self.segments;
        self.commits.open_batch(|| segments.header(), length);
    }
}
