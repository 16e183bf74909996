//! Requests of shards to the control state, and its answers.
//!
//! The shard has checked permissions and the syntax of names and arguments; the control state
//! decides about existence and equivalence, because only it sees all changes in one order.

use bytes::Bytes;

use crate::catalog::name::Name;
use crate::catalog::object::{BindingTarget, ExchangeKind};
use crate::error::Exception;
use crate::id::{ChannelKey, Owner, QueueId, ShardId, VhostId};

use super::admin::{AdminRequest, AdminRequestId};

/// A question from one shard, with the channel that waits for the answer.
#[derive(Clone, Debug)]
pub enum Request {
    /// `exchange.declare`, not passive.
    DeclareExchange(ChannelKey, ExchangeDeclaration),
    /// `exchange.delete`.
    DeleteExchange {
        /// Who waits.
        asker: ChannelKey,
        /// Where the exchange lives.
        vhost: VhostId,
        /// Which exchange.
        name: Name,
        /// Refuse while it has bindings.
        if_unused: bool,
    },
    /// `queue.declare`, not passive, of a queue the shard does not know or knows to be different.
    DeclareQueue(ChannelKey, QueueDeclaration),
    /// `queue.bind`, `exchange.bind`.
    Bind(ChannelKey, BindingChange),
    /// `queue.unbind`, `exchange.unbind`.
    Unbind(ChannelKey, BindingChange),
    /// The home shard has taken a queue out of service and wants its name forgotten.
    QueueGone {
        /// The queue.
        queue: QueueId,
        /// The channel that waits for `queue.delete-ok`, if any, and the message count of that
        /// answer.
        asker: Option<(ChannelKey, u32)>,
    },
    /// A connection ended: its exclusive queues go. Answered with [`Outcome::OwnerReleased`].
    OwnerGone(Owner),
    /// The shard has applied all deltas up to this sequence number.
    Applied {
        /// Which shard.
        shard: ShardId,
        /// The newest delta it has applied.
        sequence: u64,
    },
    /// An operator asks; answered by [`super::Control::poll_admin_answer`].
    Admin(AdminRequestId, AdminRequest),
}

/// The arguments of `exchange.declare`.
#[derive(Clone, Debug)]
pub struct ExchangeDeclaration {
    /// Where the exchange lives.
    pub vhost: VhostId,
    /// Its name, already stripped of CR and LF.
    pub name: Name,
    /// Its type.
    pub kind: ExchangeKind,
    /// Survives a restart.
    pub durable: bool,
    /// Goes with its last binding.
    pub auto_delete: bool,
    /// Cannot be published to.
    pub internal: bool,
    /// The argument table as received, without its length prefix.
    pub arguments: Bytes,
}

/// The arguments of `queue.declare`.
#[derive(Clone, Debug)]
pub struct QueueDeclaration {
    /// Where the queue lives.
    pub vhost: VhostId,
    /// Its name, stripped of CR and LF; empty asks for a server-made name.
    pub name: Name,
    /// Survives a restart. `RabbitMQ` stores durable + exclusive as not durable; so do we.
    pub durable: bool,
    /// Belongs to this connection only.
    pub exclusive: Option<Owner>,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// The argument table as received, without its length prefix.
    pub arguments: Bytes,
    /// A queue of this name that its home reported gone: it counts as deleted although the
    /// home's own notice may still be under way.
    pub gone: Option<QueueId>,
}

/// The arguments of the four bind and unbind methods.
#[derive(Clone, Debug)]
pub struct BindingChange {
    /// Where both ends live.
    pub vhost: VhostId,
    /// The exchange that messages come from.
    pub source: Name,
    /// The name of the queue or exchange they go to.
    pub destination: Name,
    /// Which of the two it is.
    pub target: BindingTarget,
    /// The binding key, opaque bytes.
    pub key: Bytes,
    /// The argument table as received, without its length prefix.
    pub arguments: Bytes,
    /// The asking connection, for the 405 of another connection's exclusive queue.
    pub owner: Owner,
}

/// The end of one request, sent when every shard has applied its deltas.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The channel that asked.
    pub asker: ChannelKey,
    /// The result. An exception names no method: the asking channel adds its own.
    pub outcome: Result<Outcome, Exception>,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exchange declared, deleted, bound or unbound; queue bound or unbound.
    Done,
    /// The queue exists now, created by this request or before.
    QueueDeclared {
        /// The queue.
        queue: QueueId,
        /// Its name, which the server may have made.
        name: Name,
        /// False where an equivalent queue existed.
        created: bool,
    },
    /// The queue's name is free again; it held this many ready messages.
    QueueDeleted(u32),
    /// The connection's exclusive queues are gone. `asker.channel` is 0.
    OwnerReleased,
}
