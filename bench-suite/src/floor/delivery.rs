//! Delivers a message to one consumer of each queue on its route, or stores it if there is none.

use super::FloorState;
use super::message::Message;
use super::outlet::{Feed, PENDING_MAX};
use super::topology::{Consumer, Queue};

/// A queue on a route.
#[derive(Debug)]
pub(super) struct Target {
    queue: String,
    pub(super) feeds: Vec<Feed>,
    next: usize,
}

impl Target {
    /// The next consumer; they take turns, whatever their prefetch limits are.
    #[inline(always)]
    pub(super) fn turn(&mut self) -> Option<&Feed> {
        self.next = if self.next + 1 < self.feeds.len() { self.next + 1 } else { 0 };
        self.feeds.get(self.next)
    }
}

impl FloorState {
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

    /// Delivers a message, or stores it in queues without a consumer. Returns a connection that has
    /// too much to send now.
    pub(super) fn deliver(&mut self, targets: &mut [Target], message: &Message) -> Option<usize> {
        let mut over = None;
        for target in targets {
            match target.turn() {
                Some(feed) => {
                    let outlet = &mut self.outlets[feed.slot];
                    if outlet.is_empty() {
                        self.dirty.push(feed.slot);
                    }
                    outlet.deliver(feed, message);
                    if outlet.pending() > PENDING_MAX {
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

    /// Takes the oldest stored message of a queue, and returns how many are left.
    pub(super) fn take_rested(&mut self, queue: &str) -> Option<(Message, u32)> {
        let queue = self.topology.queues.get_mut(queue)?;
        let message = queue.resting.pop_front()?;
        self.resting -= message.weight();
        Some((message, queue.resting.len() as u32))
    }

    /// Delivers the stored messages of a queue to its consumers.
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

    /// Drops the stored messages of a queue and returns their number.
    pub(super) fn purge(&mut self, queue: &str) -> u32 {
        let mut count = 0;
        while self.take_rested(queue).is_some() {
            count += 1;
        }
        count
    }

    /// Ends all consumers of a connection, or those on one channel, or the one with a tag.
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

    /// Removes everything that belongs to a connection.
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
