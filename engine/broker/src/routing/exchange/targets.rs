//! Sets of binding targets that stay cheap from one member to a hundred thousand.

use crate::catalog::object::Target;
use crate::id::{Map, seeded_map};

/// From this size on a set keeps an index: removing from a shorter list costs no more than a
/// hash would.
const INDEX_FROM: usize = 16;

/// The targets behind one key. Each target carries the number of bindings that name it, for
/// bindings that differ in their arguments only.
#[derive(Clone, Debug)]
pub(crate) enum Targets {
    /// The common case, without another allocation.
    One(Target, u32),
    /// All others.
    Many(Box<TargetSet>),
}

impl Targets {
    /// One binding to `target`.
    pub(super) fn new(target: Target) -> Self {
        Self::One(target, 1)
    }

    /// Adds a binding to `target`.
    pub(super) fn add(&mut self, target: Target, seed: u64) {
        match self {
            Self::One(only, bindings) if *only == target => *bindings += 1,
            Self::One(only, bindings) => {
                let mut set = TargetSet::new(seed);
                set.entries.push((*only, *bindings));
                set.add(target);
                *self = Self::Many(Box::new(set));
            }
            Self::Many(set) => {
                set.add(target);
            }
        }
    }

    /// Takes a binding to `target` away; true if none is left to anything.
    pub(super) fn remove(&mut self, target: Target) -> bool {
        match self {
            Self::One(only, bindings) if *only == target => {
                *bindings -= 1;
                *bindings == 0
            }
            Self::One(..) => false,
            Self::Many(set) => {
                set.remove(target);
                if let [(only, bindings)] = set.entries[..] {
                    *self = Self::One(only, bindings);
                    return false;
                }
                set.is_empty()
            }
        }
    }

    /// All targets, each once.
    #[inline]
    pub(super) fn for_each(&self, found: &mut impl FnMut(Target)) {
        match self {
            Self::One(target, _) => found(*target),
            Self::Many(set) => set.for_each(found),
        }
    }
}

/// A list of targets, indexed once it is long.
#[derive(Clone, Debug)]
pub(crate) struct TargetSet {
    /// Each target once, with the number of bindings that name it (≥ 1).
    entries: Vec<(Target, u32)>,
    /// Where in `entries` a target stands; empty while the list is short.
    positions: Map<Target, u32>,
}

impl TargetSet {
    /// An empty set that hashes with `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self { entries: Vec::new(), positions: seeded_map(seed) }
    }

    /// Adds a binding to `target`; true if it is the first to it.
    pub(super) fn add(&mut self, target: Target) -> bool {
        if let Some(position) = self.position(target) {
            self.entries[position].1 += 1;
            return false;
        }
        self.entries.push((target, 1));
        let count = self.entries.len();
        if !self.positions.is_empty() {
            self.positions.insert(target, count as u32 - 1);
        } else if count >= INDEX_FROM {
            let numbered = self.entries.iter().enumerate();
            self.positions.extend(numbered.map(|(at, (target, _))| (*target, at as u32)));
        }
        true
    }

    /// Takes a binding to `target` away; true if it was the last to it.
    pub(super) fn remove(&mut self, target: Target) -> bool {
        let Some(position) = self.position(target) else {
            return false;
        };
        self.entries[position].1 -= 1;
        if self.entries[position].1 > 0 {
            return false;
        }
        self.entries.swap_remove(position);
        if !self.positions.is_empty() {
            self.positions.remove(&target);
            if let Some((moved, _)) = self.entries.get(position) {
                self.positions.insert(*moved, position as u32);
            }
        }
        true
    }

    /// Whether no binding is left.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All targets, each once.
    #[inline]
    pub(super) fn for_each(&self, found: &mut impl FnMut(Target)) {
        for (target, _) in &self.entries {
            found(*target);
        }
    }

    fn position(&self, target: Target) -> Option<usize> {
        if self.positions.is_empty() {
            return self.entries.iter().position(|(entry, _)| *entry == target);
        }
        self.positions.get(&target).map(|position| *position as usize)
    }
}
