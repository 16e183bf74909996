//! The reading halves: handshake, connection, channel.

pub mod backend;
pub mod channel;
pub mod connection;
pub mod counts;
pub mod frame_text;
pub mod handshake;
