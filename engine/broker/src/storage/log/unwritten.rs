//! Messages that rest and have no record yet. It is written when the commit begins that takes it
//! along; whoever is settled before that needs none.
//!
//! ```text
//!   add ──► waits for a commit ──take──► record in the batch ──► durable
//!                   │
//!                   └──settled in all its queues──► nothing to write
//! ```
//! What the disk says is the same as if record and settlement had gone there together, as they
//! did if they met in one batch, but nobody copies, sums and writes a body that nobody will read.

use std::collections::VecDeque;

use super::{LogId, Place, QueueRef};
use crate::storage::store::MessageId;

/// The place of a message in the order in which messages came to the log; the record of each is
/// durable, or none is needed, once the log has come so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

impl Place {
    /// The place of a record that is yet to be written.
    fn awaited(ticket: Ticket) -> Self {
        Self { segment: (ticket.0 >> 32) as u32, offset: ticket.0 as u32, length: 0 }
    }

    /// Whether there is a record.
    #[inline]
    pub fn is_written(self) -> bool {
        self.length > 0
    }

    fn ticket(self) -> Ticket {
        debug_assert!(!self.is_written());
        Ticket(u64::from(self.segment) << 32 | u64::from(self.offset))
    }
}

/// Those messages, in the order in which they came.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// One for each queue of a message, next to each other.
    entries: VecDeque<Entry>,
    /// Of the first entry, or of the next one to come.
    first: Ticket,
    /// Of the records that will be written.
    record_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    message: MessageId,
    /// Bytes of the message's record, noted with its first queue.
    length: u32,
    /// `None` once it no longer holds the message.
    queue: Option<QueueRef>,
}

impl Default for Unwritten {
    fn default() -> Self {
        // 0 would be the place of nothing.
        Self { entries: VecDeque::new(), first: Ticket(1), record_bytes: 0 }
    }
}

impl Unwritten {
    /// Adds a message whose record will take `length` bytes. Returns what the store is to know it
    /// by until then.
    #[inline]
    pub(super) fn add(&mut self, message: MessageId, length: usize, queues: &[QueueRef]) -> Place {
        let ticket = self.end();
        let mut length_once = length as u32;
        for queue in queues {
            let length = std::mem::take(&mut length_once);
            self.entries.push_back(Entry { message, length, queue: Some(*queue) });
        }
        self.record_bytes += length;
        Place::awaited(ticket)
    }

    /// A queue no longer holds a message.
    #[inline]
    pub(super) fn settle(&mut self, awaited: Place, log_id: LogId) {
        let first = self.index_of(awaited.ticket());
        let Some(message) = self.entries.get(first).map(|entry| entry.message) else { return };
        let entries = self.entries.range_mut(first..);
        for entry in entries.take_while(|entry| entry.message == message) {
            entry.queue.take_if(|queue| queue.log_id == log_id);
        }
    }

    /// No queue holds a message any more.
    #[inline]
    pub(super) fn release(&mut self, awaited: Place) {
        let first = self.index_of(awaited.ticket());
        let Some(message) = self.entries.get(first).map(|entry| entry.message) else { return };
        let entries = self.entries.range_mut(first..);
        for entry in entries.take_while(|entry| entry.message == message) {
            self.record_bytes -= std::mem::take(&mut entry.length) as usize;
            entry.queue = None;
        }
        self.pass_settled();
    }

    /// Takes out the first message that needs a record, and its queues.
    pub(super) fn take(&mut self, queues: &mut Vec<QueueRef>) -> Option<MessageId> {
        queues.clear();
        while let Some(entry) = self.entries.pop_front() {
            self.first.0 += 1;
            self.record_bytes -= entry.length as usize;
            queues.extend(entry.queue);
            let next = self.entries.front().map(|next| next.message);
            if next != Some(entry.message) && !queues.is_empty() {
                return Some(entry.message);
            }
        }
        None
    }

    /// Everything before this has been taken out, or needs no record.
    #[inline]
    pub(super) fn first(&self) -> Ticket {
        self.first
    }

    /// Behind everything that was added.
    #[inline]
    pub(super) fn end(&self) -> Ticket {
        Ticket(self.first.0 + self.entries.len() as u64)
    }

    /// Bytes that will be written, and those of the list itself, which may be longer.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.record_bytes + self.entries.len() * size_of::<Entry>()
    }

    /// Of a message's first entry, or the first one left of it.
    #[inline]
    fn index_of(&self, ticket: Ticket) -> usize {
        debug_assert!(ticket < self.end(), "{ticket:?} is not unwritten");
        ticket.0.saturating_sub(self.first.0) as usize
    }

    /// Also keeps the list short where one commit takes long and all is settled meanwhile.
    #[inline]
    fn pass_settled(&mut self) {
        while let Some(settled) = self.entries.pop_front_if(|entry| entry.queue.is_none()) {
            self.first.0 += 1;
            // Other queues still hold the message.
            if settled.length > 0
                && let Some(next) = self.entries.front_mut()
            {
                next.length = settled.length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(log_id: LogId, sequence: u64) -> QueueRef {
        QueueRef { log_id, sequence }
    }

    fn taken(unwritten: &mut Unwritten) -> Option<(u32, Vec<QueueRef>)> {
        let mut queues = vec![queue(99, 99)];
        unwritten.take(&mut queues).map(|message| (message.0, queues))
    }

    #[test]
    fn what_is_settled_in_all_its_queues_is_passed_over() {
        let mut unwritten = Unwritten::default();
        let one = unwritten.add(MessageId(7), 100, &[queue(1, 0)]);
        let two = unwritten.add(MessageId(8), 200, &[queue(1, 1), queue(2, 0), queue(3, 0)]);
        let three = unwritten.add(MessageId(9), 300, &[queue(1, 2)]);
        assert!(!one.is_written() && one != two && two != three);
        let after_two = Ticket(5);
        unwritten.settle(two, 2);
        unwritten.settle(two, 3);
        unwritten.settle(one, 1);
        unwritten.release(one);
        assert_eq!(unwritten.bytes() - 4 * size_of::<Entry>(), 500);
        assert_eq!(taken(&mut unwritten), Some((8, vec![queue(1, 1)])));
        assert_eq!((unwritten.first(), unwritten.end()), (after_two, Ticket(6)));
        // A message that came later may have the id of one that is gone.
        unwritten.settle(three, 1);
        unwritten.release(three);
        assert_eq!((unwritten.bytes(), unwritten.first()), (0, Ticket(6)));
        unwritten.add(MessageId(9), 40, &[queue(1, 3)]);
        assert_eq!(taken(&mut unwritten), Some((9, vec![queue(1, 3)])));
        assert_eq!(taken(&mut unwritten), None);
    }

    #[test]
    fn an_id_used_again_at_once_is_another_message() {
        let mut unwritten = Unwritten::default();
        let before = unwritten.add(MessageId(1), 50, &[queue(1, 0)]);
        let gone = unwritten.add(MessageId(7), 100, &[queue(1, 1), queue(2, 0)]);
        unwritten.settle(gone, 1);
        unwritten.settle(gone, 2);
        unwritten.release(gone);
        let again = unwritten.add(MessageId(7), 300, &[queue(2, 1), queue(1, 2)]);
        unwritten.settle(again, 2);
        assert_eq!(taken(&mut unwritten), Some((1, vec![queue(1, 0)])));
        assert_eq!(taken(&mut unwritten), Some((7, vec![queue(1, 2)])));
        assert_eq!((taken(&mut unwritten), unwritten.bytes()), (None, 0));
        assert!(before.ticket() < again.ticket());
    }

    #[test]
    fn a_message_whose_first_queue_is_done_with_it_keeps_its_bytes_and_its_place() {
        let mut unwritten = Unwritten::default();
        let shared = unwritten.add(MessageId(1), 500, &[queue(1, 0), queue(2, 0)]);
        let other = unwritten.add(MessageId(2), 50, &[queue(1, 1)]);
        unwritten.settle(shared, 1);
        unwritten.settle(other, 1);
        unwritten.release(other);
        assert_eq!(unwritten.bytes() - 2 * size_of::<Entry>(), 500);
        unwritten.settle(shared, 2);
        unwritten.release(shared);
        assert_eq!((taken(&mut unwritten), unwritten.bytes()), (None, 0));
    }
}
