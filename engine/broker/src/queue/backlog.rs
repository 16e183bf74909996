//! Publishers that wait for a queue's consumers.

use crate::id::ShardId;

/// The backlog of a queue whose publishers wait.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Publishers resume when at most this many messages wait.
    pub small_messages: usize,
    /// Shards on which publishers wait.
    pub shards: Vec<ShardId>,
}
