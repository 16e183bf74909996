//! Sockets: byte streams in both directions, with everything that a kernel may do to them.

use std::collections::VecDeque;

use bytes::Bytes;
use leveret_broker::delivery::outbox::Outbox;
use leveret_broker::id::{ConnectionId, ShardId};

/// A connection, as its client sees it; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketId(pub usize);

/// One connection between a client and a shard.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) shard: ShardId,
    pub(crate) id: ConnectionId,
    /// The shard has been informed of the connection.
    pub(crate) accepted: bool,
    /// Sent by the client, not received yet.
    pub(crate) to_server: VecDeque<u8>,
    /// Received into buffers, but not passed to the shard yet.
    pub(crate) arrived: VecDeque<Bytes>,
    pub(crate) paused: bool,
    /// The client sends nothing more.
    pub(crate) half_closed: bool,
    /// Both directions are closed.
    pub(crate) reset: bool,
    pub(crate) end_delivered: bool,
    pub(crate) sending: Option<Sending>,
    /// Received by the client's kernel, but not read yet.
    pub(crate) to_client: Vec<u8>,
    /// The shard has closed the connection.
    pub(crate) closing: bool,
    pub(crate) closed: bool,
}

/// A send in progress.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) outbox: Outbox,
    pub(crate) wire: Vec<u8>,
    pub(crate) sent: usize,
}

/// Chunks of one socket that may wait in the completion queue.
const ARRIVED_CHUNKS_MAX: usize = 3;

impl Socket {
    pub(crate) fn new(shard: ShardId, id: ConnectionId) -> Self {
        Self {
            shard,
            id,
            accepted: false,
            to_server: VecDeque::new(),
            arrived: VecDeque::new(),
            paused: false,
            half_closed: false,
            reset: false,
            end_delivered: false,
            sending: None,
            to_client: Vec::new(),
            closing: false,
            closed: false,
        }
    }

    /// The broker has crashed; everything in transit is lost.
    pub(crate) fn die(&mut self) {
        (self.reset, self.closed) = (true, true);
        self.to_server.clear();
        self.arrived.clear();
        self.sending = None;
        self.to_client.clear();
    }

    pub(crate) fn can_arrive(&self) -> bool {
        self.accepted
            && !self.paused
            && !self.closing
            && !self.to_server.is_empty()
            && self.arrived.len() < ARRIVED_CHUNKS_MAX
    }

    pub(crate) fn can_deliver(&self) -> bool {
        !self.arrived.is_empty() && !self.closed
    }

    /// Whether a receive would return the end of the stream. A paused socket has no receive, but
    /// its send can fail too.
    pub(crate) fn can_end(&self) -> bool {
        let over = self.reset || self.half_closed && self.to_server.is_empty();
        let noticed = !self.paused || self.reset && self.sending.is_some();
        let idle = self.accepted && !self.end_delivered && !self.closing && self.arrived.is_empty();
        over && noticed && idle
    }

    pub(crate) fn can_transmit(&self, window_bytes: usize) -> bool {
        let left = self.sending.as_ref().is_some_and(|sending| sending.sent < sending.wire.len());
        left && !self.reset && !self.closing && self.to_client.len() < window_bytes
    }

    /// Whether a send completes: all bytes are sent, or can no longer be sent.
    pub(crate) fn can_complete(&self) -> bool {
        let sending = self.sending.as_ref();
        let out = sending.is_some_and(|sending| sending.sent == sending.wire.len());
        out || sending.is_some() && (self.reset || self.closing)
    }

    pub(crate) fn can_close(&self) -> bool {
        self.closing && !self.closed && self.sending.is_none() && self.arrived.is_empty()
    }
}

/// The connection table of a shard. Slots are reused; generations distinguish their users.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    users: Vec<Option<SocketId>>,
    generations: Vec<u32>,
}

impl Slots {
    /// Takes the free slot after `skipped` others, or a new one.
    pub(crate) fn take(&mut self, socket: SocketId, skipped: usize) -> ConnectionId {
        let mut free = (0..self.users.len()).filter(|slot| self.users[*slot].is_none());
        let slot = free.nth(skipped).unwrap_or(self.users.len());
        if slot == self.users.len() {
            self.users.push(None);
            self.generations.push(0);
        }
        self.generations[slot] += 1;
        self.users[slot] = Some(socket);
        ConnectionId { slot: slot as u32, generation: self.generations[slot] }
    }

    pub(crate) fn user(&self, id: ConnectionId) -> Option<SocketId> {
        let slot = id.slot as usize;
        let current = self.generations.get(slot).is_some_and(|found| *found == id.generation);
        if current { self.users[slot] } else { None }
    }

    pub(crate) fn release(&mut self, id: ConnectionId) {
        self.users[id.slot as usize] = None;
    }
}
