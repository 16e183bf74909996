//! Exchanges, queues, bindings and consumers.

use std::collections::{HashMap, VecDeque};

use super::message::Message;

/// The limit for queues, exchanges and bindings each: enough for every scenario of the floor.
pub(super) const NAMES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) slot: usize,
    pub(super) channel: u16,
    pub(super) tag: String,
    /// The frame size that its connection has negotiated.
    pub(super) frame_max: u32,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) consumers: Vec<Consumer>,
    /// Messages that came without a consumer.
    pub(super) resting: VecDeque<Message>,
    /// The connection that owns it, if it is exclusive.
    pub(super) owner: Option<usize>,
    pub(super) auto_delete: bool,
    /// The consumer that gets the next message that is not forwarded unchanged.
    pub(super) next: usize,
}

impl Queue {
    pub(super) fn new(owner: Option<usize>, auto_delete: bool) -> Self {
        Self { owner, auto_delete, ..Self::default() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) fanout: bool,
    /// Queues by binding key. A fan-out exchange has only the empty key.
    pub(super) bindings: HashMap<Vec<u8>, Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Topology {
    pub(super) queues: HashMap<String, Queue>,
    pub(super) exchanges: HashMap<String, Exchange>,
    /// Incremented with every change, so that publishers notice outdated routes.
    pub(super) generation: u64,
    pub(super) names_given: u64,
}

impl Topology {
    pub(super) fn new() -> Self {
        let declared = [("amq.direct", false), ("amq.fanout", true), ("amq.topic", false)];
        let exchange = |fanout| Exchange { fanout, ..Exchange::default() };
        Self {
            queues: HashMap::new(),
            exchanges: declared
                .map(|(name, fanout)| (name.to_owned(), exchange(fanout)))
                .into_iter()
                .collect(),
            generation: 1,
            names_given: 0,
        }
    }

    /// The names of the queues that a publish is routed to. Wildcards in binding keys are not
    /// supported.
    pub(super) fn route(&self, exchange: &[u8], routing_key: &[u8]) -> Vec<String> {
        let text = |octets| std::str::from_utf8(octets).unwrap_or_default();
        if exchange.is_empty() {
            let queue = text(routing_key);
            return self
                .queues
                .get_key_value(queue)
                .map(|(name, _)| name.clone())
                .into_iter()
                .collect();
        }
        let Some(exchange) = self.exchanges.get(text(exchange)) else { return Vec::new() };
        let key = if exchange.fanout { b"" } else { routing_key };
        exchange.bindings.get(key).cloned().unwrap_or_default()
    }

    /// Deletes a queue with its bindings.
    pub(super) fn delete(&mut self, queue: &str) -> Option<Queue> {
        let deleted = self.queues.remove(queue)?;
        self.generation += 1;
        for exchange in self.exchanges.values_mut() {
            exchange.bindings.retain(|_, queues| {
                queues.retain(|bound| bound != queue);
                !queues.is_empty()
            });
        }
        Some(deleted)
    }
}
