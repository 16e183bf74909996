//! Messages that are also in the log, and whose memory copies come and go.
//!
//! ```text
//!   put ──► resident ──logged──► resident, logged ──evict──► logged only ◄── recovered
//!                                        ▲ │                     │ ▲
//!                                        │ │ ┌─────────load──────┘ │ take_back
//!                                        └─┼─┘                     │
//!                                          └───────leave──► known to its queue only
//! ```

use crate::message::Message;
use crate::storage::log;

use super::record::Header;
use super::slot::{ABSENT, Slot, VACANT};
use super::{MessageId, NOWHERE, Store, Where};

impl Store {
    /// A message's publish record is in the log, or will be.
    pub fn logged(&mut self, id: MessageId, place: log::Place) {
        let index = id.0 as usize;
        if self.logged.len() <= index {
            self.logged.resize(index + 1, NOWHERE);
        }
        self.logged[index] = place;
    }

    /// A message's record was copied forward.
    pub fn moved(&mut self, id: MessageId, place: log::Place) {
        // A memory copy read from the old record proves nothing about the new one, which may not be
        // durable yet.
        self.slots[id.0 as usize].set_loaded(false);
        self.logged(id, place);
    }

    /// The place of a message's record, if it is written.
    #[inline]
    pub fn log_place(&self, id: MessageId) -> Option<log::Place> {
        self.log_entry(id).filter(|place| place.is_written())
    }

    /// The place of a message's record, written or still to be ([`log::Place::is_written`]).
    #[inline]
    pub fn log_entry(&self, id: MessageId) -> Option<log::Place> {
        self.logged.get(id.0 as usize).copied().filter(|place| *place != NOWHERE)
    }

    /// As [`Self::log_place`], of a message that may have no entry here.
    pub fn place_of(&self, rests: Where) -> Option<log::Place> {
        match rests {
            Where::Store(id) => self.log_place(id),
            Where::Log(place) => Some(place),
        }
    }

    /// Whether the message has a memory copy, so that no read is needed.
    #[inline]
    pub fn is_at_hand(&self, rests: Where) -> bool {
        matches!(rests, Where::Store(id) if self.is_resident(id))
    }

    /// As [`Self::is_at_hand`], of a message that has an entry here.
    #[inline]
    pub fn is_resident(&self, id: MessageId) -> bool {
        self.slots[id.0 as usize].segment() < ABSENT
    }

    /// How many queues hold the message.
    pub fn references(&self, id: MessageId) -> u32 {
        self.slots[id.0 as usize].references()
    }

    /// Bytes of the message's memory copy, or of its record in the log if it has no copy.
    pub fn size_of(&self, rests: Where) -> usize {
        match rests {
            Where::Store(id) => self.size_bytes(id),
            Where::Log(place) => place.length as usize,
        }
    }

    /// As [`Self::size_of`], of a message that has an entry here.
    pub fn size_bytes(&self, id: MessageId) -> usize {
        let slot = self.slots[id.0 as usize];
        if slot.segment() < ABSENT {
            let bytes = &self.segments[slot.segment() as usize].memory.bytes;
            let header = Header::read(bytes, slot.offset() as usize);
            // The header's message has an empty body in place of a shared one.
            let shared = self.message(id).body.len() - header.message(bytes).body.len();
            return header.end() - slot.offset() as usize + shared;
        }
        self.log_place(id).map_or(0, |place| place.length as usize)
    }

    /// Makes an entry for a message that is only in the log.
    pub fn recovered(&mut self, place: log::Place, references: u32) -> MessageId {
        debug_assert!(references > 0);
        let id = self.vacant.pop().unwrap_or(self.slots.len() as u32);
        self.all_references += references as usize;
        self.occupy(id, Slot::new(ABSENT, 0, references));
        self.absent += 1;
        self.logged(MessageId(id), place);
        MessageId(id)
    }

    /// Frees the memory copy of a message. Its record must be durable.
    pub fn evict(&mut self, id: MessageId) {
        debug_assert!(self.log_place(id).is_some(), "evicted a message that is nowhere else");
        let slot = &mut self.slots[id.0 as usize];
        let (segment, offset) = (slot.segment(), slot.offset());
        if segment >= ABSENT {
            return;
        }
        // Before freeing, which may copy the segment forward: the record must look dead by then.
        slot.place(ABSENT, 0);
        slot.set_loaded(false);
        self.absent += 1;
        self.free(segment, offset);
    }

    /// Drops the entry of a message whose record is durable. The one queue that holds the message
    /// keeps the returned place instead.
    pub fn leave(&mut self, id: MessageId) -> Option<log::Place> {
        debug_assert!(self.references(id) == 1 && self.log_place(id).is_some(), "left to nobody");
        let place = self.release(id)?;
        self.records += 1;
        Some(place)
    }

    /// Counts a recovered message that gets no entry: its one queue keeps the place in the log.
    pub fn left(&mut self) {
        self.records += 1;
    }

    /// Makes an entry again for a message whose place only its queue kept.
    pub fn take_back(&mut self, place: log::Place) -> MessageId {
        self.records -= 1;
        self.recovered(place, 1)
    }

    /// A queue no longer holds a message that has no entry here.
    pub fn forgotten(&mut self) {
        self.records -= 1;
    }

    /// Messages without an entry here, whose places only their queues keep.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Makes the memory copy again, from the message as read from the log.
    pub fn load(&mut self, id: MessageId, message: &Message<'_>) {
        if self.slots[id.0 as usize].segment() != ABSENT {
            return;
        }
        let (segment, offset) = self.copy_in(id.0, message);
        let slot = &mut self.slots[id.0 as usize];
        slot.place(segment, offset);
        slot.set_loaded(true);
        self.absent -= 1;
    }

    /// Marks an evicted message as lost because its record is unreadable; its queues drop it when
    /// it reaches their front. Returns the place of the record, which the caller releases in the
    /// log.
    pub fn lose(&mut self, id: MessageId) -> Option<log::Place> {
        debug_assert!(!self.is_resident(id), "what is in memory is not lost");
        let place = self.log_place(id)?;
        self.logged[id.0 as usize] = NOWHERE;
        Some(place)
    }

    /// Whether the message is neither in memory nor in the log.
    pub fn is_lost(&self, id: MessageId) -> bool {
        self.slots[id.0 as usize].segment() == ABSENT && self.log_place(id).is_none()
    }

    /// Sets the limit in bytes on memory copies.
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget_bytes = bytes;
    }

    /// The limit in bytes on memory copies.
    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// Whether memory copies take more bytes than the budget.
    #[inline]
    pub fn is_over_budget(&self) -> bool {
        self.live_bytes() > self.budget_bytes
    }

    /// Messages without a memory copy.
    pub fn absent_messages(&self) -> usize {
        self.absent + self.records
    }

    /// Bytes of the tables of entries: slots, vacant ids and places in the log.
    pub fn index_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.vacant.capacity() * size_of::<u32>()
            + self.logged.capacity() * size_of::<log::Place>()
    }

    /// The messages with ids in `from..from + count` whose records are in this segment of the log;
    /// `None` behind the last id.
    pub fn logged_in(
        &self,
        segment: u32,
        from: usize,
        count: usize,
    ) -> Option<impl Iterator<Item = (log::Place, MessageId)>> {
        let end = (from + count).min(self.logged.len());
        let found = self.logged.get(from..end).filter(|found| !found.is_empty())?;
        Some(found.iter().zip(from as u32..).filter_map(move |(place, id)| {
            (place.segment == segment && place.is_written()).then_some((*place, MessageId(id)))
        }))
    }

    /// How many ids [`Self::logged_in`] has to look at.
    pub fn logged_entries(&self) -> usize {
        self.logged.len()
    }

    /// One queue no longer holds a message that was loaded for it. The other queues may need it
    /// much later, and eviction does not find it there among messages that are evicted already. So
    /// it stays only within half of the budget; the other half is for the fronts of queues.
    #[cold]
    pub(super) fn leave_to_others(&mut self, id: MessageId) {
        debug_assert!(self.slots[id.0 as usize].segment() != VACANT);
        if self.live_bytes() > self.budget_bytes / 2 {
            self.evict(id);
        }
    }
}
