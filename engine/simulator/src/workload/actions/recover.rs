//! Requeueing all unacknowledged deliveries of a channel.

use leveret_amqp::method::BasicRecover;

use crate::workload::channel_view::Waiting;
use crate::workload::oracle::{Oracle, Settlement};
use crate::workload::random_client::Agent;
use crate::world::World;

impl Agent {
    pub(super) fn recover(&mut self, world: &mut World, oracle: &mut Oracle, at: usize) -> String {
        let seat = &mut self.seats[at];
        self.client.send(world, seat.number, &BasicRecover { requeue: true });
        seat.settled(oracle, u64::MAX - 1, true, Settlement::Requeue);
        seat.waiting = Waiting::Recover;
        format!("recovers on {}", seat.uid)
    }
}
