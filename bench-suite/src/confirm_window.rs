//! The publishes that the broker has not confirmed yet.

use std::collections::VecDeque;

use crate::fault::Fault;

/// Unconfirmed publishes of a channel in confirm mode. Its size is bounded by who publishes.
#[derive(Debug)]
pub(crate) struct ConfirmWindow {
    /// The delivery tag of the oldest publish in `confirmed`; tags begin at 1.
    oldest: u64,
    /// Whether a publish is confirmed, while an older one is not.
    confirmed: VecDeque<bool>,
    unconfirmed: u64,
}

impl ConfirmWindow {
    pub(crate) const fn new() -> Self {
        Self { oldest: 1, confirmed: VecDeque::new(), unconfirmed: 0 }
    }

    /// How many publishes wait for their confirm.
    pub(crate) const fn unconfirmed(&self) -> u64 {
        self.unconfirmed
    }

    /// Notes `count` new publishes.
    pub(crate) fn publish(&mut self, count: u64) {
        self.confirmed.extend((0..count).map(|_| false));
        self.unconfirmed += count;
    }

    /// Takes a `basic.ack`. A tag that does not wait is a fault: confirmed twice, or never
    /// published. An ack of several may repeat what came one by one, but must bring something new.
    pub(crate) fn confirm(&mut self, delivery_tag: u64, multiple: bool) -> Result<(), Fault> {
        let strange = || Fault::Messages(format!("publish {delivery_tag} was not unconfirmed"));
        let index = delivery_tag.checked_sub(self.oldest).ok_or_else(strange)? as usize;
        let first = if multiple { 0 } else { index };
        if index >= self.confirmed.len() || self.confirmed[index] {
            return Err(strange());
        }
        for confirmed in self.confirmed.range_mut(first..=index) {
            self.unconfirmed -= u64::from(!*confirmed);
            *confirmed = true;
        }
        while self.confirmed.front() == Some(&true) {
            self.confirmed.pop_front();
            self.oldest += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirms_come_one_by_one_together_and_out_of_order() {
        let mut window = ConfirmWindow::new();
        window.publish(10);
        window.confirm(3, false).unwrap();
        window.confirm(1, false).unwrap();
        assert_eq!(window.unconfirmed(), 8);
        window.confirm(5, true).unwrap();
        assert_eq!((window.unconfirmed(), window.oldest), (5, 6));
        window.confirm(10, true).unwrap();
        assert_eq!((window.unconfirmed(), window.confirmed.len()), (0, 0));
        window.publish(1);
        window.confirm(11, false).unwrap();
        assert_eq!(window.unconfirmed(), 0);
    }

    #[test]
    fn a_confirm_of_nothing_is_a_fault() {
        let mut window = ConfirmWindow::new();
        window.publish(3);
        assert!(window.confirm(4, false).is_err(), "never published");
        assert!(window.confirm(0, true).is_err(), "tags begin at 1");
        window.confirm(2, false).unwrap();
        assert!(window.confirm(2, false).is_err(), "twice, while an older one waits");
        window.confirm(1, false).unwrap();
        assert!(window.confirm(1, true).is_err(), "twice");
        assert_eq!(window.unconfirmed(), 1);
    }
}
