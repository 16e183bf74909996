//! Acknowledging, rejecting and requeueing deliveries.

use leveret_amqp::method::{BasicAck, BasicNack, BasicReject};

use crate::workload::channel_view::{ChannelView, Source};
use crate::workload::oracle::{Oracle, Settlement};
use crate::workload::random_client::RandomClient;
use crate::world::World;

impl RandomClient {
    /// Settles deliveries in any order and in every way.
    pub(crate) fn settle(&mut self, world: &mut World, oracle: &mut Oracle, at: usize) -> String {
        let channel = &mut self.channels[at];
        let tags: Vec<u64> = channel.held.keys().copied().collect();
        let delivery_tag = if world.random.chance(60) { tags[0] } else { world.random.pick(&tags) };
        let multiple = world.random.chance(30);
        let kind = world.random.below(10);
        let number = channel.number;
        let how = match kind {
            0..=5 => {
                self.connection.send(world, number, &BasicAck { delivery_tag, multiple });
                Settlement::Done
            }
            6 => {
                let reject = BasicReject { delivery_tag, requeue: false };
                self.connection.send(world, number, &reject);
                Settlement::Done
            }
            7 => {
                self.connection.send(world, number, &BasicReject { delivery_tag, requeue: true });
                Settlement::Requeue
            }
            8 => {
                let nack = BasicNack { delivery_tag, multiple, requeue: true };
                self.connection.send(world, number, &nack);
                Settlement::Requeue
            }
            _ => {
                let nack = BasicNack { delivery_tag, multiple, requeue: false };
                self.connection.send(world, number, &nack);
                Settlement::Done
            }
        };
        let multiple = multiple && !matches!(kind, 6 | 7);
        channel.settled(oracle, delivery_tag, multiple, how);
        format!("settles {delivery_tag} (multiple {multiple}) on {}: {how:?}", channel.uid)
    }
}

impl ChannelView {
    /// Moves settled deliveries from the channel to the oracle.
    pub(super) fn settled(
        &mut self,
        oracle: &mut Oracle,
        tag: u64,
        multiple: bool,
        how: Settlement,
    ) {
        let settled = if multiple {
            let above = self.held.split_off(&(tag + 1));
            std::mem::replace(&mut self.held, above)
        } else {
            self.held.remove(&tag).into_iter().map(|held| (tag, held)).collect()
        };
        for held in settled.into_values() {
            if let Source::Lasting(queue) = held.source {
                oracle.settled(queue, held.identity, self.uid, how);
            }
        }
    }
}
