//! What holds for one turn of a shard.

use std::sync::Arc;

use crate::id::{Instant, ShardId};
use crate::settings::Settings;

/// Which shard works, by which settings, and at which time. Every part of the shard reads it, and
/// only the shard itself writes it, when the driver calls.
#[derive(Debug)]
pub struct Turn {
    /// The shard.
    pub shard: ShardId,
    /// How many shards there are; the control state is the mesh member behind the last one.
    pub shards: u16,
    /// Limits and names.
    pub settings: Arc<Settings>,
    /// The time of this turn.
    pub now: Instant,
}

impl Turn {
    /// The mesh member that holds the control state.
    pub fn control(&self) -> ShardId {
        ShardId(self.shards)
    }

    /// All shards.
    pub fn all_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }
}
