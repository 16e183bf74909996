//! The reports of a turn, and the ids of sockets and listeners.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;

use crate::outgoing::Outgoing;

/// A socket of one ring. A slot is used again after [`Completion::Closed`], with a new generation,
/// so a kept id of a closed socket never names its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    /// Index in the ring's table, below `sockets_max`.
    pub slot: u32,
    /// How often the slot was used before.
    pub generation: u32,
}

/// A listening socket of one ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// How long a turn may sleep for its first completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all. Without anything to submit or to run, no system call is made.
    No,
    /// At most this long from now on. Zero is the same as [`Wait::No`].
    Until(Duration),
    /// Until a completion.
    Forever,
}

/// One report of a turn.
#[derive(Debug)]
pub enum Completion {
    /// A client connected. The stream is plain: give it to [`Ring::adopt`](crate::Ring::adopt) of
    /// the ring that shall serve it, here or on another thread. The peer's address is
    /// `stream.peer_addr()`.
    Accepted {
        /// The listener it came through.
        listener: ListenerId,
        /// The new connection.
        stream: TcpStream,
    },
    /// Bytes of the peer, at least one and at most one buffer full.
    Received {
        /// The socket.
        socket: SocketId,
        /// A lease of the receive buffer; dropping the last slice of it gives the buffer back.
        bytes: Bytes,
    },
    /// The peer will send no more: reading has ended, but sending to it may still work. If the peer
    /// reset the connection during a send, the kernel may report the reset to that send, and to the
    /// receive only an end.
    EndOfStream {
        /// The socket.
        socket: SocketId,
    },
    /// The socket is broken. Reported once; the caller then calls
    /// [`Ring::close`](crate::Ring::close).
    Failed {
        /// The socket.
        socket: SocketId,
        /// The kernel's error, for example `ConnectionReset`.
        error: io::Error,
    },
    /// All bytes of the last send are in the kernel's socket buffer; the next send may follow.
    Sent {
        /// The socket.
        socket: SocketId,
        /// The buffers to use again: `bodies` is empty, `scratch` as it was sent.
        outgoing: Outgoing,
    },
    /// The close is complete; this is the last completion of the id. A send that was under way is
    /// not reported any more.
    Closed {
        /// The socket, no longer valid.
        socket: SocketId,
    },
    /// A read, write or flush of a file ended.
    File {
        /// As it was given with the operation.
        token: u64,
        /// The buffer of the operation; a read has filled its range as far as `result` says.
        bytes: Vec<u8>,
        /// Bytes read or written, 0 for a flush.
        result: io::Result<usize>,
    },
    /// Another thread woke this ring: look at the inboxes. May come without a reason.
    Woken,
    /// The listener could not accept.
    ListenFailed {
        /// The listener.
        listener: ListenerId,
        /// The kernel's error.
        error: io::Error,
        /// True if it tries again after a pause of 100 ms (out of descriptors or memory); false if
        /// the listener is gone.
        retrying: bool,
    },
}
