//! Deterministic simulation of Leveret: real shards in a simulated world.
//!
//! A [`World`](world::World) holds N real shards and the control state, and plays clock, network
//! and mesh for them. [`Client`](client::Client)s speak real AMQP to it. A
//! [`run`](workload::run::run) has many of them act by chance and accounts for every message. All
//! choices follow from one seed, so every failure can be run again.
#![forbid(unsafe_code)]

pub mod client;
pub mod disk;
pub mod identity;
pub mod power;
pub mod random;
pub mod workload;
pub mod world;
