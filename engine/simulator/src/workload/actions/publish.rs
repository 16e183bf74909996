//! Publishing to the lasting queues.

use leveret_amqp::encoder::{Publish, encode_content};

use crate::identity::Identity;
use crate::workload::oracle::Oracle;
use crate::workload::random_client::Agent;
use crate::workload::topology::WAYS;
use crate::world::World;

impl Agent {
    /// Publishes a few messages the same or different ways.
    pub(crate) fn publish_some(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
        at: usize,
        confirm: bool,
    ) -> String {
        let count = world.random.between(1, 6);
        let mut way = world.random.pick(&WAYS);
        for _ in 0..count {
            if world.random.chance(30) {
                way = world.random.pick(&WAYS);
            }
            let mandatory = world.random.chance(30);
            let (exchange, key, queues) = way;
            let identity = self.publish(world, at, exchange, key, mandatory);
            oracle.published(identity, Some(queues), mandatory, confirm);
        }
        format!("publishes {count} on {} up to {}", self.seats[at].uid, self.seats[at].published)
    }

    pub(super) fn publish(
        &mut self,
        world: &mut World,
        at: usize,
        exchange: &str,
        key: &str,
        mandatory: bool,
    ) -> Identity {
        let size_max = world.faults().body_max_bytes();
        let size = self.body_size(&mut world.random, size_max);
        let seat = &mut self.seats[at];
        seat.published += 1;
        let identity = Identity { publisher: seat.uid, sequence: seat.published };
        let method = Publish {
            channel: seat.number,
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            mandatory,
            immediate: false,
        };
        let mut out = Vec::new();
        // Cut smaller than need be, now and then.
        let frame_max = world.random.pick(&[self.frame_max, self.frame_max, 600]);
        encode_content(&mut out, method, &[0x10, 0, 2], &identity.body(size), frame_max);
        world.write(self.client.socket, &out);
        identity
    }
}
