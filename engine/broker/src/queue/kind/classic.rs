//! The classic queue: each decision becomes a step, which applies at once.

use crate::id::WallTime;
use crate::queue::state::Placed;
use crate::queue::state::{State, none, stored};
use crate::queue::step::Step;
use crate::queue::terms::{Deliveries, Holder};
use crate::storage::store::{MessageId, Where};

use super::RecoveredMessage;

/// A queue without replicas: no step waits for another shard.
#[derive(Debug, Default)]
pub struct Classic {
    state: State,
}

impl Classic {
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn relocate(&mut self, index: usize, location: Where) {
        self.state.relocate(index, location);
    }

    pub(super) fn relocate_at(&mut self, position: u64, location: Where) {
        self.state.relocate_at(position, location);
    }

    #[inline(always)]
    pub(super) fn accept(&mut self, message: MessageId, at: WallTime) {
        let position = self.state.next_position();
        let step = Step::Enqueue { position, count: 1, at, redelivered: false };
        self.state.apply(step, std::iter::once(Where::Store(message)), |_| {});
    }

    #[inline(always)]
    pub(super) fn hand_over(&mut self, holder: Holder, messages: &[MessageId]) -> u64 {
        let step = Step::HandOver { holder, count: messages.len() as u64 };
        let effect = self.state.apply(step, stored(messages), |_| {});
        effect.first_delivery.unwrap_or_default()
    }

    #[inline(always)]
    pub(super) fn pass_through(&mut self, count: u64) {
        self.state.apply(Step::PassThrough { count }, none(), |_| {});
    }

    pub(super) fn recover(
        &mut self,
        messages: impl Iterator<Item = RecoveredMessage>,
        next: u64,
        at: WallTime,
    ) {
        for RecoveredMessage { position, location, redelivered } in messages {
            let step = Step::Enqueue { position, count: 1, at, redelivered };
            self.state.apply(step, std::iter::once(location), |_| {});
        }
        // Messages behind the last recovered one may have arrived and left before the restart.
        let count = next.saturating_sub(self.state.next_position());
        self.pass_through(count);
    }

    #[inline(always)]
    pub(super) fn check_out(
        &mut self,
        holder: Option<Holder>,
        count: u64,
        left: impl FnMut(&Placed),
    ) -> Option<u64> {
        let from = self.front_position();
        self.state.apply(Step::CheckOut { from, count, holder }, none(), left).first_delivery
    }

    #[inline(always)]
    pub(super) fn settle(&mut self, deliveries: Deliveries, left: impl FnMut(&Placed)) -> u64 {
        self.state.apply(Step::Settle(deliveries), none(), left).count
    }

    pub(super) fn requeue(&mut self, deliveries: Deliveries, at: WallTime) -> u64 {
        self.state.apply(Step::Requeue { deliveries, at }, none(), |_| {}).count
    }

    pub(super) fn drop_front(&mut self, count: u64, left: impl FnMut(&Placed)) {
        if count > 0 {
            let from = self.front_position();
            self.state.apply(Step::Drop { from, count }, none(), left);
        }
    }

    pub(super) fn clear(&mut self, left: impl FnMut(&Placed)) {
        self.state.apply(Step::Clear, none(), left);
    }

    pub(super) fn held_by(&self, holder: Holder) -> Deliveries {
        let next = self.state.next_delivery(holder);
        let first = self.state.held_by(holder).next().unwrap_or(next);
        Deliveries { holder, first, count: next - first }
    }

    #[inline(always)]
    fn front_position(&self) -> u64 {
        self.state.front().map_or(0, |front| front.position)
    }
}
