//! How often a body is copied between receiving and sending it: the proof of zero-copy.
//!
//! ```text
//!  receive buffer ──────────────────── reference ────────────────────► socket   0 copies
//!                 └─► store ────────── reference ────────────────────► socket   1 copy at most
//! ```
//! Only bodies up to [`BODY_COPY_MAX_BYTES`](crate::message::BODY_COPY_MAX_BYTES) are copied at
//! every step. Copies by the kernel are not counted here. Nor are those of the ring out of receive
//! buffers that run short: it cannot distinguish bodies from other bytes.

use crate::delivery::outbox::Outbox;

/// Body bytes of one shard since the start. Copies and deliveries of one message may be on
/// different shards, so their ratio is one of sums over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyBytes {
    /// Sent by reference.
    pub shared: u64,
    /// Copied, by destination.
    pub copied: Copies,
}

/// Body bytes that were copied in user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Into one piece: a small body that arrived in parts, or small parts of a large one.
    pub assembly: u64,
    /// Into the store: at most once when the message is stored, once each time it is read from
    /// disk, and again for a small body when its segment is copied forward.
    pub store: u64,
    /// Into the write buffers of the log.
    pub log: u64,
    /// Into mail for another shard, or into the memory of a transaction.
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

    /// Sent, copied or by reference: deliveries, `basic.get-ok` and `basic.return`.
    pub fn delivered(&self) -> u64 {
        self.shared + self.copied.outbox
    }
}

impl Copies {
    /// The sum over all destinations.
    pub fn sum(&self) -> u64 {
        let Self { assembly, store, log, mail, outbox } = *self;
        assembly + store + log + mail + outbox
    }
}
