//! Declaring, filling, emptying and deleting queues and exchanges.

use leveret_amqp::TableRef;
use leveret_amqp::method::{ExchangeDeclare, ExchangeDelete, QueueDeclare, QueuePurge};

use super::consume::CONSUMERS_MAX;
use crate::client::methods::{bind_queue, declare_exchange, delete_queue};
use crate::workload::channel_view::{Source, Waiting};
use crate::workload::oracle::Oracle;
use crate::workload::random_client::RandomClient;
use crate::workload::topology::PASSING_QUEUES;
use crate::world::World;

impl RandomClient {
    /// Declares, fills, empties or deletes a short-lived queue or exchange.
    pub(crate) fn churn(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
        at: usize,
    ) -> Option<String> {
        let queue = format!("passing-{}", world.random.index(PASSING_QUEUES));
        let exchange = format!("passing-x{}", world.random.index(2));
        let number = self.channels[at].number;
        let no_ack = world.random.chance(50);
        let kind = world.random.below(12);
        match kind {
            0..=2 => {
                let exclusive = world.random.chance(20);
                let auto_delete = world.random.chance(40);
                let durable = world.random.chance(40);
                let declare =
                    QueueDeclare { durable, exclusive, auto_delete, ..QueueDeclare::named(&queue) };
                self.connection.send(world, number, &declare);
            }
            3 => self.connection.send(world, number, &delete_queue(&queue)),
            4 => self.connection.send(world, number, &QueuePurge { queue: &queue, nowait: false }),
            5 => {
                let kind = world.random.pick(&["fanout", "topic"]);
                let declare = ExchangeDeclare {
                    auto_delete: world.random.chance(50),
                    durable: world.random.chance(50),
                    ..declare_exchange(&exchange, kind, TableRef::EMPTY)
                };
                self.connection.send(world, number, &declare);
            }
            6 => self.connection.send(world, number, &bind_queue(&queue, &exchange, "#")),
            7 => {
                let delete = ExchangeDelete { exchange: &exchange, if_unused: true, nowait: false };
                self.connection.send(world, number, &delete);
            }
            8 => return Some(self.get(world, at, Source::Passing(queue), no_ack)),
            9 if self.channels[at].consumers.len() < CONSUMERS_MAX => {
                return Some(self.consume(world, at, Source::Passing(queue), no_ack));
            }
            9 => return self.cancel(world, at),
            _ => {
                let mandatory = world.random.chance(30);
                let identity = self.publish(world, at, "", &queue, mandatory);
                oracle.published(identity, None, mandatory, false);
                return Some(format!("publishes to {queue}"));
            }
        }
        self.channels[at].waiting = Waiting::Answer;
        Some(format!("churns {queue} and {exchange} ({kind})"))
    }
}
