//! Starting and ending consumers.

use leveret_amqp::TableRef;
use leveret_amqp::method::{BasicCancel, BasicConsume};

use crate::workload::channel_view::{Consumer, Source, Waiting};
use crate::workload::oracle::Oracle;
use crate::workload::random_client::RandomClient;
use crate::workload::topology::{LASTING_QUEUES, may_be_lossy};
use crate::world::World;

/// The most consumers of one channel.
pub(super) const CONSUMERS_MAX: usize = 3;

impl RandomClient {
    /// Starts or cancels a consumer of a lasting queue, gets a message, or recovers.
    pub(crate) fn consume_something(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
        at: usize,
    ) -> Option<String> {
        let queue = world.random.index(LASTING_QUEUES);
        let no_ack = may_be_lossy(queue) && world.random.chance(40);
        let channel = &self.channels[at];
        match world.random.below(10) {
            0..=4 if channel.consumers.len() < CONSUMERS_MAX => {
                Some(self.consume(world, at, Source::Lasting(queue), no_ack))
            }
            5 if !channel.consumers.is_empty() => self.cancel(world, at),
            // Only without consumers: otherwise a delivery could have been sent before or after the
            // recover.
            6 if channel.consumers.is_empty() && !channel.held.is_empty() => {
                Some(self.recover(world, oracle, at))
            }
            7..=8 => Some(self.get(world, at, Source::Lasting(queue), no_ack)),
            _ => None,
        }
    }

    pub(super) fn consume(
        &mut self,
        world: &mut World,
        at: usize,
        source: Source,
        no_ack: bool,
    ) -> String {
        let channel = &mut self.channels[at];
        channel.consumers_started += 1;
        let (number, prefetch) = (channel.consumers_started, channel.prefetch);
        let tag = format!("tag-{number}");
        let consume = BasicConsume {
            queue: &source.name(),
            consumer_tag: &tag,
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: TableRef::EMPTY,
        };
        self.connection.send(world, channel.number, &consume);
        let said = format!("consumes {source:?} on {} (no-ack {no_ack})", channel.uid);
        channel.consumers.insert(tag, Consumer { source, no_ack, prefetch, number });
        channel.waiting = Waiting::Answer;
        said
    }

    pub(super) fn cancel(&mut self, world: &mut World, at: usize) -> Option<String> {
        let channel = &mut self.channels[at];
        let tags: Vec<String> = channel.consumers.keys().cloned().collect();
        let tag = tags.get(world.random.index(tags.len()))?.clone();
        let cancel = BasicCancel { consumer_tag: &tag, nowait: false };
        self.connection.send(world, channel.number, &cancel);
        let said = format!("cancels {tag} on {}", channel.uid);
        channel.waiting = Waiting::Cancel(tag);
        Some(said)
    }
}
