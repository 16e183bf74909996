//! The patterns of a topic exchange as shards read them.

use std::sync::Arc;

use super::removed::Removed;
use super::trie::Trie;
use super::word::Seed;

/// One level of a [`TopicTable`].
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) trie: Arc<Trie>,
    pub(super) removed: Removed,
}

/// The patterns of one topic exchange at one moment: immutable, and shared by all shards through an
/// `Arc`. Made by [`TopicBuilder::snapshot`](super::TopicBuilder::snapshot), read with a
/// [`Matcher`](super::Matcher).
///
/// Dropping the last `Arc` of a table frees the tries that no other table has, up to hundreds of
/// megabytes. So the control state keeps each table until no shard has it.
#[derive(Debug)]
pub struct TopicTable {
    pub(super) seed: Seed,
    /// Smallest level first; none is empty.
    pub(super) levels: Box<[Level]>,
    pub(super) len: usize,
}

impl TopicTable {
    /// How many bindings the table has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no binding is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many tries a match walks, 0 to 7; 1 after
    /// [`TopicBuilder::compact`](super::TopicBuilder::compact).
    pub fn levels(&self) -> usize {
        self.levels.len()
    }
}
