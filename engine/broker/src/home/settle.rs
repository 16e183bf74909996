//! Deliveries end: acknowledged, rejected or put back.

use crate::delivery::outputs::Outputs;
use crate::id::QueueId;
use crate::queue::state::Placed;
use crate::queue::terms::{Deliveries, Holder, Settlement};
use crate::turn::Turn;

use super::leaving::Reason;
use super::{Home, OpenQueue};

impl Home {
    /// Ends deliveries as their client wishes. `serve` is false while more of the same method
    /// follows: what returns together is in its places before any consumer is served.
    #[inline(always)]
    pub fn settle(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        id: QueueId,
        deliveries: Deliveries,
        settlement: Settlement,
        serve: bool,
    ) {
        if let Some(mut queue) = self.open(turn, out, id) {
            queue.settle(&deliveries, settlement, serve);
        }
    }
}

impl OpenQueue<'_> {
    #[inline(always)]
    fn settle(&mut self, deliveries: &Deliveries, settlement: Settlement, serve: bool) {
        let settled = if settlement == Settlement::Requeue {
            self.queue.kind.requeue(*deliveries, self.turn.wall) as u32
        } else {
            let is_ack = settlement == Settlement::Ack;
            let reason = if is_ack { Reason::Acknowledged } else { Reason::Rejected };
            let mut departures = self.home.departures(self.queue.log_id, reason, self.turn.now);
            let left = |message: &Placed| departures.leave_placed(message);
            let settled = self.queue.kind.settle(*deliveries, left);
            self.queue.counts.acknowledged += if is_ack { settled } else { 0 };
            settled as u32
        };
        if settled == 0 {
            return;
        }
        self.queue.consumers.settled(deliveries.holder, settled);
        if serve && !self.queue.kind.is_empty() {
            self.pump();
        }
    }

    /// All messages of a holder return to their places.
    pub(super) fn requeue_all(&mut self, holder: Holder) {
        let deliveries = self.queue.kind.held_by(holder);
        let returned = self.queue.kind.requeue(deliveries, self.turn.wall) as u32;
        if returned > 0 {
            self.queue.consumers.settled(holder, returned);
        }
    }
}
