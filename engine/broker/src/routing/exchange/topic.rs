//! Bindings by pattern: the topic exchange.
//!
//! Keys without a wildcard are a hash look-up. The others live in a compiled table that the
//! control state makes and all shards share; its destinations are *tokens*, numbers that every
//! replica gives to the targets of this exchange in the same order, and so identically.

use std::sync::Arc;

use crate::catalog::object::Target;
use crate::id::{Map, seeded_map};
use crate::routing::topic::{Matcher, TopicTable, is_literal};

use super::direct::DirectBindings;

/// The bindings of one topic exchange.
#[derive(Clone, Debug)]
pub(crate) struct TopicBindings {
    literals: DirectBindings,
    /// The target of each token; `None` for tokens without a binding.
    targets: Vec<Option<Target>>,
    /// The token of each target, and how many wildcard bindings name it.
    tokens: Map<Target, (u32, u32)>,
    /// Tokens that no table knows any more.
    free: Vec<u32>,
    /// Tokens without a binding that the present table may still know: giving them to another
    /// target now would route its messages by the old patterns.
    released: Vec<u32>,
    table: Option<Arc<TopicTable>>,
}

impl TopicBindings {
    /// No bindings; keys hash with `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            literals: DirectBindings::new(seed),
            targets: Vec::new(),
            tokens: seeded_map(seed),
            free: Vec::new(),
            released: Vec::new(),
            table: None,
        }
    }

    /// Adds a binding. One with a wildcard works from the next table on.
    pub(crate) fn bind(&mut self, key: &Arc<[u8]>, target: Target) {
        if is_literal(key) {
            self.literals.bind(key, target);
        } else if let Some((_, bindings)) = self.tokens.get_mut(&target) {
            *bindings += 1;
        } else {
            let token = self.free.pop().unwrap_or(self.targets.len() as u32);
            if token as usize == self.targets.len() {
                self.targets.push(None);
            }
            self.targets[token as usize] = Some(target);
            self.tokens.insert(target, (token, 1));
        }
    }

    /// Takes a binding away. The last one of a target works at once, others from the next table.
    pub(crate) fn unbind(&mut self, key: &[u8], target: Target) {
        if is_literal(key) {
            self.literals.unbind(key, target);
            return;
        }
        let Some((token, bindings)) = self.tokens.get_mut(&target) else {
            return;
        };
        *bindings -= 1;
        if *bindings == 0 {
            let token = *token;
            self.tokens.remove(&target);
            self.targets[token as usize] = None;
            self.released.push(token);
        }
    }

    /// Takes a newer table, which knows no token without a binding.
    pub(crate) fn set_table(&mut self, table: Arc<TopicTable>) {
        self.table = Some(table);
        self.free.append(&mut self.released);
    }

    /// The present table.
    pub(crate) fn table(&self) -> Option<&Arc<TopicTable>> {
        self.table.as_ref()
    }

    /// The token that stands for `target` in the table.
    pub(crate) fn token(&self, target: Target) -> Option<u32> {
        self.tokens.get(&target).map(|(token, _)| *token)
    }

    /// Reports the targets of `key`; one may come several times.
    #[inline]
    pub(crate) fn route(&self, matcher: &mut Matcher, key: &[u8], found: &mut impl FnMut(Target)) {
        self.literals.route(key, found);
        if let Some(table) = &self.table {
            matcher.matches(table, key, &mut |token| {
                if let Some(Some(target)) = self.targets.get(token as usize) {
                    found(*target);
                }
            });
        }
    }
}
