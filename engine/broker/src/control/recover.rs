//! Restores the stored definitions when the process starts.
//!
//! A store without users is new, or older than the storing of users. It gets the presets of a new
//! broker ([`presets`]), which are stored like other objects. So a preset that an operator removes
//! stays removed.
//!
//! [`presets`]: crate::catalog::presets

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use leveret_amqp::TableRef;

use crate::catalog::arguments::{self, QueueArguments};
use crate::catalog::name::{NAME_SIZE_MAX, Name};
use crate::catalog::object::{BindingTarget, Exchange, QueueMeta};
use crate::catalog::user::User;
use crate::id::{Owner, ShardId, VhostId};
use crate::routing::change::Change;
use crate::routing::topology::Topology;

use super::admin::check_name as check_admin_name;
use super::definition::{
    BindingDefinition, Definitions, DurableChange, ExchangeDefinition, PermissionsDefinition,
    QueueDefinition, Rejected, VhostDefinition,
};
use super::progress::Progress;
use super::users::check_user;
use super::write_ahead::WriteAhead;
use super::{BindingChange, Control};

impl Control {
    /// A control state that starts from stored definitions and has every further change stored.
    /// Shards start from a clone of [`Control::topology`], so no delta goes out. Also returns the
    /// definitions that could not be restored.
    ///
    /// Drain [`Control::poll_durable`] before shards start: presets may have to be stored.
    pub fn recover(definitions: Definitions, shards: u16, seed: u64) -> (Self, Vec<Rejected>) {
        let had_users = definitions.next_vhost_id > 0;
        let topology = if had_users {
            Topology::new(seed, shards)
        } else {
            Topology::with_presets(seed, shards)
        };
        let mut control = Self::new(topology, shards, seed);
        control.next_vhost_id = control.next_vhost_id.max(definitions.next_vhost_id);
        let stored: BTreeSet<Name> = with_ids(&definitions.vhosts).cloned().collect();
        let rejected = control.replay(definitions);
        control.start_from_here();
        control.write_ahead = Some(WriteAhead::default());
        control.store_missing(&stored, had_users);
        (control, rejected)
    }

    /// Has presets stored, and ids that were not: virtual hosts that are not among `stored`, and
    /// either all users or none.
    fn store_missing(&mut self, stored: &BTreeSet<Name>, had_users: bool) {
        let vhosts: Vec<_> = self.topology.vhosts().map(|(id, name)| (id, name.clone())).collect();
        for (id, name) in &vhosts {
            if !stored.contains(name) {
                self.store_vhost(*id, name.clone());
            }
        }
        if had_users {
            return;
        }
        let users: Vec<_> = self.topology.users().cloned().collect();
        for user in users {
            self.store(DurableChange::PutUser(user));
        }
        for (id, name) in &vhosts {
            let permissions = self.topology.permissions_of(*id);
            let definitions =
                permissions.map(|(user, to)| PermissionsDefinition::of(user, name, to));
            for definition in definitions.collect::<Vec<_>>() {
                self.store(DurableChange::PutPermissions(definition));
            }
        }
    }

    /// Creates the defined objects. Nothing is stored meanwhile, for there is no write-ahead yet.
    fn replay(&mut self, definitions: Definitions) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        self.quarantined.extend(definitions.quarantined);
        let mut vhosts = definitions.vhosts;
        // The topology takes ids in ascending order. Virtual hosts without an id get the next ones.
        vhosts.sort_by_key(|vhost| vhost.id.map_or(u64::MAX, |id| id.0.into()));
        for vhost in &vhosts {
            if let Err(reason) = self.recover_vhost(vhost) {
                let what = format!("virtual host '{}'", vhost.name);
                rejected.push(Rejected::new(what, reason));
            }
        }
        for user in definitions.users {
            let what = format!("user '{}'", user.name);
            if let Err(reason) = self.recover_user(user) {
                rejected.push(Rejected::new(what, reason));
            }
        }
        for permissions in &definitions.permissions {
            if let Err(reason) = self.recover_permissions(permissions) {
                let PermissionsDefinition { user, vhost, .. } = permissions;
                let what = format!("permissions of user '{user}' in vhost '{vhost}'");
                rejected.push(Rejected::new(what, reason));
            }
        }
        for exchange in definitions.exchanges {
            let what = format!("exchange '{}' in vhost '{}'", exchange.name, exchange.vhost);
            if let Err(reason) = self.recover_exchange(exchange) {
                rejected.push(Rejected::new(what, reason));
            }
        }
        let mut next_log_id = definitions.next_log_id.max(self.next_log_id);
        for queue in definitions.queues {
            next_log_id = next_log_id.max(queue.log_id.saturating_add(1));
            if let Err(reason) = self.recover_queue(&queue) {
                let what = format!("queue '{}' in vhost '{}'", queue.name, queue.vhost);
                let log_id = Some(queue.log_id);
                rejected.push(Rejected { log_id, ..Rejected::new(what, reason) });
                // A new queue of that name would overwrite the row that says whose messages the
                // log has.
                self.quarantined.insert((queue.vhost, queue.name));
            }
        }
        self.next_log_id = next_log_id;
        for binding in definitions.bindings {
            let what = format!(
                "binding from '{}' to '{}' in vhost '{}'",
                binding.source, binding.destination, binding.vhost
            );
            if let Err(reason) = self.recover_binding(binding) {
                rejected.push(Rejected::new(what, reason));
            }
        }
        rejected
    }

    /// Compiles the patterns, each exchange once, and takes all changes as applied by all shards.
    fn start_from_here(&mut self) {
        while let Some((exchange, table)) = self.patterns.compact_next() {
            self.emit(Change::TopicCompiled { exchange, table });
        }
        self.deltas.clear();
        self.progress = Progress::new(self.topology.shards(), self.topology.sequence());
    }

    fn recover_vhost(&mut self, vhost: &VhostDefinition) -> Result<(), String> {
        check_admin_name("virtual host", &vhost.name).map_err(|refusal| refusal.to_string())?;
        if self.topology.vhost_id(&vhost.name).is_some() {
            return Err("there is one already".to_owned());
        }
        let id = vhost.id.unwrap_or(VhostId(self.next_vhost_id));
        if self.topology.vhost_name(id).is_some() {
            return Err(format!("another one has its id {}", id.0));
        }
        self.check_room_for_vhost(id).map_err(|refusal| refusal.to_string())?;
        self.next_vhost_id = self.next_vhost_id.max(id.0 + 1);
        self.make_vhost(id, &vhost.name);
        Ok(())
    }

    fn recover_user(&mut self, user: Arc<User>) -> Result<(), String> {
        check_user(&user).map_err(|refusal| refusal.to_string())?;
        self.emit(Change::UserPut(user));
        Ok(())
    }

    fn recover_permissions(&mut self, stored: &PermissionsDefinition) -> Result<(), String> {
        let vhost = self.recovered_vhost(&stored.vhost)?;
        if self.topology.user(&stored.user).is_none() {
            return Err("there is no such user".to_owned());
        }
        let permissions = Arc::new(stored.compile().map_err(|error| error.to_string())?);
        self.permission_count += 1;
        self.emit(Change::PermissionsPut { user: stored.user.clone(), vhost, permissions });
        Ok(())
    }

    fn recover_exchange(&mut self, definition: ExchangeDefinition) -> Result<(), String> {
        let vhost = self.recovered_vhost(&definition.vhost)?;
        let arguments = sound_arguments(&definition.arguments)?;
        check_name(&definition.name)?;
        if self.topology.exchange(vhost, definition.name.as_bytes()).is_some() {
            return Err("there is one already".to_owned());
        }
        let alternate = arguments::check_exchange(&definition.vhost, &definition.name, arguments)
            .map_err(|refusal| refusal.explanation)?;
        let id = self.take_exchange_id().ok_or("the limit of exchanges is reached")?;
        self.emit(Change::ExchangeDeclared(Arc::new(Exchange {
            id,
            vhost,
            name: definition.name,
            kind: definition.kind,
            durable: true,
            auto_delete: definition.auto_delete,
            internal: definition.internal,
            arguments: definition.arguments,
            alternate,
        })));
        Ok(())
    }

    fn recover_queue(&mut self, definition: &QueueDefinition) -> Result<(), String> {
        let vhost = self.recovered_vhost(&definition.vhost)?;
        let arguments = sound_arguments(&definition.arguments)?;
        check_name(&definition.name)?;
        if self.topology.queue(vhost, definition.name.as_bytes()).is_some() {
            return Err("there is one already".to_owned());
        }
        let (home, shards) = (definition.home, self.topology.shards());
        if home >= shards {
            return Err(format!("it lives on shard {home}, and there are {shards}"));
        }
        let id = self.take_queue_id().ok_or("the limit of queues is reached")?;
        self.emit(Change::QueueDeclared(Arc::new(QueueMeta {
            id,
            vhost,
            name: definition.name.clone(),
            home: ShardId(home),
            durable: true,
            log_id: Some(definition.log_id),
            exclusive: None,
            auto_delete: definition.auto_delete,
            arguments: definition.arguments.clone(),
            settings: QueueArguments::parse(arguments),
        })));
        Ok(())
    }

    fn recover_binding(&mut self, definition: BindingDefinition) -> Result<(), String> {
        let vhost = self.recovered_vhost(&definition.vhost)?;
        sound_arguments(&definition.arguments)?;
        let is_lost = definition.target == BindingTarget::Queue
            && self.is_quarantined(&definition.vhost, &definition.destination);
        if is_lost {
            return Err(format!("queue '{}' is in quarantine", definition.destination));
        }
        let change = BindingChange {
            vhost,
            source: definition.source,
            destination: definition.destination,
            target: definition.target,
            key: definition.key,
            arguments: definition.arguments,
            // No connection's: exclusive queues are not durable.
            owner: Owner::default(),
        };
        self.bind(&change).map(|_| ()).map_err(|refusal| refusal.explanation)
    }

    fn recovered_vhost(&self, name: &Name) -> Result<VhostId, String> {
        self.topology.vhost_id(name).ok_or_else(|| "there is no such virtual host".to_owned())
    }
}

impl Rejected {
    fn new(what: String, reason: impl Into<String>) -> Self {
        Self { what, reason: reason.into(), log_id: None }
    }
}

/// The virtual hosts that are stored with their ids.
fn with_ids(vhosts: &[VhostDefinition]) -> impl Iterator<Item = &Name> {
    vhosts.iter().filter(|vhost| vhost.id.is_some()).map(|vhost| &vhost.name)
}

fn sound_arguments(arguments: &Bytes) -> Result<TableRef<'_>, String> {
    TableRef::parse(arguments).map_err(|error| format!("its arguments are no table: {error}"))
}

fn check_name(name: &Name) -> Result<(), String> {
    if name.len() > NAME_SIZE_MAX {
        return Err(format!("its name is longer than {NAME_SIZE_MAX} octets"));
    }
    Ok(())
}
