//! Bindings without a condition: the fanout exchange.

use crate::catalog::object::Target;

use super::targets::TargetSet;

/// All targets of a fanout exchange.
#[derive(Clone, Debug)]
pub(crate) struct FanoutBindings {
    targets: TargetSet,
}

impl FanoutBindings {
    /// No bindings; targets hash with `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self { targets: TargetSet::new(seed) }
    }

    /// Adds a binding.
    pub(crate) fn bind(&mut self, target: Target) {
        self.targets.add(target);
    }

    /// Takes a binding away.
    pub(crate) fn unbind(&mut self, target: Target) {
        self.targets.remove(target);
    }

    /// Reports every target once.
    #[inline]
    pub(crate) fn route(&self, found: &mut impl FnMut(Target)) {
        self.targets.for_each(found);
    }
}
