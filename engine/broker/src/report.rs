//! What a shard tells about itself.

use hdrhistogram::Histogram as PreciseHistogram;

use crate::core::ShardCounts;
use crate::histogram::Histogram;
use crate::id::ShardId;
use crate::queue::Counts;
use crate::shard::Shard;
use crate::topology::Name;

/// The state of one shard at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which shard.
    pub shard: ShardId,
    /// Counters since the start.
    pub counts: ShardCounts,
    /// Open connections, those that are ending included.
    pub connections: usize,
    /// Open channels.
    pub channels: usize,
    /// Consumers of queues that live here.
    pub consumers: usize,
    /// Queues that live here.
    pub queues: usize,
    /// Exchanges; every shard knows all of them.
    pub exchanges: usize,
    /// Messages that wait in queues here.
    pub messages_ready: usize,
    /// Messages given out and not settled.
    pub messages_unacked: usize,
    /// Bytes of messages at rest.
    pub store_live_bytes: usize,
    /// Bytes of segment memory, used or kept for reuse.
    pub store_segment_bytes: usize,
    /// Bytes that wait for sockets.
    pub outbox_bytes: usize,
    /// Bytes that wait for the mesh.
    pub mail_bytes: usize,
    /// Nanoseconds from the arrival of a publish to the delivery's way out.
    pub publish_to_deliver: PreciseHistogram<u64>,
    /// Nanoseconds from becoming ready to leaving the queue.
    pub time_in_queue: PreciseHistogram<u64>,
    /// Each queue that lives here, if asked for.
    pub queue_reports: Vec<QueueReport>,
}

/// The state of one queue.
#[derive(Clone, Debug)]
pub struct QueueReport {
    /// The virtual host.
    pub vhost: Name,
    /// The name.
    pub name: Name,
    /// Messages that wait.
    pub messages_ready: usize,
    /// Messages given out and not settled.
    pub messages_unacked: usize,
    /// Consumers.
    pub consumers: usize,
    /// Counters since it was declared.
    pub counts: Counts,
    /// Latencies, once a message has left: publish to deliver, and time in queue.
    pub latency: Option<(Histogram, Histogram)>,
}

impl Shard {
    /// Describes the shard; with `with_queues` each of its queues too, at a cost that grows with
    /// their number.
    pub fn report(&self, with_queues: bool) -> Report {
        let core = self.core();
        let [publish_to_deliver, time_in_queue] = core.latency.told();
        let mut report = Report {
            shard: core.id,
            counts: core.counts,
            connections: self.connections(),
            channels: self.reading_halves().map(crate::connection::Connection::channel_count).sum(),
            consumers: 0,
            queues: 0,
            exchanges: core.topology.exchanges().count(),
            messages_ready: 0,
            messages_unacked: 0,
            store_live_bytes: core.store.live_bytes(),
            store_segment_bytes: core.store.segment_bytes(),
            outbox_bytes: core.exits.writers.iter().map(|writer| writer.outbox.len()).sum(),
            mail_bytes: core.exits.post.waiting_bytes(),
            publish_to_deliver,
            time_in_queue,
            queue_reports: Vec::new(),
        };
        for queue in core.queues.iter().flatten().filter(|queue| !queue.closing) {
            report.queues += 1;
            report.consumers += queue.consumers.count();
            report.messages_ready += queue.state.ready_count();
            report.messages_unacked += queue.state.unacked_count();
            if with_queues {
                let vhost = core.topology.vhost_name(queue.meta.vhost);
                report.queue_reports.push(QueueReport {
                    vhost: vhost.cloned().unwrap_or_default(),
                    name: queue.meta.name.clone(),
                    messages_ready: queue.state.ready_count(),
                    messages_unacked: queue.state.unacked_count(),
                    consumers: queue.consumers.count(),
                    counts: queue.counts,
                    latency: queue.latency().map(|latency| latency.told().into()),
                });
            }
        }
        report
    }
}
