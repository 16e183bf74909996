//! Things handed out under ascending numbers and given back mostly in order.
//!
//! Both ends of a delivery keep one: the channel by delivery tag, the queue by its own delivery
//! number. Oldest-first returns, the rule, cost O(1); any other return O(log n).

use std::collections::VecDeque;

/// Values under strictly ascending keys.
///
/// `entries` is sorted by key; a removed value leaves `None` until it reaches the front or until
/// more than half of the entries (and more than [`SLACK`]) are such holes, so memory stays
/// within twice the live values however long one of them is held back.
#[derive(Debug)]
pub struct Outstanding<T> {
    entries: VecDeque<(u64, Option<T>)>,
    live: usize,
}

/// Holes that are never worth a sweep.
const SLACK: usize = 64;

impl<T> Default for Outstanding<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), live: 0 }
    }
}

impl<T> Outstanding<T> {
    /// Adds a value under a key above all earlier ones.
    pub fn push(&mut self, key: u64, value: T) {
        debug_assert!(self.entries.back().is_none_or(|(last, _)| *last < key));
        self.entries.push_back((key, Some(value)));
        self.live += 1;
    }

    /// The value under `key`.
    pub fn find(&self, key: u64) -> Option<&T> {
        self.entries[self.index(key)?].1.as_ref()
    }

    /// The value under `key`, to be changed.
    pub fn find_mut(&mut self, key: u64) -> Option<&mut T> {
        let index = self.index(key)?;
        self.entries[index].1.as_mut()
    }

    /// Takes the value under `key` out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let index = self.index(key)?;
        let value = self.entries[index].1.take()?;
        self.live -= 1;
        self.tidy();
        Some(value)
    }

    /// Takes the oldest value out if its key is at most `key`.
    pub fn pop_through(&mut self, key: u64) -> Option<(u64, T)> {
        let (oldest, value) = self.entries.front_mut()?;
        if *oldest > key {
            return None;
        }
        // The front is never a hole.
        let taken = (*oldest, value.take()?);
        self.live -= 1;
        self.tidy();
        Some(taken)
    }

    /// The lowest key that holds a value.
    pub fn first_key(&self) -> Option<u64> {
        self.entries.front().map(|(key, _)| *key)
    }

    /// Values held.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no value is held.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Keys and values in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().filter_map(|(key, value)| Some((*key, value.as_ref()?)))
    }

    fn index(&self, key: u64) -> Option<usize> {
        let first = self.entries.front()?.0;
        // Without holes swept out in between, the keys are dense.
        let guess = usize::try_from(key.checked_sub(first)?).ok()?;
        match self.entries.get(guess) {
            Some((found, _)) if *found == key => Some(guess),
            _ => self.entries.binary_search_by_key(&key, |(key, _)| *key).ok(),
        }
    }

    fn tidy(&mut self) {
        while let Some((_, None)) = self.entries.front() {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.live + SLACK {
            self.entries.retain(|(_, value)| value.is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(steps in prop::collection::vec((0u8..4, 0u64..400), 0..600)) {
            let mut real = Outstanding::default();
            let mut model = BTreeMap::new();
            let mut next = 0;
            for (step, pick) in steps {
                match step {
                    0 | 1 => {
                        next += 1 + pick / 300;
                        real.push(next, pick);
                        model.insert(next, pick);
                    }
                    2 => prop_assert_eq!(real.remove(pick), model.remove(&pick)),
                    _ => {
                        let first = model.first_key_value().map(|(key, value)| (*key, *value));
                        let expected = first.filter(|(key, _)| *key <= pick);
                        if let Some((key, _)) = expected {
                            model.remove(&key);
                        }
                        prop_assert_eq!(real.pop_through(pick), expected);
                    }
                }
                prop_assert_eq!(real.len(), model.len());
                prop_assert_eq!(real.first_key(), model.keys().next().copied());
                prop_assert!(real.entries.len() <= 2 * real.live + SLACK);
            }
            let left: Vec<_> = real.iter().map(|(key, value)| (key, *value)).collect();
            prop_assert_eq!(left, model.into_iter().collect::<Vec<_>>());
        }
    }
}
