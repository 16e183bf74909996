//! The reading halves: handshake, connection, channel.

pub mod channel;
pub mod connection;
pub mod frame_text;
pub mod handshake;
