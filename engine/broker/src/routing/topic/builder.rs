//! The mutable half of a topic table.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::levels::{EntryId, Levels};
use super::pattern::Pattern;
use super::table::TopicTable;
use super::{BINDINGS_MAX, KEY_BYTES_MAX};

/// Why a binding was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The key is longer than [`KEY_BYTES_MAX`]. No short string of the protocol is.
    #[error("binding key of {0} bytes is longer than {KEY_BYTES_MAX}")]
    KeyTooLong(usize),
    /// The table has [`BINDINGS_MAX`] bindings.
    #[error("the exchange has its limit of {BINDINGS_MAX} topic bindings")]
    Full,
}

/// The bindings of one topic exchange, on the thread that changes them.
///
/// # Cost
///
/// Entries are kept in up to 7 compiled tries (levels) of at most 64 · 8ⁿ entries. A snapshot
/// merges the new entries with the small levels into the first level that can take them all, so
///
/// - a bind with a snapshot of its own compiles at most 64 entries at the bottom (32 on average),
///   and as its entry moves up, amortised at most 8 entries for each higher level (4 to 5 on
///   average), of which there are log₈(entries / 64): about 50 entries at 100,000 bindings and 55
///   at a million. Binds that share a snapshot share the part of the bottom.
/// - an unbind marks its slot and copies 1.5 KiB at most; a level is recompiled when more than half
///   of its slots are marked, which is amortised one entry per unbind.
/// - a single change may have to merge all levels: then the snapshot takes as long as
///   [`compact`](Self::compact).
#[derive(Debug)]
pub struct TopicBuilder {
    /// By destination and normal form.
    bound: HashMap<Box<[u8]>, Bound, FixedState>,
    /// Bindings, by destination and key, whose key is not in normal form.
    aliases: HashSet<Box<[u8]>, FixedState>,
    levels: Levels,
    len: usize,
    /// The latest snapshot, while it holds.
    snapshot: Option<Arc<TopicTable>>,
}

/// The bindings to one destination that have one normal form; at least one.
#[derive(Debug)]
struct Bound {
    entry: EntryId,
    /// Bound by the normal form itself.
    normal: bool,
    /// Bound by this many other keys.
    aliases: u32,
}

impl TopicBuilder {
    /// An empty table. `seed` keeps clients from choosing words that collide in its hash tables, so
    /// it should be secret; the outcome of matching does not depend on it.
    pub fn new(seed: u64) -> Self {
        Self {
            bound: HashMap::with_hasher(FixedState::with_seed(seed)),
            aliases: HashSet::with_hasher(FixedState::with_seed(seed)),
            levels: Levels::new(seed),
            len: 0,
            snapshot: None,
        }
    }

    /// Adds a binding; `Ok(false)` if the same key was bound to the same destination already.
    pub fn insert(&mut self, key: &[u8], destination: u32) -> Result<bool, TopicError> {
        if key.len() > KEY_BYTES_MAX {
            return Err(TopicError::KeyTooLong(key.len()));
        }
        if self.len >= BINDINGS_MAX {
            return Err(TopicError::Full);
        }
        let pattern = Pattern::parse(key);
        let normal = pattern.key() == key;
        if !normal && !self.aliases.insert(identity(key, destination)) {
            return Ok(false);
        }
        let identity = identity(pattern.key(), destination);
        if let Some(bound) = self.bound.get_mut(&identity) {
            if !normal {
                bound.aliases += 1;
            } else if std::mem::replace(&mut bound.normal, true) {
                return Ok(false);
            }
        } else {
            let entry = self.levels.insert(&pattern, destination);
            let bound = Bound { entry, normal, aliases: u32::from(!normal) };
            self.bound.insert(identity, bound);
        }
        self.len += 1;
        self.snapshot = None;
        Ok(true)
    }

    /// Removes a binding; `false` if there was none.
    pub fn remove(&mut self, key: &[u8], destination: u32) -> bool {
        let pattern = Pattern::parse(key);
        let normal = pattern.key() == key;
        if !normal && !self.aliases.remove(&identity(key, destination)) {
            return false;
        }
        let identity = identity(pattern.key(), destination);
        let Some(bound) = self.bound.get_mut(&identity) else {
            return false;
        };
        if !normal {
            bound.aliases -= 1;
        } else if !std::mem::replace(&mut bound.normal, false) {
            return false;
        }
        if !bound.normal && bound.aliases == 0 {
            self.levels.remove(bound.entry);
            self.bound.remove(&identity);
        }
        self.len -= 1;
        self.snapshot = None;
        true
    }

    /// How many bindings there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no binding.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The table as it is now, to be given to the shards: call it once after each batch of changes.
    /// Without a change since the last call, it is the same table.
    pub fn snapshot(&mut self) -> Arc<TopicTable> {
        let Self { snapshot, levels, len, .. } = self;
        Arc::clone(snapshot.get_or_insert_with(|| Arc::new(levels.table(*len))))
    }

    /// Merges the levels into one trie, so that a match walks only one; for idle time, as it takes
    /// time linear in the number of bindings (some 15 ms for 100,000, see the bench `topic`). Where
    /// less than an eighth of many bindings has changed since, that eighth becomes one trie and the
    /// others stay as they are: then a match walks two. Returns whether it changed anything; then
    /// the next snapshot is a new table.
    pub fn compact(&mut self) -> bool {
        let changed = self.levels.compact();
        if changed {
            self.snapshot = None;
        }
        changed
    }

    /// Work done so far: nodes compiled plus entries removed. It does not depend on the machine, so
    /// tests can bound the cost of a change.
    pub fn work(&self) -> u64 {
        self.levels.work()
    }
}

/// A binding as one key of a map: destination, then the key of the binding.
fn identity(key: &[u8], destination: u32) -> Box<[u8]> {
    let mut identity = Vec::with_capacity(size_of::<u32>() + key.len());
    identity.extend_from_slice(&destination.to_be_bytes());
    identity.extend_from_slice(key);
    identity.into()
}
