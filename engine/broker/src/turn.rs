//! What holds for one turn of a shard.

use std::sync::Arc;

use crate::id::{Instant, ShardId, Time, WallTime};
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
    /// The same on the wall clock, for what is written down.
    pub wall: WallTime,
}

impl Turn {
    /// Before the first turn of a shard.
    pub fn new(shard: ShardId, shards: u16, settings: Arc<Settings>) -> Self {
        Self { shard, shards, settings, now: Instant::default(), wall: WallTime::default() }
    }

    /// A turn begins, or another part of one.
    pub fn set_time(&mut self, Time { now, wall }: Time) {
        (self.now, self.wall) = (now, wall);
    }

    /// The time of this turn on both clocks.
    pub fn time(&self) -> Time {
        Time { now: self.now, wall: self.wall }
    }

    /// The mesh member that holds the control state.
    pub fn control(&self) -> ShardId {
        ShardId(self.shards)
    }

    /// All shards.
    pub fn all_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }
}
