//! What a shard counts.

use crate::client::counts::ClientCounts;
use crate::home::counts::HomeCounts;

/// Counters of one shard since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounts {
    /// Of its connections.
    pub client: ClientCounts,
    /// Of its queues.
    pub home: HomeCounts,
    /// Messages received on channels in confirm mode.
    pub published_confirm: u64,
}
