//! Messages at rest: copied at most once, into segment memory, shared by all queues that hold them.
//!
//! A body above [`BODY_COPY_MAX_BYTES`] is not in its record ([`record`]) but in memory that is
//! shared with outboxes ([`bodies`]), so that it leaves by reference. If it leaves soon, that
//! memory is its receive buffer ([`received`]).
//!
//! A message may also be in the log ([`Store::logged`]). Its memory copy can then be evicted and
//! loaded again; see [`residency`]. An evicted message costs 20 bytes here, or none if only one
//! queue holds it: the queue then keeps the place in the log itself ([`Where`]).
//!
//! An emptied segment is reused, hottest first ([`slabs`]). While more than two thirds of all
//! segment memory is dead, segments that are more than three quarters dead are copied forward.

mod bodies;
mod reader;
mod received;
mod record;
mod release;
mod residency;
mod slabs;
mod slot;
#[cfg(test)]
mod tests;

use std::slice;

use bytes::Bytes;

use crate::message::{BODY_COPY_MAX_BYTES, Body, Message};
use crate::storage::log;

pub use reader::Reader;
pub use release::Release;

use bodies::Bodies;
use record::{Header, LastContext, Rest};
use slabs::{Piece, Slabs};
use slot::Slot;

/// A message in the store; the value is reused once all its references are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u32);

/// Where a queue's message rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The store has an entry for it, with or without a memory copy.
    Store(MessageId),
    /// It is in the log only, and one queue holds it.
    Log(log::Place),
}

/// Bytes of a segment: some thousand small messages, and more than the largest record
/// (a 128 KiB property list, two names and a copied body).
pub const SEGMENT_BYTES: usize = 256 << 10;

/// Up to this many segments (2 MiB) none is copied forward: it would free too little.
const EVACUATION_FLOOR_SEGMENTS: usize = 8;

/// No place in the log: a real one has a length.
const NOWHERE: log::Place = log::Place { segment: 0, offset: 0, length: 0 };

/// All messages at rest on one shard.
#[derive(Debug)]
pub struct Store {
    segments: Vec<Segment>,
    /// Indices of segments without memory.
    unused: Vec<u32>,
    slabs: Slabs,
    current: Option<u32>,
    /// Segments that are more than three quarters dead: candidates for copying forward.
    sparse: Vec<u32>,
    /// Indexed by [`MessageId`].
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    /// The place in the log by [`MessageId`], or [`NOWHERE`]. Ends at the highest id ever logged.
    logged: Vec<log::Place>,
    /// Above this many bytes of memory copies, messages are evicted.
    budget_bytes: usize,
    bodies: Bodies,
    messages: usize,
    absent: usize,
    /// Messages without an entry here: their one queue keeps the place in the log.
    records: usize,
    all_references: usize,
    live_bytes: usize,
    /// Copied bytes of bodies that are in records, without shared ones.
    copied_body_bytes: u64,
    /// Emptied segments, and chunks as large as those, that are kept for reuse.
    spare_max: usize,
}

#[derive(Debug, Default)]
struct Segment {
    memory: Piece,
    /// Bytes of `memory` that are records.
    used_bytes: usize,
    context: Option<LastContext>,
    live_records: u32,
    live_bytes: usize,
    /// It stands in [`Store::sparse`].
    listed: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            unused: Vec::new(),
            slabs: Slabs::default(),
            current: None,
            sparse: Vec::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            logged: Vec::new(),
            budget_bytes: usize::MAX,
            bodies: Bodies::default(),
            messages: 0,
            absent: 0,
            records: 0,
            all_references: 0,
            live_bytes: 0,
            copied_body_bytes: 0,
            spare_max: 0,
        }
    }
}

impl Store {
    /// Takes a message in, with one reference for each queue that will hold it.
    pub fn put(&mut self, message: &Message<'_>, references: u32) -> MessageId {
        debug_assert!(references > 0);
        let id = self.vacant.pop().unwrap_or(self.slots.len() as u32);
        let (segment, offset) = self.copy_in(id, message);
        self.all_references += references as usize;
        self.occupy(id, Slot::new(segment, offset, references));
        MessageId(id)
    }

    /// The message itself; it must be resident.
    #[inline]
    pub fn message(&self, id: MessageId) -> Message<'_> {
        let slot = self.slots[id.0 as usize];
        let segment = &self.segments[slot.segment() as usize].memory.bytes;
        let header = Header::read(segment, slot.offset() as usize);
        Message { body: self.body(&header, segment), ..header.message(segment) }
    }

    #[inline]
    fn body<'a>(&'a self, header: &Header, segment: &'a [u8]) -> Body<'a> {
        match header.body {
            Rest::Inline(_) => header.inline_body(segment),
            Rest::Shared(number) => Body::Pieces(slice::from_ref(self.bodies.get(number))),
        }
    }

    /// Adds a reference for one more queue that holds the message.
    pub fn retain(&mut self, id: MessageId) {
        self.slots[id.0 as usize].retain();
        self.all_references += 1;
    }

    /// Gives one reference back; the last one frees the message. The last one also returns the
    /// message's place in the log, if it has one: the caller has to release it there.
    pub fn release(&mut self, id: MessageId) -> Option<log::Place> {
        self.releases().release(id)
    }

    /// Messages at rest, resident or not.
    pub fn messages(&self) -> usize {
        self.messages + self.records
    }

    /// Bytes of memory copies that some queue still holds: records and shared bodies.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes + self.bodies.bytes()
    }

    /// Bytes of segment memory in use or kept for reuse.
    pub fn segment_bytes(&self) -> usize {
        self.slabs.bytes()
    }

    /// Bytes of segment memory and shared body memory that are only kept for reuse.
    pub fn spare_bytes(&self) -> usize {
        self.slabs.spare() * SEGMENT_BYTES + self.bodies.emptied_bytes()
    }

    /// Body bytes that were copied in, or from one segment to another, since the start.
    pub fn copied_body_bytes(&self) -> u64 {
        self.copied_body_bytes + self.bodies.copied_bytes()
    }

    /// Until [`Self::end_received`], bodies that lie in this receive buffer may stay there when
    /// their messages are put in the store.
    pub fn begin_received(&mut self, received: &Bytes) {
        self.bodies.begin_received(received);
    }

    /// The buffer of [`Self::begin_received`] has been read. This may copy bodies out of another
    /// receive buffer that was kept for long, to make room for newer ones.
    #[inline]
    pub fn end_received(&mut self) {
        self.bodies.end_received();
    }

    /// Receive buffers that are kept for bodies.
    pub fn receive_buffers(&self) -> usize {
        self.bodies.receive_buffers()
    }

    /// Keeps at most this many receive buffers for bodies; none by default.
    pub fn limit_received(&mut self, buffers: usize) {
        self.bodies.limit_received(buffers);
    }

    /// References to messages that have an entry here, over all queues.
    pub fn all_references(&self) -> usize {
        self.all_references
    }

    /// Memory of segments and shared bodies, and of the tables that find them.
    pub fn memory_bytes(&self) -> usize {
        self.segment_bytes() + self.bodies.memory_bytes() + self.index_bytes()
    }

    /// Keeps the memory of at most this many segments for reuse, emptied segments and emptied
    /// chunks of shared bodies together; none by default.
    pub fn limit_spare(&mut self, segments: usize) {
        self.spare_max = segments;
        if let Some(current) = self.current
            && self.segments[current as usize].live_records == 0
        {
            self.current = None;
            self.retire(current);
        }
        self.slabs.limit_spare(self.spare_max);
        self.limit_emptied_chunks();
    }

    fn limit_emptied_chunks(&mut self) {
        let kept = self.spare_max.saturating_sub(self.slabs.spare());
        self.bodies.limit_emptied(kept * SEGMENT_BYTES);
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
            Body::Inline(bytes) if bytes.len() <= BODY_COPY_MAX_BYTES => {
                self.copied_body_bytes += bytes.len() as u64;
                Rest::Inline(bytes.len() as u16)
            }
            _ => Rest::Shared(self.bodies.share(&message.body)),
        };
        let index = self.segment_with_room(record::room_for(message, body));
        let segment = &mut self.segments[index as usize];
        let (offset, size) = segment.append(id, message, body);
        self.live_bytes += size;
        (index, offset)
    }

    #[inline]
    fn segment_with_room(&mut self, size: usize) -> u32 {
        if let Some(current) = self.current
            && self.segments[current as usize].used_bytes + size <= SEGMENT_BYTES
        {
            return current;
        }
        assert!(size <= SEGMENT_BYTES, "a record fits a segment by the frame limit");
        self.next_segment()
    }

    #[cold]
    fn next_segment(&mut self) -> u32 {
        let segment = Segment { memory: self.slabs.take(), ..Segment::default() };
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

    /// Counts records of a segment as dead. Retires the segment if none is left alive, and copies
    /// one sparse segment forward if too much memory is dead.
    fn reclaim(&mut self, index: u32, records: u32, bytes: usize) {
        let segment = &mut self.segments[index as usize];
        segment.live_records -= records;
        segment.live_bytes -= bytes;
        self.live_bytes -= bytes;
        if segment.live_records == 0 {
            // The current segment also starts over, but goes on being written to.
            segment.used_bytes = 0;
            segment.context = None;
            if self.current != Some(index) {
                self.retire(index);
            }
        } else if segment.live_bytes < SEGMENT_BYTES / 4 {
            self.list_if_sparse(index);
        }
        // One at a time: a call copies less than a quarter of a segment, and if memory is still
        // mostly dead after that, the next call copies another one.
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
            // A retired segment leaves its number in the list. Where evacuation never pops, those
            // numbers must not pile up.
            if self.sparse.len() > 2 * self.segments.len() + EVACUATION_FLOOR_SEGMENTS {
                let segments = &self.segments;
                self.sparse.retain(|index| segments[*index as usize].listed);
            }
        }
    }

    /// Copies one sparse segment forward, if there is one. A segment that was emptied since it was
    /// listed is no longer marked `listed`, so its number in the list is skipped.
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
        let kept = self.spare_max.saturating_sub(self.bodies.emptied_bytes() / SEGMENT_BYTES);
        self.slabs.put_back(emptied.memory, kept);
    }

    /// Copies the few live records of a segment forward and frees it.
    fn evacuate(&mut self, index: u32) {
        // An empty segment stands in for the victim, whose memory is borrowed while others are
        // written. `append` counts the live bytes again, in their new segments.
        let victim = std::mem::take(&mut self.segments[index as usize]);
        self.live_bytes -= victim.live_bytes;
        let bytes = &victim.memory.bytes;
        let mut offset = 0;
        while offset < victim.used_bytes {
            let header = Header::read(bytes, offset);
            // A record is alive while the slot of its id names it. The slot of a dead record is
            // vacant, or a later message has taken the id and lies elsewhere.
            let slot = self.slots[header.id as usize];
            if slot.segment() == index && slot.offset() as usize == offset {
                // The context may be that of a dead record: it is readable until memory is reused.
                let message = header.message(bytes);
                let target = self.segment_with_room(record::room_for(&message, header.body));
                let segment = &mut self.segments[target as usize];
                let (moved_to, size) = segment.append(header.id, &message, header.body);
                self.live_bytes += size;
                self.slots[header.id as usize].place(target, moved_to);
                // A shared body stays where it is: the record copies its number only.
                if let Rest::Inline(bytes) = header.body {
                    self.copied_body_bytes += u64::from(bytes);
                }
            }
            offset = header.end();
        }
        self.segments[index as usize].memory = victim.memory;
        self.retire(index);
    }
}

impl Segment {
    /// Adds a record; returns its offset and its size in bytes.
    #[inline]
    fn append(&mut self, id: u32, message: &Message<'_>, body: Rest) -> (u32, usize) {
        let offset = self.used_bytes;
        let memory = &mut self.memory.bytes;
        self.used_bytes = record::write(memory, offset, &mut self.context, id, message, body);
        let size = self.used_bytes - offset;
        self.live_records += 1;
        self.live_bytes += size;
        (offset as u32, size)
    }
}
