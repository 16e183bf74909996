//! Requests of operators to the control state, and its answers.
//!
//! An operator knows virtual hosts and users by name. Like `declare-ok` to a client, the answer
//! goes out when the change is durable and every shard has applied it.

use crate::catalog::name::{NAME_SIZE_MAX, Name};
use crate::catalog::permission::Permissions;
use crate::catalog::user::User;

use super::Control;

/// Which request of an operator an answer belongs to; chosen by the asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdminRequestId(pub u64);

/// A change that an operator asks for.
#[derive(Clone, Debug)]
pub enum AdminRequest {
    /// Adds a virtual host with its preset exchanges. One that exists is left as it is.
    AddVhost(Name),
    /// Removes a virtual host with its exchanges, queues, bindings and permissions.
    RemoveVhost(Name),
    /// Adds a user, or replaces the one of this name, whose permissions stay.
    PutUser(User),
    /// Removes a user with all permissions.
    RemoveUser(Name),
    /// Sets the permissions of a user in a virtual host.
    PutPermissions {
        /// The name of the user.
        user: Name,
        /// The name of the virtual host.
        vhost: Name,
        /// Replaces what was set before.
        permissions: Permissions,
    },
    /// Takes all permissions of a user in a virtual host, that to enter it included.
    ClearPermissions {
        /// The name of the user.
        user: Name,
        /// The name of the virtual host.
        vhost: Name,
    },
}

/// The end of an operator's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAnswer {
    /// Which request.
    pub request: AdminRequestId,
    /// The result.
    pub outcome: Result<(), AdminRefusal>,
}

/// Why an operator's request changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminRefusal {
    /// A name without characters.
    #[error("the name of a {0} must not be empty")]
    EmptyName(&'static str),
    /// A name that does not fit a short string.
    #[error("the name of a {0} must not be longer than {NAME_SIZE_MAX} octets")]
    NameTooLong(&'static str),
    /// There is no virtual host of this name.
    #[error("there is no virtual host '{0}'")]
    NoSuchVhost(Name),
    /// There is no user of this name.
    #[error("there is no user '{0}'")]
    NoSuchUser(Name),
    /// There are as many as there may be.
    #[error("the limit of {limit} {of} is reached")]
    LimitReached {
        /// Of which objects.
        of: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

impl Control {
    pub(super) fn administer(&mut self, request: AdminRequest) -> Result<(), AdminRefusal> {
        match request {
            AdminRequest::AddVhost(name) => self.add_vhost(&name),
            AdminRequest::RemoveVhost(name) => self.remove_vhost(&name),
            AdminRequest::PutUser(user) => self.put_user(user),
            AdminRequest::RemoveUser(name) => self.remove_user(&name),
            AdminRequest::PutPermissions { user, vhost, permissions } => {
                self.put_permissions(user, &vhost, permissions)
            }
            AdminRequest::ClearPermissions { user, vhost } => self.clear_permissions(&user, &vhost),
        }
    }
}

/// Refuses names that clients could not use: they travel as short strings (specification 4.2.5.3),
/// and `RabbitMQ` refuses a login without a name.
pub(super) fn check_name(of: &'static str, name: &Name) -> Result<(), AdminRefusal> {
    match name.len() {
        0 => Err(AdminRefusal::EmptyName(of)),
        1..=NAME_SIZE_MAX => Ok(()),
        _ => Err(AdminRefusal::NameTooLong(of)),
    }
}
