//! Changes of virtual hosts.

use std::sync::Arc;

use crate::catalog::name::Name;
use crate::catalog::object::Exchange;
use crate::catalog::presets;
use crate::id::{ExchangeId, QueueId, VhostId};
use crate::routing::change::Change;

use super::admin::{AdminRefusal, check_name};
use super::{Control, DurableChange, VhostDefinition};

/// Most virtual hosts at a time. Each has seven exchanges, so that less than half of the exchanges
/// there may be are used up by presets.
pub const VHOSTS_MAX: usize = 1 << 16;

impl Control {
    /// Adds a virtual host with the exchanges that every one has, unless there is one of this name.
    pub(super) fn add_vhost(&mut self, name: &Name) -> Result<(), AdminRefusal> {
        check_name("virtual host", name)?;
        if self.topology.vhost_id(name).is_some() {
            return Ok(());
        }
        let id = VhostId(self.next_vhost_id);
        self.check_room_for_vhost(id)?;
        // The id after it is stored with it: see `DurableChange::PutVhost`.
        self.next_vhost_id = id.0 + 1;
        self.store_vhost(id, name.clone());
        self.make_vhost(id, name);
        Ok(())
    }

    /// Removes a virtual host with everything in it.
    ///
    /// All of it is one commit, so that after a crash the virtual host is either as it was or gone.
    /// It is one turn, too, which takes as long as deleting the queues one by one. Each queue has a
    /// delta of its own, by which its home drops its messages.
    pub(super) fn remove_vhost(&mut self, name: &Name) -> Result<(), AdminRefusal> {
        let Some(vhost) = self.topology.vhost_id(name) else {
            return Err(AdminRefusal::NoSuchVhost(name.clone()));
        };
        // Stored first: this holds back all deltas below, also those of transient queues.
        self.store(DurableChange::DropVhost { name: name.clone() });
        // Exchanges go first and take all bindings with them, patterns as a whole. Deleting a queue
        // that has bindings would remove each of its patterns alone.
        let mut exchanges: Vec<ExchangeId> = self.topology.exchanges_of(vhost).collect();
        exchanges.sort_unstable();
        for exchange in exchanges {
            self.remove_exchange(exchange);
        }
        let mut queues: Vec<QueueId> = self.topology.queues_of(vhost).collect();
        queues.sort_unstable();
        for queue in queues {
            self.delete_queue(queue);
        }
        let mut users: Vec<Name> =
            self.topology.permissions_of(vhost).map(|(user, _)| user.clone()).collect();
        users.sort_unstable();
        self.permission_count -= users.len();
        for user in users {
            self.store(DurableChange::DropPermissions { user, vhost: name.clone() });
        }
        self.emit(Change::VhostRemoved(vhost));
        Ok(())
    }

    /// Makes a virtual host, for which there must be room, and its preset exchanges.
    pub(super) fn make_vhost(&mut self, id: VhostId, name: &Name) {
        self.emit(Change::VhostAdded(id, name.clone()));
        for exchange in presets::exchanges(id) {
            let id = self.take_exchange_id().expect("the caller has checked that there is room");
            self.emit(Change::ExchangeDeclared(Arc::new(Exchange { id, ..exchange })));
        }
    }

    /// Has a virtual host stored, and with it the id of the next one.
    pub(super) fn store_vhost(&mut self, id: VhostId, name: Name) {
        let vhost = VhostDefinition { name, id: Some(id) };
        self.store(DurableChange::PutVhost { vhost, next_vhost_id: self.next_vhost_id });
    }

    /// Refuses a virtual host that would exceed the limit of virtual hosts, exchanges or ids. The
    /// last id is never given out, for there is no next one to store with it.
    pub(super) fn check_room_for_vhost(&self, id: VhostId) -> Result<(), AdminRefusal> {
        let full = |of, limit| Err(AdminRefusal::LimitReached { of, limit });
        if id.0 == u32::MAX {
            return full("ids of virtual hosts", u32::MAX as usize);
        }
        if self.topology.vhost_count() >= VHOSTS_MAX {
            return full("virtual hosts", VHOSTS_MAX);
        }
        if self.exchange_slots.available() < presets::EXCHANGES.len() {
            return full("exchanges", super::EXCHANGES_MAX as usize);
        }
        Ok(())
    }
}
