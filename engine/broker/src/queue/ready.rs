//! The ready messages of a queue, in delivery order.

use std::collections::BTreeMap;

use crate::id::WallTime;
use crate::storage::store::Where;

use super::fifo::{Fifo, FrontRun};

/// A message that waits in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the message is.
    pub rests: Where,
    /// It was given out before.
    pub redelivered: bool,
    /// Its place in publishing order, kept when it is requeued.
    pub position: u64,
    /// When it became ready.
    pub ready_at: WallTime,
}

/// Ready messages by position.
///
/// New messages arrive in ascending order and wait in `fifo`; requeued ones wait in `returned`. The
/// next message is the one with the lower position of the two fronts. An expiry index or priority
/// levels would be further fields that hold positions.
#[derive(Debug, Default)]
pub struct Ready {
    fifo: Fifo,
    returned: BTreeMap<u64, Entry>,
}

impl Ready {
    /// Adds a message at the back.
    #[inline]
    pub fn push(&mut self, entry: Entry) {
        self.fifo.push(entry);
    }

    /// Puts a message back to its place.
    pub fn put_back(&mut self, entry: Entry) {
        self.returned.insert(entry.position, entry);
    }

    /// The next message.
    #[inline]
    pub fn front(&self) -> Option<Entry> {
        if self.returned_is_next() {
            return self.returned.first_key_value().map(|(_, entry)| *entry);
        }
        self.fifo.front()
    }

    /// The next messages of one run. `None` if no message waits or the next one is in the log only.
    #[inline]
    pub fn front_run(&self) -> Option<FrontRun<'_>> {
        let Some((_, returned)) = self.returned.first_key_value() else {
            return self.fifo.front_run();
        };
        if !self.returned_is_next() {
            // The run ends before the returned message, whose position may fall into it.
            let run = self.fifo.front_run()?;
            let before = returned.position.saturating_sub(run.position);
            let before = usize::try_from(before).unwrap_or(usize::MAX).min(run.messages.len());
            return Some(FrontRun { messages: &run.messages[..before], ..run });
        }
        // Returned messages are few: each is a run of its own.
        let Entry { ref rests, redelivered, position, ready_at } = *returned;
        let Where::Store(message) = rests else {
            return None;
        };
        let messages = std::slice::from_ref(message);
        Some(FrontRun { messages, redelivered, position, ready_at })
    }

    /// Takes the first `count` messages of [`Self::front_run`].
    #[inline]
    pub fn pop_many(&mut self, count: usize) {
        if self.returned_is_next() {
            self.returned.pop_first();
        } else {
            self.fifo.pop_many(count);
        }
    }

    /// Takes the next message.
    #[inline]
    pub fn pop(&mut self) -> Option<Entry> {
        if self.returned_is_next() {
            return self.returned.pop_first().map(|(_, entry)| entry);
        }
        self.fifo.pop()
    }

    /// The messages that were never given out, in their order.
    #[inline]
    pub fn fifo(&self) -> &Fifo {
        &self.fifo
    }

    /// The messages that were given back, in their order.
    pub fn returned(&self) -> impl Iterator<Item = Entry> + use<'_> {
        self.returned.values().copied()
    }

    /// The messages that were never given out, for a change of where they rest.
    pub fn fifo_mut(&mut self) -> &mut Fifo {
        &mut self.fifo
    }

    /// The message at `position`.
    pub fn find(&self, position: u64) -> Option<Entry> {
        let found = self.fifo.get(self.fifo.index_of(position));
        let found = found.filter(|entry| entry.position == position);
        found.or_else(|| self.returned.get(&position).copied())
    }

    /// Messages waiting.
    #[inline]
    pub fn len(&self) -> usize {
        self.fifo.len() + self.returned.len()
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.fifo.is_empty() && self.returned.is_empty()
    }

    #[inline]
    fn returned_is_next(&self) -> bool {
        if self.returned.is_empty() {
            return false;
        }
        let first = self.returned.first_key_value().map(|(position, _)| *position);
        self.fifo.front_position().is_none_or(|fifo| first < Some(fifo))
    }
}
