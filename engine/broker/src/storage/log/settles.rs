//! Settlements that wait to be written: ranges per queue, so that a run of acks is one range.

use std::collections::BTreeSet;

use crate::id::{Map, seeded_map};

use super::{LogId, QueueRef};

/// Ranges that are kept before they are written whatever the log does: 64 KiB of records, a
/// sixteenth of a commit.
const RANGES_MAX: usize = 4096;

/// First and last sequence of each range, both included.
pub(super) type SequenceRanges = Vec<(u64, u64)>;

/// What was settled since the last settle records.
#[derive(Debug)]
pub(super) struct Settles {
    queues: Map<LogId, SequenceRanges>,
    /// The queue settled last, taken out of `queues`: the next one is mostly the same.
    current: (LogId, SequenceRanges),
    /// Segments whose messages were settled.
    segments: BTreeSet<u32>,
    last_segment: u32,
    ranges: usize,
}

impl Default for Settles {
    fn default() -> Self {
        Self {
            // Keys are made by the broker: no seed is needed.
            queues: seeded_map(0),
            current: (0, Vec::new()),
            segments: BTreeSet::new(),
            last_segment: 0,
            ranges: 0,
        }
    }
}

impl Settles {
    /// Notes one message whose record is in `segment`.
    #[inline]
    pub(super) fn add(&mut self, queue: QueueRef, segment: u32) {
        if segment != self.last_segment {
            self.last_segment = segment;
            self.segments.insert(segment);
        }
        if queue.log_id != self.current.0 {
            self.turn_to(queue.log_id);
        }
        let ranges = &mut self.current.1;
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == queue.sequence => *last += 1,
            _ => {
                ranges.push((queue.sequence, queue.sequence));
                self.ranges += 1;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.ranges >= RANGES_MAX
    }

    /// Takes everything: the ranges of each queue, and the segments concerned.
    pub(super) fn take(&mut self) -> (Vec<(LogId, SequenceRanges)>, BTreeSet<u32>) {
        self.turn_to(0);
        let mut taken: Vec<_> = self.queues.drain().collect();
        // The map's order is the same in each run, but not one that a reader would understand.
        taken.sort_unstable_by_key(|(log_id, _)| *log_id);
        (self.ranges, self.last_segment) = (0, 0);
        (taken, std::mem::take(&mut self.segments))
    }

    #[cold]
    fn turn_to(&mut self, log_id: LogId) {
        let (last, ranges) = std::mem::take(&mut self.current);
        if !ranges.is_empty() {
            self.queues.insert(last, ranges);
        }
        self.current = (log_id, self.queues.remove(&log_id).unwrap_or_default());
    }
}
