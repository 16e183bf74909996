//! `io_uring`, receive buffers, mesh and pinning: the only crate with `unsafe`.
//!
//! One [`Ring`] per pinned thread drives all sockets and files of that thread:
//!
//! ```text
//!   caller                       Ring                              kernel
//!   ──────                       ────                              ──────
//!   receive / send / write_file ► SQE ─┐
//!   turn(wait, completions) ──► one io_uring_enter ───────────────► work
//!          ▲                           ┌── CQE ◄─────────────────── results
//!          └──── Completion ◄──────────┘
//!                Received { bytes }  is a lease of one receive buffer; when its
//!                last slice is dropped, on any thread, the buffer comes back
//! ```
//!
//! The public API is safe: every buffer the kernel may touch is owned by the ring or by a lease
//! until the completion that ends the operation. [`Mesh`] carries mail between threads, [`probe`]
//! tests whether this machine can run a ring at all, [`pin_current_thread`] pins a thread to a
//! core.
// `loom` is set by hand for one test run (see `sleep.rs`), so cargo cannot know of it.
#![allow(unexpected_cfgs)]

mod buffers;
mod completion;
mod config;
mod error;
mod files;
mod huge_pages;
mod kernel;
mod listeners;
#[cfg(all(loom, test))]
mod loom_queue;
mod mesh;
mod operations;
mod outgoing;
mod pin;
mod pool;
mod probe;
mod queue;
mod returns;
mod ring;
mod sleep;
mod sockets;
mod token;
mod turn;
mod wake;

pub use completion::{Completion, ListenerId, SocketId, Wait};
pub use config::RingConfig;
pub use error::RingError;
pub use files::WriteUntil;
pub use huge_pages::HugePages;
pub use kernel::{give_way, raise_open_files_limit};
pub use mesh::{Endpoint, Lane, Mesh};
pub use outgoing::Outgoing;
pub use pin::{allowed_cores, pin_current_thread};
pub use probe::{Feature, Features, ProbeError, probe};
pub use queue::RingCounters;
pub use ring::Ring;
pub use wake::{WakeTarget, Waker};
