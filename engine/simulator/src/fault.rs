//! How cruel a world is.

use crate::random::Random;

/// The faults of one world. Sizes are in bytes, times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Most bytes of one receive; each receive takes a random part of it.
    pub chunk_max_bytes: usize,
    /// Most bytes of a send that reach the client at once.
    pub piece_max_bytes: usize,
    /// Bytes that reach a client before it reads: a small window makes a slow consumer.
    pub window_bytes: usize,
    /// Receive buffers of a shard.
    pub pool_buffers: usize,
    /// In percent: a receive finds no buffer although there are some.
    pub exhaustion_percent: u64,
    /// Batches that fit one lane of the mesh.
    pub lane_batches: usize,
    /// Longest time a batch is under way.
    pub mail_delay_max_ns: u64,
    /// In percent, of each of a client's turns: its connection is reset.
    pub reset_percent: u64,
    /// In percent, of each of a client's turns: the clock jumps.
    pub jump_percent: u64,
    /// Longest jump of the clock.
    pub jump_max_ns: u64,
    /// `outbox_high_bytes` of the shards' settings; the low mark is a quarter of it.
    pub outbox_high_bytes: usize,
}

impl Faults {
    /// A kind world: large buffers, no losses; only the order of events is left to chance.
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
        }
    }

    /// Faults by chance; some worlds are cruel in one way only, so that it shows.
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
        }
    }

    /// The largest body that goes through such a world in a reasonable number of steps.
    pub fn body_max_bytes(&self) -> usize {
        (self.slowest_bytes() * 300).min(200_000)
    }

    /// Steps that a client lets pass, at most, before it does something more: in a world that
    /// moves byte by byte, a handshake alone takes a thousand.
    pub fn patience_steps(&self) -> u64 {
        8 + 2_000 / self.slowest_bytes() as u64
    }

    fn slowest_bytes(&self) -> usize {
        self.chunk_max_bytes.min(self.piece_max_bytes).min(self.window_bytes)
    }
}
