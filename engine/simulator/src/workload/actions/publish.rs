//! Publishing to the lasting queues.

use leveret_amqp::encoder::{Publish, encode_content};

use crate::identity::Identity;
use crate::workload::oracle::Oracle;
use crate::workload::random_client::RandomClient;
use crate::workload::topology::ROUTES;
use crate::world::World;

impl RandomClient {
    /// Publishes a few messages by the same route or by several.
    pub(crate) fn publish_some(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
        at: usize,
        confirm: bool,
    ) -> String {
        let count = world.random.between(1, 6);
        let mut route = world.random.pick(&ROUTES);
        for _ in 0..count {
            if world.random.chance(30) {
                route = world.random.pick(&ROUTES);
            }
            let mandatory = world.random.chance(30);
            let (exchange, key, queues) = route;
            let identity = self.publish(world, at, exchange, key, mandatory);
            oracle.published(identity, Some(queues), mandatory, confirm);
        }
        format!(
            "publishes {count} on {} up to {}",
            self.channels[at].uid, self.channels[at].published
        )
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
        let channel = &mut self.channels[at];
        channel.published += 1;
        let identity = Identity { publisher: channel.uid, sequence: channel.published };
        let method = Publish {
            channel: channel.number,
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            mandatory,
            immediate: false,
        };
        let mut out = Vec::new();
        // Sometimes cuts the body into smaller frames than necessary.
        let frame_max = world.random.pick(&[self.frame_max, self.frame_max, 600]);
        encode_content(&mut out, method, &[0x10, 0, 2], &identity.body(size), frame_max);
        world.write(self.connection.socket, &out);
        identity
    }
}
