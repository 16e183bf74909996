//! Deterministic simulation of Leveret: whole shards in a made-up world.
//!
//! A [`World`](world::World) holds N real shards and the control state, and plays clock, network
//! and mesh for them. [`Client`](client::Client)s speak real AMQP to it. [`run`](run::run) lets
//! many of them do as they please and accounts for every message. Whatever happens follows from
//! one seed, so every failure can be run again.
#![forbid(unsafe_code)]

mod agent;
pub mod client;
mod deeds;
pub mod disk;
pub mod fault;
mod hearing;
pub mod identity;
pub mod ledger;
mod mesh;
pub mod network;
pub mod oracle;
mod pool;
pub mod power;
pub mod random;
pub mod restart;
pub mod run;
#[cfg(test)]
mod sabotage;
pub mod scene;
mod seat;
pub mod stream;
pub mod world;
