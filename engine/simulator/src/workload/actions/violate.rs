//! Sends something that the broker has to refuse.

use leveret_amqp::method::{BasicAck, BasicGet, QueueDeclare};

use crate::workload::channel_view::Waiting;
use crate::workload::oracle::Oracle;
use crate::workload::random_client::RandomClient;
use crate::world::World;

impl RandomClient {
    /// Violates a rule; the broker has to close the channel.
    pub(crate) fn violate(&mut self, world: &mut World, oracle: &mut Oracle, at: usize) -> String {
        let channel = &mut self.channels[at];
        let number = channel.number;
        oracle.break_channel(channel.uid);
        channel.report_takers_left(oracle);
        channel.suspect = true;
        channel.waiting = Waiting::Refusal;
        let kind = world.random.below(5);
        match kind {
            0 => {
                let ack = BasicAck { delivery_tag: 1 << 40, multiple: world.random.chance(50) };
                self.connection.send(world, number, &ack);
            }
            1 => {
                let get = BasicGet { queue: "nowhere", no_ack: true };
                self.connection.send(world, number, &get);
            }
            2 => {
                let declare =
                    QueueDeclare { passive: true, durable: true, ..QueueDeclare::named("nowhere") };
                self.connection.send(world, number, &declare);
            }
            3 => {
                let declare =
                    QueueDeclare { auto_delete: true, ..QueueDeclare::named("lasting-0") };
                self.connection.send(world, number, &declare);
            }
            _ => {
                let identity = self.publish(world, at, "no-exchange", "k", true);
                oracle.published(identity, Some(&[]), false, false);
            }
        }
        format!("errs on {} ({kind})", self.channels[at].uid)
    }
}
