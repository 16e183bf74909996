//! The virtual hosts of a topology.

use std::sync::Arc;

use crate::catalog::name::Name;
use crate::catalog::permission::Permissions;
use crate::id::{ExchangeId, Map, VhostId, seeded_map};

use super::QueueEntry;

/// The content of one virtual host.
#[derive(Clone, Debug)]
pub(in crate::routing) struct Vhost {
    pub(super) id: VhostId,
    pub(super) name: Name,
    pub(super) exchanges: Map<Name, ExchangeId>,
    pub(in crate::routing) queues: Map<Name, QueueEntry>,
    /// By user.
    pub(super) permissions: Map<Name, Arc<Permissions>>,
}

impl Vhost {
    /// An empty virtual host.
    pub(super) fn new(id: VhostId, name: Name, seed: u64) -> Self {
        Self {
            id,
            name,
            exchanges: seeded_map(seed),
            queues: seeded_map(seed),
            permissions: seeded_map(seed),
        }
    }
}

/// Virtual hosts in the order of their ids.
///
/// A removed one leaves no hole, however many come and go. New ids are the highest, so a new
/// virtual host goes to the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Vhosts(Vec<Vhost>);

impl Vhosts {
    #[inline]
    pub(super) fn get(&self, id: VhostId) -> Option<&Vhost> {
        self.0.get(self.index(id)?)
    }

    pub(super) fn get_mut(&mut self, id: VhostId) -> Option<&mut Vhost> {
        let index = self.index(id)?;
        self.0.get_mut(index)
    }

    pub(super) fn add(&mut self, vhost: Vhost) {
        let newest = self.0.last().map(|vhost| vhost.id);
        debug_assert!(newest.is_none_or(|newest| newest < vhost.id), "ids ascend");
        self.0.push(vhost);
    }

    pub(super) fn remove(&mut self, id: VhostId) -> Option<Vhost> {
        Some(self.0.remove(self.index(id)?))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Vhost> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Vhost> {
        self.0.iter_mut()
    }

    #[inline]
    fn index(&self, id: VhostId) -> Option<usize> {
        // As long as none was removed, ids are indexes: one comparison for each message to the
        // default exchange.
        let guess = id.0 as usize;
        if self.0.get(guess).is_some_and(|vhost| vhost.id == id) {
            return Some(guess);
        }
        self.0.binary_search_by_key(&id, |vhost| vhost.id).ok()
    }
}
