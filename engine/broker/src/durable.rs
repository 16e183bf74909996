//! What waits for the log: confirms of messages that have to be durable first.

use std::collections::VecDeque;

use crate::core::Core;
use crate::id::{ChannelKey, Map, ShardId, seeded_map};
use crate::log::operation::DiskEvent;
use crate::log::{LogEvent, Position};

/// Publishes of channels in confirm mode that this home has in its log and not yet on the disk, in
/// the order of the log.
///
/// A channel hears of its publishes in their order, so one that needs no log waits behind those
/// that do, if they are of its own channel.
#[derive(Debug)]
pub struct Unconfirmed {
    waiting: VecDeque<Waiting>,
    by_channel: Map<ChannelKey, u32>,
}

#[derive(Debug)]
struct Waiting {
    /// The log has to be durable up to here.
    through: Position,
    shard: ShardId,
    channel: ChannelKey,
    count: u32,
}

impl Default for Unconfirmed {
    fn default() -> Self {
        // Keys are made by the broker: no seed is needed.
        Self { waiting: VecDeque::new(), by_channel: seeded_map(0) }
    }
}

impl Unconfirmed {
    /// Publishes that wait, all together.
    pub fn count(&self) -> u64 {
        self.waiting.iter().map(|waiting| u64::from(waiting.count)).sum()
    }
}

impl Core {
    /// Takes what the disk answers.
    pub fn disk(&mut self, event: DiskEvent) {
        let Some(log) = &mut self.log else {
            return;
        };
        match log.handle(event, self.now) {
            LogEvent::None => {}
            LogEvent::Durable => self.confirm_durable(),
            LogEvent::Read(_, _) => {}
            LogEvent::Failed(_) => {}
        }
    }

    fn confirm_durable(&mut self) {}
}
