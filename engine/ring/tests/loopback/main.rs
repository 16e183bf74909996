//! The ring against real sockets on the loopback device.
#![cfg(not(loom))]
#![allow(unexpected_cfgs, reason = "loom builds only the model in src/sleep.rs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod accepting;
mod buffers;
mod closing;
mod mesh;
mod sending;
mod world;
