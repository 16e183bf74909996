//! Messages at rest: copied once into segment memory, shared by all queues that hold them.
//!
//! ```text
//! record  ┌──────┬──────────────┬──────┬─────┬────────────┬────────────┬────────────┬───────┐
//!         │ id 4 │ published 8  │ xl 1 │ kl 1│ props-len 4│ body-len 4 │ x key props│ body  │
//!         └──────┴──────────────┴──────┴─────┴────────────┴────────────┴────────────┴───────┘
//! ```
//! A body above [`BODY_COPY_MAX_BYTES`] is not in the record: its memory is shared, so that it
//! leaves by reference; the record then holds its place in `bodies` and [`SHARED_BODY`].
//!
//! A message may also be in the log ([`Store::logged`]), and then its memory copy can be given up
//! and taken in again; see [`residency`]. What is left costs 24 bytes here.
//!
//! An emptied segment is started over, hottest first: a fresh page costs 2.4 µs, a recycled one
//! nothing. A segment that is mostly dead while memory is mostly dead is copied forward.

mod residency;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};

use crate::id::Instant;
use crate::log;
use crate::message::{BODY_COPY_MAX_BYTES, Body, Message};

/// A message in the store; the value is reused once all its references are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u32);

/// Bytes of a segment: some thousand small messages, and more than the largest record
/// (a 128 KiB property list, two names and a copied body).
pub const SEGMENT_BYTES: usize = 256 << 10;

/// Emptied segments that are kept for reuse: 64 MiB, a busy shard's in-flight backlog.
const SPARE_SEGMENTS_MAX: usize = 256;

/// Segments below which no copying forward is worth while (2 MiB).
const EVACUATION_FLOOR_SEGMENTS: usize = 8;

/// Shared bodies are laid out in chunks of this size; larger ones get memory of their own.
const BODY_CHUNK_BYTES: usize = 256 << 10;

/// No place: a record has a length.
const NOWHERE: log::Place = log::Place { segment: 0, offset: 0, length: 0 };

const RECORD_HEADER_BYTES: usize = 22;
const SHARED_BODY: u32 = 1 << 31;
/// The segment of a number that no message has.
const VACANT: u32 = u32::MAX;

/// The segment of a message that has no memory copy.
const ABSENT: u32 = u32::MAX - 1;

/// Bit of [`Slot::references`]: the copy was read from the log, so its record is durable.
const LOADED: u32 = 1 << 31;

/// All messages at rest on one shard.
#[derive(Debug)]
pub struct Store {
    segments: Vec<Segment>,
    /// Indices of segments without memory.
    unused: Vec<u32>,
    spare: Vec<Vec<u8>>,
    current: Option<u32>,
    /// Segments that have become mostly dead: candidates for copying forward.
    sparse: Vec<u32>,
    /// Indexed by [`MessageId`].
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    /// Where the records are, by [`MessageId`], as far as one was ever logged; of no length where
    /// there is none.
    logged: Vec<log::Place>,
    /// Copies above this many bytes are given up when a queue is done with them.
    budget_bytes: usize,
    bodies: Vec<Option<Bytes>>,
    vacant_bodies: Vec<u32>,
    chunk: BytesMut,
    messages: usize,
    absent: usize,
    all_references: usize,
    live_bytes: usize,
    shared_bytes: usize,
    /// Fewer spare segments than [`SPARE_SEGMENTS_MAX`] may be kept.
    spare_max: usize,
}

#[derive(Debug, Default)]
struct Segment {
    bytes: Vec<u8>,
    live_records: u32,
    live_bytes: usize,
    /// It stands in [`Store::sparse`].
    listed: bool,
}

/// Where a message's memory copy is. 12 bytes.
#[derive(Clone, Copy, Debug)]
struct Slot {
    segment: u32,
    offset: u32,
    references: u32,
}

/// The fixed part of a record.
#[derive(Clone, Copy)]
struct RecordHeader {
    id: u32,
    published_at: Instant,
    exchange_length: u8,
    routing_key_length: u8,
    properties_length: u32,
    body: u32,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            unused: Vec::new(),
            spare: Vec::new(),
            current: None,
            sparse: Vec::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            logged: Vec::new(),
            budget_bytes: usize::MAX,
            bodies: Vec::new(),
            vacant_bodies: Vec::new(),
            chunk: BytesMut::new(),
            messages: 0,
            absent: 0,
            all_references: 0,
            live_bytes: 0,
            shared_bytes: 0,
            spare_max: SPARE_SEGMENTS_MAX,
        }
    }
}

impl Store {
    /// Copies a message in, with one reference for each queue that will hold it.
    pub fn put(&mut self, message: &Message<'_>, references: u32) -> MessageId {
        debug_assert!(references > 0);
        let id = self.vacant.pop().unwrap_or(self.slots.len() as u32);
        let (segment, offset) = self.copy_in(id, message);
        self.all_references += references as usize;
        self.occupy(id, Slot { segment, offset, references });
        MessageId(id)
    }

    /// The message itself; it must be resident.
    pub fn message(&self, id: MessageId) -> Message<'_> {
        let slot = self.slots[id.0 as usize];
        let record = &self.segments[slot.segment as usize].bytes[slot.offset as usize..];
        let header = RecordHeader::read(record);
        let rest = &record[RECORD_HEADER_BYTES..];
        let (exchange, rest) = rest.split_at(usize::from(header.exchange_length));
        let (routing_key, rest) = rest.split_at(usize::from(header.routing_key_length));
        let (properties, rest) = rest.split_at(header.properties_length as usize);
        let body = if header.body & SHARED_BODY == 0 {
            Body::Inline(&rest[..header.body as usize])
        } else {
            let shared = &self.bodies[(header.body & !SHARED_BODY) as usize];
            Body::Pieces(shared.as_ref().map_or(&[], std::slice::from_ref))
        };
        Message { exchange, routing_key, properties, body, published_at: header.published_at }
    }

    /// Adds a reference for one more queue that holds the message.
    pub fn retain(&mut self, id: MessageId) {
        self.slots[id.0 as usize].references += 1;
        self.all_references += 1;
    }

    /// Gives one reference back; the last one frees the message. Returns the place of its record,
    /// if it had one and this was the last: the caller releases it in the log.
    pub fn release(&mut self, id: MessageId) -> Option<log::Place> {
        let slot = &mut self.slots[id.0 as usize];
        debug_assert!(slot.references & !LOADED > 0, "released a message that nobody held");
        slot.references -= 1;
        self.all_references -= 1;
        if slot.references & !LOADED > 0 {
            if slot.references & LOADED != 0 {
                self.leave_to_others(id);
            }
            return None;
        }
        let Slot { segment, offset, .. } = *slot;
        slot.segment = VACANT;
        self.vacant.push(id.0);
        self.messages -= 1;
        if segment == ABSENT {
            self.absent -= 1;
        } else {
            self.free(segment, offset);
        }
        let logged = self.logged.get_mut(id.0 as usize)?;
        let place = std::mem::replace(logged, NOWHERE);
        (place != NOWHERE).then_some(place)
    }

    /// Messages at rest, resident or not.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Bytes of memory copies that some queue still holds: records and shared bodies.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes + self.shared_bytes
    }

    /// Bytes of segment memory in use or kept for reuse.
    pub fn segment_bytes(&self) -> usize {
        (self.segments.len() - self.unused.len() + self.spare.len()) * SEGMENT_BYTES
    }

    /// References to messages, over all queues.
    pub fn all_references(&self) -> usize {
        self.all_references
    }

    /// Memory of segments and shared bodies, and of the tables that find them.
    pub fn memory_bytes(&self) -> usize {
        let tables = self.index_bytes() + self.bodies.capacity() * size_of::<Option<Bytes>>();
        self.segment_bytes() + self.shared_bytes + tables
    }

    /// Keeps at most this many emptied segments for reuse, and never more than 64 MiB of them.
    pub fn limit_spare(&mut self, segments: usize) {
        self.spare_max = segments.min(SPARE_SEGMENTS_MAX);
        self.spare.truncate(segments);
    }

    fn occupy(&mut self, id: u32, slot: Slot) {
        self.messages += 1;
        match self.slots.get_mut(id as usize) {
            Some(vacant) => *vacant = slot,
            None => self.slots.push(slot),
        }
    }

    /// Makes a memory copy; returns its segment and its offset there.
    #[inline]
    fn copy_in(&mut self, id: u32, message: &Message<'_>) -> (u32, u32) {
        let body = match message.body {
            Body::Inline(bytes) if bytes.len() <= BODY_COPY_MAX_BYTES => bytes.len() as u32,
            _ => SHARED_BODY | self.share(&message.body),
        };
        let header = RecordHeader {
            id,
            published_at: message.published_at,
            exchange_length: message.exchange.len() as u8,
            routing_key_length: message.routing_key.len() as u8,
            properties_length: message.properties.len() as u32,
            body,
        };
        let size = header.record_bytes();
        let index = self.segment_with_room(size);
        let segment = &mut self.segments[index as usize];
        let offset = segment.bytes.len() as u32;
        segment.bytes.extend_from_slice(&header.to_bytes());
        segment.bytes.extend_from_slice(message.exchange);
        segment.bytes.extend_from_slice(message.routing_key);
        segment.bytes.extend_from_slice(message.properties);
        if let Body::Inline(bytes) = message.body
            && body & SHARED_BODY == 0
        {
            segment.bytes.extend_from_slice(bytes);
        }
        segment.live_records += 1;
        segment.live_bytes += size;
        self.live_bytes += size;
        (index, offset)
    }

    /// Frees a memory copy, which no slot names any more.
    #[inline]
    fn free(&mut self, index: u32, offset: u32) {
        let segment = &mut self.segments[index as usize];
        let header = RecordHeader::read(&segment.bytes[offset as usize..]);
        let size = header.record_bytes();
        segment.live_records -= 1;
        segment.live_bytes -= size;
        self.live_bytes -= size;
        if header.body & SHARED_BODY != 0 {
            self.unshare(header.body & !SHARED_BODY);
        }
        self.reclaim(index);
    }

    fn segment_with_room(&mut self, size: usize) -> u32 {
        assert!(size <= SEGMENT_BYTES, "a record fits a segment by the frame limit");
        if let Some(current) = self.current
            && self.segments[current as usize].bytes.len() + size <= SEGMENT_BYTES
        {
            return current;
        }
        let bytes = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(SEGMENT_BYTES));
        let segment = Segment { bytes, ..Segment::default() };
        let index = if let Some(index) = self.unused.pop() {
            self.segments[index as usize] = segment;
            index
        } else {
            self.segments.push(segment);
            self.segments.len() as u32 - 1
        };
        if let Some(last) = self.current.replace(index) {
            self.list_if_sparse(last);
        }
        index
    }

    fn reclaim(&mut self, index: u32) {
        let segment = &mut self.segments[index as usize];
        if segment.live_records == 0 {
            segment.bytes.clear();
            if self.current != Some(index) {
                self.retire(index);
            }
        } else {
            self.list_if_sparse(index);
        }
        let used = self.segments.len() - self.unused.len();
        if used > EVACUATION_FLOOR_SEGMENTS && used * SEGMENT_BYTES > 3 * self.live_bytes {
            self.evacuate_one();
        }
    }

    fn list_if_sparse(&mut self, index: u32) {
        let segment = &mut self.segments[index as usize];
        let sparse = segment.live_records > 0 && segment.live_bytes < SEGMENT_BYTES / 4;
        if sparse && self.current != Some(index) && !segment.listed {
            segment.listed = true;
            self.sparse.push(index);
            if self.sparse.len() > 2 * self.segments.len() + EVACUATION_FLOOR_SEGMENTS {
                let segments = &self.segments;
                self.sparse.retain(|index| segments[*index as usize].listed);
            }
        }
    }

    /// Copies one mostly dead segment forward, if there is one. A listed segment that was emptied
    /// meanwhile has lost its mark: its place in the list means nothing any more.
    fn evacuate_one(&mut self) {
        while let Some(index) = self.sparse.pop() {
            if self.segments[index as usize].listed {
                return self.evacuate(index);
            }
        }
    }

    fn retire(&mut self, index: u32) {
        let emptied = std::mem::take(&mut self.segments[index as usize]);
        self.unused.push(index);
        if self.spare.len() < self.spare_max {
            self.spare.push(emptied.bytes);
        }
    }

    /// Copies the few live records of a segment forward and frees it.
    fn evacuate(&mut self, index: u32) {
        let mut victim = std::mem::take(&mut self.segments[index as usize]);
        let mut offset = 0;
        while offset < victim.bytes.len() {
            let header = RecordHeader::read(&victim.bytes[offset..]);
            let size = header.record_bytes();
            let slot = self.slots[header.id as usize];
            if slot.segment == index && slot.offset as usize == offset {
                let target = self.segment_with_room(size);
                let segment = &mut self.segments[target as usize];
                self.slots[header.id as usize].segment = target;
                self.slots[header.id as usize].offset = segment.bytes.len() as u32;
                segment.bytes.extend_from_slice(&victim.bytes[offset..offset + size]);
                segment.live_records += 1;
                segment.live_bytes += size;
            }
            offset += size;
        }
        victim.bytes.clear();
        self.segments[index as usize].bytes = victim.bytes;
        self.retire(index);
    }

    fn share(&mut self, body: &Body<'_>) -> u32 {
        let length = body.len();
        if length > BODY_CHUNK_BYTES / 2 {
            // Memory of its own, so that it pins nothing but itself.
            self.chunk = BytesMut::with_capacity(length);
        } else if self.chunk.capacity() < length {
            self.chunk = BytesMut::with_capacity(BODY_CHUNK_BYTES);
        }
        match body {
            Body::Inline(bytes) => self.chunk.extend_from_slice(bytes),
            Body::Pieces(pieces) => {
                pieces.iter().for_each(|piece| self.chunk.extend_from_slice(piece));
            }
        }
        let shared = Some(self.chunk.split().freeze());
        self.shared_bytes += length;
        if let Some(index) = self.vacant_bodies.pop() {
            self.bodies[index as usize] = shared;
            index
        } else {
            self.bodies.push(shared);
            self.bodies.len() as u32 - 1
        }
    }

    fn unshare(&mut self, index: u32) {
        if let Some(body) = self.bodies[index as usize].take() {
            self.shared_bytes -= body.len();
        }
        self.vacant_bodies.push(index);
    }
}

impl RecordHeader {
    fn record_bytes(&self) -> usize {
        let body = if self.body & SHARED_BODY == 0 { self.body as usize } else { 0 };
        RECORD_HEADER_BYTES
            + usize::from(self.exchange_length)
            + usize::from(self.routing_key_length)
            + self.properties_length as usize
            + body
    }

    fn to_bytes(self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.id.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.published_at.0.to_le_bytes());
        bytes[12] = self.exchange_length;
        bytes[13] = self.routing_key_length;
        bytes[14..18].copy_from_slice(&self.properties_length.to_le_bytes());
        bytes[18..].copy_from_slice(&self.body.to_le_bytes());
        bytes
    }

    fn read(record: &[u8]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
        };
        Self {
            id: word(0),
            published_at: Instant(u64::from(word(4)) | u64::from(word(8)) << 32),
            exchange_length: record[12],
            routing_key_length: record[13],
            properties_length: word(14),
            body: word(18),
        }
    }
}
