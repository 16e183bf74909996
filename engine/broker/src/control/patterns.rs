//! The wildcard patterns of all topic exchanges, on the way from bindings to compiled tables.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::id::{ExchangeId, Map, seeded_map};
use crate::routing::topic::{BINDINGS_MAX, TopicBuilder, TopicTable};

/// The patterns of each exchange that has or had some.
#[derive(Debug)]
pub(super) struct Patterns {
    exchanges: Map<ExchangeId, ExchangePatterns>,
    /// Exchanges that changed since their last table.
    dirty: BTreeSet<ExchangeId>,
    /// Exchanges that changed since their last merge.
    scattered: BTreeSet<ExchangeId>,
    seed: u64,
}

#[derive(Debug)]
struct ExchangePatterns {
    builder: TopicBuilder,
    /// Further bindings of the same key and token, which differ in their arguments.
    repeated: Map<(u32, Arc<[u8]>), u32>,
}

impl Patterns {
    /// No patterns.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            exchanges: seeded_map(seed),
            dirty: BTreeSet::new(),
            scattered: BTreeSet::new(),
            seed,
        }
    }

    /// Whether an exchange can take no more patterns.
    pub(super) fn is_full(&self, exchange: ExchangeId) -> bool {
        self.exchanges.get(&exchange).is_some_and(|entry| entry.builder.len() >= BINDINGS_MAX)
    }

    /// Adds the pattern `key` that leads to `token`.
    pub(super) fn insert(&mut self, exchange: ExchangeId, key: &Arc<[u8]>, token: u32) {
        let seed = self.seed;
        let entry = self.exchanges.entry(exchange).or_insert_with(|| ExchangePatterns {
            builder: TopicBuilder::new(seed),
            repeated: seeded_map(seed),
        });
        match entry.builder.insert(key, token) {
            Ok(true) => self.mark(exchange),
            Ok(false) => *entry.repeated.entry((token, Arc::clone(key))).or_default() += 1,
            // The caller has asked `is_full`, and keys are short strings.
            Err(error) => debug_assert!(false, "{error}"),
        }
    }

    /// Takes the pattern away again.
    pub(super) fn remove(&mut self, exchange: ExchangeId, key: &Arc<[u8]>, token: u32) {
        let Some(entry) = self.exchanges.get_mut(&exchange) else {
            return;
        };
        let repeated = (token, Arc::clone(key));
        if let Some(count) = entry.repeated.get_mut(&repeated) {
            *count -= 1;
            if *count == 0 {
                entry.repeated.remove(&repeated);
            }
        } else if entry.builder.remove(key, token) {
            self.mark(exchange);
        }
    }

    /// Forgets a deleted exchange.
    pub(super) fn forget(&mut self, exchange: ExchangeId) {
        self.exchanges.remove(&exchange);
        self.dirty.remove(&exchange);
        self.scattered.remove(&exchange);
    }

    /// Compiles the patterns of an exchange that changed since its last table.
    pub(super) fn compile_next(&mut self) -> Option<(ExchangeId, Arc<TopicTable>)> {
        let exchange = self.dirty.pop_first()?;
        let entry = self.exchanges.get_mut(&exchange)?;
        Some((exchange, entry.builder.snapshot()))
    }

    /// Merges the patterns of an exchange that changed since its last merge.
    pub(super) fn compact_next(&mut self) -> Option<(ExchangeId, Arc<TopicTable>)> {
        let exchange = self.scattered.pop_first()?;
        self.dirty.remove(&exchange);
        let entry = self.exchanges.get_mut(&exchange)?;
        entry.builder.compact();
        Some((exchange, entry.builder.snapshot()))
    }

    fn mark(&mut self, exchange: ExchangeId) {
        self.dirty.insert(exchange);
        self.scattered.insert(exchange);
    }
}
