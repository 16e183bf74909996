//! Messages at rest: copied at most once, into segment memory, shared by all queues that hold them.
//!
//! A body above [`BODY_COPY_MAX_BYTES`] is not in its record ([`record`]) but in memory that is
//! shared with outboxes ([`bodies`]), so that it leaves by reference. Where it soon does, that is
//! the memory it was received in ([`received`]).
//!
//! A message may also be in the log ([`Store::logged`]), and then its memory copy can be given up
//! and taken in again; see [`residency`]. What is left costs 20 bytes here, and where one queue
//! alone holds the message nothing: the queue then knows the place itself ([`Where`]).
//!
//! An emptied segment is started over, hottest first ([`slabs`]). A segment that is mostly dead
//! while memory is mostly dead is copied forward.

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

/// Where a message rests that a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The store knows it, in memory or not.
    Store(MessageId),
    /// It is in the log only, and one queue holds it.
    Log(log::Place),
}

/// Bytes of a segment: some thousand small messages, and more than the largest record
/// (a 128 KiB property list, two names and a copied body).
pub const SEGMENT_BYTES: usize = 256 << 10;

/// Segments below which no copying forward is worth while (2 MiB).
const EVACUATION_FLOOR_SEGMENTS: usize = 8;

/// No place: a record has a length.
const NOWHERE: log::Place = log::Place { segment: 0, offset: 0, length: 0 };

/// All messages at rest on one shard.
#[derive(Debug)]
pub struct Store {
    segments: Vec<Segment>,
    /// Indices of segments without memory.
    unused: Vec<u32>,
    slabs: Slabs,
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
    bodies: Bodies,
    messages: usize,
    absent: usize,
    /// Messages of which a queue knows the place in the log, and the store nothing.
    records: usize,
    all_references: usize,
    live_bytes: usize,
    /// Of bodies in records.
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

    /// Gives one reference back; the last one frees the message. Returns what the log knows it by,
    /// if it does and this was the last: the caller releases it there.
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

    /// Bytes of it, and of memory for shared bodies, that are only kept for reuse.
    pub fn spare_bytes(&self) -> usize {
        self.slabs.spare() * SEGMENT_BYTES + self.bodies.emptied_bytes()
    }

    /// Body bytes that were copied in, or from one segment to another, since the start.
    pub fn copied_body_bytes(&self) -> u64 {
        self.copied_body_bytes + self.bodies.copied_bytes()
    }

    /// What is taken in from now on was received in this buffer and may be left there, until
    /// [`Self::end_received`].
    pub fn begin_received(&mut self, received: &Bytes) {
        self.bodies.begin_received(received);
    }

    /// What is taken in from now on was not just received. Bodies that were left in their buffers
    /// for long may now be copied, so that others can be left.
    #[inline]
    pub fn end_received(&mut self) {
        self.bodies.end_received();
    }

    /// Receive buffers that are kept for bodies.
    pub fn receive_buffers(&self) -> usize {
        self.bodies.receive_buffers()
    }

    /// Keeps at most this many receive buffers for bodies; without a word none.
    pub fn limit_received(&mut self, buffers: usize) {
        self.bodies.limit_received(buffers);
    }

    /// References to messages that the store knows, over all queues.
    pub fn all_references(&self) -> usize {
        self.all_references
    }

    /// Memory of segments and shared bodies, and of the tables that find them.
    pub fn memory_bytes(&self) -> usize {
        self.segment_bytes() + self.bodies.memory_bytes() + self.index_bytes()
    }

    /// Keeps at most this many emptied segments, and chunks as large as those, for reuse; without
    /// a word none.
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

    /// Counts records of a segment as dead, and makes use of what that leaves.
    fn reclaim(&mut self, index: u32, records: u32, bytes: usize) {
        let segment = &mut self.segments[index as usize];
        segment.live_records -= records;
        segment.live_bytes -= bytes;
        self.live_bytes -= bytes;
        if segment.live_records == 0 {
            segment.used_bytes = 0;
            segment.context = None;
            if self.current != Some(index) {
                self.retire(index);
            }
        } else if segment.live_bytes < SEGMENT_BYTES / 4 {
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
        let kept = self.spare_max.saturating_sub(self.bodies.emptied_bytes() / SEGMENT_BYTES);
        self.slabs.put_back(emptied.memory, kept);
    }

    /// Copies the few live records of a segment forward and frees it.
    fn evacuate(&mut self, index: u32) {
        let victim = std::mem::take(&mut self.segments[index as usize]);
        self.live_bytes -= victim.live_bytes;
        let bytes = &victim.memory.bytes;
        let mut offset = 0;
        while offset < victim.used_bytes {
            let header = Header::read(bytes, offset);
            let slot = self.slots[header.id as usize];
            if slot.segment() == index && slot.offset() as usize == offset {
                let message = header.message(bytes);
                let target = self.segment_with_room(record::room_for(&message, header.body));
                let segment = &mut self.segments[target as usize];
                let (moved_to, size) = segment.append(header.id, &message, header.body);
                self.live_bytes += size;
                self.slots[header.id as usize].place(target, moved_to);
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
    /// Adds a record; returns its offset and its bytes.
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
