//! The reading half of a connection: bytes in, methods and messages out.
//!
//! ```text
//!   Header ──► Handshake ──► Running ──► Closing ──► Ended
//!                  │                        ▲
//!                  └──► Silent ─────────────┘
//! ```

mod block;
mod close;
mod heartbeat;
mod method;
mod read;
mod session;

use core::net::SocketAddr;
use std::collections::VecDeque;

use bytes::Bytes;
use leveret_amqp::decoder::Decoder;

use crate::client::backend::Backend;
use crate::client::channel::Channel;
use crate::client::handshake::{HANDSHAKE_FRAME_SIZE_MAX, Handshake};
use crate::error::Exception;
use crate::id::{ConnectionId, Owner};

pub use block::Blocks;
pub use close::Ending;
pub use heartbeat::Heartbeat;
pub use session::Session;

/// Bytes of the protocol header.
const PROTOCOL_HEADER_BYTES: usize = 8;

/// Received buffers that a blocked connection may hold before it is paused: the one being read.
const PENDING_BUFFERS_MAX: usize = 1;

/// The reading half of one connection.
#[derive(Debug)]
pub struct Connection {
    /// The connection's id on this shard.
    pub id: ConnectionId,
    /// The client's address.
    pub peer: SocketAddr,
    stage: Stage,
    decoder: Decoder,
    /// Sorted by number.
    channels: Vec<Box<Channel>>,
    last_channel: usize,
    /// Counts opened channels, so that each use of a channel number has an incarnation of its own.
    incarnations: u32,
    /// Received and not read, because the connection is blocked.
    pending: VecDeque<Bytes>,
    /// The driver has got [`Operation::Pause`](crate::delivery::operation::Operation::Pause).
    paused: bool,
    heartbeat: Heartbeat,
}

#[derive(Debug)]
enum Stage {
    /// Up to eight bytes of protocol header.
    Header(Box<Handshake>, Vec<u8>),
    /// Before `connection.open-ok`. Boxed: it is larger than a session and soon over.
    Handshake(Box<Handshake>),
    /// Open.
    Running(Session),
    /// Only `connection.close` and `close-ok` are still read.
    Closing(Ending),
    /// The socket is closed or closing; received bytes are dropped.
    Ended,
}

/// What a deadline of a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The handshake has to be over.
    Handshake,
    /// The time of silence is over.
    Silence,
    /// `close-ok`, or the end of writing, was awaited long enough.
    Close,
    /// Half a heartbeat interval is over.
    Heartbeat,
    /// The wait for the consumers of a queue was long enough.
    Backlog,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(id: ConnectionId, peer: SocketAddr) -> Self {
        Self {
            id,
            peer,
            stage: Stage::Header(Box::new(Handshake::new(peer)), Vec::new()),
            decoder: Decoder::new(HANDSHAKE_FRAME_SIZE_MAX),
            channels: Vec::new(),
            last_channel: 0,
            incarnations: 0,
            pending: VecDeque::new(),
            paused: false,
            heartbeat: Heartbeat::default(),
        }
    }

    /// The connection's name in the whole broker.
    fn owner(&self, backend: &Backend) -> Owner {
        Owner { shard: backend.turn.shard, connection: self.id }
    }

    /// The session, while the connection is open.
    pub fn session(&self) -> Option<&Session> {
        match &self.stage {
            Stage::Running(session) => Some(session),
            _ => None,
        }
    }

    /// Channels that are open.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    fn channel_index(&mut self, number: u16) -> Option<usize> {
        let last = self.channels.get(self.last_channel);
        if last.is_some_and(|channel| channel.key.channel == number) {
            return Some(self.last_channel);
        }
        let found = self.channels.binary_search_by_key(&number, |channel| channel.key.channel);
        self.last_channel = found.ok()?;
        Some(self.last_channel)
    }

    /// Ends the channel or the connection: the exception's code decides.
    #[cold]
    fn fail(&mut self, backend: &mut Backend, number: u16, exception: &Exception) {
        if number == 0 || exception.code.is_hard() {
            self.close_connection(backend, exception);
        } else {
            self.close_channel(backend, number, exception);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::handshake::Opened;
    use crate::delivery::writers::Writer;
    use crate::timer::Timers;

    /// Memory of an idle connection, without its client's properties and the allocator's rounding.
    /// The limit for all of it is 2 KiB, and clients' properties take up to 1 KiB of that.
    #[test]
    fn an_idle_connection_is_small() {
        // Both tables double as they grow, so each may have as many spare places as used ones.
        let places = 2 * (size_of::<Option<Box<Connection>>>() + size_of::<Option<Box<Writer>>>());
        // The heartbeat, and for its first ten seconds the deadline of the handshake.
        let timers = 2 * Timers::<(ConnectionId, Deadline)>::ENTRY_BYTES;
        let halves = size_of::<Connection>() + size_of::<Opened>() + size_of::<Writer>();
        assert!(halves + places + timers <= 672, "{halves} + {places} + {timers} B");
        assert!(size_of::<Handshake>() > size_of::<Session>(), "then it needs no box");
    }
}
