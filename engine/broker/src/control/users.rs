//! Changes of users and their permissions.

use std::sync::Arc;

use crate::catalog::name::Name;
use crate::catalog::permission::Permissions;
use crate::catalog::user::User;
use crate::id::VhostId;
use crate::routing::change::Change;

use super::admin::{AdminRefusal, check_name};
use super::{Control, DurableChange, PermissionsDefinition};

/// Most users at a time. Each takes some 300 octets, which all shards share.
pub const USERS_MAX: usize = 1 << 16;

/// Most tags of a user. `RabbitMQ` gives a meaning to five.
pub const TAGS_MAX: usize = 64;

/// Most sets of permissions at a time, one per user and virtual host. Patterns other than `.*`
/// compile to some KiB each, which all shards share, so that this many take about a GiB.
pub const PERMISSIONS_MAX: usize = 1 << 17;

impl Control {
    /// Adds a user or replaces the one of this name.
    pub(super) fn put_user(&mut self, user: User) -> Result<(), AdminRefusal> {
        check_user(&user)?;
        match self.topology.user(&user.name) {
            Some(existing) if **existing == user => return Ok(()),
            None if self.topology.user_count() >= USERS_MAX => {
                return Err(AdminRefusal::LimitReached { of: "users", limit: USERS_MAX });
            }
            _ => {}
        }
        let user = Arc::new(user);
        self.store(DurableChange::PutUser(Arc::clone(&user)));
        self.emit(Change::UserPut(user));
        Ok(())
    }

    /// Removes a user with all permissions.
    pub(super) fn remove_user(&mut self, name: &Name) -> Result<(), AdminRefusal> {
        if self.topology.user(name).is_none() {
            return Err(AdminRefusal::NoSuchUser(name.clone()));
        }
        let entered = self.topology.vhosts().filter(|(vhost, _)| self.may_enter(name, *vhost));
        let vhosts: Vec<Name> = entered.map(|(_, vhost)| vhost.clone()).collect();
        self.permission_count -= vhosts.len();
        self.store(DurableChange::DropUser { name: name.clone() });
        for vhost in vhosts {
            self.store(DurableChange::DropPermissions { user: name.clone(), vhost });
        }
        self.emit(Change::UserRemoved(name.clone()));
        Ok(())
    }

    /// Sets what a user may do in a virtual host.
    pub(super) fn put_permissions(
        &mut self,
        user: Name,
        vhost_name: &Name,
        permissions: Permissions,
    ) -> Result<(), AdminRefusal> {
        let vhost = self.vhost_of_permissions(&user, vhost_name)?;
        match self.topology.permissions(&user, vhost) {
            Some(existing) if **existing == permissions => return Ok(()),
            Some(_) => {}
            None if self.permission_count >= PERMISSIONS_MAX => {
                let (of, limit) = ("permissions", PERMISSIONS_MAX);
                return Err(AdminRefusal::LimitReached { of, limit });
            }
            None => self.permission_count += 1,
        }
        let definition = PermissionsDefinition::of(&user, vhost_name, &permissions);
        self.store(DurableChange::PutPermissions(definition));
        let permissions = Arc::new(permissions);
        self.emit(Change::PermissionsPut { user, vhost, permissions });
        Ok(())
    }

    /// Takes the permissions of a user in a virtual host. A user without any keeps none.
    pub(super) fn clear_permissions(
        &mut self,
        user: &Name,
        vhost_name: &Name,
    ) -> Result<(), AdminRefusal> {
        let vhost = self.vhost_of_permissions(user, vhost_name)?;
        if !self.may_enter(user, vhost) {
            return Ok(());
        }
        self.permission_count -= 1;
        let (user, vhost_name) = (user.clone(), vhost_name.clone());
        self.store(DurableChange::DropPermissions { user: user.clone(), vhost: vhost_name });
        self.emit(Change::PermissionsCleared { user, vhost });
        Ok(())
    }

    fn may_enter(&self, user: &Name, vhost: VhostId) -> bool {
        self.topology.permissions(user, vhost).is_some()
    }

    /// The virtual host, if both it and the user exist.
    fn vhost_of_permissions(&self, user: &Name, vhost: &Name) -> Result<VhostId, AdminRefusal> {
        if self.topology.user(user).is_none() {
            return Err(AdminRefusal::NoSuchUser(user.clone()));
        }
        let id = self.topology.vhost_id(vhost);
        id.ok_or_else(|| AdminRefusal::NoSuchVhost(vhost.clone()))
    }
}

/// Refuses a user whose name or tags could not be used.
pub(super) fn check_user(user: &User) -> Result<(), AdminRefusal> {
    check_name("user", &user.name)?;
    if user.tags.len() > TAGS_MAX {
        return Err(AdminRefusal::LimitReached { of: "tags of a user", limit: TAGS_MAX });
    }
    user.tags.iter().try_for_each(|tag| check_name("tag", tag))
}
