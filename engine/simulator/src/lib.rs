//! Deterministic simulation of Leveret: whole shards in a made-up world.
//!
//! A [`World`](world::World) holds N real shards and the control state, and plays clock, network
//! and mesh for them. [`Client`](client::Client)s speak real AMQP to it. Whatever happens follows
//! from one seed, so every failure can be run again.
#![forbid(unsafe_code)]

pub mod client;
pub mod fault;
pub mod identity;
mod mesh;
pub mod network;
mod pool;
pub mod random;
#[cfg(test)]
mod sabotage;
pub mod stream;
pub mod world;
