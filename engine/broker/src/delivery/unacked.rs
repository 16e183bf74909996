//! The deliveries of a channel that its client has not settled.
//!
//! ```text
//!   tags     1 2 3 4 5 │ 8 9 │ 10 11 12 13 …
//!   numbers  1 2 3 4 5 │ 1 2 │  6  7  8  9 …        a run: one source, both without a gap
//!            └─ older ───────┘ └── newest
//! ```
//! Deliveries of one source come in long runs and are usually settled from the front. So a run
//! costs one entry however long it is, and settling it costs one mail to the home of its queue.

use std::collections::BTreeMap;

use crate::id::{QueueId, ShardId};
use crate::queue::terms::{Deliveries, Holder};

/// Where a delivery came from, and where its settlement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The queue.
    pub queue: QueueId,
    /// Where that queue lives.
    pub home: ShardId,
    /// The consumer or getter, as its queue numbers them.
    pub holder: Holder,
    /// It counts against the channel-wide limit: a consumer got it, not `basic.get`.
    pub counted: bool,
}

/// Deliveries of one source under consecutive tags and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where they came from.
    pub source: Source,
    first_tag: u64,
    first_number: u64,
    count: u64,
}

/// The unsettled deliveries of a channel by delivery tag.
#[derive(Debug, Default)]
pub struct Unacked {
    /// By first tag; all tags are below those of the newest run.
    older: BTreeMap<u64, Run>,
    /// The run that new deliveries continue. `None` after it was settled, even if older ones are
    /// left.
    newest: Option<Run>,
}

impl Run {
    /// How many deliveries it has; at least one.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The deliveries by the numbers of their queue.
    pub fn deliveries(&self) -> Deliveries {
        let Self { source, first_number: first, count, .. } = *self;
        Deliveries { holder: source.holder, first, count }
    }

    fn last_tag(&self) -> u64 {
        self.first_tag + (self.count - 1)
    }

    fn contains(&self, tag: u64) -> bool {
        self.first_tag <= tag && tag <= self.last_tag()
    }

    /// Cuts the first `count` deliveries off. There must be more: no run is empty.
    fn split_off_front(&mut self, count: u64) -> Self {
        debug_assert!(count < self.count);
        let front = Self { count, ..*self };
        self.first_tag += count;
        self.first_number += count;
        self.count -= count;
        front
    }
}

impl Unacked {
    /// Adds a delivery under a tag above all earlier ones.
    #[inline(always)]
    pub fn push(&mut self, tag: u64, source: Source, number: u64) {
        self.push_many(tag, source, number, 1);
    }

    /// Adds `count` deliveries of one source, at least one, the first under this tag and number.
    #[inline(always)]
    pub fn push_many(&mut self, tag: u64, source: Source, number: u64, count: u64) {
        // A source's numbers follow each other. Its tags skip if a delivery without ack came
        // between; one with ack, of another source, is the newest run then.
        if let Some(newest) = &mut self.newest
            && newest.first_number + newest.count == number
            && newest.first_tag + newest.count == tag
            && newest.source == source
        {
            newest.count += count;
            return;
        }
        self.append(Run { source, first_tag: tag, first_number: number, count });
    }

    /// Whether the delivery is unsettled.
    pub fn contains(&self, tag: u64) -> bool {
        self.newest.is_some_and(|newest| newest.contains(tag)) || self.older_with(tag).is_some()
    }

    /// Takes one delivery out.
    #[inline]
    pub fn take(&mut self, tag: u64) -> Option<Run> {
        // The common case: acks one by one, oldest first, of a run that goes on growing.
        if let Some(newest) = &mut self.newest
            && newest.first_tag == tag
            && newest.count > 1
        {
            return Some(newest.split_off_front(1));
        }
        self.take_out(tag)
    }

    fn take_out(&mut self, tag: u64) -> Option<Run> {
        let run = match self.newest {
            Some(newest) if newest.contains(tag) => {
                self.newest = None;
                newest
            }
            _ => {
                let run = self.older_with(tag)?;
                self.older.remove(&run.first_tag)?
            }
        };
        // The parts on both sides of the delivery go back, lower tags first: the last one put back
        // may become the newest run again.
        let mut rest = run;
        if tag > run.first_tag {
            self.put_back(rest.split_off_front(tag - run.first_tag));
        }
        if tag == run.last_tag() {
            return Some(rest);
        }
        let one = rest.split_off_front(1);
        self.put_back(rest);
        Some(one)
    }

    /// Takes the oldest run out, or the part of it with tags up to `tag`. `None` if the oldest
    /// delivery has a higher tag.
    #[inline]
    pub fn take_through(&mut self, tag: u64) -> Option<Run> {
        if !self.older.is_empty() {
            return self.take_older_through(tag);
        }
        let newest = self.newest.as_mut().filter(|newest| newest.first_tag <= tag)?;
        if newest.last_tag() <= tag {
            return self.newest.take();
        }
        Some(newest.split_off_front(tag - newest.first_tag + 1))
    }

    /// Puts a run back that was taken out, or a part of it.
    pub fn put_back(&mut self, run: Run) {
        let last = self.newest.or_else(|| self.older.last_key_value().map(|(_, run)| *run));
        if last.is_none_or(|last| last.first_tag < run.first_tag) {
            self.append(run);
        } else {
            self.older.insert(run.first_tag, run);
        }
    }

    fn append(&mut self, run: Run) {
        if let Some(before) = self.newest.replace(run) {
            self.older.insert(before.first_tag, before);
        }
    }

    fn older_with(&self, tag: u64) -> Option<Run> {
        let (_, run) = self.older.range(..=tag).next_back()?;
        run.contains(tag).then_some(*run)
    }

    fn take_older_through(&mut self, tag: u64) -> Option<Run> {
        let (first_tag, mut run) = self.older.pop_first()?;
        if run.last_tag() <= tag {
            return Some(run);
        }
        let taken = (first_tag <= tag).then(|| run.split_off_front(tag - first_tag + 1));
        self.older.insert(run.first_tag, run);
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(holder: u32) -> Source {
        let (queue, home) = (QueueId::default(), ShardId(0));
        Source { queue, home, holder: Holder(holder), counted: true }
    }

    /// The deliveries of a run: tag, holder and number.
    fn spelled(run: Run) -> impl Iterator<Item = (u64, (u32, u64))> {
        let Holder(holder) = run.source.holder;
        (0..run.count()).map(move |nth| (run.first_tag + nth, (holder, run.first_number + nth)))
    }

    fn runs(unacked: &Unacked) -> impl Iterator<Item = Run> {
        unacked.older.values().copied().chain(unacked.newest)
    }

    #[test]
    fn deliveries_in_order_are_one_run() {
        let mut unacked = Unacked::default();
        for tag in 1..=1000 {
            unacked.push(tag, source(0), tag + 7);
        }
        assert_eq!(runs(&unacked).count(), 1);
        let taken = unacked.take_through(100).unwrap();
        assert_eq!(taken.deliveries(), Deliveries { holder: Holder(0), first: 8, count: 100 });
        assert_eq!(unacked.take_through(100), None);
        assert_eq!(unacked.take_through(u64::MAX).unwrap().count(), 900);
        assert_eq!(unacked.take_through(u64::MAX), None);
    }

    #[test]
    fn an_older_run_can_be_cut_when_the_newest_is_gone() {
        let mut unacked = Unacked::default();
        for tag in 1..=5 {
            unacked.push(tag, source(u32::from(tag > 3)), tag);
        }
        for tag in [4, 5, 2] {
            assert_eq!(unacked.take(tag).map(|run| run.count()), Some(1));
        }
        unacked.push(6, source(1), 6);
        let rest = std::iter::from_fn(|| unacked.take_through(6)).flat_map(spelled);
        assert_eq!(rest.map(|(tag, _)| tag).collect::<Vec<_>>(), [1, 3, 6]);
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(
            steps in prop::collection::vec((0u8..6, 0u64..200, 0u32..2), 0..600),
        ) {
            let mut real = Unacked::default();
            let mut model = BTreeMap::new();
            let mut put_aside = Vec::new();
            let (mut last_tag, mut numbers) = (0, [0u64; 2]);
            for (step, pick, holder) in steps {
                match step {
                    0..=2 => {
                        // Now and then a tag goes to a consumer that does not acknowledge.
                        last_tag += 1 + pick / 180;
                        let number = &mut numbers[holder as usize];
                        real.push(last_tag, source(holder), *number);
                        model.insert(last_tag, (holder, *number));
                        *number += 1;
                    }
                    3 => {
                        let taken = real.take(pick);
                        let taken: Vec<_> = taken.into_iter().flat_map(spelled).collect();
                        let expected = model.remove_entry(&pick);
                        prop_assert_eq!(&taken, &Vec::from_iter(expected));
                    }
                    4 => while let Some(run) = real.take_through(pick) {
                        for (tag, delivery) in spelled(run) {
                            prop_assert!(tag <= pick);
                            prop_assert_eq!(model.pop_first(), Some((tag, delivery)));
                        }
                        if holder == 0 {
                            put_aside.push(run);
                        }
                    }
                    _ => for run in put_aside.drain(..) {
                        real.put_back(run);
                        model.extend(spelled(run));
                    }
                }
                prop_assert_eq!(real.contains(pick), model.contains_key(&pick));
                let first = model.first_key_value().map(|(tag, _)| *tag);
                prop_assert!(first.is_none_or(|first| step != 4 || first > pick));
                let held: Vec<_> = runs(&real).flat_map(spelled).collect();
                prop_assert_eq!(held, Vec::from_iter(model.clone()));
            }
        }
    }
}
