//! Bindings by exact key: the direct exchange, and the literal keys of a topic exchange.

use std::sync::Arc;

use crate::catalog::object::Target;
use crate::id::{Map, seeded_map};

use super::targets::Targets;

/// Targets by binding key.
#[derive(Clone, Debug)]
pub(crate) struct DirectBindings {
    targets: Map<Arc<[u8]>, Targets>,
    seed: u64,
}

impl DirectBindings {
    /// No bindings; keys hash with `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self { targets: seeded_map(seed), seed }
    }

    /// Adds a binding.
    pub(crate) fn bind(&mut self, key: &Arc<[u8]>, target: Target) {
        if let Some(targets) = self.targets.get_mut(&**key) {
            targets.add(target, self.seed);
        } else {
            self.targets.insert(Arc::clone(key), Targets::new(target));
        }
    }

    /// Takes a binding away.
    pub(crate) fn unbind(&mut self, key: &[u8], target: Target) {
        if self.targets.get_mut(key).is_some_and(|targets| targets.remove(target)) {
            self.targets.remove(key);
        }
    }

    /// Reports every target of `key`, each once.
    #[inline]
    pub(crate) fn route(&self, key: &[u8], found: &mut impl FnMut(Target)) {
        if let Some(targets) = self.targets.get(key) {
            targets.for_each(found);
        }
    }
}
