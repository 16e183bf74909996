//! The data directory: shards' logs, metadata, and reading both at the start.

pub(crate) mod disk;
pub(crate) mod metadata;
pub(crate) mod recover;
pub(crate) mod store;
