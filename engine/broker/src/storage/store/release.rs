//! Releasing messages in sequence: neighbours in one segment are counted together.

use super::record::{Header, Rest};
use super::slot::{ABSENT, Slot};
use super::{MessageId, NOWHERE, Store};
use crate::storage::log;

/// A sequence of releases. Records freed in one segment are only added up here. The
/// store gets the sums when the sequence comes to another segment, and at the end, in `drop`.
#[derive(Debug)]
pub struct Release<'a> {
    store: &'a mut Store,
    /// The segment of the records that are freed but not counted yet.
    segment: u32,
    records: u32,
    bytes: usize,
}

impl Store {
    /// Begins a sequence of releases.
    #[inline]
    pub fn releases(&mut self) -> Release<'_> {
        Release { store: self, segment: 0, records: 0, bytes: 0 }
    }

    /// Frees a memory copy; no slot may name it any more.
    pub(super) fn free(&mut self, segment: u32, offset: u32) {
        let mut releases = self.releases();
        releases.segment = segment;
        releases.free(offset);
    }
}

impl Release<'_> {
    /// Gives one reference back; the last one frees the message. The last one also returns the
    /// message's place in the log, if it has one: the caller has to release it there.
    #[inline(always)]
    pub fn release(&mut self, id: MessageId) -> Option<log::Place> {
        let store = &mut *self.store;
        store.all_references -= 1;
        let slot = &mut store.slots[id.0 as usize];
        if slot.release() > 0 {
            if slot.is_loaded() {
                self.leave_to_others(id);
            }
            return None;
        }
        let segment = slot.segment();
        if segment != self.segment && segment != ABSENT {
            self.turn_to_segment_of(id);
        }
        // The slot is read again: `turn_to_segment_of` may have moved the copy.
        let store = &mut *self.store;
        let slot = std::mem::replace(&mut store.slots[id.0 as usize], Slot::VACANT);
        store.vacant.push(id.0);
        store.messages -= 1;
        if segment == ABSENT {
            store.absent -= 1;
        } else {
            self.free(slot.offset());
        }
        let logged = self.store.logged.get_mut(id.0 as usize)?;
        let place = std::mem::replace(logged, NOWHERE);
        (place != NOWHERE).then_some(place)
    }

    /// A queue no longer holds a message that has no entry in the store.
    pub fn forgotten(&mut self) {
        self.store.forgotten();
    }

    /// See [`Store::log_entry`].
    #[inline]
    pub fn log_entry(&self, id: MessageId) -> Option<log::Place> {
        self.store.log_entry(id)
    }

    /// Counting may copy records forward, also that of this message: no queue holds it any more,
    /// but its slot still names the copy. So the segment is looked up after counting.
    #[inline]
    fn turn_to_segment_of(&mut self, id: MessageId) {
        self.count();
        self.segment = self.store.slots[id.0 as usize].segment();
    }

    /// Frees a memory copy in `self.segment`.
    #[inline(always)]
    fn free(&mut self, offset: u32) {
        let memory = &self.store.segments[self.segment as usize].memory.bytes;
        let header = Header::read(memory, offset as usize);
        self.records += 1;
        self.bytes += header.end() - offset as usize;
        if let Rest::Shared(number) = header.body
            && self.store.bodies.unshare(number)
        {
            self.store.limit_emptied_chunks();
        }
    }

    /// Counts the freed records. This may retire the segment, and copy another one forward.
    #[inline(never)]
    fn count(&mut self) {
        if self.records > 0 {
            self.store.reclaim(self.segment, self.records, self.bytes);
            (self.records, self.bytes) = (0, 0);
        }
    }

    #[cold]
    fn leave_to_others(&mut self, id: MessageId) {
        // Eviction may copy `self.segment` forward, so its freed records have to be counted before.
        self.count();
        self.store.leave_to_others(id);
    }
}

impl Drop for Release<'_> {
    #[inline]
    fn drop(&mut self) {
        self.count();
    }
}
