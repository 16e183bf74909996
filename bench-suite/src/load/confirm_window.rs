//! The publishes that have not been confirmed yet.

use std::collections::VecDeque;

use crate::fault::Fault;

/// The unconfirmed publishes of a channel in confirm mode. The publisher limits their number.
#[derive(Debug)]
pub(crate) struct ConfirmWindow {
    /// The delivery tag of the oldest publish in `publishes`; tags begin at 1.
    oldest: u64,
    publishes: VecDeque<Unconfirmed>,
    unconfirmed: u64,
}

#[derive(Debug)]
struct Unconfirmed {
    intended_us: u32,
    /// Confirmed, although an older publish is not.
    confirmed: bool,
}

impl ConfirmWindow {
    pub(crate) const fn new() -> Self {
        Self { oldest: 1, publishes: VecDeque::new(), unconfirmed: 0 }
    }

    /// The number of publishes that wait for their confirm.
    pub(crate) const fn unconfirmed(&self) -> u64 {
        self.unconfirmed
    }

    /// Adds a publish with the time in its stamp.
    #[inline]
    pub(crate) fn publish(&mut self, intended_us: u32) {
        self.publishes.push_back(Unconfirmed { intended_us, confirmed: false });
        self.unconfirmed += 1;
    }

    /// Handles a `basic.ack` and calls `each` with the intended time of each publish that it
    /// confirms.
    ///
    /// A tag that is not waiting is a fault: it was confirmed twice or never published. An ack with
    /// `multiple` may include publishes that were confirmed one by one, but must confirm at least
    /// one more.
    #[inline]
    pub(crate) fn confirm(
        &mut self,
        delivery_tag: u64,
        multiple: bool,
        mut each: impl FnMut(u32),
    ) -> Result<(), Fault> {
        let index = delivery_tag.wrapping_sub(self.oldest) as usize;
        let first = if multiple { 0 } else { index };
        if self.publishes.get(index).is_none_or(|publish| publish.confirmed) {
            return Err(strange(delivery_tag));
        }
        for publish in self.publishes.range_mut(first..=index) {
            if !publish.confirmed {
                publish.confirmed = true;
                self.unconfirmed -= 1;
                each(publish.intended_us);
            }
        }
        while self.publishes.front().is_some_and(|publish| publish.confirmed) {
            self.publishes.pop_front();
            self.oldest += 1;
        }
        Ok(())
    }
}

#[cold]
fn strange(delivery_tag: u64) -> Fault {
    Fault::Messages(format!("the broker confirmed publish {delivery_tag}, which did not wait"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(publishes: u32) -> ConfirmWindow {
        let mut window = ConfirmWindow::new();
        (1..=publishes).for_each(|number| window.publish(10 * number));
        window
    }

    /// The intended times of the publishes that an ack confirms; `None` for a fault.
    fn confirm(window: &mut ConfirmWindow, delivery_tag: u64, multiple: bool) -> Option<Vec<u32>> {
        let mut times = Vec::new();
        window.confirm(delivery_tag, multiple, |intended_us| times.push(intended_us)).ok()?;
        Some(times)
    }

    #[test]
    fn confirms_come_one_by_one_together_and_out_of_order() {
        let mut window = window(10);
        assert_eq!(confirm(&mut window, 3, false), Some(vec![30]));
        assert_eq!(confirm(&mut window, 1, false), Some(vec![10]));
        assert_eq!(window.unconfirmed(), 8);
        assert_eq!(confirm(&mut window, 5, true), Some(vec![20, 40, 50]));
        assert_eq!((window.unconfirmed(), window.oldest), (5, 6));
        assert_eq!(confirm(&mut window, 10, true), Some(vec![60, 70, 80, 90, 100]));
        assert_eq!((window.unconfirmed(), window.publishes.len()), (0, 0));
        window.publish(7);
        assert_eq!(confirm(&mut window, 11, false), Some(vec![7]));
        assert_eq!(window.unconfirmed(), 0);
    }

    #[test]
    fn a_confirm_of_nothing_is_a_fault() {
        let mut window = window(3);
        assert_eq!(confirm(&mut window, 4, false), None, "never published");
        assert_eq!(confirm(&mut window, 0, true), None, "tags begin at 1");
        assert!(confirm(&mut window, 2, false).is_some());
        assert_eq!(confirm(&mut window, 2, false), None, "twice, while an older one waits");
        assert!(confirm(&mut window, 1, false).is_some());
        assert_eq!(confirm(&mut window, 1, true), None, "twice");
        assert_eq!(window.unconfirmed(), 1);
    }
}
