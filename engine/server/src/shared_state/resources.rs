//! What shards use, and what runs out: each shard writes its own figure, the monitor writes the
//! rest, anybody reads.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use leveret_broker::alarms::Alarms;

/// The bits of [`Resources::alarms`].
const MEMORY: u8 = 1;
const DISK: u8 = 2;

/// Figures without an order between them: the newest value of each is all that counts.
pub(crate) struct Resources {
    shards: Vec<ShardMemory>,
    alarms: AtomicU8,
    /// Above this publishers are blocked.
    pub(crate) memory_limit_bytes: AtomicU64,
    /// Free space of the data directory's file system, as last seen.
    pub(crate) disk_free_bytes: AtomicU64,
}

/// Alone on its cache lines, for its shard writes it often.
#[derive(Default)]
#[repr(align(128))]
struct ShardMemory(AtomicU64);

impl Resources {
    /// For `shards` shards.
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| ShardMemory::default()).collect(),
            alarms: AtomicU8::new(0),
            memory_limit_bytes: AtomicU64::new(0),
            disk_free_bytes: AtomicU64::new(0),
        }
    }

    /// The shard's side: how much it uses now.
    pub(crate) fn publish(&self, shard: usize, bytes: u64) {
        self.shards[shard].0.store(bytes, Ordering::Relaxed);
    }

    /// What all shards use.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }

    /// The monitor's side. Whoever changes the alarms wakes the shards afterwards.
    pub(crate) fn set_alarms(&self, alarms: Alarms) {
        let bits = (u8::from(alarms.memory) * MEMORY) | (u8::from(alarms.disk) * DISK);
        self.alarms.store(bits, Ordering::Release);
    }

    /// The alarms that are on.
    pub(crate) fn alarms(&self) -> Alarms {
        let bits = self.alarms.load(Ordering::Acquire);
        Alarms { memory: bits & MEMORY != 0, disk: bits & DISK != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_figures_are_seen() {
        let resources = Resources::new(2);
        resources.publish(0, 5);
        resources.publish(1, 7);
        resources.publish(0, 6);
        assert_eq!(resources.memory_bytes(), 13);
        for (memory, disk) in [(false, true), (true, true), (true, false), (false, false)] {
            let alarms = Alarms { memory, disk };
            resources.set_alarms(alarms);
            assert_eq!(resources.alarms(), alarms);
        }
    }
}
