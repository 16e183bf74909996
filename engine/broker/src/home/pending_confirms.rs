//! Publishes whose confirm waits for the log.

use std::collections::VecDeque;

use crate::id::{ChannelKey, Map, ShardId, seeded_map};
use crate::storage::log::Ticket;

/// Publishes of channels in confirm mode that this home has in its log and not yet on the disk, in
/// the order of the log.
///
/// A channel hears of its publishes in their order, so one that needs no log waits behind those of
/// its channel that do.
#[derive(Debug)]
pub(super) struct PendingConfirms {
    waiting: VecDeque<Waiting>,
    /// How many entries of `waiting` each channel has.
    entries: Map<ChannelKey, u32>,
}

/// Publishes of one channel that wait for the same commit.
#[derive(Debug)]
pub(super) struct Waiting {
    /// How far the log has to have come.
    pub(super) through: Ticket,
    /// The shard of the channel.
    pub(super) shard: ShardId,
    pub(super) channel: ChannelKey,
    pub(super) count: u32,
}

impl Default for PendingConfirms {
    fn default() -> Self {
        // Keys are made by the broker: no seed is needed.
        Self { waiting: VecDeque::new(), entries: seeded_map(0) }
    }
}

impl PendingConfirms {
    /// Publishes that wait, all together.
    pub(super) fn count(&self) -> u64 {
        self.waiting.iter().map(|waiting| u64::from(waiting.count)).sum()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The ticket that publishes which need no record of their own have to wait for, because
    /// earlier ones of their channel wait.
    pub(super) fn turn_of(&self, channel: &ChannelKey) -> Option<Ticket> {
        let last = self.waiting.back()?;
        self.entries.contains_key(channel).then_some(last.through)
    }

    /// Adds publishes. Those of one channel in one commit are confirmed together; one of a later
    /// commit must not hold up those before: publishes up to `written` have their record.
    #[inline]
    pub(super) fn push(&mut self, waiting: Waiting, written: Ticket) {
        if let Some(last) = self.waiting.back_mut()
            && last.channel == waiting.channel
            && last.through > written
        {
            last.through = waiting.through;
            last.count += waiting.count;
            return;
        }
        *self.entries.entry(waiting.channel).or_default() += 1;
        self.waiting.push_back(waiting);
    }

    /// Takes the oldest publishes, if the log has come as far as they need.
    pub(super) fn pop(&mut self, confirmed: Ticket) -> Option<Waiting> {
        if self.waiting.front()?.through > confirmed {
            return None;
        }
        let waiting = self.waiting.pop_front()?;
        if let Some(entries) = self.entries.get_mut(&waiting.channel) {
            *entries -= 1;
            if *entries == 0 {
                self.entries.remove(&waiting.channel);
            }
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnectionId, Owner};

    fn publishes(channel: u16, through: u64, count: u32) -> Waiting {
        let owner = Owner { shard: ShardId(1), connection: ConnectionId::default() };
        let channel = ChannelKey { owner, channel, incarnation: 1 };
        Waiting { through: Ticket(through), shard: ShardId(1), channel, count }
    }

    #[test]
    fn a_channel_waits_its_turn_until_all_its_publishes_are_on_the_disk() {
        let mut pending = PendingConfirms::default();
        let (one, two) = (publishes(1, 0, 0).channel, publishes(2, 0, 0).channel);
        pending.push(publishes(1, 5, 2), Ticket(0));
        pending.push(publishes(1, 6, 1), Ticket(0));
        // The sixth was written meanwhile: the next one is of another commit.
        pending.push(publishes(1, 9, 1), Ticket(6));
        assert_eq!((pending.count(), pending.turn_of(&one)), (4, Some(Ticket(9))));
        assert_eq!(pending.turn_of(&two), None);
        assert!(pending.pop(Ticket(5)).is_none());
        assert_eq!(pending.pop(Ticket(6)).map(|waiting| waiting.count), Some(3));
        assert_eq!(pending.turn_of(&one), Some(Ticket(9)));
        assert_eq!(pending.pop(Ticket(9)).map(|waiting| waiting.count), Some(1));
        assert!(pending.is_empty() && pending.turn_of(&one).is_none());
    }
}
