//! The meaning of AMQP 0-9-1: everything a broker decides, and nothing it touches.
//!
//! A [`Shard`](shard::Shard) is the engine of one core and a plain value: events go in through
//! `handle`, work for the kernel and mail for other shards come out of `poll_*`, time is an
//! argument. There are no threads, clocks, sockets or files in this crate; the server drives it
//! with io_uring, the simulator with a fake world.
//!
//! Layers, each using only what stands to its left:
//! `topic, store, outstanding` ← `exchange, queue` ← `topology, control` ← `connection` ← `shard`.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod backlog;
pub mod body_bytes;
pub mod channel;
pub mod confirm;
pub mod connection;
pub mod control;
pub mod core;
pub mod durable;
pub mod equivalence;
pub mod error;
pub mod event;
mod exchange;
pub mod frame_text;
pub mod handshake;
pub mod histogram;
mod home;
pub mod id;
pub mod log;
pub mod mail;
mod memory;
pub mod message;
pub mod outbound;
pub mod outbox;
pub mod outstanding;
pub mod paging;
pub mod permission;
pub mod post;
pub mod queue;
pub mod reclaim;
pub mod report;
pub mod settings;
pub mod shard;
pub mod store;
mod term;
pub mod timer;
pub mod topic;
pub mod topology;
pub mod unacked;
pub mod writer;
