//! What happens outside of a shard: the driver passes it in.

use core::net::SocketAddr;

use bytes::Bytes;

use crate::alarms::Alarms;
use crate::delivery::outbox::Outbox;
use crate::id::ConnectionId;
use crate::storage::log::operation::DiskEvent;

/// Something that happened outside the shard.
#[derive(Debug)]
pub enum Event {
    /// A client connected. The driver chose the id; the slot is free again after
    /// [`Event::Closed`].
    Accepted {
        /// The new connection.
        connection: ConnectionId,
        /// The client's address.
        peer: SocketAddr,
    },
    /// Bytes arrived: one whole receive buffer, lent until the last slice is dropped.
    Received {
        /// From whom.
        connection: ConnectionId,
        /// The bytes.
        bytes: Bytes,
    },
    /// The connection's send ended; the outbox comes back for reuse.
    Sent {
        /// Whose send.
        connection: ConnectionId,
        /// The buffer of [`Operation::Send`](crate::delivery::operation::Operation::Send).
        outbox: Outbox,
    },
    /// The client stopped sending, or the socket failed. The shard answers with
    /// [`Operation::Close`](crate::delivery::operation::Operation::Close).
    Ended {
        /// Which connection.
        connection: ConnectionId,
    },
    /// The socket is closed and nothing of it is under way any more.
    Closed {
        /// Which connection.
        connection: ConnectionId,
    },
    /// The disk answers an [`Operation::Disk`](crate::delivery::operation::Operation::Disk).
    Disk(DiskEvent),
    /// Memory or disk space runs out, or no longer does: publishers wait while any alarm is on.
    Alarms(Alarms),
    /// The broker stops: clients are told 320 `CONNECTION_FORCED`.
    Stop,
    /// All connections of all shards are gone: the log is ended in order.
    CloseLog,
}
