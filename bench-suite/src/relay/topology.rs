//! Names: exchanges, queues, consumers, and where a publish goes.

use std::collections::{HashMap, VecDeque};

use super::Floor;
use super::outlet::{Feed, Message};

/// Queues, exchanges and bindings each: enough for every scenario that the floor can do.
pub(super) const NAMES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) slot: usize,
    pub(super) channel: u16,
    pub(super) tag: String,
    /// What its connection negotiated.
    pub(super) frame_max: u32,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) consumers: Vec<Consumer>,
    /// Messages that came while there was no consumer.
    pub(super) resting: VecDeque<Message>,
    /// The connection that it goes with.
    pub(super) owner: Option<usize>,
    pub(super) auto_delete: bool,
    /// The consumer that gets the next message that is not relayed as it came.
    next: usize,
}

impl Queue {
    pub(super) fn new(owner: Option<usize>, auto_delete: bool) -> Self {
        Self { owner, auto_delete, ..Self::default() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) fanout: bool,
    /// Queues by binding key; those of a fan-out under the empty key.
    pub(super) bindings: HashMap<Vec<u8>, Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Topology {
    pub(super) queues: HashMap<String, Queue>,
    pub(super) exchanges: HashMap<String, Exchange>,
    /// Grows with every change, so that a publisher knows when its routes are out of date.
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

    /// The names of the queues that a publish goes to. A wildcard in a binding key is a letter like
    /// any other.
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

    /// Takes a queue away with its bindings.
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

/// One queue of a route.
#[derive(Debug)]
pub(super) struct Target {
    queue: String,
    pub(super) feeds: Vec<Feed>,
    next: usize,
}

impl Target {
    /// The consumers take turns, whatever their prefetch counts.
    #[inline(always)]
    pub(super) fn turn(&mut self) -> Option<&Feed> {
        self.next = if self.next + 1 < self.feeds.len() { self.next + 1 } else { 0 };
        self.feeds.get(self.next)
    }
}

impl Floor {
    pub(super) fn targets(&mut self, exchange: &[u8], routing_key: &[u8]) -> Vec<Target> {
        let queues = self.topology.route(exchange, routing_key);
        let target = |queue: String| {
            let consumers = self.topology.queues.get(&queue).map(|queue| &queue.consumers);
            let feeds = consumers.into_iter().flatten().map(|consumer| {
                Feed::new(&mut self.outlets[consumer.slot], consumer, exchange, routing_key)
            });
            Target { feeds: feeds.collect(), queue, next: 0 }
        };
        queues.into_iter().map(target).collect()
    }

    /// Delivers a message, or lets it rest where nobody consumes. Returns a connection that has
    /// too much to send now.
    pub(super) fn relay(&mut self, targets: &mut [Target], message: &Message) -> Option<usize> {
        let mut over = None;
        for target in targets {
            match target.turn() {
                Some(feed) => {
                    let outlet = &mut self.outlets[feed.slot];
                    if outlet.is_empty() {
                        self.dirty.push(feed.slot);
                    }
                    outlet.deliver(feed, message);
                    if outlet.pending() > super::PENDING_MAX {
                        over = Some(feed.slot);
                    }
                }
                None => self.rest(&target.queue, message),
            }
        }
        over
    }

    fn rest(&mut self, queue: &str, message: &Message) {
        if let Some(queue) = self.topology.queues.get_mut(queue) {
            let message = message.to_rest();
            self.resting += message.weight();
            queue.resting.push_back(message);
        }
    }

    /// The oldest message that rests in a queue, and how many are left.
    pub(super) fn take_rested(&mut self, queue: &str) -> Option<(Message, u32)> {
        let queue = self.topology.queues.get_mut(queue)?;
        let message = queue.resting.pop_front()?;
        self.resting -= message.weight();
        Some((message, queue.resting.len() as u32))
    }

    /// Gives what rests in a queue to its consumers.
    pub(super) fn wake(&mut self, name: &str) {
        while let Some((message, _)) = self.take_rested(name) {
            let Some(queue) = self.topology.queues.get_mut(name) else { return };
            queue.next = (queue.next + 1) % queue.consumers.len().max(1);
            let Some(consumer) = queue.consumers.get(queue.next) else { return };
            let slot = consumer.slot;
            let (exchange, key) = (&message.exchange, &message.routing_key);
            let feed = Feed::new(&mut self.outlets[slot], consumer, exchange, key);
            self.outlets[slot].deliver(&feed, &message);
            self.dirty.push(slot);
        }
    }

    /// Drops what rests in a queue; how many.
    pub(super) fn purge(&mut self, queue: &str) -> u32 {
        let mut count = 0;
        while self.take_rested(queue).is_some() {
            count += 1;
        }
        count
    }

    /// Ends the consumers of a connection, or of one of its channels, or one of them.
    pub(super) fn cancel(&mut self, slot: usize, channel: Option<u16>, tag: Option<&str>) {
        let ends = |consumer: &Consumer| {
            consumer.slot == slot
                && channel.is_none_or(|channel| channel == consumer.channel)
                && tag.is_none_or(|tag| tag == consumer.tag)
        };
        let mut unused = Vec::new();
        for (name, queue) in &mut self.topology.queues {
            let before = queue.consumers.len();
            queue.consumers.retain(|consumer| !ends(consumer));
            if before > 0 && queue.consumers.is_empty() && queue.auto_delete {
                unused.push(name.clone());
            }
        }
        for name in unused {
            self.purge(&name);
            self.topology.delete(&name);
        }
        self.topology.generation += 1;
    }

    /// Forgets a connection.
    pub(super) fn leave(&mut self, slot: usize) {
        self.cancel(slot, None, None);
        let owned = |queue: &Queue| queue.owner == Some(slot);
        let names: Vec<String> = self
            .topology
            .queues
            .iter()
            .filter(|(_, queue)| owned(queue))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.purge(&name);
            self.topology.delete(&name);
        }
    }
}
