//! What a shard asks of its driver.

use crate::delivery::outbox::Outbox;
use crate::id::ConnectionId;
use crate::storage::log::operation::DiskOperation;

/// Something the driver has to do.
#[derive(Debug)]
pub enum Operation {
    /// Write the outbox to the socket, wholly; at most one at a time per connection.
    Send {
        /// To whom.
        connection: ConnectionId,
        /// What; comes back with `Event::Sent`.
        outbox: Outbox,
    },
    /// Stop receiving. Bytes that had already arrived may still be reported.
    Pause {
        /// From whom.
        connection: ConnectionId,
    },
    /// Receive again.
    Resume {
        /// From whom.
        connection: ConnectionId,
    },
    /// Close the socket once nothing is under way, then report `Event::Closed`.
    Close {
        /// Which connection.
        connection: ConnectionId,
    },
    /// Do something with the files of this shard's log, then report `Event::Disk`.
    Disk(DiskOperation),
    /// End the process, after what was sent before this has had a moment to leave.
    Fail {
        /// Why, for the log.
        reason: String,
    },
}
