//! Deletes exchanges and queues, and with them their bindings.

use std::sync::Arc;

use crate::catalog::name::Name;
use crate::catalog::object::{Binding, Target};
use crate::catalog::presets;
use crate::error::Exception;
use crate::id::{ExchangeId, Owner, QueueId, VhostId};
use crate::routing::change::Change;

use super::{Control, DurableChange, Outcome};

impl Control {
    /// An exchange that does not exist is deleted already.
    pub(super) fn delete_exchange(
        &mut self,
        vhost: VhostId,
        name: &Name,
        if_unused: bool,
    ) -> Result<Outcome, Exception> {
        let vhost_name = self.vhost_name(vhost)?;
        crate::catalog::arguments::check_not_default_exchange(name)?;
        crate::catalog::arguments::check_exchange_deletion(&vhost_name, name)?;
        let Some(exchange) = self.topology.exchange(vhost, name.as_bytes()) else {
            return Ok(Outcome::Done);
        };
        let exchange = exchange.id;
        if if_unused && self.bindings.is_source(exchange) {
            return Err(Exception::precondition_failed(format!(
                "exchange '{name}' in vhost '{vhost_name}' in use"
            )));
        }
        let sources = self.remove_exchange(exchange);
        self.delete_unused(sources);
        Ok(Outcome::Done)
    }

    /// Deletes a queue with its bindings, and the auto-delete exchanges that thereby lose their
    /// last. A queue that does not exist is deleted already.
    pub(super) fn delete_queue(&mut self, queue: QueueId) {
        let Some(meta) = self.topology.queue_by_id(queue) else {
            return;
        };
        let (owner, target) = (meta.exclusive, Target::Queue(meta.destination()));
        let durable = meta.durable.then(|| (meta.vhost, meta.name.clone()));
        if let Some(owner) = owner
            && let Some(queues) = self.exclusive_queues.get_mut(&owner)
        {
            queues.remove(&queue);
            if queues.is_empty() {
                self.exclusive_queues.remove(&owner);
            }
        }
        let bindings = self.bindings.remove_target(target);
        for binding in &bindings {
            self.remove_pattern(binding);
        }
        let sources = bindings.iter().map(|binding| binding.source).collect();
        self.drop_bindings(&bindings);
        if let Some((vhost, name)) = durable
            && let Some(vhost) = self.topology.vhost_name(vhost).cloned()
        {
            self.store(DurableChange::DropQueue { vhost, name });
        }
        self.emit(Change::QueueDeleted { queue, bindings: bindings.into() });
        self.queue_slots.release(queue.slot);
        self.delete_unused(sources);
    }

    /// Deletes the exclusive queues of a connection that has ended.
    pub(super) fn delete_queues_of(&mut self, owner: Owner) {
        for queue in self.exclusive_queues.remove(&owner).unwrap_or_default() {
            self.delete_queue(queue);
        }
    }

    /// Deletes those of `exchanges` that are auto-delete and the source of no binding any more,
    /// and then those that lost their last binding by that, and so on.
    pub(super) fn delete_unused(&mut self, mut exchanges: Vec<ExchangeId>) {
        while let Some(exchange) = exchanges.pop() {
            let meta = self.topology.exchange_by_id(exchange);
            if meta.is_some_and(|meta| meta.auto_delete) && !self.bindings.is_source(exchange) {
                exchanges.extend(self.remove_exchange(exchange));
            }
        }
    }

    /// Takes the pattern of a binding out of its exchange. Must come before the binding's delta,
    /// which takes the token back.
    pub(super) fn remove_pattern(&mut self, binding: &Binding) {
        if crate::routing::topic::is_literal(&binding.key) {
            return;
        }
        if let Some(token) = self.topology.topic_token(binding.source, binding.target) {
            self.patterns.remove(binding.source, &binding.key, token);
        }
    }

    /// Deletes an exchange with all bindings from and to it; returns the sources of the latter.
    pub(super) fn remove_exchange(&mut self, exchange: ExchangeId) -> Vec<ExchangeId> {
        let from_here = self.bindings.remove_source(exchange);
        self.drop_bindings(&from_here);
        self.patterns.forget(exchange);
        let bindings = self.bindings.remove_target(Target::Exchange(exchange));
        for binding in &bindings {
            self.remove_pattern(binding);
        }
        let sources = bindings.iter().map(|binding| binding.source).collect();
        self.drop_bindings(&bindings);
        self.drop_exchange(exchange);
        self.emit(Change::ExchangeDeleted { exchange, bindings: bindings.into() });
        self.exchange_slots.release(exchange.slot);
        sources
    }

    /// Has the durable ones of `bindings` removed from the store. Call it while both ends exist,
    /// because their names are looked up.
    pub(super) fn drop_bindings(&mut self, bindings: &[Arc<Binding>]) {
        for binding in bindings {
            if let Some(definition) = self.binding_definition(binding) {
                self.store(DurableChange::DropBinding(definition));
            }
        }
    }

    fn drop_exchange(&mut self, exchange: ExchangeId) {
        let Some(meta) = self.topology.exchange_by_id(exchange).filter(|meta| meta.durable) else {
            return;
        };
        if presets::is_exchange(&meta.name) {
            // It has no row of its own.
            return;
        }
        let name = meta.name.clone();
        if let Some(vhost) = self.topology.vhost_name(meta.vhost).cloned() {
            self.store(DurableChange::DropExchange { vhost, name });
        }
    }
}
