//! All bindings, by identity, by source and by target.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::object::{Binding, Target};
use crate::id::{ExchangeId, Map, seeded_map};

/// Finds the bindings of an object without looking at any other.
#[derive(Debug)]
pub(super) struct BindingIndex {
    numbers: Map<Arc<Binding>, u32>,
    /// By number.
    bindings: Vec<Option<Arc<Binding>>>,
    free: Vec<u32>,
    by_source: Map<ExchangeId, BTreeSet<u32>>,
    by_target: Map<Target, BTreeSet<u32>>,
}

impl BindingIndex {
    /// No bindings.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            numbers: seeded_map(seed),
            bindings: Vec::new(),
            free: Vec::new(),
            by_source: seeded_map(seed),
            by_target: seeded_map(seed),
        }
    }

    /// How many bindings there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The binding that is the same as this one.
    pub(super) fn get(&self, binding: &Binding) -> Option<&Arc<Binding>> {
        self.numbers.get_key_value(binding).map(|(binding, _)| binding)
    }

    /// Whether an exchange is the source of any binding.
    pub(super) fn is_source(&self, exchange: ExchangeId) -> bool {
        self.by_source.contains_key(&exchange)
    }

    /// Adds a binding that is not there yet.
    pub(super) fn insert(&mut self, binding: &Arc<Binding>) {
        let number = self.free.pop().unwrap_or(self.bindings.len() as u32);
        if number as usize == self.bindings.len() {
            self.bindings.push(None);
        }
        self.bindings[number as usize] = Some(Arc::clone(binding));
        self.by_source.entry(binding.source).or_default().insert(number);
        self.by_target.entry(binding.target).or_default().insert(number);
        self.numbers.insert(Arc::clone(binding), number);
    }

    /// Takes a binding away; `None` if it is not there.
    pub(super) fn remove(&mut self, binding: &Binding) -> Option<Arc<Binding>> {
        let (binding, number) = self.numbers.remove_entry(binding)?;
        self.bindings[number as usize] = None;
        self.free.push(number);
        remove_number(&mut self.by_source, &binding.source, number);
        remove_number(&mut self.by_target, &binding.target, number);
        Some(binding)
    }

    /// Takes all bindings from an exchange away.
    pub(super) fn remove_source(&mut self, exchange: ExchangeId) -> Vec<Arc<Binding>> {
        let numbers = self.by_source.get(&exchange).cloned().unwrap_or_default();
        self.remove_numbers(&numbers)
    }

    /// Takes all bindings to a queue or exchange away.
    pub(super) fn remove_target(&mut self, target: Target) -> Vec<Arc<Binding>> {
        let numbers = self.by_target.get(&target).cloned().unwrap_or_default();
        self.remove_numbers(&numbers)
    }

    fn remove_numbers(&mut self, numbers: &BTreeSet<u32>) -> Vec<Arc<Binding>> {
        let bindings = numbers.iter().filter_map(|number| self.bindings[*number as usize].clone());
        let bindings: Vec<_> = bindings.collect();
        for binding in &bindings {
            self.remove(binding);
        }
        bindings
    }
}

fn remove_number<K: Eq + std::hash::Hash>(index: &mut Map<K, BTreeSet<u32>>, key: &K, number: u32) {
    if let Some(numbers) = index.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            index.remove(key);
        }
    }
}
