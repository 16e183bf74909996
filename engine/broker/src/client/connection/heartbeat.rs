//! Heartbeats of one connection, both ways.

use leveret_amqp::frame::FRAME_END;

use crate::client::backend::Backend;
use crate::id::SECOND_NS;

use super::{Connection, Deadline, Stage};

/// Half intervals without a byte after which a peer counts as dead: between two and three
/// intervals, as in RabbitMQ.
const SILENT_HALVES_MAX: u8 = 5;

/// A heartbeat frame (specification 4.2.7): type 8, channel 0, no payload.
const HEARTBEAT_FRAME: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, FRAME_END];

/// The traffic of a connection as its heartbeat sees it.
#[derive(Debug, Default)]
pub struct Heartbeat {
    /// Bytes have arrived since the last deadline.
    pub received: bool,
    silent_halves: u8,
}

impl Connection {
    /// Starts the heartbeat, if one was agreed on.
    pub(super) fn start_heartbeat(&mut self, backend: &mut Backend) {
        let Some(session) = self.session() else {
            return;
        };
        let half_ns = u64::from(session.opened.heartbeat_s) * SECOND_NS / 2;
        if half_ns > 0 {
            backend.deadlines.arm(backend.turn.now.after(half_ns), (self.id, Deadline::Heartbeat));
        }
    }

    /// Sends a heartbeat if nothing was sent, and cuts a peer that sent nothing for too long.
    pub(super) fn heartbeat_due(&mut self, backend: &mut Backend) {
        let Stage::Running(session) = &self.stage else {
            return;
        };
        if backend.outputs.writers.get(self.id).is_some_and(|writer| !writer.wrote)
            && let Some(writer) = backend.outputs.writers.get_mut(self.id)
        {
            writer.outbox.scratch.extend_from_slice(&HEARTBEAT_FRAME);
        }
        if let Some(writer) = backend.outputs.writers.get_mut(self.id) {
            writer.wrote = false;
        }
        // While we do not read, silence says nothing about the peer.
        let heard = std::mem::take(&mut self.heartbeat.received);
        if heard || self.paused || session.is_blocked() {
            self.heartbeat.silent_halves = 0;
        } else {
            self.heartbeat.silent_halves += 1;
        }
        if self.heartbeat.silent_halves >= SILENT_HALVES_MAX {
            backend.counts.heartbeats_missed += 1;
            return self.cut(backend);
        }
        self.start_heartbeat(backend);
    }
}
