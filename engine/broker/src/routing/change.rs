//! How the topology changes: one stream of deltas in one order, for every shard.

use std::sync::Arc;

use crate::catalog::permission::Permissions;
use crate::id::{ExchangeId, QueueId, VhostId};
use crate::routing::topic::TopicTable;

use crate::catalog::name::Name;
use crate::catalog::object::{Binding, Exchange, QueueMeta};
use crate::catalog::user::User;

/// One step of the topology, numbered without gaps from 1.
#[derive(Clone, Debug)]
pub struct Delta {
    /// Position in the one order of all changes.
    pub sequence: u64,
    /// The change at that position.
    pub change: Change,
}

/// A change. Its cost depends on the objects it names, not on how many others exist.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new virtual host, still empty.
    VhostAdded(VhostId, Name),
    /// A virtual host is gone, with the permissions in it. Its exchanges and queues went before it.
    VhostRemoved(VhostId),
    /// A user is new or different.
    UserPut(Arc<User>),
    /// A user is gone, with all permissions.
    UserRemoved(Name),
    /// A user has these permissions in a virtual host.
    PermissionsPut {
        /// The user.
        user: Name,
        /// The virtual host.
        vhost: VhostId,
        /// All permissions of the user there.
        permissions: Arc<Permissions>,
    },
    /// A user may no longer enter a virtual host.
    PermissionsCleared {
        /// The user.
        user: Name,
        /// The virtual host.
        vhost: VhostId,
    },
    /// A new exchange.
    ExchangeDeclared(Arc<Exchange>),
    /// An exchange is gone, and with it all bindings *from* it, which are not listed.
    ExchangeDeleted {
        /// The exchange.
        exchange: ExchangeId,
        /// All bindings to it.
        bindings: Box<[Arc<Binding>]>,
    },
    /// A new queue, bound to the default exchange by its name.
    QueueDeclared(Arc<QueueMeta>),
    /// A queue is gone.
    QueueDeleted {
        /// The queue.
        queue: QueueId,
        /// All bindings to it.
        bindings: Box<[Arc<Binding>]>,
    },
    /// A new binding. For a wildcard key it works from the next [`Change::TopicCompiled`] on.
    Bound(Arc<Binding>),
    /// A binding is gone.
    Unbound(Arc<Binding>),
    /// The wildcard patterns of a topic exchange as of now.
    TopicCompiled {
        /// The exchange.
        exchange: ExchangeId,
        /// Its patterns; destinations are tokens of that exchange.
        table: Arc<TopicTable>,
    },
}

impl Change {
    /// Whether a message may take another way after this change.
    pub(super) fn alters_routing(&self) -> bool {
        !matches!(
            self,
            Self::VhostAdded(..)
                | Self::VhostRemoved(_)
                | Self::UserPut(_)
                | Self::UserRemoved(_)
                | Self::PermissionsPut { .. }
                | Self::PermissionsCleared { .. }
        )
    }
}
