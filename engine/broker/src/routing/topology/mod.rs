//! The catalog: virtual hosts, users, permissions, exchanges, queues and their bindings.
//!
//! Every shard holds a [`Topology`], and so does the control state. Only [`Topology::apply`]
//! changes one, with deltas that come in the same order everywhere, so replicas that have applied
//! the same delta are equal, and routing is local to the shard.

mod vhosts;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use leveret_amqp::{OwnedTable, TableBuilder};

use crate::catalog::name::Name;
use crate::catalog::object::{Binding, Destination, Exchange, ExchangeKind, QueueMeta, Target};
use crate::catalog::permission::Permissions;
use crate::catalog::presets;
use crate::catalog::user::User;
use crate::id::{ExchangeId, Map, QueueId, VhostId, seeded_map};
use crate::routing::change::{Change, Delta};
use crate::routing::exchange::Bindings;
use crate::routing::topic::TopicTable;

use self::vhosts::{Vhost, Vhosts};

/// A replica of the catalog.
#[derive(Clone, Debug)]
pub struct Topology {
    pub(super) seed: u64,
    shards: u16,
    sequence: u64,
    pub(super) version: u64,
    permission_version: u64,
    vhosts: Vhosts,
    vhost_ids: Map<Name, VhostId>,
    users: Map<Name, Arc<User>>,
    /// By slot.
    exchanges: Vec<Option<ExchangeEntry>>,
    /// By slot.
    queues: Vec<Option<Arc<QueueMeta>>>,
}

/// A queue by name. The destination stands here so that the default exchange need not follow the
/// pointer.
#[derive(Clone, Debug)]
pub(super) struct QueueEntry {
    pub(super) destination: Destination,
    pub(super) meta: Arc<QueueMeta>,
}

#[derive(Clone, Debug)]
pub(super) struct ExchangeEntry {
    pub(super) meta: Arc<Exchange>,
    pub(super) bindings: Bindings,
    /// Bindings from here to other exchanges.
    pub(super) exchange_bindings: u32,
}

impl Topology {
    /// An empty topology for `shards` shards, whose tables hash with `seed`.
    pub fn new(seed: u64, shards: u16) -> Self {
        Self {
            seed,
            shards,
            sequence: 0,
            version: 1,
            permission_version: 1,
            vhosts: Vhosts::default(),
            vhost_ids: seeded_map(seed),
            users: seeded_map(seed),
            exchanges: Vec::new(),
            queues: Vec::new(),
        }
    }

    /// The topology of a new broker, see [`presets`]. `seed` also salts the password.
    pub fn with_presets(seed: u64, shards: u16) -> Self {
        let mut topology = Self::new(seed, shards);
        let vhost = VhostId(0);
        topology.apply_change(&Change::VhostAdded(vhost, Name::from(presets::VHOST)));
        for (slot, exchange) in (0..).zip(presets::exchanges(vhost)) {
            let id = ExchangeId { slot, generation: 0 };
            topology.apply_change(&Change::ExchangeDeclared(Arc::new(Exchange { id, ..exchange })));
        }
        let user = presets::user(seed);
        let (name, permissions) = (user.name.clone(), Arc::new(presets::permissions()));
        topology.apply_change(&Change::UserPut(Arc::new(user)));
        topology.apply_change(&Change::PermissionsPut { user: name, vhost, permissions });
        topology
    }

    /// Applies the next change. Its cost depends on the objects it names, not on all that exist.
    pub fn apply(&mut self, delta: &Delta) {
        debug_assert_eq!(delta.sequence, self.sequence + 1, "deltas come in order");
        self.sequence = delta.sequence;
        self.apply_change(&delta.change);
    }

    /// The newest delta applied; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Differs after every change that may alter the way of a message.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Differs after every change of users or permissions.
    pub fn permission_version(&self) -> u64 {
        self.permission_version
    }

    /// How many shards queues are spread over.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The virtual host of this name.
    pub fn vhost_id(&self, name: &str) -> Option<VhostId> {
        self.vhost_ids.get(name.as_bytes()).copied()
    }

    /// The name of a virtual host.
    pub fn vhost_name(&self, vhost: VhostId) -> Option<&Name> {
        self.vhost(vhost).map(|vhost| &vhost.name)
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name.as_bytes())
    }

    /// What a user may do in a virtual host; `None` = not even enter it.
    pub fn permissions(&self, user: &str, vhost: VhostId) -> Option<&Arc<Permissions>> {
        self.vhost(vhost)?.permissions.get(user.as_bytes())
    }

    /// The exchange of this name.
    #[inline]
    pub fn exchange(&self, vhost: VhostId, name: &[u8]) -> Option<&Exchange> {
        let id = *self.vhost(vhost)?.exchanges.get(name)?;
        self.exchange_by_id(id)
    }

    /// The exchange of this identity.
    #[inline]
    pub fn exchange_by_id(&self, exchange: ExchangeId) -> Option<&Exchange> {
        self.exchange_entry(exchange).map(|entry| &*entry.meta)
    }

    /// The queue of this name.
    #[inline]
    pub fn queue(&self, vhost: VhostId, name: &[u8]) -> Option<&Arc<QueueMeta>> {
        self.vhost(vhost)?.queues.get(name).map(|entry| &entry.meta)
    }

    /// The queue of this identity.
    #[inline]
    pub fn queue_by_id(&self, queue: QueueId) -> Option<&Arc<QueueMeta>> {
        let meta = self.queues.get(queue.slot as usize)?.as_ref()?;
        (meta.id == queue).then_some(meta)
    }

    /// All queues, in slot order.
    pub fn queues(&self) -> impl Iterator<Item = &Arc<QueueMeta>> {
        self.queues.iter().flatten()
    }

    /// All exchanges, in slot order.
    pub fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        self.exchanges.iter().flatten().map(|entry| &*entry.meta)
    }

    /// All virtual hosts with their names, in the order of their ids.
    pub fn vhosts(&self) -> impl Iterator<Item = (VhostId, &Name)> {
        self.vhosts.iter().map(|vhost| (vhost.id, &vhost.name))
    }

    /// How many virtual hosts there are.
    pub fn vhost_count(&self) -> usize {
        self.vhosts.len()
    }

    /// How many users there are.
    pub fn user_count(&self) -> usize {
        self.users.len()
    }

    /// All users, in no order.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// The exchanges of a virtual host, in no order.
    pub fn exchanges_of(&self, vhost: VhostId) -> impl Iterator<Item = ExchangeId> {
        self.vhost(vhost).into_iter().flat_map(|vhost| vhost.exchanges.values().copied())
    }

    /// The queues of a virtual host, in no order.
    pub fn queues_of(&self, vhost: VhostId) -> impl Iterator<Item = QueueId> {
        let queues = self.vhost(vhost).into_iter().flat_map(|vhost| vhost.queues.values());
        queues.map(|entry| entry.destination.queue)
    }

    /// The users that may enter a virtual host, in no order, and what they may do there.
    pub fn permissions_of(
        &self,
        vhost: VhostId,
    ) -> impl Iterator<Item = (&Name, &Arc<Permissions>)> {
        self.vhost(vhost).into_iter().flat_map(|vhost| &vhost.permissions)
    }

    /// Whether the headers of a message may matter for its way from here. False is certain, true
    /// is not: the exchange may only lead to others. [`Routed::cacheable`] is exact.
    pub fn depends_on_headers(&self, exchange: ExchangeId) -> bool {
        self.exchange_entry(exchange).is_some_and(|entry| {
            entry.meta.kind == ExchangeKind::Headers
                || entry.meta.alternate.is_some()
                || entry.exchange_bindings > 0
        })
    }

    /// The number that a topic exchange gives to a target of its wildcard bindings.
    pub(crate) fn topic_token(&self, exchange: ExchangeId, target: Target) -> Option<u32> {
        match &self.exchange_entry(exchange)?.bindings {
            Bindings::Topic(bindings) => bindings.token(target),
            _ => None,
        }
    }

    /// The compiled patterns that a change takes out of use.
    pub(crate) fn table_that_goes(&self, change: &Change) -> Option<&Arc<TopicTable>> {
        let (Change::TopicCompiled { exchange, .. } | Change::ExchangeDeleted { exchange, .. }) =
            change
        else {
            return None;
        };
        match &self.exchange_entry(*exchange)?.bindings {
            Bindings::Topic(bindings) => bindings.table(),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn vhost(&self, vhost: VhostId) -> Option<&Vhost> {
        self.vhosts.get(vhost)
    }

    #[inline]
    pub(super) fn exchange_entry(&self, exchange: ExchangeId) -> Option<&ExchangeEntry> {
        let entry = self.exchanges.get(exchange.slot as usize)?.as_ref()?;
        (entry.meta.id == exchange).then_some(entry)
    }

    fn exchange_entry_mut(&mut self, exchange: ExchangeId) -> Option<&mut ExchangeEntry> {
        let entry = self.exchanges.get_mut(exchange.slot as usize)?.as_mut()?;
        (entry.meta.id == exchange).then_some(entry)
    }

    fn apply_change(&mut self, change: &Change) {
        if change.alters_routing() {
            self.version += 1;
        } else {
            self.permission_version += 1;
        }
        match change {
            Change::VhostAdded(id, name) => self.add_vhost(*id, name),
            Change::VhostRemoved(id) => self.remove_vhost(*id),
            Change::UserPut(user) => {
                self.users.insert(user.name.clone(), Arc::clone(user));
            }
            Change::UserRemoved(name) => self.remove_user(name),
            Change::PermissionsPut { user, vhost, permissions } => {
                if let Some(vhost) = self.vhosts.get_mut(*vhost) {
                    vhost.permissions.insert(user.clone(), Arc::clone(permissions));
                }
            }
            Change::PermissionsCleared { user, vhost } => {
                if let Some(vhost) = self.vhosts.get_mut(*vhost) {
                    vhost.permissions.remove(user.as_bytes());
                }
            }
            Change::ExchangeDeclared(exchange) => self.add_exchange(exchange),
            Change::ExchangeDeleted { exchange, bindings } => {
                self.unbind_all(bindings);
                self.remove_exchange(*exchange);
            }
            Change::QueueDeclared(queue) => self.add_queue(queue),
            Change::QueueDeleted { queue, bindings } => {
                self.unbind_all(bindings);
                self.remove_queue(*queue);
            }
            Change::Bound(binding) => self.bind(binding),
            Change::Unbound(binding) => self.unbind(binding),
            Change::TopicCompiled { exchange, table } => {
                let entry = self.exchange_entry_mut(*exchange);
                if let Some(Bindings::Topic(bindings)) = entry.map(|entry| &mut entry.bindings) {
                    bindings.set_table(Arc::clone(table));
                }
            }
        }
    }

    fn add_vhost(&mut self, id: VhostId, name: &Name) {
        self.vhosts.add(Vhost::new(id, name.clone(), self.seed));
        self.vhost_ids.insert(name.clone(), id);
    }

    fn remove_vhost(&mut self, id: VhostId) {
        let Some(vhost) = self.vhosts.remove(id) else {
            return;
        };
        debug_assert!(vhost.exchanges.is_empty() && vhost.queues.is_empty(), "they went before");
        self.vhost_ids.remove(vhost.name.as_bytes());
    }

    fn remove_user(&mut self, name: &Name) {
        self.users.remove(name.as_bytes());
        for vhost in self.vhosts.iter_mut() {
            vhost.permissions.remove(name.as_bytes());
        }
    }

    fn add_exchange(&mut self, exchange: &Arc<Exchange>) {
        let Some(vhost) = self.vhosts.get_mut(exchange.vhost) else {
            return;
        };
        vhost.exchanges.insert(exchange.name.clone(), exchange.id);
        let bindings = if exchange.name.is_empty() {
            Bindings::Default
        } else {
            Bindings::new(exchange.kind, self.seed)
        };
        let entry = ExchangeEntry { meta: Arc::clone(exchange), bindings, exchange_bindings: 0 };
        *slot_mut(&mut self.exchanges, exchange.id.slot) = Some(entry);
    }

    fn remove_exchange(&mut self, exchange: ExchangeId) {
        if self.exchange_entry(exchange).is_none() {
            return;
        }
        let Some(entry) = self.exchanges[exchange.slot as usize].take() else {
            return;
        };
        if let Some(vhost) = self.vhosts.get_mut(entry.meta.vhost) {
            vhost.exchanges.remove(entry.meta.name.as_bytes());
        }
    }

    fn add_queue(&mut self, queue: &Arc<QueueMeta>) {
        let Some(vhost) = self.vhosts.get_mut(queue.vhost) else {
            return;
        };
        let entry = QueueEntry { destination: queue.destination(), meta: Arc::clone(queue) };
        vhost.queues.insert(queue.name.clone(), entry);
        *slot_mut(&mut self.queues, queue.id.slot) = Some(Arc::clone(queue));
    }

    fn remove_queue(&mut self, queue: QueueId) {
        if self.queue_by_id(queue).is_none() {
            return;
        }
        let Some(meta) = self.queues[queue.slot as usize].take() else {
            return;
        };
        if let Some(vhost) = self.vhosts.get_mut(meta.vhost) {
            vhost.queues.remove(meta.name.as_bytes());
        }
    }

    fn bind(&mut self, binding: &Arc<Binding>) {
        let Some(entry) = self.exchange_entry_mut(binding.source) else {
            return;
        };
        entry.bindings.bind(binding);
        entry.exchange_bindings += u32::from(matches!(binding.target, Target::Exchange(_)));
    }

    fn unbind(&mut self, binding: &Binding) {
        let Some(entry) = self.exchange_entry_mut(binding.source) else {
            return;
        };
        entry.bindings.unbind(binding);
        entry.exchange_bindings -= u32::from(matches!(binding.target, Target::Exchange(_)));
    }

    fn unbind_all(&mut self, bindings: &[Arc<Binding>]) {
        for binding in bindings {
            self.unbind(binding);
        }
    }
}

/// The arguments sorted by name, by which `RabbitMQ` distinguishes bindings
/// (`rabbit_misc:sort_field_table`). Equal names keep their order.
pub(crate) fn canonical_arguments(arguments: &OwnedTable) -> Bytes {
    let mut fields: Vec<_> = arguments.as_ref().iter().collect();
    if fields.is_sorted_by_key(|(name, _)| *name) {
        return arguments.as_bytes().clone();
    }
    fields.sort_by_key(|(name, _)| *name);
    let sorted =
        fields.iter().fold(TableBuilder::new(), |table, (name, value)| table.value(name, *value));
    sorted.finish().as_bytes().clone()
}

/// The place of a slot number, made if the table is shorter. The control state gives out the
/// lowest free number, so a table is as long as its objects were many.
fn slot_mut<T>(slots: &mut Vec<Option<T>>, slot: u32) -> &mut Option<T> {
    let index = slot as usize;
    if index >= slots.len() {
        slots.resize_with(index + 1, || None);
    }
    &mut slots[index]
}
