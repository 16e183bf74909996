//! Sizes of a ring, with the reason of every default and limit.

use crate::error::RingError;
use crate::token;

/// Sizes of one [`Ring`](crate::Ring). All are fixed for the life of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingConfig {
    /// Sockets open at once on this ring, `1..=2^24`. Each takes one entry of the kernel's fixed
    /// file table, which counts against `RLIMIT_NOFILE`.
    pub sockets_max: u32,
    /// Receive buffers, a power of two in `4..=32_768` (the kernel's limit of a buffer ring). One
    /// in thirty-two (at least one) is kept as reserve for starved sockets.
    pub buffer_count: u16,
    /// Bytes per receive buffer, a multiple of 4,096 in `4,096..=16 MiB`. 64 KiB is what plain
    /// multishot receive likes best on loopback; 16 KiB cost 40 % more.
    pub buffer_size_bytes: u32,
    /// While fewer buffers than this are free, received bytes are copied out and the buffer goes
    /// back at once: half-received messages and sockets that do not drain can hold leases for any
    /// time, and must not stop all other sockets from receiving. A quarter leaves room for the
    /// receives of one turn. 0 = always lend.
    pub lend_above_free_buffers: u16,
    /// Entries of the submission queue, a power of two in `8..=32_768`. A full queue only costs one
    /// more system call.
    pub submission_entries: u32,
    /// Entries of the completion queue, a power of two, at least twice `submission_entries` and at
    /// most 65,536. Multishot operations post many completions per submission; an overflow loses
    /// nothing but costs kernel allocations, so it is sixteen times the submissions. Both queues
    /// count against `RLIMIT_MEMLOCK` for users without `CAP_IPC_LOCK`: 340 KiB per ring with the
    /// defaults, so the usual 8 MiB carry about 24 rings. The receive buffers do not count.
    pub completion_entries: u32,
}

impl Default for RingConfig {
    /// 4,096 sockets, 256 buffers of 64 KiB (16 MiB), 1,024 submissions, 16,384 completions.
    fn default() -> Self {
        Self {
            sockets_max: 4_096,
            buffer_count: 256,
            buffer_size_bytes: 64 * 1024,
            lend_above_free_buffers: 64,
            submission_entries: 1_024,
            completion_entries: 16_384,
        }
    }
}

impl RingConfig {
    /// Checks every size against the limits given at the fields.
    ///
    /// # Errors
    /// [`RingError::Config`] names the first field that is out of its range.
    pub fn validate(&self) -> Result<(), RingError> {
        let checks = [
            (
                (1..=token::SLOT_MAX).contains(&self.sockets_max),
                "sockets_max must be in 1..=2^24-1",
            ),
            (
                self.buffer_count.is_power_of_two() && (4..=32_768).contains(&self.buffer_count),
                "buffer_count must be a power of two in 4..=32768",
            ),
            (
                self.buffer_size_bytes.is_multiple_of(4_096)
                    && (4_096..=16 << 20).contains(&self.buffer_size_bytes),
                "buffer_size_bytes must be a multiple of 4096 in 4096..=16777216",
            ),
            (
                self.submission_entries.is_power_of_two()
                    && (8..=32_768).contains(&self.submission_entries),
                "submission_entries must be a power of two in 8..=32768",
            ),
            (
                self.completion_entries.is_power_of_two()
                    && self.completion_entries >= 2 * self.submission_entries
                    && self.completion_entries <= 65_536,
                "completion_entries must be a power of two, at least 2 * submission_entries, \
                 at most 65536",
            ),
        ];
        match checks.iter().find(|(valid, _)| !valid) {
            Some((_, reason)) => Err(RingError::Config(reason)),
            None => Ok(()),
        }
    }

    /// Buffers kept out of the main group: one in thirty-two, at least one. They form a group of
    /// their own, so that a flood cannot take the last buffers from acks and heartbeats.
    pub(crate) fn reserve_count(&self) -> u16 {
        (self.buffer_count / 32).max(1)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        RingConfig::default().validate().unwrap();
        assert_eq!(RingConfig::default().reserve_count(), 8);
    }

    #[test]
    fn every_field_is_checked() {
        let base = RingConfig::default();
        let broken = [
            RingConfig { sockets_max: 0, ..base.clone() },
            RingConfig { sockets_max: 1 << 24, ..base.clone() },
            RingConfig { buffer_count: 100, ..base.clone() },
            RingConfig { buffer_count: 2, ..base.clone() },
            RingConfig { buffer_size_bytes: 0, ..base.clone() },
            RingConfig { buffer_size_bytes: 5_000, ..base.clone() },
            RingConfig { submission_entries: 7, ..base.clone() },
            RingConfig { completion_entries: 1_024, ..base.clone() },
            RingConfig { completion_entries: 1 << 17, ..base.clone() },
        ];
        for config in broken {
            assert!(matches!(config.validate(), Err(RingError::Config(_))), "{config:?}");
        }
    }
}
