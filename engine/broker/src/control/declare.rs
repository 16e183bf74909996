//! Declaring and binding.

use std::sync::Arc;

use bytes::Bytes;
use leveret_amqp::{OwnedTable, TableRef};

use crate::catalog::arguments::{self, QueueProperties};
use crate::catalog::equivalence::{self, ExchangeRedeclaration, QueueRedeclaration};
use crate::catalog::name::Name;
use crate::catalog::object::{Binding, BindingTarget, Exchange, ExchangeKind, QueueMeta, Target};
use crate::error::Exception;
use crate::id::{QueueId, ShardId, VhostId};
use crate::routing::change::Change;
use crate::routing::topic::is_literal;
use crate::routing::topology::canonical_arguments;

use super::placement::home_of;
use super::{
    BINDINGS_MAX, BindingChange, BindingDefinition, Control, DurableChange, EXCHANGES_MAX,
    ExchangeDeclaration, ExchangeDefinition, Outcome, QUEUES_MAX, QueueDeclaration,
    QueueDefinition,
};

impl Control {
    pub(super) fn declare_exchange(
        &mut self,
        declared: &ExchangeDeclaration,
    ) -> Result<Outcome, Exception> {
        arguments::check_not_default_exchange(&declared.name)?;
        let vhost = self.vhost_name(declared.vhost)?;
        let table = table_of(&declared.arguments);
        if let Some(exchange) = self.topology.exchange(declared.vhost, declared.name.as_bytes()) {
            let redeclaration = ExchangeRedeclaration {
                kind: declared.kind,
                durable: declared.durable,
                auto_delete: declared.auto_delete,
                internal: declared.internal,
                arguments: table,
            };
            equivalence::check_exchange(exchange, &vhost, redeclaration)?;
            return Ok(Outcome::Done);
        }
        arguments::check_exchange_name(&declared.name)?;
        let alternate = arguments::check_exchange(&vhost, &declared.name, table)?;
        let Some(id) = self.take_exchange_id() else {
            return Err(Exception::precondition_failed(format!(
                "cannot declare exchange '{}': exchange limit of {EXCHANGES_MAX} is reached",
                declared.name
            )));
        };
        let exchange = Exchange {
            id,
            vhost: declared.vhost,
            name: declared.name.clone(),
            kind: declared.kind,
            durable: declared.durable,
            auto_delete: declared.auto_delete,
            internal: declared.internal,
            arguments: declared.arguments.clone(),
            alternate,
        };
        if exchange.durable {
            self.store(DurableChange::PutExchange(exchange_definition(&exchange, &vhost)));
        }
        self.emit(Change::ExchangeDeclared(Arc::new(exchange)));
        Ok(Outcome::Done)
    }

    pub(super) fn declare_queue(
        &mut self,
        asker: ShardId,
        declared: &QueueDeclaration,
    ) -> Result<Outcome, Exception> {
        if let Some(gone) = declared.gone {
            self.delete_queue(gone);
        }
        let vhost = self.vhost_name(declared.vhost)?;
        if let Some(queue) = self.topology.queue(declared.vhost, declared.name.as_bytes()) {
            let redeclaration = QueueRedeclaration {
                durable: declared.durable,
                exclusive: declared.exclusive,
                auto_delete: declared.auto_delete,
                arguments: table_of(&declared.arguments),
            };
            equivalence::check_queue(queue, &vhost, redeclaration)?;
            let (queue, name) = (queue.id, queue.name.clone());
            return Ok(Outcome::QueueDeclared { queue, name, created: false });
        }
        self.check_not_quarantined(&vhost, &declared.name)?;
        let settings = arguments::check_queue(QueueProperties {
            vhost: &vhost,
            name: &declared.name,
            durable: declared.durable,
            exclusive: declared.exclusive.is_some(),
            auto_delete: declared.auto_delete,
            arguments: table_of(&declared.arguments),
        })?;
        let Some(id) = self.take_queue_id() else {
            return Err(Exception::precondition_failed(format!(
                "cannot declare queue '{}': queue limit in vhost '{vhost}' ({QUEUES_MAX}) is \
                 reached",
                declared.name
            )));
        };
        let name = self.name_of(&vhost, declared);
        let durable = declared.durable && declared.exclusive.is_none();
        let queue = QueueMeta {
            id,
            vhost: declared.vhost,
            name: name.clone(),
            home: self.home_of(asker, &vhost, &name, declared),
            durable,
            log_id: durable.then(|| self.take_log_id()),
            exclusive: declared.exclusive,
            auto_delete: declared.auto_delete,
            arguments: declared.arguments.clone(),
            settings,
        };
        if let Some(queue) = queue_definition(&queue, &vhost) {
            self.store(DurableChange::PutQueue { queue, next_log_id: self.next_log_id });
        }
        self.emit(Change::QueueDeclared(Arc::new(queue)));
        self.remember_owner(id, declared);
        self.warnings.note(&vhost, &name, table_of(&declared.arguments));
        Ok(Outcome::QueueDeclared { queue: id, name, created: true })
    }

    pub(super) fn bind(&mut self, change: &BindingChange) -> Result<Outcome, Exception> {
        let vhost = self.vhost_name(change.vhost)?;
        check_ends(change)?;
        if change.target == BindingTarget::Queue {
            self.check_not_quarantined(&vhost, &change.destination)?;
        }
        let arguments = owned_table_of(change)?;
        let kind = self.source_of(change, &vhost)?.kind;
        let binding = self.binding_of(change, &arguments, &vhost)?;
        if kind == ExchangeKind::Headers {
            arguments::check_headers_binding(arguments.as_ref())?;
        }
        self.check_exclusive_access(change, &binding, &vhost)?;
        if self.bindings.get(&binding).is_some() {
            return Ok(Outcome::Done);
        }
        let is_pattern = kind == ExchangeKind::Topic && !is_literal(&binding.key);
        let is_full = self.bindings.len() >= BINDINGS_MAX
            || is_pattern && self.patterns.is_full(binding.source);
        if is_full {
            return Err(Exception::precondition_failed(format!(
                "cannot bind to exchange '{}' in vhost '{vhost}': binding limit is reached",
                change.source
            )));
        }
        let binding = Arc::new(binding);
        self.bindings.insert(&binding);
        if let Some(definition) = self.binding_definition(&binding) {
            self.store(DurableChange::PutBinding(definition));
        }
        self.emit(Change::Bound(Arc::clone(&binding)));
        // The delta has given the target its token, which the compiled pattern leads to.
        if is_pattern && let Some(token) = self.topology.topic_token(binding.source, binding.target)
        {
            self.patterns.insert(binding.source, &binding.key, token);
        }
        Ok(Outcome::Done)
    }

    /// A binding that does not exist is unbound already, and so is one between objects that do not
    /// exist (`absent_errs_only` in `rabbit_binding:remove`).
    pub(super) fn unbind(&mut self, change: &BindingChange) -> Result<Outcome, Exception> {
        let vhost = self.vhost_name(change.vhost)?;
        check_ends(change)?;
        let arguments = owned_table_of(change)?;
        let Ok(binding) = self.binding_of(change, &arguments, &vhost) else {
            return Ok(Outcome::Done);
        };
        if self.bindings.get(&binding).is_none() {
            return Ok(Outcome::Done);
        }
        self.check_exclusive_access(change, &binding, &vhost)?;
        if let Some(binding) = self.bindings.remove(&binding) {
            self.remove_pattern(&binding);
            self.drop_bindings(std::slice::from_ref(&binding));
            let source = binding.source;
            self.emit(Change::Unbound(binding));
            self.delete_unused(vec![source]);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn vhost_name(&self, vhost: VhostId) -> Result<Name, Exception> {
        // Only a removed virtual host has no name, and its connections may still ask. The answer is
        // that of `connection.open` to an unknown one.
        let name = self.topology.vhost_name(vhost).cloned();
        name.ok_or_else(|| Exception::not_allowed("vhost not found"))
    }

    /// The definition of a binding that outlives the process: one of two durable objects.
    pub(super) fn binding_definition(&self, binding: &Binding) -> Option<BindingDefinition> {
        // Without a store nothing is durable, and no name needs to be copied.
        self.write_ahead.as_ref()?;
        let source = self.topology.exchange_by_id(binding.source)?;
        let (name, durable, target) = match binding.target {
            Target::Queue(destination) => {
                let queue = self.topology.queue_by_id(destination.queue)?;
                (&queue.name, queue.durable, BindingTarget::Queue)
            }
            Target::Exchange(exchange) => {
                let exchange = self.topology.exchange_by_id(exchange)?;
                (&exchange.name, exchange.durable, BindingTarget::Exchange)
            }
        };
        if !(source.durable && durable) {
            return None;
        }
        Some(BindingDefinition {
            vhost: self.topology.vhost_name(source.vhost)?.clone(),
            source: source.name.clone(),
            destination: name.clone(),
            target,
            key: Bytes::copy_from_slice(&binding.key),
            arguments: binding.arguments.clone(),
        })
    }

    fn take_log_id(&mut self) -> u64 {
        let id = self.next_log_id;
        // The highest bit has another meaning in the log. Counting does not get there.
        self.next_log_id += 1;
        id
    }

    fn check_not_quarantined(&self, vhost: &Name, name: &Name) -> Result<(), Exception> {
        if self.is_quarantined(vhost, name) {
            return Err(Exception::precondition_failed(format!(
                "queue '{name}' in vhost '{vhost}' is in quarantine: its definition on disk is \
                 damaged"
            )));
        }
        Ok(())
    }

    fn name_of(&mut self, vhost: &Name, declared: &QueueDeclaration) -> Name {
        if !declared.name.is_empty() {
            return declared.name.clone();
        }
        loop {
            let name = self.server_names.next();
            let is_taken = self.topology.queue(declared.vhost, name.as_bytes()).is_some();
            if !is_taken && !self.is_quarantined(vhost, &name) {
                return name;
            }
        }
    }

    /// A queue that serves one connection lives on the shard of that connection.
    fn home_of(
        &self,
        asker: ShardId,
        vhost: &str,
        name: &str,
        declared: &QueueDeclaration,
    ) -> ShardId {
        let private =
            declared.exclusive.is_some() || declared.auto_delete || declared.name.is_empty();
        let shards = self.topology.shards();
        if private && asker.0 < shards { asker } else { home_of(vhost, name, shards) }
    }

    fn remember_owner(&mut self, queue: QueueId, declared: &QueueDeclaration) {
        if let Some(owner) = declared.exclusive {
            self.exclusive_queues.entry(owner).or_default().insert(queue);
        }
    }

    fn source_of(&self, change: &BindingChange, vhost: &str) -> Result<&Exchange, Exception> {
        let source = self.topology.exchange(change.vhost, change.source.as_bytes());
        source.ok_or_else(|| equivalence::no_exchange(&change.source, vhost))
    }

    /// The binding a change is about. 404 if one of its ends does not exist, source first.
    fn binding_of(
        &self,
        change: &BindingChange,
        arguments: &OwnedTable,
        vhost: &str,
    ) -> Result<Binding, Exception> {
        let source = self.source_of(change, vhost)?.id;
        let name = change.destination.as_bytes();
        let target = match change.target {
            BindingTarget::Queue => {
                let queue = self.topology.queue(change.vhost, name);
                let queue = queue.ok_or_else(|| equivalence::no_queue(&change.destination, vhost));
                Target::Queue(queue?.destination())
            }
            BindingTarget::Exchange => {
                let exchange = self.topology.exchange(change.vhost, name);
                let exchange =
                    exchange.ok_or_else(|| equivalence::no_exchange(&change.destination, vhost));
                Target::Exchange(exchange?.id)
            }
        };
        Ok(Binding {
            source,
            target,
            key: Arc::from(&*change.key),
            arguments: arguments.as_bytes().clone(),
            canonical: canonical_arguments(arguments),
        })
    }

    fn check_exclusive_access(
        &self,
        change: &BindingChange,
        binding: &Binding,
        vhost: &str,
    ) -> Result<(), Exception> {
        let Target::Queue(destination) = binding.target else {
            return Ok(());
        };
        match self.topology.queue_by_id(destination.queue) {
            Some(queue) => equivalence::check_exclusive_access(queue, vhost, change.owner),
            None => Ok(()),
        }
    }
}

/// The default exchange can be neither end of a binding; destination first.
fn check_ends(change: &BindingChange) -> Result<(), Exception> {
    if change.target == BindingTarget::Exchange {
        arguments::check_not_default_exchange(&change.destination)?;
    }
    arguments::check_not_default_exchange(&change.source)
}

fn owned_table_of(change: &BindingChange) -> Result<OwnedTable, Exception> {
    // The codec has checked the table already, so this fails for a faulty shard only.
    OwnedTable::parse(change.arguments.clone())
        .map_err(|error| Exception::new(error.reply_code(), error.to_string()))
}

fn table_of(arguments: &[u8]) -> TableRef<'_> {
    TableRef::trusted(arguments)
}

fn exchange_definition(exchange: &Exchange, vhost: &Name) -> ExchangeDefinition {
    ExchangeDefinition {
        vhost: vhost.clone(),
        name: exchange.name.clone(),
        kind: exchange.kind,
        auto_delete: exchange.auto_delete,
        internal: exchange.internal,
        arguments: exchange.arguments.clone(),
    }
}

/// `None` for a queue that ends with the process.
fn queue_definition(queue: &QueueMeta, vhost: &Name) -> Option<QueueDefinition> {
    Some(QueueDefinition {
        vhost: vhost.clone(),
        name: queue.name.clone(),
        log_id: queue.log_id?,
        home: queue.home.0,
        auto_delete: queue.auto_delete,
        arguments: queue.arguments.clone(),
    })
}
