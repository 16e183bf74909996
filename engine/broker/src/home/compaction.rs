//! Emptying segments: where most of the log is dead, what is held of the oldest segment is copied
//! to the end, so that its file can be used again. So the disk holds little more than twice what
//! the queues hold, however long one of them keeps a message.
//!
//! ```text
//!   to_be_emptied ──► list what is held ──► read ──► copy ──► read ──► copy ──► … ──► next segment
//! ```
//! One read is under way at a time and its messages are copied when it ends. None begins while
//! copies and publishes together wait for the disk: publishers are stopped later than this is.

use std::collections::BTreeMap;

use super::Home;
use super::paging::{Damage, queue_ref, record_in};
use crate::id::QueueId;
use crate::queue::Queue;
use crate::storage::log::blocks::Blocks;
use crate::storage::log::operation::{DiskError, ReadId};
use crate::storage::log::record::{PublishRecord, Queues};
use crate::storage::log::{
    BLOCK_BYTES, Log, LogId, Place, Position, QueueRef, process_queue, process_queue_slot,
};
use crate::storage::store::{MessageId, Store, Where};
use crate::turn::Turn;

/// Bytes of one read, unless a record is larger.
const STEP_BYTES_MAX: u32 = 256 << 10;

/// Store entries scanned per turn when listing a segment's live messages; a few milliseconds per
/// turn, once per 16 MiB written.
const LIST_ENTRIES: usize = 4 << 20;

/// What is being emptied.
#[derive(Debug, Default)]
pub struct Compaction {
    job: Option<Job>,
}

#[derive(Debug)]
struct Job {
    segment: u32,
    /// Up to here the store was looked through.
    listed: usize,
    is_listed: bool,
    /// What the segment held then, in the order of the segment once all is listed.
    held: Vec<(Place, Finder)>,
    /// How much of that is done with.
    done: usize,
    read: Option<(ReadId, u32)>,
    read_through: usize,
}

/// Who knew where a message is when its segment was looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finder {
    Store(MessageId),
    /// The queue, which has it at this position.
    Queue(QueueId, u64),
}

impl Compaction {
    /// Whether this read is for emptying a segment.
    pub(crate) fn is_reading(&self, read: ReadId) -> bool {
        let job = self.job.as_ref().and_then(|job| job.read);
        job.is_some_and(|(under_way, _)| under_way == read)
    }
}

impl Home {
    /// Makes the next step in emptying a segment, if one is to be emptied and may be now.
    pub(super) fn compact(&mut self) {
        let Some(log) = &mut self.shared.log else {
            return;
        };
        if log.has_no_room_for_copies() {
            return;
        }
        let mut job = match self.shared.compaction.job.take() {
            Some(job) if job.read.is_some() => {
                self.shared.compaction.job = Some(job);
                return;
            }
            Some(job) => job,
            None => {
                let Some((segment, oldest)) = log.segments().to_be_emptied() else { return };
                if Position::new(segment, oldest.end) > log.durable() {
                    return;
                }
                Job::new(segment)
            }
        };
        job.list(&self.queues, &self.shared.store);
        while let Some((place, finder)) = job.held.get(job.done)
            && job.is_listed
            && self.kept_by(*finder, *place).is_none()
        {
            job.done += 1;
        }
        if job.is_listed && job.done == job.held.len() {
            // Emptied: it goes when the copies are durable, and then the next one is looked for.
            // Should something have gone from the store to its queue or back while the list was
            // made, the same segment is looked through again.
            return;
        }
        if let Some(log) = self.shared.log.as_mut().filter(|_| job.is_listed) {
            let (start, end) = job.span();
            job.read = Some((log.read(job.segment, start, end - start), start));
        }
        self.shared.compaction.job = Some(job);
    }

    /// The read of a step ended.
    pub(super) fn compaction_read(&mut self, turn: &Turn, result: &Result<Blocks, DiskError>) {
        let Some(mut job) = self.shared.compaction.job.take() else {
            return;
        };
        let Some((_, start)) = job.read.take() else {
            return;
        };
        if self.shared.log.as_ref().is_none_or(Log::is_closed) {
            return;
        }
        let epoch = self.shared.epoch_of(job.segment);
        let mut holders = Holders::default();
        for (place, finder) in &job.held[job.done..job.read_through] {
            let Some(rests) = self.kept_by(*finder, *place) else {
                continue;
            };
            let found = match result {
                Ok(blocks) => record_in(blocks, start, *place, epoch).ok_or(None),
                Err(error) => Err(Some(error.clone())),
            };
            match found {
                Ok(record) => self.copy_forward(rests, *finder, *place, &record, &mut holders),
                Err(error) => self.unreadable(turn, rests, *finder, *place, error),
            }
        }
        job.done = job.read_through;
        self.shared.compaction.job = Some(job);
        self.compact();
    }

    /// Where a message rests that was at this place, if it still is.
    fn kept_by(&self, finder: Finder, place: Place) -> Option<Where> {
        let rests = match finder {
            Finder::Store(id) => Where::Store(id),
            Finder::Queue(id, position) => self.known(id)?.kind.find(position)?,
        };
        (self.shared.store.place_of(rests) == Some(place)).then_some(rests)
    }

    fn copy_forward(
        &mut self,
        rests: Where,
        finder: Finder,
        from: Place,
        record: &PublishRecord<'_>,
        holders: &mut Holders,
    ) {
        let mut held: Vec<QueueRef> = record.queues.iter().collect();
        let references = match rests {
            Where::Store(id) => self.shared.store.references(id),
            Where::Log(_) => 1,
        };
        // A copy that named a queue which is done with the message would bring it back.
        if held.len() != references as usize {
            held.retain(|queue| self.holds(*queue, rests, holders));
        }
        let Some(log) = &mut self.shared.log else { return };
        let copy = PublishRecord { queues: Queues::Values(&held), ..*record };
        let to = log.copy_forward(&copy, from.segment);
        log.release(from);
        match (rests, finder) {
            (Where::Store(id), _) => self.shared.store.moved(id, to),
            (Where::Log(_), Finder::Queue(id, position)) => {
                if let Some(queue) = self.known_mut(id) {
                    queue.kind.relocate_at(position, Where::Log(to));
                }
            }
            (Where::Log(_), Finder::Store(_)) => {}
        }
    }

    fn unreadable(
        &mut self,
        turn: &Turn,
        rests: Where,
        finder: Finder,
        place: Place,
        error: Option<DiskError>,
    ) {
        let known = match (rests, finder) {
            (Where::Store(id), _) => Some(id),
            (Where::Log(_), Finder::Queue(queue, at)) => self.readopt(queue, at, place),
            (Where::Log(_), Finder::Store(_)) => None,
        };
        match known {
            Some(id) if self.shared.store.is_resident(id) => self.rescue(turn, id, place, error),
            Some(id) => self.shared.damaged(id, error),
            None => {}
        }
    }

    /// Writes a message anew whose record was damaged while it was in memory.
    fn rescue(&mut self, turn: &Turn, id: MessageId, from: Place, error: Option<DiskError>) {
        self.shared.note_damage(Damage { place: from, is_rescued: true, error });
        let mut held = Vec::new();
        for queue in self.queues.iter().flatten() {
            let waiting = queue.kind.pageable();
            let waiting = waiting.iter().chain(waiting.returned());
            let waiting = waiting.map(|entry| (entry.rests, entry.position));
            let given = queue.kind.checked_out();
            let given = given.map(|out| (out.location, out.position));
            let found = waiting.chain(given).filter(|(rests, _)| *rests == Where::Store(id));
            // Whether it was persistent only its record said, and its properties say.
            let persistent = self.shared.store.message(id).is_persistent();
            held.extend(found.map(|(_, at)| queue_ref(queue, persistent, at)));
        }
        let Some(log) = &mut self.shared.log else { return };
        let record = PublishRecord::of(&self.shared.store.message(id), &held, turn.time());
        let to = log.copy_forward(&record, from.segment);
        self.shared.store.moved(id, to);
        log.release(from);
    }

    fn holds(&self, at: QueueRef, rests: Where, holders: &mut Holders) -> bool {
        let Some(queue) = self.queue_of(at.log_id) else {
            return false;
        };
        queue.kind.find(at.sequence) == Some(rests)
            || holders.given(queue).get(&at.sequence).copied() == Some(rests)
    }

    /// The queue of this shard that a record names.
    pub fn queue_of(&self, log_id: LogId) -> Option<&Queue> {
        let (slot, durable) = match process_queue_slot(log_id) {
            Some(slot) => (slot, None),
            None => self.by_log_id.get(&log_id).map(|queue| (queue.slot, Some(*queue)))?,
        };
        let queue = self.queues.get(slot as usize)?.as_deref()?;
        let is_it = match durable {
            Some(durable) => queue.meta.id == durable,
            None => process_queue(queue.meta.id) == log_id,
        };
        is_it.then_some(queue)
    }
}

/// What was given out of queues, by position: made once a step for each queue that needs it.
#[derive(Default)]
struct Holders(BTreeMap<QueueId, BTreeMap<u64, Where>>);

impl Holders {
    fn given(&mut self, queue: &Queue) -> &BTreeMap<u64, Where> {
        self.0.entry(queue.meta.id).or_insert_with(|| {
            queue.kind.checked_out().map(|out| (out.position, out.location)).collect()
        })
    }
}

impl Job {
    fn new(segment: u32) -> Self {
        Self {
            segment,
            listed: 0,
            is_listed: false,
            held: Vec::new(),
            done: 0,
            read: None,
            read_through: 0,
        }
    }

    /// Lists what the segment holds. Nothing is added to a segment that is not the last one, so it
    /// may take several turns.
    fn list(&mut self, queues: &[Option<Box<Queue>>], store: &Store) {
        if self.is_listed {
            return;
        }
        if self.listed == 0 {
            for queue in queues.iter().flatten() {
                let found = queue.kind.pageable().in_segment(self.segment);
                let found = found.map(|(at, place)| (place, Finder::Queue(queue.id, at)));
                self.held.extend(found);
            }
        }
        match store.logged_in(self.segment, self.listed, LIST_ENTRIES) {
            Some(found) => {
                self.held.extend(found.map(|(place, id)| (place, Finder::Store(id))));
                self.listed += LIST_ENTRIES;
                if self.listed < store.logged_entries() {
                    return;
                }
            }
            None => self.listed = usize::MAX,
        }
        self.held.sort_unstable();
        self.is_listed = true;
    }

    /// The next blocks to read.
    fn span(&mut self) -> (u32, u32) {
        let mut places = self.held[self.done..].iter().map(|(place, _)| *place);
        let first = places.next().unwrap_or(Place { segment: self.segment, offset: 0, length: 0 });
        let end_of =
            |place: Place| (place.offset + place.length).next_multiple_of(BLOCK_BYTES as u32);
        let start = first.offset - first.offset % BLOCK_BYTES as u32;
        let mut end = end_of(first);
        self.read_through = self.done + 1;
        for place in places {
            if end_of(place) - start > STEP_BYTES_MAX {
                break;
            }
            end = end_of(place);
            self.read_through += 1;
        }
        (start, end)
    }
}
