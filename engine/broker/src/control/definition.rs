//! Definitions of durable objects by name: the form in which they are stored.
//!
//! The ids of exchanges and queues hold for one run of the process, so none stands here.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::name::Name;
use crate::catalog::object::{BindingTarget, ExchangeKind};
use crate::catalog::permission::{Access, PatternError, Permissions};
use crate::catalog::user::User;
use crate::id::VhostId;

/// A virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostDefinition {
    /// Its name.
    pub name: Name,
    /// Its id; `None` where it was stored before ids were, or its id is damaged. It gets a new one.
    pub id: Option<VhostId>,
}

/// The permissions of a user in a virtual host, as the patterns they were given as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionsDefinition {
    /// The name of the user.
    pub user: Name,
    /// The name of the virtual host.
    pub vhost: Name,
    /// For declaring and deleting.
    pub configure: String,
    /// For publishing and for binding a destination.
    pub write: String,
    /// For consuming and for binding a source.
    pub read: String,
}

impl PermissionsDefinition {
    /// The permissions in their stored form.
    pub fn of(user: &Name, vhost: &Name, permissions: &Permissions) -> Self {
        let pattern = |access| permissions.pattern(access).to_owned();
        Self {
            user: user.clone(),
            vhost: vhost.clone(),
            configure: pattern(Access::Configure),
            write: pattern(Access::Write),
            read: pattern(Access::Read),
        }
    }

    /// The permissions in the form that is checked against.
    ///
    /// # Errors
    /// As [`Permissions::new`].
    pub fn compile(&self) -> Result<Permissions, PatternError> {
        Permissions::new(&self.configure, &self.write, &self.read)
    }
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeDefinition {
    /// The name of its virtual host.
    pub vhost: Name,
    /// Its name.
    pub name: Name,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Goes with its last binding as a source.
    pub auto_delete: bool,
    /// Cannot be published to.
    pub internal: bool,
    /// The argument table as received, without its length prefix.
    pub arguments: Bytes,
}

/// A durable queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDefinition {
    /// The name of its virtual host.
    pub vhost: Name,
    /// Its name.
    pub name: Name,
    /// Identifies its records in the log; never used twice.
    pub log_id: u64,
    /// The shard whose log has its messages.
    pub home: u16,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// The argument table as received, without its length prefix.
    pub arguments: Bytes,
}

/// A binding of two durable objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingDefinition {
    /// The name of the virtual host of both ends.
    pub vhost: Name,
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
}

/// One change of the stored definitions. A later one of the same name wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurableChange {
    /// A new virtual host.
    PutVhost {
        /// The virtual host.
        vhost: VhostDefinition,
        /// The id of the virtual host after this one. Stored with it, so that no id comes twice,
        /// not even that of a virtual host that is removed before the broker stops.
        next_vhost_id: u32,
    },
    /// A virtual host is gone; all that was in it is dropped one by one.
    DropVhost {
        /// Its name.
        name: Name,
    },
    /// A user, new or different.
    PutUser(Arc<User>),
    /// A user is gone; its permissions are dropped one by one.
    DropUser {
        /// Its name.
        name: Name,
    },
    /// Permissions, new or different.
    PutPermissions(PermissionsDefinition),
    /// A user may no longer enter a virtual host.
    DropPermissions {
        /// The name of the user.
        user: Name,
        /// The name of the virtual host.
        vhost: Name,
    },
    /// A new exchange.
    PutExchange(ExchangeDefinition),
    /// An exchange is gone; its bindings are dropped one by one.
    DropExchange {
        /// The name of its virtual host.
        vhost: Name,
        /// Its name.
        name: Name,
    },
    /// A new queue.
    PutQueue {
        /// The queue.
        queue: QueueDefinition,
        /// The log id of the queue after this one. Stored with it, so that no log id comes twice,
        /// not even that of a queue that is deleted before the broker stops.
        next_log_id: u64,
    },
    /// A queue is gone; its bindings are dropped one by one.
    DropQueue {
        /// The name of its virtual host.
        vhost: Name,
        /// Its name.
        name: Name,
    },
    /// A new binding.
    PutBinding(BindingDefinition),
    /// A binding is gone. Equal to the definition it was put with.
    DropBinding(BindingDefinition),
}

/// All stored definitions, as recovery reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definitions {
    /// Virtual hosts.
    pub vhosts: Vec<VhostDefinition>,
    /// Users.
    pub users: Vec<Arc<User>>,
    /// What the users may do.
    pub permissions: Vec<PermissionsDefinition>,
    /// Exchanges but those that every virtual host has.
    pub exchanges: Vec<ExchangeDefinition>,
    /// Queues.
    pub queues: Vec<QueueDefinition>,
    /// Bindings.
    pub bindings: Vec<BindingDefinition>,
    /// Virtual host and name of queues whose definitions are damaged. They cannot be declared.
    pub quarantined: Vec<(Name, Name)>,
    /// The log id of the next queue as it was stored.
    pub next_log_id: u64,
    /// The id of the next virtual host as it was stored. 0 where neither virtual hosts with their
    /// ids nor users were ever stored: in a new store, and in one from before they were.
    pub next_vhost_id: u32,
}

/// A definition that cannot be restored next to the others. It stays in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The object that it defines, in words.
    pub what: String,
    /// Why it was not restored.
    pub reason: String,
    /// For a queue: records of this log id are not dead.
    pub log_id: Option<u64>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}
