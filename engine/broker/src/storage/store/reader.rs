//! Reading messages in sequence: what neighbours share is looked up once.

use super::record::Header;
use super::slot::ABSENT;
use super::{MessageId, Store};
use crate::message::Message;

/// The number of no segment.
const NO_SEGMENT: u32 = u32::MAX;

/// Reads messages of a store. Messages that arrived in sequence usually share segment and context;
/// the reader keeps both from one message to the next.
#[derive(Debug)]
pub struct Reader<'a> {
    store: &'a Store,
    segment: u32,
    memory: &'a [u8],
    /// Offset in the segment of the record with the context that `last` has.
    context: usize,
    last: Message<'a>,
}

impl Store {
    /// A reader of this store.
    pub fn reader(&self) -> Reader<'_> {
        Reader { store: self, segment: NO_SEGMENT, memory: &[], context: 0, last: Message::EMPTY }
    }
}

impl<'a> Reader<'a> {
    /// A message; `None` if it has no memory copy.
    #[inline(always)]
    pub fn read(&mut self, id: MessageId) -> Option<&Message<'a>> {
        let slot = self.store.slots[id.0 as usize];
        let (segment, offset) = (slot.segment(), slot.offset() as usize);
        if segment >= ABSENT {
            return None;
        }
        let is_new = segment != self.segment;
        if is_new {
            self.segment = segment;
            self.memory = &self.store.segments[segment as usize].memory.bytes;
        }
        let header = Header::read(self.memory, offset);
        if is_new || header.context() != self.context {
            self.context = header.context();
            self.last = header.message(self.memory);
        }
        self.last.body = self.store.body(&header, self.memory);
        Some(&self.last)
    }
}
