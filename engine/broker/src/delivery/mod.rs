//! From a delivery to bytes in an outbox: the writing halves of connections.

pub mod body_bytes;
pub mod channel;
pub mod confirms;
pub mod operation;
pub mod outbox;
pub mod outputs;
pub mod unacked;
pub mod writers;
