//! What operators change: virtual hosts, users and permissions.

use std::sync::Arc;

use crate::catalog::name::Name;
use crate::catalog::object::Exchange;
use crate::catalog::permission::Permissions;
use crate::catalog::presets;
use crate::catalog::user::User;
use crate::id::VhostId;
use crate::routing::change::Change;

use super::{Control, DurableChange, VhostDefinition};

impl Control {
    /// Adds a virtual host with the exchanges every one has, and returns its number; that of the
    /// existing one if there is one of this name. `None` if the limit of exchanges or of 65,535
    /// virtual hosts is reached.
    pub fn add_vhost(&mut self, name: &Name) -> Option<VhostId> {
        if let Some(vhost) = self.topology.vhost_id(name) {
            return Some(vhost);
        }
        let vhost = VhostId(u16::try_from(self.topology.vhosts().count()).ok()?);
        self.store(DurableChange::PutVhost(VhostDefinition { name: name.clone() }));
        self.emit(Change::VhostAdded(vhost, name.clone()));
        for exchange in presets::exchanges(vhost) {
            let id = self.take_exchange_id()?;
            self.emit(Change::ExchangeDeclared(Arc::new(Exchange { id, ..exchange })));
        }
        Some(vhost)
    }

    /// Adds a user or replaces the one of this name.
    pub fn put_user(&mut self, user: User) {
        self.emit(Change::UserPut(Arc::new(user)));
    }

    /// Removes a user with all permissions.
    pub fn remove_user(&mut self, name: &Name) {
        self.emit(Change::UserRemoved(name.clone()));
    }

    /// Sets what a user may do in a virtual host; `None` = nothing, not even enter it.
    pub fn set_permissions(&mut self, user: &Name, vhost: VhostId, to: Option<Permissions>) {
        let user = user.clone();
        self.emit(match to {
            Some(permissions) => {
                Change::PermissionsPut { user, vhost, permissions: Arc::new(permissions) }
            }
            None => Change::PermissionsCleared { user, vhost },
        });
    }
}
