//! What keeps a connection that publishes from reading on, and what its client is told about it.
//!
//! A connection is held back as a whole, and only by what it sends itself: the publish that meets
//! an alarm, a full mesh lane, a full log or a backlog is the last thing read. Connections that
//! only consume are never held back.

use leveret_amqp::method::{ConnectionBlocked, ConnectionUnblocked};

use crate::id::Instant;
use crate::shard::core::Core;
use crate::shard::event::Alarms;

use super::{Connection, Stage};

/// A reason not to read on. Each ends on its own, see [`Connection::relieved`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// The mesh lane towards another home, or that home's log, is backed up.
    Mesh,
    /// The log is backed up.
    Log,
    /// Memory or disk space runs out.
    Alarm,
    /// A queue's consumers are behind and may catch up in a moment; see [`crate::home::backlog`].
    Backlog,
}

impl Block {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Mesh, Self::Log, Self::Alarm, Self::Backlog];
}

/// The reasons that hold a connection back now.
#[derive(Debug, Default)]
pub struct Blocks {
    /// Bit `Block as u8` is set while the reason stands.
    standing: u8,
    since: [Instant; Block::ALL.len()],
}

impl Blocks {
    /// Whether there is any.
    #[inline]
    pub fn any(&self) -> bool {
        self.standing != 0
    }

    /// Since when a reason stands.
    pub fn since(&self, block: Block) -> Option<Instant> {
        (self.standing & block.bit() != 0).then_some(self.since[block as usize])
    }

    /// Adds a reason; false where it stands already.
    pub fn add(&mut self, block: Block, now: Instant) -> bool {
        if self.since(block).is_some() {
            return false;
        }
        self.standing |= block.bit();
        self.since[block as usize] = now;
        true
    }

    /// Ends a reason; false where it did not stand.
    pub fn lift(&mut self, block: Block) -> bool {
        let stood = self.since(block).is_some();
        self.standing &= !block.bit();
        stood
    }
}

impl Block {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Connection {
    /// One reason is over; reads on where it was the last.
    pub fn relieved(&mut self, core: &mut Core, block: Block) {
        let Stage::Running(session) = &mut self.stage else {
            return;
        };
        let stood = session.blocks.lift(block);
        if stood && block == Block::Alarm && std::mem::take(&mut session.told_blocked) {
            self.write(core, 0, &ConnectionUnblocked {});
        }
        self.resume(core);
    }

    /// The first alarm went on, or the last one off.
    ///
    /// As in `RabbitMQ` an alarm that comes meets the next publish; a connection whose publishes
    /// are held back already has had its next publish.
    pub fn alarms_changed(&mut self, core: &mut Core) {
        let Stage::Running(session) = &self.stage else {
            return;
        };
        if !core.alarms.any() {
            self.relieved(core, Block::Alarm);
        } else if session.blocks.any() {
            self.block_by_alarm(core);
        }
    }

    /// Holds a connection back that publishes while there is an alarm, and tells it once, if it
    /// can be told (`RabbitMQ`: `rabbit_reader:maybe_block/1`).
    #[cold]
    pub(super) fn block_by_alarm(&mut self, core: &mut Core) {
        let Stage::Running(session) = &mut self.stage else {
            return;
        };
        if !session.blocks.add(Block::Alarm, core.now) {
            return;
        }
        if session.opened.capabilities.connection_blocked {
            session.told_blocked = true;
            self.write(core, 0, &ConnectionBlocked { reason: reason(core.alarms) });
        }
    }
}

/// `RabbitMQ`'s texts; it names both in the order of its set of alarms, which is alphabetic.
fn reason(alarms: Alarms) -> &'static str {
    match (alarms.disk, alarms.memory) {
        (true, true) => "low on disk & memory",
        (true, false) => "low on disk",
        _ => "low on memory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_and_end_each_on_its_own() {
        let mut blocks = Blocks::default();
        assert!(!blocks.any());
        for (block, now) in Block::ALL.into_iter().zip(1..) {
            assert!(blocks.add(block, Instant(now)));
            assert!(!blocks.add(block, Instant(9)), "it stands since before");
            assert_eq!(blocks.since(block), Some(Instant(now)));
        }
        assert!(blocks.lift(Block::Log) && !blocks.lift(Block::Log));
        assert_eq!(blocks.since(Block::Log), None);
        assert!(blocks.lift(Block::Mesh) && blocks.any());
        assert!(blocks.lift(Block::Alarm) && blocks.lift(Block::Backlog) && !blocks.any());
    }
}
