//! What shards say to each other.

pub mod batch;
pub mod mail;
pub mod outgoing;
