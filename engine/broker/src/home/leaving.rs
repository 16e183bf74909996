//! The one door out of a queue, with a reason. A message that the queue held leaves through
//! [`Departures`]; messages that pass through it are only counted, for nothing keeps them.

use crate::id::Instant;
use crate::queue::state::Placed;
use crate::storage::log::{Log, LogId, Place, QueueRef};
use crate::storage::store::{MessageId, Release, Where};

use super::Shared;
use super::counts::HomeCounts;

/// Why a message leaves a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The consumer acknowledged it, or takes messages without acknowledging.
    Acknowledged,
    /// The consumer rejected it without requeueing.
    Rejected,
    /// Its time to live was over.
    Expired,
    /// The queue was over its length limit.
    MaxLength,
    /// It was delivered as often as the queue allows.
    DeliveryLimit,
    /// `queue.purge`.
    Purged,
    /// The queue was deleted.
    Deleted,
    /// Its record in the log cannot be read.
    Lost,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Acknowledged,
        Self::Rejected,
        Self::Expired,
        Self::MaxLength,
        Self::DeliveryLimit,
        Self::Purged,
        Self::Deleted,
        Self::Lost,
    ];

    /// The word for metrics. `RabbitMQ` uses the same ones in `x-death` where it has one.
    pub fn word(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
            Self::Purged => "purged",
            Self::Deleted => "deleted",
            Self::Lost => "lost",
        }
    }

    /// Whether the log has to record that the queue is done with the message. A deleted queue is
    /// unknown after a restart, and the record of a lost message may be readable then.
    fn is_logged(self) -> bool {
        !matches!(self, Self::Deleted | Self::Lost)
    }
}

/// Messages on their way out of one queue, all for one reason.
pub(super) struct Departures<'a> {
    /// The queue's number in the log, if the log records that messages leave it.
    log_id: Option<LogId>,
    release: Release<'a>,
    log: Option<&'a mut Log>,
    now: Instant,
    /// Messages that left for this reason since the start.
    total: &'a mut u64,
}

impl Shared {
    /// Opens the door of a queue that the log knows by `log_id`, if it does.
    #[inline]
    pub(super) fn departures(
        &mut self,
        log_id: Option<LogId>,
        reason: Reason,
        now: Instant,
    ) -> Departures<'_> {
        Departures {
            log_id: log_id.filter(|_| reason.is_logged()),
            release: self.store.releases(),
            log: self.log.as_mut(),
            now,
            total: &mut self.counts.left[reason as usize],
        }
    }
}

impl HomeCounts {
    /// Counts messages that passed through a queue to consumers that acknowledge nothing.
    #[inline(always)]
    pub(super) fn count_passed_through(&mut self, count: u64) {
        self.left[Reason::Acknowledged as usize] += count;
    }
}

impl Departures<'_> {
    /// A message leaves its position; the store knows it.
    #[inline(always)]
    pub(super) fn leave(&mut self, position: u64, message: MessageId) {
        *self.total += 1;
        if let Some(log_id) = self.log_id
            && let Some(place) = self.release.log_entry(message)
            && let Some(log) = &mut self.log
        {
            log.settle(QueueRef { log_id, sequence: position }, place, self.now);
        }
        if let Some(place) = self.release.release(message)
            && let Some(log) = &mut self.log
        {
            log.release(place);
        }
    }

    /// A message leaves, wherever it is.
    #[inline(always)]
    pub(super) fn leave_placed(&mut self, message: &Placed) {
        match message.location {
            Where::Store(id) => self.leave(message.position, id),
            Where::Log(place) => self.leave_log(message.position, place),
        }
    }

    /// A message leaves that only the log has.
    #[inline(never)]
    fn leave_log(&mut self, position: u64, place: Place) {
        *self.total += 1;
        self.release.forgotten();
        let Some(log) = &mut self.log else { return };
        if let Some(log_id) = self.log_id {
            log.settle(QueueRef { log_id, sequence: position }, place, self.now);
        }
        log.release(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_their_order() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{}", reason.word());
        }
    }
}
