//! Memory and disk use, and the alarms: each shard writes its own memory use, the monitor writes
//! the rest, all threads may read.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use leveret_broker::alarms::Alarms;

/// The bits of [`Resources::alarms`].
const MEMORY: u8 = 1;
const DISK: u8 = 2;

/// Independent values: a reader only needs the newest of each.
pub(crate) struct Resources {
    shards: Vec<ShardMemory>,
    alarms: AtomicU8,
    /// Publishers are blocked if memory use exceeds this.
    pub(crate) memory_limit_bytes: AtomicU64,
    /// Free space of the data directory's file system, when last measured.
    pub(crate) disk_free_bytes: AtomicU64,
}

/// On its own cache lines, because the shard writes it often.
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

    /// Publishes the memory use of a shard. Called by the shard.
    pub(crate) fn publish(&self, shard: usize, bytes: u64) {
        self.shards[shard].0.store(bytes, Ordering::Relaxed);
    }

    /// The memory use of all shards.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }

    /// Sets the alarms. Called by the monitor, which wakes the shards after a change.
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
