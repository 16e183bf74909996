//! What keeps a connection that publishes from reading on, and what its client is told about it.
//!
//! A connection is held back as a whole, and only by what it sends itself: the publish that meets
//! an alarm, a full mesh lane, a full log or a backlog is the last thing read. Connections that
//! only consume are never held back.

use leveret_amqp::method::{ConnectionBlocked, ConnectionUnblocked};

use crate::alarms::Alarms;
use crate::client::backend::Backend;
use crate::home::backlog::{HURRY_NS, PATIENCE_NS};
use crate::id::Instant;
use crate::pressure::Pressure;

use super::{Connection, Stage};

/// The reasons that hold a connection back now.
#[derive(Debug, Default)]
pub struct Blocks {
    /// Bit `Pressure as u8` is set while the reason stands.
    standing: u8,
    since: [Instant; Pressure::ALL.len()],
}

impl Blocks {
    /// Whether there is any.
    #[inline]
    pub fn any(&self) -> bool {
        self.standing != 0
    }

    /// Since when a reason stands.
    pub fn since(&self, block: Pressure) -> Option<Instant> {
        (self.standing & bit(block) != 0).then_some(self.since[block as usize])
    }

    /// Adds a reason; false where it stands already.
    pub fn add(&mut self, block: Pressure, now: Instant) -> bool {
        if self.since(block).is_some() {
            return false;
        }
        self.standing |= bit(block);
        self.since[block as usize] = now;
        true
    }

    /// Ends a reason; false where it did not stand.
    pub fn lift(&mut self, block: Pressure) -> bool {
        let stood = self.since(block).is_some();
        self.standing &= !bit(block);
        stood
    }
}

const fn bit(block: Pressure) -> u8 {
    1 << block as u8
}

impl Connection {
    /// One reason has ended; reads on if it was the last.
    pub fn relieved(&mut self, backend: &mut Backend, block: Pressure) {
        let Stage::Running(session) = &mut self.stage else {
            return;
        };
        let stood = session.blocks.lift(block);
        if stood && block == Pressure::Alarm && std::mem::take(&mut session.told_blocked) {
            self.write(backend, 0, &ConnectionUnblocked {});
        }
        self.resume(backend);
    }

    /// The first alarm went on, or the last one off.
    ///
    /// As in `RabbitMQ` an alarm blocks a connection at its next publish. A connection that is
    /// blocked for another reason has made that publish already, so it is blocked now.
    pub fn alarms_changed(&mut self, backend: &mut Backend) {
        let Stage::Running(session) = &self.stage else {
            return;
        };
        if !backend.alarms.any() {
            self.relieved(backend, Pressure::Alarm);
        } else if session.blocks.any() {
            self.block_by_alarm(backend);
        }
    }

    /// Blocks a connection that publishes during an alarm. The client gets `connection.blocked`
    /// once, if it declared that it understands that (`RabbitMQ`: `rabbit_reader:maybe_block/1`).
    #[cold]
    pub(super) fn block_by_alarm(&mut self, backend: &mut Backend) {
        let Stage::Running(session) = &mut self.stage else {
            return;
        };
        if !session.blocks.add(Pressure::Alarm, backend.turn.now) {
            return;
        }
        if session.opened.capabilities.connection_blocked {
            session.told_blocked = true;
            self.write(backend, 0, &ConnectionBlocked { reason: reason(backend.alarms) });
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

impl Connection {
    /// The deadline of a wait for consumers has come. It may be that of an earlier wait: then the
    /// current one goes on.
    pub(super) fn backlog_stays(&mut self, backend: &mut Backend) {
        let Stage::Running(session) = &mut self.stage else {
            return;
        };
        let now = backend.turn.now;
        let since = session.blocks.since(Pressure::Backlog);
        if since.is_some_and(|since| now.since(since) >= PATIENCE_NS) {
            session.hurries_until = now.after(HURRY_NS);
            self.relieved(backend, Pressure::Backlog);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_and_end_each_on_its_own() {
        let mut blocks = Blocks::default();
        assert!(!blocks.any());
        for (block, now) in Pressure::ALL.into_iter().zip(1..) {
            assert!(blocks.add(block, Instant(now)));
            assert!(!blocks.add(block, Instant(9)), "it stands since before");
            assert_eq!(blocks.since(block), Some(Instant(now)));
        }
        assert!(blocks.lift(Pressure::Log) && !blocks.lift(Pressure::Log));
        assert_eq!(blocks.since(Pressure::Log), None);
        assert!(blocks.lift(Pressure::Mesh) && blocks.any());
        assert!(blocks.lift(Pressure::Alarm) && blocks.lift(Pressure::Backlog) && !blocks.any());
    }
}
