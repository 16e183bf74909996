//! Requeueing all unacknowledged deliveries of a channel.

use leveret_amqp::method::BasicRecover;

use crate::workload::channel_view::Waiting;
use crate::workload::oracle::{Oracle, Settlement};
use crate::workload::random_client::RandomClient;
use crate::world::World;

impl RandomClient {
    pub(super) fn recover(&mut self, world: &mut World, oracle: &mut Oracle, at: usize) -> String {
        let channel = &mut self.channels[at];
        self.connection.send(world, channel.number, &BasicRecover { requeue: true });
        channel.settled(oracle, u64::MAX - 1, true, Settlement::Requeue);
        channel.waiting = Waiting::Recover;
        format!("recovers on {}", channel.uid)
    }
}
