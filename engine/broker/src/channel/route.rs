//! Where the last message of a channel went, in case the next one goes the same way.

use crate::topology::Destination;

/// A routing result and what it was computed from.
///
/// One entry per channel: publishers mostly repeat themselves, and a changed key costs what the
/// look-up costs anyway.
#[derive(Debug, Default)]
pub struct Route {
    /// The exchange as published to.
    pub exchange: Vec<u8>,
    /// The routing key.
    pub routing_key: Vec<u8>,
    /// Queues, sorted by home shard.
    pub destinations: Vec<Destination>,
    /// All destinations are on the publisher's shard.
    pub local: bool,
    /// `BCC` has to be taken out of the properties.
    pub strip_bcc: bool,
    /// Versions of topology and permissions; 0 = not to be reused.
    versions: (u64, u64),
}

impl Route {
    /// Points at an exchange and key; what was known of another way is forgotten.
    #[inline]
    pub fn aim(&mut self, exchange: &[u8], routing_key: &[u8]) {
        if same(&self.exchange, exchange) && same(&self.routing_key, routing_key) {
            return;
        }
        self.exchange.clear();
        self.exchange.extend_from_slice(exchange);
        self.routing_key.clear();
        self.routing_key.extend_from_slice(routing_key);
        self.versions = (0, 0);
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

/// Equality of names, which are mostly shorter than the call of a library function costs.
#[inline(always)]
fn same(left: &[u8], right: &[u8]) -> bool {
    const WORD: usize = size_of::<u64>();
    if left.len() != right.len() {
        return false;
    }
    let (mut left, mut right) = (left, right);
    while let (Some((a, left_rest)), Some((b, right_rest))) =
        (left.split_first_chunk::<WORD>(), right.split_first_chunk::<WORD>())
    {
        if u64::from_ne_bytes(*a) != u64::from_ne_bytes(*b) {
            return false;
        }
        (left, right) = (left_rest, right_rest);
    }
    left.iter().zip(right).all(|(a, b)| a == b)
}
