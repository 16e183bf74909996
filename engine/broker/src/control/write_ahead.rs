//! Changes that are durable before any shard applies them.
//!
//! A publisher may read a confirm for a message in a durable queue only once the declaration of
//! that queue cannot be lost. So the delta of a durable change waits until the change is stored.
//! The deltas behind it wait too, because shards apply deltas in order, and answers wait for
//! deltas.
//!
//! ```text
//!   deltas    1   2   3   4   5   6   7        held back: from 3 on
//!   durable           ●       ●   ●
//!                     └commit └────┴ gather for the next commit
//! ```

use super::definition::DurableChange;

/// Changes that are not stored yet, in order.
///
/// The limit: a channel has one request at a time and waits for the answer. Requests without an
/// answer only delete objects. So there are at most as many changes here as open channels and
/// requests of operators, plus one per object that is deleted.
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

    /// The next commit: the number to report it by, and the changes that gathered. `None` while
    /// another one is under way.
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
