//! What shards say to each other.

pub mod batch;
pub mod delivery;
pub mod mail;
pub mod outgoing;
