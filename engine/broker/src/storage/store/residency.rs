//! Messages that are in the log too, and whose memory copy comes and goes.
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
    /// A message's publish record was added to the log, or is to be.
    pub fn logged(&mut self, id: MessageId, place: log::Place) {
        let index = id.0 as usize;
        if self.logged.len() <= index {
            self.logged.resize(index + 1, NOWHERE);
        }
        self.logged[index] = place;
    }

    /// A message's record was copied forward.
    pub fn moved(&mut self, id: MessageId, place: log::Place) {
        // The copy may not be durable yet, whatever was read from where it came from.
        self.slots[id.0 as usize].set_loaded(false);
        self.logged(id, place);
    }

    /// Where the record of a message is, if it has one.
    #[inline]
    pub fn log_place(&self, id: MessageId) -> Option<log::Place> {
        self.log_entry(id).filter(|place| place.is_written())
    }

    /// As the log knows a message, whose record may be yet to be written.
    #[inline]
    pub fn log_entry(&self, id: MessageId) -> Option<log::Place> {
        self.logged.get(id.0 as usize).copied().filter(|place| *place != NOWHERE)
    }

    /// Where the record of a message is, if it has one.
    pub fn place_of(&self, rests: Where) -> Option<log::Place> {
        match rests {
            Where::Store(id) => self.log_place(id),
            Where::Log(place) => Some(place),
        }
    }

    /// Whether the message can be had without a read.
    #[inline]
    pub fn is_at_hand(&self, rests: Where) -> bool {
        matches!(rests, Where::Store(id) if self.is_resident(id))
    }

    /// Whether the message can be had without a read.
    #[inline]
    pub fn is_resident(&self, id: MessageId) -> bool {
        self.slots[id.0 as usize].segment() < ABSENT
    }

    /// How many queues hold the message.
    pub fn references(&self, id: MessageId) -> u32 {
        self.slots[id.0 as usize].references()
    }

    /// Bytes of the message's memory copy, or of its record where there is none.
    pub fn size_of(&self, rests: Where) -> usize {
        match rests {
            Where::Store(id) => self.size_bytes(id),
            Where::Log(place) => place.length as usize,
        }
    }

    /// As [`Self::size_of`], of a message that the store knows.
    pub fn size_bytes(&self, id: MessageId) -> usize {
        let slot = self.slots[id.0 as usize];
        if slot.segment() < ABSENT {
            let bytes = &self.segments[slot.segment() as usize].memory.bytes;
            let header = Header::read(bytes, slot.offset() as usize);
            let shared = self.message(id).body.len() - header.message(bytes).body.len();
            return header.end() - slot.offset() as usize + shared;
        }
        self.log_place(id).map_or(0, |place| place.length as usize)
    }

    /// Takes in a message that is only in the log.
    pub fn recovered(&mut self, place: log::Place, references: u32) -> MessageId {
        debug_assert!(references > 0);
        let id = self.vacant.pop().unwrap_or(self.slots.len() as u32);
        self.all_references += references as usize;
        self.occupy(id, Slot::new(ABSENT, 0, references));
        self.absent += 1;
        self.logged(MessageId(id), place);
        MessageId(id)
    }

    /// Gives up the memory copy of a message, whose record has to be durable.
    pub fn evict(&mut self, id: MessageId) {
        debug_assert!(self.log_place(id).is_some(), "evicted a message that is nowhere else");
        let slot = &mut self.slots[id.0 as usize];
        let (segment, offset) = (slot.segment(), slot.offset());
        if segment >= ABSENT {
            return;
        }
        slot.place(ABSENT, 0);
        slot.set_loaded(false);
        self.absent += 1;
        self.free(segment, offset);
    }

    /// Forgets a message whose record is durable. The one queue that holds it keeps the place.
    pub fn leave(&mut self, id: MessageId) -> Option<log::Place> {
        debug_assert!(self.references(id) == 1 && self.log_place(id).is_some(), "left to nobody");
        let place = self.release(id)?;
        self.records += 1;
        Some(place)
    }

    /// A queue has read back where a message is that nobody else holds.
    pub fn left(&mut self) {
        self.records += 1;
    }

    /// Knows a message again that was left to its queue.
    pub fn take_back(&mut self, place: log::Place) -> MessageId {
        self.records -= 1;
        self.recovered(place, 1)
    }

    /// A queue is done with a message that was left to it.
    pub fn forgotten(&mut self) {
        self.records -= 1;
    }

    /// Messages that were left to their queues.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Makes a memory copy again, of what was read from the log.
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

    /// The record of a message that is not resident cannot be read: it is lost, and its queues drop
    /// it when they come to it. Returns where it was, to be released in the log.
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

    /// Sets the bytes of memory copies that are to be kept at most.
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget_bytes = bytes;
    }

    /// The bytes of memory copies that are to be kept at most.
    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// Whether there are more.
    #[inline]
    pub fn is_over_budget(&self) -> bool {
        self.live_bytes() > self.budget_bytes
    }

    /// Messages without a memory copy.
    pub fn absent_messages(&self) -> usize {
        self.absent + self.records
    }

    /// Bytes of the tables that say where messages are.
    pub fn index_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.vacant.capacity() * size_of::<u32>()
            + self.logged.capacity() * size_of::<log::Place>()
    }

    /// The messages whose records are in `segment`, of those with numbers in `from..from + count`;
    /// `None` behind the last number.
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

    /// Numbers that [`Self::logged_in`] goes through.
    pub fn logged_entries(&self) -> usize {
        self.logged.len()
    }

    /// One queue is done with a message that was read for it. The others may need it much later,
    /// and do not look for it where all was evicted: half the budget is for such messages, the
    /// other half for the fronts of queues.
    #[cold]
    pub(super) fn leave_to_others(&mut self, id: MessageId) {
        debug_assert!(self.slots[id.0 as usize].segment() != VACANT);
        if self.live_bytes() > self.budget_bytes / 2 {
            self.evict(id);
        }
    }
}
