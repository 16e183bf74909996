//! What a publisher waits for, by the tags of its confirms.

use std::collections::VecDeque;

/// Published and not answered, on one channel.
pub(crate) struct Unconfirmed<T> {
    /// The tag of the first one in `waiting`; tags begin with 1.
    first: u64,
    waiting: VecDeque<Option<T>>,
    count: usize,
}

impl<T> Unconfirmed<T> {
    pub(crate) const fn new() -> Self {
        Self { first: 1, waiting: VecDeque::new(), count: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn push(&mut self, item: T) {
        self.waiting.push_back(Some(item));
        self.count += 1;
    }

    /// What a confirm answers; an error where it answers nothing that waits.
    pub(crate) fn settle(&mut self, tag: u64, multiple: bool) -> Result<Vec<T>, String> {
        let Some(at) = tag.checked_sub(self.first).map(|at| at as usize) else {
            return Err(format!("a confirm of {tag}, which was answered before"));
        };
        if at >= self.waiting.len() {
            return Err(format!("a confirm of {tag}, which was not published"));
        }
        let from = if multiple { 0 } else { at };
        let settled: Vec<T> = self.waiting.range_mut(from..=at).filter_map(Option::take).collect();
        if settled.is_empty() {
            return Err(format!("a second confirm of {tag}"));
        }
        self.count -= settled.len();
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
        Ok(settled)
    }

    /// What was not answered.
    pub(crate) fn into_rest(self) -> impl Iterator<Item = T> {
        self.waiting.into_iter().flatten()
    }
}

#[test]
fn each_tag_is_settled_once_in_any_order() {
    let mut all = Unconfirmed::new();
    (1..=6).for_each(|tag| all.push(tag));
    assert_eq!(all.settle(3, false).unwrap(), [3]);
    assert!(all.settle(3, false).is_err(), "answered twice");
    assert_eq!(all.settle(4, true).unwrap(), [1, 2, 4]);
    assert!(all.settle(4, true).is_err() && all.settle(1, false).is_err(), "answered before");
    assert!(all.settle(7, false).is_err() && all.settle(7, true).is_err(), "never published");
    assert_eq!((all.len(), all.into_rest().collect::<Vec<_>>()), (2, vec![5, 6]));
}
