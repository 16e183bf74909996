//! Numbers for table slots, with generations that distinguish successive users of a slot.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Gives out slots, the lowest free one first, so that tables stay short.
#[derive(Debug)]
pub(super) struct Slots {
    /// The generation of each slot's present or next user.
    generations: Vec<u32>,
    free: BinaryHeap<Reverse<u32>>,
    count_max: u32,
}

impl Slots {
    /// Slots 0 to `count_max` − 1, all free.
    pub(super) fn new(count_max: u32) -> Self {
        Self { generations: Vec::new(), free: BinaryHeap::new(), count_max }
    }

    /// Marks a slot that is in use already. Slots are reserved in ascending order.
    pub(super) fn reserve(&mut self, slot: u32, generation: u32) {
        while self.generations.len() < slot as usize {
            self.free.push(Reverse(self.generations.len() as u32));
            self.generations.push(0);
        }
        self.generations.push(generation);
    }

    /// A slot and its generation; `None` if all are in use.
    pub(super) fn take(&mut self) -> Option<(u32, u32)> {
        if let Some(Reverse(slot)) = self.free.pop() {
            return Some((slot, self.generations[slot as usize]));
        }
        let slot = self.generations.len() as u32;
        if slot == self.count_max {
            return None;
        }
        self.generations.push(0);
        Some((slot, 0))
    }

    /// How many slots are free.
    pub(super) fn available(&self) -> usize {
        self.count_max as usize - self.generations.len() + self.free.len()
    }

    /// Gives a slot back.
    pub(super) fn release(&mut self, slot: u32) {
        let generation = &mut self.generations[slot as usize];
        *generation = generation.wrapping_add(1);
        self.free.push(Reverse(slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_with_another_generation() {
        let mut slots = Slots::new(2);
        assert_eq!(slots.available(), 2);
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some((0, 0)), Some((1, 0)), None));
        assert_eq!(slots.available(), 0);
        slots.release(1);
        slots.release(0);
        assert_eq!(slots.available(), 2);
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some((0, 1)), Some((1, 1)), None));
    }

    #[test]
    fn reserved_slots_are_not_given_out() {
        let mut slots = Slots::new(5);
        slots.reserve(1, 7);
        slots.reserve(3, 0);
        assert_eq!(slots.available(), 3);
        let taken: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(taken, [(0, 0), (2, 0), (4, 0)]);
        slots.release(1);
        assert_eq!(slots.take(), Some((1, 8)));
    }
}
