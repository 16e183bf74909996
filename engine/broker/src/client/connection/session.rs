//! The state of an open connection without its channels.

use crate::client::channel::Awaiting;
use crate::client::handshake::Opened;
use crate::id::{ConnectionId, Instant, Owner};
use crate::routing::topology::Topology;

use super::block::Blocks;

/// An open connection without its channels.
#[derive(Debug)]
pub struct Session {
    /// The connection's id on this shard.
    pub id: ConnectionId,
    /// The connection's name in the whole broker.
    pub owner: Owner,
    /// The result of the handshake.
    pub opened: Box<Opened>,
    /// It has declared an exclusive queue, which ends with it.
    pub owns_exclusive: bool,
    /// The request whose answer the connection waits for before it reads on.
    pub awaiting: Option<Awaiting>,
    /// The other reasons for which it does not read on.
    pub blocks: Blocks,
    /// The client has got `connection.blocked` and not yet `unblocked`.
    pub told_blocked: bool,
    /// Before this moment its publishes do not wait for consumers.
    pub hurries_until: Instant,
    consumer_tags: u64,
}

impl Session {
    /// A connection that has just been opened.
    pub fn new(owner: Owner, opened: Box<Opened>) -> Self {
        Self {
            id: owner.connection,
            owner,
            opened,
            owns_exclusive: false,
            awaiting: None,
            blocks: Blocks::default(),
            told_blocked: false,
            hurries_until: Instant::default(),
            consumer_tags: 0,
        }
    }

    /// A generated consumer tag, for a client that sends none; unique while this broker runs.
    pub fn next_consumer_tag(&mut self) -> String {
        self.consumer_tags += 1;
        let Owner { shard, connection } = self.owner;
        let (slot, generation) = (connection.slot, connection.generation);
        format!("amq.ctag-{shard}.{slot}.{generation}.{}", self.consumer_tags)
    }

    /// Whether the user may publish under another user's name.
    pub fn may_impersonate(&self, topology: &Topology) -> bool {
        let user = topology.user(&self.opened.user);
        user.is_some_and(|user| user.tags.iter().any(|tag| *tag == "impersonator"))
    }

    /// Whether the connection reads no further for now.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.awaiting.is_some() || self.blocks.any()
    }
}
