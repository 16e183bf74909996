//! What a turn reports, and the names of its sockets and listeners.

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
    /// Not at all; without anything to submit or to run not even a system call is made.
    No,
    /// At most this long from now on. Zero is the same as [`Wait::No`].
    Until(Duration),
    /// Until something happens.
    Forever,
}

/// One thing that happened.
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
    /// The peer will send no more. Sending to it may still work; reading has ended. When a reset
    /// meets a send, the kernel may tell the send of it and the receive only of an end.
    EndOfStream {
        /// The socket.
        socket: SocketId,
    },
    /// The socket is broken. Reported once; what is left to do is
    /// [`Ring::close`](crate::Ring::close).
    Failed {
        /// The socket.
        socket: SocketId,
        /// What the kernel said, for example `ConnectionReset`.
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
    /// Another thread called; look at the inboxes. May come without a reason.
    Woken,
    /// The listener could not accept.
    ListenFailed {
        /// The listener.
        listener: ListenerId,
        /// What the kernel said.
        error: io::Error,
        /// True when it tries again after a pause of 100 ms (out of descriptors or memory); false
        /// when the listener is gone.
        retrying: bool,
    },
}
