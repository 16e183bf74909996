//! Values handed out under ascending numbers and usually given back in that order.
//!
//! A queue keeps one [`Outstanding`] for each of its consumers. Giving back the oldest value costs
//! O(1), any other O(log n).

use std::collections::VecDeque;

/// Values numbered from 0 in the order of their arrival.
///
/// `entries` is sorted by number. A removed value leaves a hole (`None`) until the hole reaches the
/// front, or until holes outnumber the live values by more than [`SLACK`]. So memory stays within
/// about twice the live values, however long the oldest one is held.
#[derive(Debug)]
pub struct Outstanding<T> {
    entries: VecDeque<(u64, Option<T>)>,
    live: usize,
    next: u64,
}

/// This many holes are never worth a sweep.
const SLACK: usize = 64;

impl<T> Default for Outstanding<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), live: 0, next: 0 }
    }
}

impl<T> Outstanding<T> {
    /// Adds values and returns the number of the first; the others follow it without a gap.
    #[inline]
    pub fn push_many(&mut self, values: impl ExactSizeIterator<Item = T>) -> u64 {
        let first = self.next;
        self.next += values.len() as u64;
        self.live += values.len();
        self.entries.extend((first..).zip(values.map(Some)));
        first
    }

    /// The number of the next value.
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Removes the values of `count` numbers from `first` on; numbers without a value are skipped.
    #[inline]
    pub fn remove_many(&mut self, first: u64, count: u64, mut each: impl FnMut(&T)) {
        if !self.starts_with(first, count) {
            return (first..first + count).for_each(|number| {
                self.remove(number).as_ref().map(&mut each);
            });
        }
        self.live -= count as usize;
        // Looked at where they are: a copy of each costs more than what is done with most of them.
        let values = self.entries.range(..count as usize);
        values.filter_map(|(_, value)| value.as_ref()).for_each(each);
        self.entries.drain(..count as usize);
    }

    /// Whether the oldest values have exactly these numbers, and no entry is a hole.
    #[inline]
    fn starts_with(&self, first: u64, count: u64) -> bool {
        let last = count.checked_sub(1).and_then(|last| self.entries.get(last as usize));
        // Numbers ascend strictly: if the first and the last fit, so do all between.
        self.entries.len() == self.live
            && self.entries.front().is_some_and(|(number, _)| *number == first)
            && last.is_some_and(|(number, _)| *number == first + (count - 1))
    }

    /// Removes the value of this number.
    #[inline]
    pub fn remove(&mut self, number: u64) -> Option<T> {
        if self.entries.front()?.0 != number {
            return self.remove_inside(number);
        }
        // The front is never a hole.
        let (_, value) = self.entries.pop_front()?;
        self.live -= 1;
        if self.entries.len() != self.live {
            self.tidy();
        }
        value
    }

    /// Values held.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no value is held.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Numbers and values in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().filter_map(|(number, value)| Some((*number, value.as_ref()?)))
    }

    #[inline(never)]
    fn remove_inside(&mut self, number: u64) -> Option<T> {
        let index = self.index(number)?;
        let value = self.entries[index].1.take()?;
        self.live -= 1;
        self.tidy();
        Some(value)
    }

    fn index(&self, number: u64) -> Option<usize> {
        let first = self.entries.front()?.0;
        // Only a sweep makes gaps in the numbers, so the guess is usually right.
        let guess = usize::try_from(number.checked_sub(first)?).ok()?;
        match self.entries.get(guess) {
            Some((found, _)) if *found == number => Some(guess),
            _ => self.entries.binary_search_by_key(&number, |(number, _)| *number).ok(),
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
        fn behaves_like_a_sorted_map(steps in prop::collection::vec((0u8..6, 0u64..400), 0..600)) {
            let mut real = Outstanding::default();
            let mut model = BTreeMap::new();
            for (step, pick) in steps {
                match step {
                    0 | 1 => {
                        let number = real.push_many([pick].into_iter());
                        prop_assert!(model.keys().next_back().is_none_or(|last| *last < number));
                        model.insert(number, pick);
                    }
                    2 => prop_assert_eq!(real.remove(pick), model.remove(&pick)),
                    3 => {
                        let values: Vec<u64> = (pick..pick + pick % 9).collect();
                        let first = real.push_many(values.iter().copied());
                        model.extend((first..).zip(values));
                        prop_assert_eq!(real.next(), first + pick % 9);
                    }
                    4 => {
                        let oldest = model.first_key_value().map_or(0, |(number, _)| *number);
                        let first = if pick % 2 == 0 { oldest } else { pick };
                        let mut removed = Vec::new();
                        real.remove_many(first, pick % 7, |value| removed.push(*value));
                        let numbers = first..first + pick % 7;
                        let expected: Vec<_> =
                            numbers.filter_map(|number| model.remove(&number)).collect();
                        prop_assert_eq!(removed, expected);
                    }
                    _ => {
                        while let Some((oldest, value)) = model.pop_first() {
                            prop_assert_eq!(real.remove(oldest), Some(value));
                            if oldest > pick / 2 {
                                break;
                            }
                        }
                    }
                }
                prop_assert_eq!((real.len(), real.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(real.entries.len() <= 2 * real.live + SLACK);
                prop_assert!(real.entries.front().is_none_or(|(_, value)| value.is_some()));
            }
            let left: Vec<_> = real.iter().map(|(key, value)| (key, *value)).collect();
            prop_assert_eq!(left, model.into_iter().collect::<Vec<_>>());
        }
    }
}
