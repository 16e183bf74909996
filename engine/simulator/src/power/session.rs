//! One process with a log: the messages it holds, and what its clients know.

use std::collections::{BTreeMap, VecDeque};

use leveret_broker::id::{Instant, SECOND_NS, Time};
use leveret_broker::message::{Body, Likeness, Message};
use leveret_broker::storage::log::blocks::Blocks;
use leveret_broker::storage::log::operation::{DiskError, DiskEvent, DiskOperation, ReadId};
use leveret_broker::storage::log::record::{
    self, Arrival, MarkRecord, PublishRecord, Queues, Record, Stamp,
};
use leveret_broker::storage::log::segment::{Identity, Segment, Segments};
use leveret_broker::storage::log::{BLOCK_BYTES, Log, LogEvent, LogId, Place, Position, QueueRef};

use crate::disk::flaw::is_injected;
use crate::disk::volume::Image;
use crate::random::Random;

use super::expected::Note;
use super::reader::Reading;

/// The shard of the log.
pub(super) const SHARD: u16 = 3;

/// The number of queues.
const QUEUES: u64 = 4;

/// How many messages are copied at once.
const COPIES: usize = 3;

/// Persistent, and a priority.
const PROPERTIES: &[u8] = &[0x18, 0, 2, PRIORITY];

const PRIORITY: u8 = 7;

/// A process.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) log: Log,
    segment_bytes: u32,
    pub(super) epoch: u32,
    /// The first segment of this process.
    first: u32,
    messages: BTreeMap<u64, Kept>,
    numbers: u64,
    sequences: BTreeMap<LogId, u64>,
    /// Publishes that wait for the log: the position after each, and its queues.
    unconfirmed: VecDeque<(Position, Vec<QueueRef>)>,
    /// Settled since the log last wrote settle records.
    settled: Vec<QueueRef>,
    /// Settled in settle records, with the position after each record.
    settling: VecDeque<(Position, Vec<QueueRef>)>,
    reads: BTreeMap<ReadId, (u64, Place, u32)>,
}

/// A message in its queues.
#[derive(Clone, Debug)]
struct Kept {
    place: Place,
    queues: Vec<QueueRef>,
    said: Said,
}

/// What a record says of a message besides its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    body: Vec<u8>,
    arrival: Arrival,
    extension: Vec<u8>,
}

fn new_log(epoch: u32, segment_bytes: u32) -> Log {
    Log::new(Segments::new(identity(epoch), segment_bytes))
}

fn identity(epoch: u32) -> Identity {
    Identity { store_id: [7; 16], shard: SHARD, epoch }
}

impl Said {
    /// Names are empty here, and so are their lengths.
    fn fingerprint(&self) -> u32 {
        let Arrival { at, priority } = self.arrival;
        let length = (self.extension.len() as u32).to_le_bytes();
        let extension: &[&[u8]] =
            if self.extension.is_empty() { &[] } else { &[&length, &self.extension] };
        let fixed = [0, 0, priority, 0];
        let parts = [&fixed[..], &at.0.to_le_bytes(), PROPERTIES, &self.body];
        parts.iter().chain(extension).fold(0, |sum, part| crc32c::crc32c_append(sum, part))
    }

    fn record<'a>(&'a self, queues: &'a [QueueRef]) -> PublishRecord<'a> {
        PublishRecord {
            queues: Queues::Values(queues),
            exchange: b"",
            routing_key: b"",
            properties: PROPERTIES,
            body: Body::Inline(&self.body),
            arrival: Some(self.arrival),
            extension: &self.extension,
        }
    }
}

impl Session {
    pub(super) fn new(segment_bytes: u32) -> Self {
        Self {
            log: new_log(1, segment_bytes),
            segment_bytes,
            epoch: 0,
            first: 0,
            messages: BTreeMap::new(),
            numbers: 0,
            sequences: BTreeMap::new(),
            unconfirmed: VecDeque::new(),
            settled: Vec::new(),
            settling: VecDeque::new(),
            reads: BTreeMap::new(),
        }
    }

    /// Starts the next process, from what was read.
    pub(super) fn boot(&mut self, reading: &Reading, image: &Image) -> Result<(), String> {
        self.epoch = reading.epoch + 1;
        self.messages.clear();
        self.unconfirmed.clear();
        self.settled.clear();
        self.settling.clear();
        self.reads.clear();
        let begun = reading.begun.iter().map(|(number, begun)| {
            let mut segment = Segment::default();
            (segment.size_bytes, segment.end) = (begun.size_bytes, begun.end);
            segment.settles.clone_from(&begun.settles);
            (*number, segment)
        });
        let (identity, unused) = (identity(self.epoch), reading.unused.clone());
        let mut segments =
            Segments::recovered(identity, self.segment_bytes, begun.collect(), unused);
        let mut places: BTreeMap<Place, Vec<QueueRef>> = BTreeMap::new();
        for (queue, (place, _)) in &reading.held {
            places.entry(*place).or_default().push(*queue);
            let next = self.sequences.entry(queue.log_id).or_default();
            *next = (*next).max(queue.sequence + 1);
        }
        for (place, queues) in places {
            segments.hold(place);
            let file = image.segments().find(|(number, _)| *number == place.segment);
            let epoch = reading.begun.get(&place.segment).map_or(0, |begun| begun.epoch);
            let bytes = file.and_then(|(_, bytes)| bytes.get(place.offset as usize..));
            let said = said_at(bytes.unwrap_or_default(), place, epoch)?;
            self.keep(Kept { place, queues, said });
        }
        self.log = Log::new(segments);
        self.first = self.log.segments().tail();
        Ok(())
    }

    pub(super) fn held(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn takes_publishes(&self) -> bool {
        !self.log.is_backed_up() && !self.log.has_failed()
    }

    fn keep(&mut self, kept: Kept) -> u64 {
        self.numbers += 1;
        self.messages.insert(self.numbers, kept);
        self.numbers
    }

    pub(super) fn publish(&mut self, time: Time, random: &mut Random) -> Note {
        let size = match random.below(1000) {
            0..=2 => random.index(3 * self.segment_bytes as usize),
            3..=40 => random.index(20_000),
            41..=150 => random.index(4_000),
            _ => random.index(400),
        };
        let seed = random.bits();
        let body: Vec<u8> = (0..size).map(|at| (seed >> (at % 57)) as u8 ^ at as u8).collect();
        let first = random.below(QUEUES);
        let queues = (0..random.pick(&[1, 1, 1, 2, 3])).map(|more| {
            let log_id = 1 + (first + more) % QUEUES;
            let next = self.sequences.entry(log_id).or_default();
            *next += 1;
            QueueRef { log_id, sequence: *next - 1 }
        });
        let queues: Vec<QueueRef> = queues.collect();
        // Not from the choices of the run, which are the same whatever is said of a message.
        let mut aside = Random::new(seed);
        let published_at = Instant(time.now.0 - aside.below(time.now.0.min(SECOND_NS)));
        let arrival = Arrival { at: time.wall_of(published_at), priority: PRIORITY };
        // Only newer versions write any: then it is as in a log that one of them wrote.
        let extension = if aside.chance(10) { body[..body.len().min(20)].to_vec() } else { vec![] };
        let said = Said { body, arrival, extension };
        let place = if said.extension.is_empty() {
            let message = Message {
                exchange: b"",
                routing_key: b"",
                properties: PROPERTIES,
                body: Body::Inline(&said.body),
                published_at,
                likeness: Likeness::UNKNOWN,
            };
            self.log.publish(&message, &queues, time)
        } else {
            self.log.take_over(&said.record(&queues))
        };
        self.unconfirmed.push_back((end(place), queues.clone()));
        let note = Note::Published(queues.clone(), said.fingerprint());
        self.keep(Kept { place, queues, said });
        note
    }

    /// A consumer acknowledges one message in one queue, usually an old one.
    pub(super) fn settle(&mut self, now: Instant, random: &mut Random) -> Option<QueueRef> {
        let among = if random.chance(80) { 4 } else { self.messages.len() };
        let (number, kept) = self.messages.iter_mut().nth(random.index(among))?;
        let queue = kept.queues.swap_remove(random.index(kept.queues.len()));
        let (number, place) = (*number, kept.place);
        let over = kept.queues.is_empty();
        self.log.settle(queue, place, now);
        self.settled.push(queue);
        if over {
            self.messages.remove(&number);
            self.log.release(place);
        }
        Some(queue)
    }

    pub(super) fn copy_forward(&mut self) {
        let Some((from, _)) = self.log.segments().to_be_emptied() else { return };
        let there = self.messages.values_mut().filter(|kept| kept.place.segment == from);
        for kept in there.take(COPIES) {
            let copy = self.log.copy_forward(&kept.said.record(&kept.queues), from);
            self.log.release(std::mem::replace(&mut kept.place, copy));
        }
    }

    pub(super) fn read_something(&mut self, random: &mut Random) {
        let chosen = self.messages.iter().nth(random.index(self.messages.len()));
        let Some((number, kept)) = chosen.filter(|(_, kept)| end(kept.place) <= self.log.durable())
        else {
            return;
        };
        let (block, place) = (BLOCK_BYTES as u32, kept.place);
        let start = place.offset / block * block;
        let length = (place.offset + place.length).next_multiple_of(block) - start;
        let read = self.log.read(place.segment, start, length);
        self.reads.insert(read, (*number, place, self.epoch_at(place)));
    }

    /// The records of this process have its epoch; it is not needed for others.
    fn epoch_at(&self, place: Place) -> u32 {
        if place.segment >= self.first { self.epoch } else { 0 }
    }

    pub(super) fn close(&mut self) {
        let marks = self.sequences.iter().map(|(log_id, next)| MarkRecord {
            log_id: *log_id,
            next_sequence: *next,
            delivered_through: 0,
        });
        self.log.close(marks);
        self.settling.push_back((self.log.appended(), std::mem::take(&mut self.settled)));
    }

    /// Each commit also carries the pending settlements.
    pub(super) fn note_operation(&mut self, operation: &DiskOperation) {
        if matches!(operation, DiskOperation::Commit { .. }) {
            let settled = std::mem::take(&mut self.settled);
            self.settling.push_back((self.log.appended(), settled));
        }
    }

    /// Handles an event of the disk and returns what clients learn from it.
    pub(super) fn handle(&mut self, event: DiskEvent, now: Instant) -> Result<Vec<Note>, String> {
        match self.log.handle(event, now) {
            LogEvent::Read(read, result) => self.check_read(read, result)?,
            LogEvent::None | LogEvent::Failed(_) | LogEvent::Durable => {}
        }
        Ok(self.report_durable())
    }

    /// What clients learn from what is durable now.
    pub(super) fn report_durable(&mut self) -> Vec<Note> {
        let mut notes = Vec::new();
        let durable = self.log.durable();
        while let Some((_, queues)) = self.unconfirmed.pop_front_if(|(at, _)| *at <= durable) {
            notes.push(Note::Confirmed(queues));
        }
        while let Some((_, queues)) = self.settling.pop_front_if(|(at, _)| *at <= durable) {
            notes.extend(queues.into_iter().map(Note::SettledForGood));
        }
        notes
    }

    fn check_read(
        &mut self,
        read: ReadId,
        result: Result<Blocks, DiskError>,
    ) -> Result<(), String> {
        let Some((number, place, epoch)) = self.reads.remove(&read) else {
            return Err(format!("{read:?} was not asked for"));
        };
        let kept = self.messages.get(&number).filter(|kept| kept.place == place);
        // The message was settled or moved meanwhile, so this read no longer matters.
        let Some(kept) = kept.filter(|_| epoch > 0) else { return Ok(()) };
        let blocks = match result {
            Ok(blocks) => blocks,
            Err(error) if is_injected(&error) => return Ok(()),
            Err(error) => return Err(format!("{place:?} cannot be read: {error}")),
        };
        let bytes = blocks.as_slice().get(place.offset as usize % BLOCK_BYTES..);
        let said = said_at(bytes.unwrap_or_default(), place, epoch)?;
        if said == kept.said { Ok(()) } else { Err(format!("another message at {place:?}")) }
    }
}

fn end(place: Place) -> Position {
    Position::new(place.segment, place.offset + place.length)
}

fn said_at(bytes: &[u8], place: Place, epoch: u32) -> Result<Said, String> {
    let stamp = Stamp { position: Position::new(place.segment, place.offset), epoch };
    match record::decode(bytes, stamp) {
        Some((
            _,
            Record::Publish(PublishRecord {
                body: Body::Inline(body),
                arrival: Some(arrival),
                extension,
                ..
            }),
        )) => Ok(Said { body: body.to_vec(), arrival, extension: extension.to_vec() }),
        other => Err(format!("no message at {place:?}: {other:?}")),
    }
}
