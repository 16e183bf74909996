//! The route of a channel's last message, which the next one may share.

use leveret_amqp::octets::same;

use crate::catalog::object::Destination;
use crate::id::ExchangeId;

/// A routing result and its inputs.
///
/// One entry per channel, in two halves that are valid independently: a publisher usually repeats
/// its route, and one that does not usually changes the key and keeps the exchange. The routes of
/// other keys are cached in the topology.
#[derive(Debug, Default)]
pub struct Route {
    /// The exchange as published to.
    pub exchange: Vec<u8>,
    /// The routing key.
    pub routing_key: Vec<u8>,
    /// Queues, sorted by home shard.
    pub destinations: Vec<Destination>,
    /// The header `BCC` has to be removed from the properties.
    pub strip_bcc: bool,
    /// The exchange, if the user may publish to it.
    target: ExchangeId,
    /// Versions of topology and permissions for which `target` is valid; 0 = for none.
    target_versions: (u64, u64),
    /// Versions for which the whole route is valid; 0 = for none.
    versions: (u64, u64),
}

impl Route {
    /// Sets exchange and key. If they differ from the last ones, drops the results computed from
    /// those and returns true.
    #[inline(always)]
    pub fn aim(&mut self, exchange: &[u8], routing_key: &[u8]) -> bool {
        let turns = !same(&self.routing_key, routing_key) || !same(&self.exchange, exchange);
        if turns {
            self.turn(exchange, routing_key);
        }
        turns
    }

    #[inline(never)]
    fn turn(&mut self, exchange: &[u8], routing_key: &[u8]) {
        if !same(&self.exchange, exchange) {
            self.exchange.clear();
            self.exchange.extend_from_slice(exchange);
            self.target_versions = (0, 0);
        }
        self.routing_key.clear();
        self.routing_key.extend_from_slice(routing_key);
        self.versions = (0, 0);
    }

    /// The exchange, if it was found for these versions.
    #[inline]
    pub fn target(&self, versions: (u64, u64)) -> Option<ExchangeId> {
        (self.target_versions == versions).then_some(self.target)
    }

    /// Remembers the exchange found for these versions.
    pub fn found(&mut self, target: ExchangeId, versions: (u64, u64)) {
        self.target = target;
        self.target_versions = versions;
    }

    /// Whether the route is valid for these versions.
    #[inline]
    pub fn is_current(&self, versions: (u64, u64)) -> bool {
        self.versions == versions
    }

    /// Sets the versions for which the route is valid.
    pub fn computed(&mut self, versions: (u64, u64)) {
        self.versions = versions;
    }
}
