//! Where the last message of a channel went, in case the next one goes the same way.

use leveret_amqp::octets::same;

use crate::catalog::object::Destination;
use crate::id::ExchangeId;

/// A routing result and what it was computed from.
///
/// One entry per channel, in two halves: publishers mostly repeat themselves, and those that do not
/// change the key and keep the exchange. What other keys came to, the topology knows.
#[derive(Debug, Default)]
pub struct Route {
    /// The exchange as published to.
    pub exchange: Vec<u8>,
    /// The routing key.
    pub routing_key: Vec<u8>,
    /// Queues, sorted by home shard.
    pub destinations: Vec<Destination>,
    /// `BCC` has to be taken out of the properties.
    pub strip_bcc: bool,
    /// The exchange, if the user may publish to it.
    target: ExchangeId,
    /// Versions of topology and permissions that `target` holds for; 0 = for none.
    target_versions: (u64, u64),
    /// The same for the whole way.
    versions: (u64, u64),
}

impl Route {
    /// Points at an exchange and key; what was known of another way is forgotten. True where it
    /// was another way.
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

    /// The exchange, if it was found before and may still be published to.
    #[inline]
    pub fn target(&self, versions: (u64, u64)) -> Option<ExchangeId> {
        (self.target_versions == versions).then_some(self.target)
    }

    /// Remembers an exchange that may be published to.
    pub fn found(&mut self, target: ExchangeId, versions: (u64, u64)) {
        self.target = target;
        self.target_versions = versions;
    }

    /// Whether the result still holds.
    #[inline]
    pub fn is_current(&self, versions: (u64, u64)) -> bool {
        self.versions == versions
    }

    /// Remembers for which versions the result holds.
    pub fn computed(&mut self, versions: (u64, u64)) {
        self.versions = versions;
    }
}
