//! The meaning of AMQP 0-9-1: everything a broker decides, and nothing it touches.
//!
//! A [`Shard`](shard::Shard) is the engine of one core and a plain value: events go in through
//! `handle`, work for the kernel and mail for other shards come out of `poll_*`, time is an
//! argument. There are no threads, clocks, sockets or files in this crate; the server drives it
//! with io_uring, the simulator with a fake world.
//!
//! The folders are rooms. Each uses only the rooms above it in this list, and the files beside the
//! folders, which every room may use (`engine/server/tests/tidy` holds that):
//!
//! | room | job |
//! |---|---|
//! | [`storage`] | Messages in memory and on disk, without an idea of the order of queues. |
//! | [`catalog`] | What can exist, as values: names, exchanges, queues, users, permissions. |
//! | [`routing`] | Which queues a message reaches. |
//! | [`queue`] | One queue as a value: its messages, and who has which of them. |
//! | [`control`] | The one writer of the catalog. |
//! | [`mesh`] | What shards say to each other. |
//! | [`delivery`] | From a delivery to bytes in an outbox: the writing halves of connections. |
//! | [`home`] | The queues that live on this shard. |
//! | [`client`] | The reading halves: handshake, connection, channel. |
//! | [`shard`] | The engine of one core, as a value that the driver holds. |
#![forbid(unsafe_code)]

pub mod alarms;
pub mod catalog;
pub mod client;
pub mod control;
pub mod delivery;
pub mod error;
pub mod histogram;
pub mod home;
pub mod id;
pub mod mesh;
pub mod message;
pub mod pressure;
pub mod queue;
pub mod routing;
pub mod settings;
pub mod shard;
pub mod storage;
pub mod timer;
pub mod turn;
