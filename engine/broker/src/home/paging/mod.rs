//! Deep queues: messages that memory has no room for are on disk only, and read before they are
//! due.
//!
//! ```text
//!   front                    from                      to               back
//!     │ resident, or being read │ on disk only           │ new: in memory   │
//!     └──► consumers            └──► read ahead          └──► page_out ─────┘
//! ```
//! Whatever was logged and is durable can leave memory; `Home::page_out` takes it from the back of
//! deep queues and never walks over what has left already. What is due is read in queue order, some
//! way ahead. A read is good for a message only if its record is still where the read was made:
//! what was settled or copied forward meanwhile is passed over, so a segment may be used again
//! while it is being read.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::delivery::outputs::Outputs;
use crate::id::{ChannelKey, Instant, QueueId, Time, WallTime};
use crate::message::{Likeness, Message};
use crate::queue::Queue;
use crate::queue::pageable::Pageable;
use crate::queue::ready::Entry;
use crate::queue::records::can_keep;
use crate::storage::log::blocks::Blocks;
use crate::storage::log::operation::{DiskError, ReadId};
use crate::storage::log::record::{self, PublishRecord, Record, Stamp};
use crate::storage::log::{BLOCK_BYTES, Log, LogId, Place, Position, QueueRef, process_queue};
use crate::storage::store::{MessageId, Store, Where};
use crate::turn::Turn;

use super::leaving::Reason;
use super::{Home, OpenQueue, Shared};

/// Bytes of one read, unless a record is larger: where a device gives its full throughput.
const READ_BYTES_MAX: u32 = 256 << 10;

/// A gap between two records that is read rather than paid for with another read: what a device
/// transfers in the time of a request.
const GAP_BYTES_MAX: u32 = 16 << 10;

/// Bytes in memory before a queue's messages on disk only, kept and read ahead: a full socket.
const HEAD_BYTES: usize = 1 << 20;

/// Messages in memory there that are enough whatever their size.
const HEAD_MESSAGES: usize = 4096;

/// Reads of one queue at a time: twice what reading ahead needs where records stand together.
const QUEUE_READS_MAX: usize = 8;

/// Reads under way on a shard, which is 16 MiB and what keeps a device busy.
const READS_MAX: usize = 64;

/// Bytes of reads under way, unless there is but one: large records are read a few at a time.
const READS_BYTES_MAX: u64 = 32 << 20;

/// Messages that one turn looks at to evict them: some hundred microseconds.
const EVICTION_STEPS: usize = 8192;

/// Queues that one turn looks at to find deep ones.
const SWEEP_SLOTS: usize = 1024;

/// Records of damage kept until somebody asks: enough to see a pattern, the rest is counted.
const DAMAGE_MAX: usize = 64;

/// Paging of one shard.
#[derive(Debug, Default)]
pub struct Paging {
    reads: BTreeMap<ReadId, PageRead>,
    read_bytes: u64,
    /// Queues that may read when others have.
    line: VecDeque<QueueId>,
    /// Queues whose next message was copied forward, and the copy is not durable yet.
    undurable: BTreeSet<QueueId>,
    /// Queues that may have something to evict, with their depth when they were seen.
    deep: Vec<(usize, QueueId)>,
    sweep_slot: usize,
    /// Queues with messages: so far in this sweep, and in the last one.
    filled: (usize, usize),
}

/// A record that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it is.
    pub place: Place,
    /// The message was in memory too, and its record was written anew: nothing is lost.
    pub is_rescued: bool,
    /// What the disk said; `None` if it gave bytes that are not the record.
    pub error: Option<DiskError>,
}

#[derive(Debug)]
struct PageRead {
    queue: QueueId,
    segment: u32,
    start: u32,
    end: u32,
    messages: Vec<Due>,
    /// The same was read before and could not be.
    again: bool,
}

/// A message to be read.
#[derive(Clone, Copy, Debug)]
struct Due {
    rests: Where,
    place: Place,
    position: u64,
    ready_at: WallTime,
}

/// What a publish record says of a queue that the message came to rest in. A record names all of
/// them: those that the message does not outlive the process in by a number of the process.
#[inline]
pub fn queue_ref(queue: &Queue, persistent: bool, sequence: u64) -> QueueRef {
    QueueRef { log_id: log_id_of(queue, persistent), sequence }
}

fn log_id_of(queue: &Queue, persistent: bool) -> LogId {
    let durable = queue.meta.log_id.filter(|_| persistent);
    durable.unwrap_or_else(|| process_queue(queue.meta.id))
}

/// Whether the bytes of a read hold the record of this place: what it says.
pub(crate) fn record_in(
    blocks: &Blocks,
    start: u32,
    place: Place,
    epoch: u32,
) -> Option<PublishRecord<'_>> {
    let bytes = blocks.as_slice().get(place.offset.checked_sub(start)? as usize..)?;
    let position = Position::new(place.segment, place.offset);
    match record::decode(bytes, Stamp { position, epoch })? {
        (length, Record::Publish(publish)) if length == place.length as usize => Some(publish),
        _ => None,
    }
}

impl Home {
    /// What was added to the log is durable: it may leave memory, and segments may be emptied.
    pub(super) fn made_durable(&mut self, turn: &Turn, out: &mut Outputs) {
        for id in std::mem::take(&mut self.shared.paging.undurable) {
            if let Some(mut queue) = self.open(turn, out, id) {
                queue.pump();
            }
        }
        self.page_out(turn);
        self.compact();
    }

    /// A read of the log ended.
    pub(super) fn pages_arrived(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        read: ReadId,
        result: &Result<Blocks, DiskError>,
    ) {
        if self.shared.compaction.is_reading(read) {
            return self.compaction_read(turn, result);
        }
        let Some(page) = self.shared.paging.reads.remove(&read) else {
            return;
        };
        self.shared.paging.read_bytes -= u64::from(page.end - page.start);
        if result.is_err() && !page.again {
            return self.read_again(page);
        }
        self.load_page(turn, &page, result);
        if let Some(mut queue) = self.open(turn, out, page.queue) {
            if let Some(pages) = &mut queue.queue.pages {
                pages.under_way -= 1;
            }
            queue.pump();
        }
        // Each queue in the line is looked at once, though reading may put it back into the line.
        for _ in 0..self.shared.paging.line.len() {
            if !self.shared.may_read() {
                break;
            }
            let Some(id) = self.shared.paging.line.pop_front() else { break };
            let Some(mut queue) = self.open(turn, out, id) else { continue };
            if let Some(pages) = &mut queue.queue.pages {
                pages.in_line = false;
                queue.pump();
            }
        }
        self.page_out(turn);
    }

    /// A disk that cannot give many blocks may give some of them: each message is read by itself.
    #[cold]
    fn read_again(&mut self, page: PageRead) {
        let Shared { log, paging, .. } = &mut self.shared;
        let queue = self.queues.get_mut(page.queue.slot as usize).and_then(Option::as_deref_mut);
        let queue = queue.filter(|queue| queue.id == page.queue && !queue.closing);
        let (Some(pages), Some(log)) = (queue.and_then(|queue| queue.pages.as_mut()), log) else {
            return;
        };
        pages.under_way += page.messages.len() as u32;
        pages.under_way -= 1;
        for due in page.messages {
            let again = PageRead { again: true, ..PageRead::of(page.queue, due) };
            paging.start(log, again);
        }
    }

    fn load_page(&mut self, turn: &Turn, page: &PageRead, result: &Result<Blocks, DiskError>) {
        let time = turn.time();
        for due in &page.messages {
            let place = due.place;
            let known = match due.rests {
                Where::Store(id) => Some(id),
                Where::Log(_) => self.readopt(page.queue, due.position, place),
            };
            let Some(id) = known else { continue };
            let Shared { store, .. } = &mut self.shared;
            if store.log_place(id) != Some(place) || store.is_resident(id) {
                continue;
            }
            let epoch = self.shared.epoch_of(page.segment);
            let found = match result {
                Ok(blocks) => record_in(blocks, page.start, place, epoch).ok_or(None),
                Err(error) => Err(Some(error.clone())),
            };
            match found {
                Ok(record) => {
                    let message = Message {
                        exchange: record.exchange,
                        routing_key: record.routing_key,
                        properties: record.properties,
                        body: record.body,
                        published_at: published_at(&record, due.ready_at, time),
                        likeness: Likeness::UNKNOWN,
                    };
                    self.shared.store.load(id, &message);
                }
                Err(error) => self.shared.damaged(id, error),
            }
        }
    }

    /// Registers with the store again a message whose log position only its queue remembers. `None`
    /// if the queue no longer holds it there.
    pub(super) fn readopt(
        &mut self,
        id: QueueId,
        position: u64,
        place: Place,
    ) -> Option<MessageId> {
        if self.known(id)?.kind.find(position) != Some(Where::Log(place)) {
            return None;
        }
        let message = self.shared.store.take_back(place);
        self.known_mut(id)?.kind.relocate_at(position, Where::Store(message));
        Some(message)
    }

    /// Evicts messages while memory is over its budget, a bounded number a turn.
    pub(super) fn page_out(&mut self, turn: &Turn) {
        if !self.shared.overflows() {
            self.shared.paging.deep.clear();
            return;
        }
        self.sweep();
        // An eighth below, so that not every message makes a turn of its own.
        let target = self.shared.store.budget_bytes() / 8 * 7;
        let mut steps = EVICTION_STEPS;
        let mut deep = std::mem::take(&mut self.shared.paging.deep);
        deep.sort_unstable();
        deep.dedup_by_key(|(_, queue)| *queue);
        while steps > 0 && self.shared.store.live_bytes() > target {
            let Some((_, id)) = deep.pop() else { break };
            let queue = self.queues.get_mut(id.slot as usize).and_then(Option::as_deref_mut);
            if let Some(queue) = queue.filter(|queue| queue.id == id && !queue.closing) {
                self.shared.page_out_queue(queue, turn.time(), target, &mut steps);
            }
        }
        deep.drain(..deep.len().saturating_sub(SWEEP_SLOTS));
        self.shared.paging.deep = deep;
    }

    /// Looks for deep queues among the next few.
    fn sweep(&mut self) {
        let paging = &mut self.shared.paging;
        let start = paging.sweep_slot;
        let end = (start + SWEEP_SLOTS).min(self.queues.len());
        for queue in self.queues.get(start..end).unwrap_or_default().iter().flatten() {
            let ready = queue.kind.ready_count();
            if ready > 0 {
                paging.filled.0 += 1;
                paging.deep.push((ready, queue.id));
            }
        }
        paging.sweep_slot = end;
        if end == self.queues.len() {
            paging.sweep_slot = 0;
            paging.filled = (0, paging.filled.0);
        }
    }
}

impl Paging {
    /// Starts a read.
    fn start(&mut self, log: &mut Log, page: PageRead) {
        self.read_bytes += u64::from(page.end - page.start);
        let read = log.read(page.segment, page.start, page.end - page.start);
        self.reads.insert(read, page);
    }
}

impl OpenQueue<'_> {
    /// Whether a `basic.get` has to wait for the front message to be read; it is then served when
    /// that is done.
    pub(super) fn has_to_wait(&mut self, channel: ChannelKey, no_ack: bool) -> bool {
        self.drop_lost();
        let Self { queue, home, .. } = self;
        if queue.kind.front().is_none_or(|front| home.store.is_at_hand(front.rests)) {
            return false;
        }
        queue.pages.get_or_insert_default().getters.push_back((channel, no_ack));
        // So that it does not wait any more when its channel ends.
        home.channel_queues.entry(channel).or_default().insert(queue.id);
        self.page_in();
        true
    }

    /// Serves the `basic.get`s that waited for the front message.
    pub(super) fn serve_getters(&mut self) {
        while let Some(pages) = &mut self.queue.pages {
            let front = self.queue.kind.front();
            if front.is_some_and(|front| !self.home.store.is_at_hand(front.rests)) {
                return;
            }
            let Some((channel, no_ack)) = pages.getters.pop_front() else {
                return;
            };
            self.get(channel, no_ack);
        }
    }

    /// Reads what is due next in a queue that is consumed from. True if the front has changed by
    /// that: it was lost, and the next one may be had.
    #[inline]
    pub(super) fn page_in(&mut self) -> bool {
        let front = self.queue.kind.front();
        let absent = front.is_some_and(|front| !self.home.store.is_at_hand(front.rests));
        if !absent && self.queue.pages.is_none() {
            return false;
        }
        if absent && self.drop_lost() {
            return true;
        }
        self.read_ahead(absent);
        false
    }

    /// Drops messages at the front that were lost. They were reported when they were found to be.
    fn drop_lost(&mut self) -> bool {
        let mut dropped = false;
        while let Some(Where::Store(lost)) = self.queue.kind.front().map(|front| front.rests)
            && self.home.store.is_lost(lost)
        {
            let (log_id, now) = (self.queue.log_id, self.turn.now);
            let mut departures = self.home.departures(log_id, Reason::Lost, now);
            self.queue.kind.drop_front(1, |message| departures.leave_placed(message));
            dropped = true;
        }
        dropped
    }

    #[cold]
    fn read_ahead(&mut self, absent: bool) {
        let Self { queue, home, .. } = self;
        let (may_read, head_bytes) = (home.may_read(), home.head_bytes());
        let Some(log) = &home.log else {
            return;
        };
        // Also while they may take none just now: then it is there when they may.
        let taken = queue.consumers.count() > 0;
        let pages = queue.pages.get_or_insert_default();
        if !absent && pages.are_idle() {
            queue.pages = None;
            return;
        }
        if !taken && pages.getters.is_empty() {
            return;
        }
        if absent {
            if pages.under_way > 0 || pages.in_line {
                return;
            }
            pages.from = queue.kind.pageable().front_position().unwrap_or(pages.from);
        } else {
            let front = queue.kind.front().map_or(u64::MAX, |front| front.position);
            let is_due = front >= pages.check_at && pages.from < pages.to;
            if !is_due || pages.under_way as usize >= QUEUE_READS_MAX {
                return;
            }
        }
        if !may_read {
            if !std::mem::replace(&mut pages.in_line, true) {
                home.paging.line.push_back(queue.id);
            }
            return;
        }
        let (due, undurable) = due(queue, &home.store, log, absent, head_bytes);
        if undurable && due.is_empty() {
            home.paging.undurable.insert(queue.id);
        }
        self.read(due);
    }

    fn read(&mut self, due: Vec<Due>) {
        let Self { queue, home, .. } = self;
        let Shared { log, paging, .. } = &mut **home;
        let mut spans: Vec<PageRead> = Vec::new();
        let room = QUEUE_READS_MAX.min(READS_MAX.saturating_sub(paging.reads.len()));
        let mut bytes = paging.read_bytes;
        let mut left_out = None;
        for due in due {
            if spans.iter_mut().any(|span| span.take_in(&due)) {
                continue;
            }
            let span = PageRead::of(queue.id, due);
            let length = u64::from(span.end - span.start);
            if spans.len() == room || (bytes > 0 && bytes + length > READS_BYTES_MAX) {
                left_out = Some(due.position);
                break;
            }
            bytes += length;
            spans.push(span);
        }
        let (Some(log), Some(pages)) = (log, &mut queue.pages) else { return };
        pages.from = left_out.map_or(pages.from, |position| pages.from.min(position));
        pages.under_way += spans.len() as u32;
        for span in spans {
            paging.start(log, span);
        }
    }
}

impl Shared {
    /// Whether messages that are stored now get a record in the log whatever they are, because
    /// memory is over its budget.
    #[inline]
    pub(super) fn overflows(&self) -> bool {
        self.log.is_some() && self.store.is_over_budget()
    }

    fn may_read(&self) -> bool {
        let Paging { reads, read_bytes, .. } = &self.paging;
        reads.len() < READS_MAX && (reads.is_empty() || *read_bytes < READS_BYTES_MAX)
    }

    /// Bytes that a queue keeps at its front, so that many queues together keep half the budget.
    fn head_bytes(&self) -> usize {
        (self.store.budget_bytes() / 2 / self.paging.filled.1.max(1)).min(HEAD_BYTES)
    }

    pub(super) fn epoch_of(&self, segment: u32) -> u32 {
        let segments = self.log.as_ref().map(|log| log.segments().begun());
        segments.and_then(|begun| begun.get(&segment)).map_or(0, |segment| segment.epoch)
    }

    /// The record of a message that is not in memory cannot be read: the message leaves its queues.
    pub(super) fn damaged(&mut self, id: MessageId, error: Option<DiskError>) {
        let Some(place) = self.store.lose(id) else {
            return;
        };
        self.counts.damaged += 1;
        let unreadable = error.is_some();
        self.note_damage(Damage { place, is_rescued: false, error });
        if let Some(log) = &mut self.log {
            if unreadable {
                // The record may be sound: the next start tries again.
                log.keep_segment(place.segment);
            } else {
                log.release(place);
            }
        }
    }

    /// Keeps a segment's file for inspection, and a line about it for the report.
    pub(super) fn note_damage(&mut self, damage: Damage) {
        if let Some(log) = &mut self.log {
            log.set_damaged(damage.place.segment);
        }
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(damage);
        }
    }

    /// Messages were given to a consumer that will acknowledge them: over budget, their memory is
    /// given up. A message that comes back is read again.
    #[inline]
    pub(super) fn given_out(&mut self, ids: &[MessageId]) {
        let store = &mut self.store;
        let Some(log) = self.log.as_ref().filter(|_| store.is_over_budget()) else {
            return;
        };
        for id in ids {
            let place = store.log_place(*id);
            if store.is_over_budget() && place.is_some_and(|place| log.can_be_read(place)) {
                store.evict(*id);
            }
        }
    }

    fn page_out_queue(&mut self, queue: &mut Queue, time: Time, target: usize, steps: &mut usize) {
        let head_bytes = self.head_bytes();
        let Some(log) = &mut self.log else {
            return;
        };
        let log_id = process_queue(queue.id);
        let Queue { kind, pages, .. } = queue;
        let pages = pages.get_or_insert_default();
        let store = &mut self.store;
        let left = Vec::new();
        let mut eviction = Eviction { store, log, log_id, time, target, steps, left };
        let waiting = kind.pageable();
        if pages.from >= pages.to {
            // Behind the newest that can leave; what is newer goes up from there later.
            let mut index = waiting.len();
            while index > 0 && waiting.get(index - 1).is_some_and(|entry| eviction.is_left(&entry))
            {
                index -= 1;
            }
            let last = index.checked_sub(1).and_then(|last| waiting.get(last));
            let behind = last.map_or(pages.from, |last| last.position + 1);
            (pages.from, pages.to) = (behind, behind);
        }
        let to = waiting.index_of(pages.to);
        for (index, entry) in (to..).zip(waiting.range(to..waiting.len())) {
            if !eviction.evict(index, &entry) {
                break;
            }
            pages.to = entry.position + 1;
        }
        for entry in waiting.range(waiting.index_of(pages.to)..waiting.len()) {
            if !eviction.write(&entry) {
                break;
            }
        }
        if pages.under_way == 0 {
            let head = head_of(waiting, eviction.store, head_bytes);
            *eviction.steps = eviction.steps.saturating_sub(head);
            let from = waiting.index_of(pages.from);
            let range = head.min(from)..from;
            let mut reached = from;
            for (index, entry) in range.clone().rev().zip(waiting.range(range.clone()).rev()) {
                if !eviction.evict(index, &entry) {
                    break;
                }
                pages.from = entry.position;
                reached -= 1;
            }
            for entry in waiting.range(range.start..reached).rev() {
                if !eviction.write(&entry) {
                    break;
                }
            }
        }
        // What is read ahead is looked at anew.
        pages.check_at = 0;
        for (index, place) in eviction.left {
            kind.relocate(index, Where::Log(place));
        }
    }
}

/// One turn's evictions from one queue.
struct Eviction<'a> {
    store: &'a mut Store,
    log: &'a mut Log,
    log_id: LogId,
    time: Time,
    target: usize,
    steps: &'a mut usize,
    /// What the store has forgotten: how many messages are in front of it, and where it is.
    left: Vec<(usize, Place)>,
}

impl Eviction<'_> {
    fn step(&mut self) -> bool {
        let goes_on = *self.steps > 0 && self.store.live_bytes() > self.target;
        *self.steps = self.steps.saturating_sub(1);
        goes_on
    }

    /// Whether the message has to stay in memory for now, a record not yet durable or none.
    fn is_left(&mut self, entry: &Entry) -> bool {
        let place = self.store.place_of(entry.rests);
        self.step() && place.is_none_or(|place| !self.log.can_be_read(place))
    }

    /// Evicts a message, if it is not gone already and cannot be helped. False: no further.
    fn evict(&mut self, index: usize, entry: &Entry) -> bool {
        if !self.step() {
            return false;
        }
        let Where::Store(id) = entry.rests else {
            return true;
        };
        let place = self.store.log_place(id).filter(|place| self.log.can_be_read(*place));
        let Some(place) = place else {
            return !self.store.is_resident(id);
        };
        if self.store.references(id) == 1 && can_keep(place) {
            self.left.extend(self.store.leave(id).map(|place| (index, place)));
        } else {
            self.store.evict(id);
        }
        true
    }

    /// Gives a message that was not logged when it came a record. It was transient. False: no
    /// further.
    fn write(&mut self, entry: &Entry) -> bool {
        if !self.step() || self.log.has_no_room_for_copies() {
            return false;
        }
        let Where::Store(id) = entry.rests else {
            return true;
        };
        if self.store.is_resident(id) && self.store.log_entry(id).is_none() {
            // Other queues that hold it are not named, which nobody misses: recovery passes over
            // this one, and whoever empties the segment asks the store.
            let queue = QueueRef { log_id: self.log_id, sequence: entry.position };
            let place = self.log.publish(&self.store.message(id), &[queue], self.time);
            self.store.logged(id, place);
        }
        true
    }
}

/// When a message that is read back was published, as far as is known: before it was ready. The
/// machine's clock may have been set back since the record was written.
fn published_at(record: &PublishRecord<'_>, ready_at: WallTime, time: Time) -> Instant {
    let arrived_at = record.arrival.map_or(ready_at, |arrival| arrival.at.min(ready_at));
    time.instant_of(arrived_at)
}

/// How many messages at the front stay in memory: one at least, so that reading gets on.
fn head_of(waiting: Pageable<'_>, store: &Store, head_bytes: usize) -> usize {
    let mut bytes = 0;
    let within = waiting.iter().take(HEAD_MESSAGES).take_while(|entry| {
        bytes += store.size_of(entry.rests);
        bytes <= head_bytes
    });
    within.count().max(1)
}

/// The messages to be read next. True if there are more that cannot be read yet.
fn due(
    queue: &mut Queue,
    store: &Store,
    log: &Log,
    absent: bool,
    head_bytes: usize,
) -> (Vec<Due>, bool) {
    let Queue { kind, pages, .. } = queue;
    let pages = pages.get_or_insert_default();
    let waiting = kind.pageable();
    let index = waiting.index_of(pages.from);
    let mut due = Vec::new();
    let mut bytes = 0;
    if !absent {
        if index > HEAD_MESSAGES {
            let half_way = waiting.get(index - HEAD_MESSAGES / 2);
            pages.check_at = half_way.map_or(0, |entry| entry.position);
            return (due, false);
        }
        bytes = waiting.range(0..index).map(|entry| store.size_of(entry.rests)).sum();
    }
    let fifo_front = waiting.front_position().unwrap_or(u64::MAX);
    let returned = waiting.returned().take_while(|entry| entry.position < fifo_front);
    let returned = returned.take(if absent { HEAD_MESSAGES } else { 0 });
    for entry in returned.chain(waiting.range(index..waiting.len())).take(2 * HEAD_MESSAGES) {
        let is_enough = bytes >= head_bytes && !(absent && due.is_empty());
        if is_enough {
            break;
        }
        bytes += store.size_of(entry.rests);
        if let Some(place) = store.place_of(entry.rests)
            && !store.is_at_hand(entry.rests)
        {
            if !log.can_be_read(place) {
                return (due, true);
            }
            let (rests, position, ready_at) = (entry.rests, entry.position, entry.ready_at);
            due.push(Due { rests, place, position, ready_at });
        }
        if entry.position >= fifo_front {
            pages.from = entry.position + 1;
        }
    }
    let next = waiting.get(waiting.index_of(pages.from));
    let next = next.filter(|entry| !store.is_at_hand(entry.rests));
    // A recovered queue never said how far it reaches.
    pages.to = pages.to.max(next.map_or(pages.from, |entry| entry.position + 1));
    let ahead = waiting.index_of(pages.from);
    pages.check_at = waiting.get(ahead / 2).map_or(0, |entry| entry.position);
    (due, false)
}

impl PageRead {
    fn of(queue: QueueId, due: Due) -> Self {
        let Place { segment, offset, length } = due.place;
        let start = offset - offset % BLOCK_BYTES as u32;
        let end = (offset + length).next_multiple_of(BLOCK_BYTES as u32);
        Self { queue, segment, start, end, messages: vec![due], again: false }
    }

    /// Reads one message more, if it is near enough.
    fn take_in(&mut self, due: &Due) -> bool {
        let other = Self::of(self.queue, *due);
        let (start, end) = (self.start.min(other.start), self.end.max(other.end));
        let gap = end - start - (self.end - self.start);
        let near = gap <= GAP_BYTES_MAX + (other.end - other.start);
        let fits = end - start <= READ_BYTES_MAX || (start, end) == (self.start, self.end);
        if self.segment != other.segment || !near || !fits {
            return false;
        }
        (self.start, self.end) = (start, end);
        self.messages.push(*due);
        true
    }
}
