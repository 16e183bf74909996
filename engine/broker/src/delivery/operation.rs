//! The requests of a shard to its driver.

use crate::delivery::outbox::Outbox;
use crate::id::ConnectionId;
use crate::storage::log::operation::DiskOperation;

/// A request to the driver.
#[derive(Debug)]
pub enum Operation {
    /// Write the whole outbox to the socket; at most one at a time per connection.
    Send {
        /// The receiver.
        connection: ConnectionId,
        /// The bytes; the outbox comes back with [`Event::Sent`].
        outbox: Outbox,
    },
    /// Stop receiving. Bytes that had already arrived may still be reported.
    Pause {
        /// The sender.
        connection: ConnectionId,
    },
    /// Receive again.
    Resume {
        /// The sender.
        connection: ConnectionId,
    },
    /// Close the socket once no operation on it is under way, then report [`Event::Closed`].
    Close {
        /// The connection.
        connection: ConnectionId,
    },
    /// Perform this on the files of the shard's log, then report [`Event::Disk`].
    Disk(DiskOperation),
    /// End the process, a moment after earlier sends were issued.
    Fail {
        /// Why, for the log.
        reason: String,
    },
}
