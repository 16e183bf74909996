//! What goes wrong in a world, and how often.

use crate::disk::flaw::DiskFaults;
use crate::random::Random;

/// The faults of one world. Sizes are in bytes, times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The most bytes of one receive; each receive takes a random part.
    pub chunk_max_bytes: usize,
    /// The most bytes of a send that reach the client at once.
    pub piece_max_bytes: usize,
    /// Unread bytes that a client can hold: a small window makes a slow consumer.
    pub window_bytes: usize,
    /// Receive buffers per shard.
    pub pool_buffers: usize,
    /// In percent: a receive gets no buffer although some are free.
    pub exhaustion_percent: u64,
    /// Capacity of one lane of the mesh, in batches.
    pub lane_batches: usize,
    /// The longest time that a batch is in transit.
    pub mail_delay_max_ns: u64,
    /// In percent of client turns: the client's connection is reset.
    pub reset_percent: u64,
    /// In percent of client turns: the clock jumps.
    pub jump_percent: u64,
    /// The longest jump of the clock.
    pub jump_max_ns: u64,
    /// `outbox_high_bytes` of the shards' settings; the low mark is a quarter of it.
    pub outbox_high_bytes: usize,
    /// In percent of client turns: an alarm goes on or off on some shard.
    pub alarm_percent: u64,
    /// Faults of each shard's disk.
    pub disk: DiskFaults,
    /// In permille of client turns: the broker crashes and another one starts.
    pub crash_permille: u64,
    /// In permille of client turns: the broker stops cleanly and another one starts.
    pub restart_permille: u64,
    /// Size of a log's segments.
    pub segment_bytes: u32,
    /// The longest time that a commit of metadata takes.
    pub metadata_max_ns: u64,
    /// `store_memory_max_bytes` of the shards' settings.
    pub store_memory_max_bytes: u64,
}

impl Faults {
    /// A world without faults: large buffers, no losses. Only the order of events is random.
    pub const fn none() -> Self {
        Self {
            chunk_max_bytes: 16 << 10,
            piece_max_bytes: 1 << 20,
            window_bytes: 64 << 20,
            pool_buffers: 64,
            exhaustion_percent: 0,
            lane_batches: 8,
            mail_delay_max_ns: 1_000,
            reset_percent: 0,
            jump_percent: 0,
            jump_max_ns: 0,
            outbox_high_bytes: 1 << 20,
            alarm_percent: 0,
            disk: DiskFaults::none(),
            crash_permille: 0,
            restart_permille: 0,
            segment_bytes: 64 << 10,
            metadata_max_ns: 20_000,
            store_memory_max_bytes: 512 << 20,
        }
    }

    /// Random faults. Some worlds have only one kind, so that its effects are not hidden by others.
    pub fn random(random: &mut Random) -> Self {
        Self {
            chunk_max_bytes: random.pick(&[1, 3, 17, 200, 4_096, 16 << 10]),
            piece_max_bytes: random.pick(&[7, 100, 5_000, 1 << 20]),
            window_bytes: random.pick(&[1, 300, 5_000, 1 << 20]),
            pool_buffers: random.between(2, 24) as usize,
            exhaustion_percent: random.pick(&[0, 0, 20, 70]),
            lane_batches: random.pick(&[1, 1, 2, 8]),
            mail_delay_max_ns: random.pick(&[0, 20_000, 2_000_000]),
            reset_percent: random.pick(&[0, 0, 1, 3]),
            jump_percent: random.pick(&[0, 0, 1]),
            jump_max_ns: random.pick(&[5_000_000, 3_000_000_000, 60_000_000_000]),
            outbox_high_bytes: random.pick(&[600, 4_096, 64 << 10, 1 << 20]),
            alarm_percent: random.pick(&[0, 0, 5, 20]),
            disk: DiskFaults {
                // Shorter than the handshake timeout, so that clients are not disconnected for it.
                stall_max_ns: random.pick(&[5_000_000, 200_000_000]),
                ..DiskFaults::random(random)
            },
            crash_permille: random.pick(&[0, 0, 5, 10]),
            restart_permille: random.pick(&[0, 0, 0, 5]),
            segment_bytes: random.pick(&[32 << 10, 64 << 10]),
            metadata_max_ns: random.pick(&[20_000, 1_000_000, 30_000_000]),
            store_memory_max_bytes: random.pick(&[512 << 20, 512 << 20, 20_000, 200_000]),
        }
    }

    /// The largest body that passes through such a world in a reasonable number of steps.
    pub fn body_max_bytes(&self) -> usize {
        (self.slowest_bytes() * 300).min(200_000)
    }

    /// The most steps of the world between two turns of clients. In a world that moves byte by
    /// byte, a handshake alone takes a thousand steps.
    pub fn patience_steps(&self) -> u64 {
        8 + 2_000 / self.slowest_bytes() as u64
    }

    fn slowest_bytes(&self) -> usize {
        self.chunk_max_bytes.min(self.piece_max_bytes).min(self.window_bytes)
    }
}
