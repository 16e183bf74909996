//! Which messages the queues hold, as far as the log has been read.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Map, seeded_map};

use super::super::record::MarkRecord;
use super::super::{LogId, Place, QueueRef};

/// A message with how many queues hold it. 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Message {
    place: Place,
    holders: u32,
}

/// One queue while the log is read.
#[derive(Debug, Default)]
struct HeldQueue {
    messages: BTreeMap<u64, u32>,
    next_sequence: u64,
}

/// The messages of all queues. About 45 bytes for each that one queue holds: 16 for itself and
/// some 29 for its sequence in the tree.
#[derive(Debug)]
pub(super) struct Held {
    messages: Vec<Message>,
    /// Slots of messages that no queue holds.
    free: Vec<u32>,
    queues: Map<LogId, HeldQueue>,
    /// By segment: the segments whose records its copies replaced.
    replaced: BTreeMap<u32, BTreeSet<u32>>,
    /// By segment: those whose messages its settle records name.
    settled: BTreeMap<u32, BTreeSet<u32>>,
}

/// What one queue holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredQueue {
    /// The sequence of its next message.
    pub next_sequence: u64,
    /// Messages below were, or may have been, given out before.
    pub delivered_through: u64,
    /// Its messages by sequence; those of several queues have equal places.
    pub messages: Vec<(u64, Place)>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            free: Vec::new(),
            // Keys are made by the broker: no seed is needed.
            queues: seeded_map(0),
            replaced: BTreeMap::new(),
            settled: BTreeMap::new(),
        }
    }
}

impl Held {
    /// Adds a publish record.
    pub(super) fn publish(&mut self, place: Place, queues: impl Iterator<Item = QueueRef>) {
        let mut slot = None;
        for QueueRef { log_id, sequence } in queues {
            let slot = *slot.get_or_insert_with(|| self.add(place));
            if let Some(message) = self.messages.get_mut(slot as usize) {
                message.holders += 1;
            }
            let queue = self.queues.entry(log_id).or_default();
            queue.next_sequence = queue.next_sequence.max(sequence.saturating_add(1));
            if let Some(old) = queue.messages.insert(sequence, slot) {
                self.replace(old, place.segment);
            }
        }
    }

    /// Takes a settle record of `segment`.
    pub(super) fn settle(
        &mut self,
        segment: u32,
        log_id: LogId,
        ranges: impl Iterator<Item = (u64, u64)>,
    ) {
        for (first, last) in ranges.filter(|(first, last)| first <= last) {
            let queue = self.queues.entry(log_id).or_default();
            queue.next_sequence = queue.next_sequence.max(last.saturating_add(1));
            while let Some(slot) = take_first(&mut self.queues, log_id, first, last) {
                if let Some(message) = self.messages.get(slot as usize) {
                    self.settled.entry(segment).or_default().insert(message.place.segment);
                }
                self.release(slot);
            }
        }
    }

    /// Messages held.
    pub(super) fn count(&self) -> u64 {
        (self.messages.len() - self.free.len()) as u64
    }

    /// Notes a queue's next sequence from a mark.
    pub(super) fn mark(&mut self, mark: MarkRecord) {
        let queue = self.queues.entry(mark.log_id).or_default();
        queue.next_sequence = queue.next_sequence.max(mark.next_sequence);
    }

    /// By segment: those that have to be gone before it goes. A message may lie in the segment that
    /// it was copied from as well as in its copy's.
    pub(super) fn settled_segments(&self, of: u32) -> BTreeSet<u32> {
        let mut all = BTreeSet::new();
        let mut left: Vec<u32> = self.settled.get(&of).into_iter().flatten().copied().collect();
        while let Some(segment) = left.pop() {
            if all.insert(segment) {
                left.extend(self.replaced.get(&segment).into_iter().flatten());
            }
        }
        all
    }

    /// The queues; those without a mark may have given out everything.
    pub(super) fn finish(
        self,
        marks: &BTreeMap<LogId, MarkRecord>,
    ) -> BTreeMap<LogId, RecoveredQueue> {
        let Self { messages, queues, .. } = self;
        let finished = queues.into_iter().map(|(log_id, queue)| {
            let place = |slot: u32| messages.get(slot as usize).map(|message| message.place);
            let held = queue.messages.into_iter();
            let held = held.filter_map(|(sequence, slot)| Some((sequence, place(slot)?)));
            let next_sequence = queue.next_sequence;
            let mark = marks.get(&log_id).map(|mark| mark.delivered_through);
            let delivered_through = mark.unwrap_or(next_sequence);
            let messages = held.collect();
            (log_id, RecoveredQueue { next_sequence, delivered_through, messages })
        });
        finished.collect()
    }

    fn add(&mut self, place: Place) -> u32 {
        let message = Message { place, holders: 0 };
        match self.free.pop() {
            Some(slot) => {
                self.messages[slot as usize] = message;
                slot
            }
            None => {
                self.messages.push(message);
                self.messages.len() as u32 - 1
            }
        }
    }

    fn replace(&mut self, old: u32, by: u32) {
        if let Some(message) = self.messages.get(old as usize) {
            let segment = message.place.segment;
            if segment != by {
                self.replaced.entry(by).or_default().insert(segment);
            }
        }
        self.release(old);
    }

    fn release(&mut self, slot: u32) {
        if let Some(message) = self.messages.get_mut(slot as usize) {
            message.holders = message.holders.saturating_sub(1);
            if message.holders == 0 {
                self.free.push(slot);
            }
        }
    }
}

fn take_first(
    queues: &mut Map<LogId, HeldQueue>,
    log_id: LogId,
    first: u64,
    last: u64,
) -> Option<u32> {
    let messages = &mut queues.get_mut(&log_id)?.messages;
    let (sequence, _) = messages.range(first..=last).next()?;
    let sequence = *sequence;
    messages.remove(&sequence)
}
