//! How often a body is copied between receiving and sending it: the proof of zero-copy.
//!
//! ```text
//!  receive buffer ──────────────────── reference ────────────────────► socket   0 copies
//!                 └─► store ────────── reference ────────────────────► socket   1 copy at most
//! ```
//! Only bodies up to [`BODY_COPY_MAX_BYTES`](crate::message::BODY_COPY_MAX_BYTES) are copied into
//! whatever is next. What the kernel copies is not counted here, nor what a ring copies out of
//! receive buffers that run short: it does not know what is a body.

use crate::delivery::outbox::Outbox;

/// Body bytes of one shard since the start. Copies and deliveries of one message may be on
/// different shards, so their ratio is one of sums over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyBytes {
    /// Sent by reference.
    pub shared: u64,
    /// Copied, by what they were copied into.
    pub copied: Copies,
}

/// Body bytes that were copied in user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Into one piece: a small body, or crumbs of a large one, that came in parts.
    pub assembly: u64,
    /// Into the memory of messages at rest: at most once when they come to rest, once each time
    /// they are read from the disk, and small ones when their segment is emptied.
    pub store: u64,
    /// Into what is written to the disk.
    pub log: u64,
    /// Into mail for another shard, or kept for the end of a transaction.
    pub mail: u64,
    /// Into outboxes.
    pub outbox: u64,
}

impl BodyBytes {
    /// Counts the bodies of an outbox that is about to be sent.
    pub fn count_sent(&mut self, outbox: &Outbox) {
        self.shared += outbox.shared_bytes() as u64;
        self.copied.outbox += outbox.copied_body_bytes as u64;
    }

    /// Sent either way: deliveries, `basic.get-ok` and `basic.return`.
    pub fn delivered(&self) -> u64 {
        self.shared + self.copied.outbox
    }
}

impl Copies {
    /// All of them.
    pub fn sum(&self) -> u64 {
        let Self { assembly, store, log, mail, outbox } = *self;
        assembly + store + log + mail + outbox
    }
}
