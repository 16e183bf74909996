//! What the threads of the broker tell the main thread.

use leveret_ring::WakeTarget;

/// News for the main thread.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A member of the mesh has its ring and waits for the start.
    Ready {
        /// Which member.
        member: usize,
        /// How to wake it.
        wake: WakeTarget,
    },
    /// A shard has no connections left after it was told to stop.
    Stopped,
    /// Everything in a shard's log is durable after it was told to end it.
    Closed,
    /// A thread ended as asked.
    Ended,
    /// A thread cannot go on, and so the broker cannot.
    Failed {
        /// The thread.
        thread: String,
        /// What happened and what to do.
        reason: String,
    },
    /// Somebody asked for a stop.
    Signal {
        /// `SIGTERM` or `SIGINT`.
        name: &'static str,
    },
}
