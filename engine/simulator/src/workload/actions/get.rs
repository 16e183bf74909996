//! Getting one message.

use leveret_amqp::method::BasicGet;

use crate::workload::channel_view::{Source, Waiting};
use crate::workload::random_client::RandomClient;
use crate::world::World;

impl RandomClient {
    pub(super) fn get(
        &mut self,
        world: &mut World,
        at: usize,
        source: Source,
        no_ack: bool,
    ) -> String {
        let channel = &mut self.channels[at];
        self.connection.send(world, channel.number, &BasicGet { queue: &source.name(), no_ack });
        let said = format!("gets from {source:?} on {} (no-ack {no_ack})", channel.uid);
        channel.waiting = Waiting::Get(source, no_ack);
        said
    }
}
