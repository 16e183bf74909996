//! Changes that have to be durable before anybody may build on them.
//!
//! A message may go to a durable queue, and its publisher be told that it is safe, only once the
//! queue's declaration can no longer be lost. So the delta of a durable change is held back, and
//! with it all deltas behind it, until the change is stored; the answers wait for the deltas.
//!
//! ```text
//!   deltas    1   2   3   4   5   6   7        held back: from 3 on
//!   durable           ●       ●   ●
//!                     └commit └────┴ gather for the next commit
//! ```

use super::definition::DurableChange;

/// What is not stored yet, in order.
///
/// The limit: a channel asks one thing at a time and waits for its answer, and what nobody waits
/// for deletes what exists. So there are at most as many changes here as open channels, plus one
/// per existing object that goes.
#[derive(Debug, Default)]
pub(super) struct WriteAhead {
    /// The deltas of the commit under way, first and last.
    commit: Option<(u64, u64)>,
    /// The delta of the first change that gathered since.
    first_gathered: u64,
    /// The delta of the last one.
    last_gathered: u64,
    gathered: Vec<DurableChange>,
}

impl WriteAhead {
    /// Takes a change that belongs to the delta `sequence`, which only grows.
    pub(super) fn gather(&mut self, sequence: u64, change: DurableChange) {
        if self.gathered.is_empty() {
            self.first_gathered = sequence;
        }
        self.last_gathered = sequence;
        self.gathered.push(change);
    }

    /// Whether everything up to the delta `sequence` is stored.
    pub(super) fn releases(&self, sequence: u64) -> bool {
        let gathered = (!self.gathered.is_empty()).then_some(self.first_gathered);
        let first = self.commit.map(|(first, _)| first).or(gathered);
        first.is_none_or(|first| sequence < first)
    }

    /// The next commit: the number to report it by, and everything that gathered. `None` while one
    /// is under way.
    pub(super) fn poll_commit(&mut self) -> Option<(u64, Vec<DurableChange>)> {
        if self.commit.is_some() || self.gathered.is_empty() {
            return None;
        }
        self.commit = Some((self.first_gathered, self.last_gathered));
        Some((self.last_gathered, std::mem::take(&mut self.gathered)))
    }

    /// The commit of this number is durable.
    pub(super) fn made_durable(&mut self, through: u64) {
        let is_under_way = self.commit.is_some_and(|(_, last)| last == through);
        debug_assert!(is_under_way, "{through} is not the number of {:?}", self.commit);
        if is_under_way {
            self.commit = None;
        }
    }
}
