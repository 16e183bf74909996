//! Giving messages up one after the other: those of one segment are counted together.

use super::record::{Header, Rest};
use super::slot::{ABSENT, Slot};
use super::{MessageId, NOWHERE, Store};
use crate::storage::log;

/// Messages of a store that are being given up. What becomes of the memory of the last of them is
/// decided when this is dropped.
#[derive(Debug)]
pub struct Release<'a> {
    store: &'a mut Store,
    /// Where the memory copies are that are freed and not counted yet.
    segment: u32,
    records: u32,
    bytes: usize,
}

impl Store {
    /// Begins to give messages up.
    #[inline]
    pub fn releases(&mut self) -> Release<'_> {
        Release { store: self, segment: 0, records: 0, bytes: 0 }
    }

    /// Frees a memory copy, which no slot names any more.
    pub(super) fn free(&mut self, segment: u32, offset: u32) {
        let mut releases = self.releases();
        releases.segment = segment;
        releases.free(offset);
    }
}

impl Release<'_> {
    /// Gives one reference back; the last one frees the message. Returns what the log knows
    /// it by, if it does and this was the last: the caller releases it there.
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

    /// A queue is done with a message that was left to it.
    pub fn forgotten(&mut self) {
        self.store.forgotten();
    }

    /// As the log knows a message, whose record may be yet to be written.
    #[inline]
    pub fn log_entry(&self, id: MessageId) -> Option<log::Place> {
        self.store.log_entry(id)
    }

    /// Counting may copy records forward, this message's too, which no queue holds but whose slot
    /// still names its copy: only then is it known where that is.
    #[inline]
    fn turn_to_segment_of(&mut self, id: MessageId) {
        self.count();
        self.segment = self.store.slots[id.0 as usize].segment();
    }

    /// Frees a memory copy in the segment at hand.
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

    /// Counts what was freed: the segment may be done with, or another one be emptied now.
    #[inline(never)]
    fn count(&mut self) {
        if self.records > 0 {
            self.store.reclaim(self.segment, self.records, self.bytes);
            (self.records, self.bytes) = (0, 0);
        }
    }

    #[cold]
    fn leave_to_others(&mut self, id: MessageId) {
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
