//! Bringing back what was declared before the process began.

use std::sync::Arc;

use bytes::Bytes;
use leveret_amqp::TableRef;

use crate::catalog::arguments::{self, QueueArguments};
use crate::catalog::name::{NAME_SIZE_MAX, Name};
use crate::catalog::object::{BindingTarget, Exchange, QueueMeta};
use crate::id::{Owner, ShardId, VhostId};
use crate::routing::change::Change;

use super::definition::{
    BindingDefinition, Definitions, ExchangeDefinition, QueueDefinition, Rejected,
};
use super::progress::Progress;
use super::{BindingChange, Control};

impl Control {
    /// Replays what was stored, before any shard starts: shards start from a clone of
    /// [`Control::topology`], so no delta is sent. Returns what could not be replayed.
    pub fn recover(&mut self, definitions: Definitions) -> Vec<Rejected> {
        // What comes from there need not go there.
        let write_ahead = self.write_ahead.take();
        let mut rejected = Vec::new();
        self.quarantined.extend(definitions.quarantined);
        for vhost in &definitions.vhosts {
            if self.add_vhost(&vhost.name).is_none() {
                let what = format!("virtual host '{}'", vhost.name);
                rejected.push(Rejected::new(what, "limit is reached"));
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
        self.start_from_here();
        self.write_ahead = write_ahead;
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
            // Nobody's: exclusive queues are not durable.
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

fn sound_arguments(arguments: &Bytes) -> Result<TableRef<'_>, String> {
    TableRef::parse(arguments).map_err(|error| format!("its arguments are no table: {error}"))
}

fn check_name(name: &Name) -> Result<(), String> {
    if name.len() > NAME_SIZE_MAX {
        return Err(format!("its name is longer than {NAME_SIZE_MAX} octets"));
    }
    Ok(())
}
