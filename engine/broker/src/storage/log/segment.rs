//! Segments: which exist, what lives in them, and when their files can be used again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::bug::{Bug, Planted};
use super::operation::DiskOperation;
use super::{BLOCK_BYTES, Place, Position};

/// Files kept ready ahead of the one being filled. One to go on in without waiting, one that only
/// settlements and copies may use when the disk is full, so that consuming makes space.
const SPARES: usize = 2;

/// Files kept for being used again; more are given back to the file system.
const FREE_MAX: usize = 4;

/// Segments of garbage that are never worth copying for.
const GARBAGE_FLOOR_SEGMENTS: u64 = 4;

const MAGIC: [u8; 8] = *b"LEVSEG\r\n";

/// The format's major number: a reader refuses any other.
pub const FORMAT_MAJOR: u16 = 1;

/// The format's minor number.
pub const FORMAT_MINOR: u16 = 1;

/// What all segments of one run of one log have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of the data directory.
    pub store_id: [u8; 16],
    /// Whose log.
    pub shard: u16,
    /// Counts the boots that wrote to this log, from 1.
    pub epoch: u32,
}

/// The first block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose it is.
    pub identity: Identity,
    /// Its number.
    pub segment: u32,
    /// The size of its file in bytes.
    pub size_bytes: u32,
    /// The segment before it in the log and where that one's records ended; 0, 0 for the first.
    pub previous: (u32, u32),
}

/// Why a first block is no header of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Nothing but zeros: laid out and never begun.
    Blank,
    /// The checksum or the magic does not fit.
    Damaged,
    /// Of another major format.
    Format(u16),
}

impl Header {
    /// The block.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..8].copy_from_slice(&MAGIC);
        block[8..10].copy_from_slice(&FORMAT_MAJOR.to_le_bytes());
        block[10..12].copy_from_slice(&FORMAT_MINOR.to_le_bytes());
        block[16..32].copy_from_slice(&self.identity.store_id);
        block[32..34].copy_from_slice(&self.identity.shard.to_le_bytes());
        let words =
            [self.segment, self.identity.epoch, self.size_bytes, self.previous.0, self.previous.1];
        for (word, at) in words.into_iter().zip((36..).step_by(4)) {
            block[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let sum = crc32c::crc32c(&block);
        block[12..16].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads a first block.
    pub fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        let Some(block) = block.first_chunk::<BLOCK_BYTES>() else {
            return Err(HeaderError::Damaged);
        };
        if block.iter().all(|byte| *byte == 0) {
            return Err(HeaderError::Blank);
        }
        let mut summed = *block;
        summed[12..16].fill(0);
        let word = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        if block[..8] != MAGIC || crc32c::crc32c(&summed) != word(12) {
            return Err(HeaderError::Damaged);
        }
        let major = u16::from_le_bytes([block[8], block[9]]);
        if major != FORMAT_MAJOR {
            return Err(HeaderError::Format(major));
        }
        let mut store_id = [0; 16];
        store_id.copy_from_slice(&block[16..32]);
        let shard = u16::from_le_bytes([block[32], block[33]]);
        Ok(Self {
            identity: Identity { store_id, shard, epoch: word(40) },
            segment: word(36),
            size_bytes: word(44),
            previous: (word(48), word(52)),
        })
    }
}

/// The segments of one log.
#[derive(Debug)]
pub struct Segments {
    identity: Identity,
    segment_bytes: u32,
    /// Those with records, the tail included.
    begun: BTreeMap<u32, Segment>,
    tail: u32,
    /// The tail has been written to: more files will be needed.
    is_used: bool,
    /// What the next header says of the segment before it.
    previous: (u32, u32),
    /// The number of the next file to be prepared.
    next: u32,
    /// Ready ahead of the tail, ascending.
    spares: VecDeque<File>,
    /// Asked for, with the file that each is to be made of.
    preparing: Vec<(File, Option<File>)>,
    /// Files in whose records nobody believes, for they are not of the segment they are named for.
    free: Vec<File>,
    refused: bool,
    /// Dead segments that wait for a commit or for other segments.
    dead: BTreeSet<u32>,
    /// Something has changed for those since they were looked at.
    dead_changed: bool,
    /// Nobody has said yet which messages are held: no segment is given up.
    all_kept: bool,
    /// Segments with messages that were copied away and that are not given up yet.
    copied: BTreeSet<u32>,
    used_bytes: u64,
    live_bytes: u64,
    recycled: u64,
    planted: Planted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct File {
    number: u32,
    size_bytes: u32,
}

/// A segment with records.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// The size of its file.
    pub size_bytes: u32,
    /// The epoch of the boot that wrote it.
    pub epoch: u32,
    /// Behind its last record, once it is no longer the tail.
    pub end: u32,
    /// Bytes of publish records that some queue holds.
    pub live_bytes: u64,
    /// Segments whose messages the settle records in here name. While one of those exists, this
    /// one must too, or the messages would come back.
    pub settles: BTreeSet<u32>,
    /// It has damage: its file is kept for people when it is empty.
    pub damaged: bool,
    /// It may hold messages of a queue in quarantine, or some that cannot be read just now.
    kept: bool,
    /// Behind the newest copy of a message of this segment.
    copied_through: Position,
    ready: bool,
    /// Given up; its file is being renamed or removed. Until that is durable a crash would bring
    /// its records back, so what settles them has to stay.
    leaving: bool,
}

impl Segments {
    /// Of a log without any.
    pub fn new(identity: Identity, segment_bytes: u32) -> Self {
        Self::recovered(identity, segment_bytes, BTreeMap::new(), Vec::new())
    }

    /// Of a log that was read: its segments, and files without records with their sizes.
    /// [`Self::hold`] then tells of each message that is held.
    pub fn recovered(
        identity: Identity,
        segment_bytes: u32,
        mut begun: BTreeMap<u32, Segment>,
        unused: Vec<(u32, u32)>,
    ) -> Self {
        let last = begun.last_key_value().map(|(number, segment)| (*number, segment.end));
        let numbers = begun.keys().chain(unused.iter().map(|(number, _)| number));
        let next = numbers.max().map_or(1, |highest| highest + 1);
        for segment in begun.values_mut() {
            segment.ready = true;
        }
        let free = unused.into_iter().map(|(number, size_bytes)| File { number, size_bytes });
        Self {
            identity,
            segment_bytes,
            used_bytes: begun.values().map(|segment| u64::from(segment.size_bytes)).sum(),
            dead: begun.keys().copied().collect(),
            dead_changed: true,
            all_kept: false,
            copied: BTreeSet::new(),
            begun,
            tail: 0,
            is_used: false,
            previous: last.unwrap_or((0, 0)),
            next,
            spares: VecDeque::new(),
            preparing: Vec::new(),
            free: free.collect(),
            refused: false,
            live_bytes: 0,
            recycled: 0,
            planted: Planted::default(),
        }
    }

    #[cfg(feature = "planted-bugs")]
    pub(super) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
        self.identity.epoch -= u32::from(planted.is(Bug::EpochKept));
    }

    /// Whose log.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The segments with records, by number.
    pub fn begun(&self) -> &BTreeMap<u32, Segment> {
        &self.begun
    }

    /// The segment being filled.
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Bytes of publish records that some queue holds.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of all files with records.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Segments taken into use again.
    pub fn recycled_count(&self) -> u64 {
        self.recycled
    }

    /// Whether there is no space for more files and the last spare is left.
    pub fn is_full(&self) -> bool {
        self.refused && self.spares.len() < SPARES
    }

    /// For another writer of the same boot: the tail ends at `end`, and what is ready ahead of it
    /// will have to be made ready again.
    pub(super) fn ended(mut self, end: u32) -> Self {
        self.end_tail(end);
        (self.tail, self.is_used, self.all_kept) = (0, false, false);
        self.free.extend(self.spares.drain(..));
        self
    }

    /// Gives up no segment until [`Self::ended`].
    pub(super) fn keep_all(&mut self) {
        self.all_kept = true;
    }

    fn end_tail(&mut self, end: u32) {
        if let Some(tail) = self.begun.get_mut(&self.tail) {
            tail.end = end;
            self.previous = (self.tail, end);
            if tail.live_bytes == 0 {
                self.dead.insert(self.tail);
                self.dead_changed = true;
            }
        }
    }

    /// Whether a segment's file can be written.
    pub(super) fn is_ready(&self, segment: u32) -> bool {
        self.begun.get(&segment).is_some_and(|segment| segment.ready)
    }

    /// Turns to the next segment, in which a batch of `batch_bytes` fits; the present one ends at
    /// `end`. Returns its number and size.
    pub(super) fn turn_to_next(
        &mut self,
        end: u32,
        batch_bytes: u32,
        operations: &mut VecDeque<DiskOperation>,
    ) -> (u32, u32) {
        self.end_tail(end);
        let size_bytes = batch_bytes.max(self.segment_bytes).next_multiple_of(BLOCK_BYTES as u32);
        let file = self.take_file(size_bytes, operations);
        let ready = self.preparing.iter().all(|(asked, _)| *asked != file);
        let segment = Segment {
            size_bytes: file.size_bytes,
            epoch: self.identity.epoch,
            ready,
            ..Segment::default()
        };
        self.used_bytes += u64::from(file.size_bytes);
        self.begun.insert(file.number, segment);
        self.tail = file.number;
        (file.number, file.size_bytes)
    }

    /// The first block of the tail.
    pub(super) fn header(&self) -> [u8; BLOCK_BYTES] {
        let size_bytes = self.begun.get(&self.tail).map_or(0, |segment| segment.size_bytes);
        let (identity, segment, mut previous) = (self.identity, self.tail, self.previous);
        if self.planted.is(Bug::EndOfFile) {
            previous.1 = self.segment_bytes;
        }
        Header { identity, segment, size_bytes, previous }.encode()
    }

    /// The tail is written to: files are made ready until enough are ahead of it.
    pub(super) fn use_tail(&mut self, operations: &mut VecDeque<DiskOperation>) {
        self.is_used = true;
        self.prepare_ahead(operations);
    }

    fn prepare_ahead(&mut self, operations: &mut VecDeque<DiskOperation>) {
        if self.preparing.is_empty() && self.spares.len() < SPARES {
            let file = File { number: self.take_number(), size_bytes: self.segment_bytes };
            self.ask_for(file, operations);
        }
    }

    /// A file is ready.
    pub(super) fn prepared(&mut self, number: u32, operations: &mut VecDeque<DiskOperation>) {
        self.refused = false;
        let Some((file, recycled)) = self.take_asked(number) else {
            return;
        };
        if let Some(old) = recycled {
            self.gone(old.number);
        }
        match self.begun.get_mut(&number) {
            Some(segment) => segment.ready = true,
            // A segment that needed a larger file has overtaken it.
            None if number < self.tail => self.keep(file, operations),
            None => {
                let behind = self.spares.partition_point(|spare| spare.number < number);
                self.spares.insert(behind, file);
            }
        }
        if !self.ask_for_missing(operations) && self.is_used {
            self.prepare_ahead(operations);
        }
    }

    /// There is no space for a file.
    pub(super) fn refused(&mut self, number: u32, operations: &mut VecDeque<DiskOperation>) {
        self.refused = true;
        if let Some((_, Some(recycled))) = self.take_asked(number) {
            if self.begun.contains_key(&recycled.number) {
                let segment = recycled.number;
                operations.push_back(DiskOperation::Remove { segment, damaged: false });
            } else {
                self.free.push(recycled);
            }
        }
    }

    /// The file of a segment that was given up exists no more under its name.
    pub(super) fn gone(&mut self, number: u32) {
        if self.begun.get(&number).is_some_and(|segment| segment.leaving) {
            self.begun.remove(&number);
            self.copied.remove(&number);
            self.dead_changed = true;
        }
    }

    /// Asks again for what was refused.
    pub(super) fn retry(&mut self, operations: &mut VecDeque<DiskOperation>) {
        if !self.ask_for_missing(operations) {
            self.prepare_ahead(operations);
        }
    }

    /// Asks for the first file that commits wait for and nobody prepares, since it was refused:
    /// not always the tail, which goes on without it. True if files are being prepared.
    fn ask_for_missing(&mut self, operations: &mut VecDeque<DiskOperation>) -> bool {
        if !self.preparing.is_empty() {
            return true;
        }
        let missing = self.begun.iter().find(|(_, segment)| !segment.ready);
        let file = missing
            .map(|(number, segment)| File { number: *number, size_bytes: segment.size_bytes });
        if let Some(file) = file {
            self.ask_for(file, operations);
        }
        file.is_some()
    }

    /// A queue holds a message at `place`.
    #[inline]
    pub fn hold(&mut self, place: Place) {
        if let Some(segment) = self.begun.get_mut(&place.segment) {
            segment.live_bytes += u64::from(place.length);
            self.live_bytes += u64::from(place.length);
        }
    }

    /// The message at `place` may belong to a queue in quarantine: its segment stays as it is.
    pub fn keep_aside(&mut self, place: Place) {
        self.hold(place);
        self.keep_segment(place.segment);
    }

    /// A segment is neither emptied nor given up.
    pub(super) fn keep_segment(&mut self, segment: u32) {
        if let Some(segment) = self.begun.get_mut(&segment) {
            segment.kept = true;
        }
    }

    /// No queue holds the message at `place` any more. True when its segment is dead by that.
    #[inline]
    pub(super) fn release(&mut self, place: Place) -> bool {
        let Some(segment) = self.begun.get_mut(&place.segment) else {
            debug_assert!(false, "{place:?} is in no segment");
            return false;
        };
        segment.live_bytes -= u64::from(place.length);
        self.live_bytes -= u64::from(place.length);
        let dead = segment.live_bytes == 0 && place.segment != self.tail;
        if dead {
            self.dead.insert(place.segment);
            self.dead_changed = true;
        }
        dead
    }

    /// The tail has settle records for messages of these segments.
    pub(super) fn settled(&mut self, segments: impl Iterator<Item = u32>) {
        if let Some(tail) = self.begun.get_mut(&self.tail) {
            // A message may lie in the segment it was copied from as well as in its copy's.
            tail.settles.extend(segments.chain(self.copied.iter().copied()));
        }
    }

    /// A message of `segment` was copied; the copy ends at `through`.
    pub(super) fn copied_from(&mut self, segment: u32, through: Position) {
        self.copied.insert(segment);
        if let Some(segment) = self.begun.get_mut(&segment) {
            segment.copied_through = through;
        }
    }

    /// A segment has damage: it is not used again.
    pub fn set_damaged(&mut self, segment: u32) {
        if let Some(segment) = self.begun.get_mut(&segment) {
            segment.damaged = true;
        }
    }

    /// The segment to be emptied next, if more than half of the log is dead: the oldest. Its
    /// settle records name nothing older, so emptied it can go.
    pub fn to_be_emptied(&self) -> Option<(u32, &Segment)> {
        let floor = GARBAGE_FLOOR_SEGMENTS * u64::from(self.segment_bytes);
        if self.used_bytes <= 2 * self.live_bytes + floor {
            return None;
        }
        let (number, oldest) = self.begun.iter().find(|(_, of)| !of.leaving && !of.kept)?;
        (*number != self.tail && oldest.live_bytes > 0).then_some((*number, oldest))
    }

    /// Gives up dead segments for good, now that everything before `durable` is.
    pub(super) fn collect(&mut self, durable: Position, operations: &mut VecDeque<DiskOperation>) {
        if self.all_kept {
            return;
        }
        let mut not_due = false;
        let last = self.last_written(durable);
        while std::mem::take(&mut self.dead_changed) {
            not_due = false;
            for number in self.dead.clone() {
                if !self.is_due(number, last, durable) {
                    not_due = true;
                } else if self.may_go(number) {
                    self.give_up(number, operations);
                    self.dead_changed = true;
                }
            }
        }
        // Those are looked at again after the next commit.
        self.dead_changed = not_due;
        // What was refused may be possible with a file that is free now.
        if self.refused && !self.free.is_empty() {
            self.retry(operations);
        }
    }

    /// The last segment with durable records. It stays until another one has some: a log that ended
    /// before it would end with the close of an earlier boot, as if this one had given nothing out.
    fn last_written(&self, durable: Position) -> u32 {
        let tail = durable.segment();
        if durable.offset() > 0 {
            return tail;
        }
        let mut before = self.begun.range(..tail).rev().filter(|(_, segment)| !segment.leaving);
        before.next().map_or(0, |(number, _)| *number)
    }

    /// Whether all that replaces a dead segment's messages is durable, and a later segment too.
    fn is_due(&self, number: u32, last: u32, durable: Position) -> bool {
        self.begun.get(&number).is_none_or(|segment| {
            (segment.copied_through <= durable || self.planted.is(Bug::CopyNotAwaited))
                && (number < last || self.planted.is(Bug::OwnEndNotAwaited))
        })
    }

    /// Whether nobody needs a dead segment's settle records.
    fn may_go(&self, number: u32) -> bool {
        self.begun.get(&number).is_some_and(|segment| {
            let mut needed = segment.settles.iter().filter(|other| **other != number);
            segment.live_bytes == 0
                && (needed.all(|other| !self.begun.contains_key(other))
                    || self.planted.is(Bug::SettlesForgotten))
        })
    }

    fn give_up(&mut self, number: u32, operations: &mut VecDeque<DiskOperation>) {
        self.dead.remove(&number);
        let Some(segment) = self.begun.get_mut(&number) else { return };
        segment.leaving = true;
        let (size_bytes, damaged) = (segment.size_bytes, segment.damaged);
        self.used_bytes -= u64::from(size_bytes);
        let kept = self.spares.len() + self.preparing.len() + self.free.len();
        if damaged || size_bytes != self.segment_bytes || kept >= SPARES + FREE_MAX {
            return operations.push_back(DiskOperation::Remove { segment: number, damaged });
        }
        let file = File { number: self.take_number(), size_bytes };
        self.make_of(file, Some(File { number, size_bytes }), operations);
    }

    /// Keeps a file for being used again, if it is of use.
    fn keep(&mut self, file: File, operations: &mut VecDeque<DiskOperation>) {
        if file.size_bytes == self.segment_bytes && self.free.len() < FREE_MAX {
            self.free.push(file);
        } else {
            operations.push_back(DiskOperation::Remove { segment: file.number, damaged: false });
        }
    }

    fn take_file(&mut self, size_bytes: u32, operations: &mut VecDeque<DiskOperation>) -> File {
        if size_bytes > self.segment_bytes {
            // Numbers only grow along the log: what is ready ahead is used again behind this one.
            for spare in std::mem::take(&mut self.spares) {
                self.keep(spare, operations);
            }
        } else if let Some(spare) = self.spares.pop_front() {
            return spare;
        } else if let Some((file, _)) =
            self.preparing.iter().find(|(file, _)| file.number > self.tail)
        {
            return *file;
        }
        let file = File { number: self.take_number(), size_bytes };
        self.ask_for(file, operations);
        file
    }

    fn take_asked(&mut self, number: u32) -> Option<(File, Option<File>)> {
        let index = self.preparing.iter().position(|(file, _)| file.number == number)?;
        Some(self.preparing.swap_remove(index))
    }

    fn ask_for(&mut self, file: File, operations: &mut VecDeque<DiskOperation>) {
        let fits = self.free.iter().position(|free| free.size_bytes == file.size_bytes);
        let recycled = fits.map(|index| self.free.swap_remove(index));
        self.make_of(file, recycled, operations);
    }

    fn make_of(
        &mut self,
        file: File,
        recycled: Option<File>,
        operations: &mut VecDeque<DiskOperation>,
    ) {
        self.recycled += u64::from(recycled.is_some());
        self.preparing.push((file, recycled));
        let (recycled, size_bytes) = (recycled.map(|file| file.number), file.size_bytes);
        operations.push_back(DiskOperation::Prepare { segment: file.number, size_bytes, recycled });
    }

    fn take_number(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        number
    }
}
