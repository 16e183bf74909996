//! Deliveries end: acknowledged, rejected or put back.

use crate::delivery::outputs::Outputs;
use crate::id::QueueId;
use crate::queue::terms::{Deliveries, Holder, Settlement};
use crate::turn::Turn;

use super::leaving::Reason;
use super::{Home, OpenQueue};

impl Home {
    /// Ends deliveries as their client wishes. `serve` is false while more of the same method
    /// follows: what returns together is in its places before any consumer is served.
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
            queue.settle(deliveries, settlement, serve);
        }
    }
}

impl OpenQueue<'_> {
    fn settle(&mut self, deliveries: Deliveries, settlement: Settlement, serve: bool) {
        let settled = match settlement {
            Settlement::Ack => self.done_with(deliveries, Reason::Acknowledged),
            Settlement::Reject => self.done_with(deliveries, Reason::Rejected),
            Settlement::Requeue => self.queue.kind.requeue(deliveries, self.turn.wall) as u32,
        };
        if settled == 0 {
            return;
        }
        self.queue.consumers.settled(deliveries.holder, settled);
        if settlement == Settlement::Ack {
            self.queue.counts.acknowledged += u64::from(settled);
        }
        if serve && !self.queue.kind.is_empty() {
            self.pump();
        }
    }

    /// The messages of deliveries leave. Returns how many there were.
    #[inline]
    fn done_with(&mut self, deliveries: Deliveries, reason: Reason) -> u32 {
        let mut departures = self.home.departures(self.queue.log_id, reason, self.turn.now);
        let left = |position, location| departures.leave_from(position, location);
        self.queue.kind.settle(deliveries, left) as u32
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
