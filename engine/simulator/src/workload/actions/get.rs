//! Getting one message.

use leveret_amqp::method::BasicGet;

use crate::workload::channel_view::{Source, Waiting};
use crate::workload::random_client::Agent;
use crate::world::World;

impl Agent {
    pub(super) fn get(
        &mut self,
        world: &mut World,
        at: usize,
        source: Source,
        no_ack: bool,
    ) -> String {
        let seat = &mut self.seats[at];
        self.client.send(world, seat.number, &BasicGet { queue: &source.name(), no_ack });
        let said = format!("gets from {source:?} on {} (no-ack {no_ack})", seat.uid);
        seat.waiting = Waiting::Get(source, no_ack);
        said
    }
}
