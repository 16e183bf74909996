//! The durable log of one shard, as a value; its format is `docs/STORE_FORMAT.md`.

pub mod blocks;
pub mod operation;

/// The unit of reading and writing: what direct I/O aligns to everywhere.
pub const BLOCK_BYTES: usize = 4096;
