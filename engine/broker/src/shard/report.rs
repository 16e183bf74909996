//! What a shard tells about itself.

use hdrhistogram::Histogram as PreciseHistogram;

use crate::alarms::Alarms;
use crate::catalog::name::Name;
use crate::client::connection::Connection;
use crate::delivery::body_bytes::BodyBytes;
use crate::histogram::Histogram;
use crate::home::paging::Damage;
use crate::id::ShardId;
use crate::pressure::Pressure;
use crate::queue::Counts;
use crate::shard::Shard;
use crate::shard::core::ShardCounts;
use crate::storage::log::LogCounts;

/// The state of one shard at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which shard.
    pub shard: ShardId,
    /// Counters since the start.
    pub counts: ShardCounts,
    /// What of bodies was delivered and copied since the start.
    pub body_bytes: BodyBytes,
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
    /// Messages at rest that are on disk only.
    pub messages_paged_out: usize,
    /// The log, if the shard has one.
    pub log: Option<LogReport>,
    /// Bytes that wait for sockets.
    pub outbox_bytes: usize,
    /// Bytes that wait for the mesh.
    pub mail_bytes: usize,
    /// Memory of messages: at rest, their index, and on their way out.
    pub memory_bytes: usize,
    /// The alarms this shard knows of.
    pub alarms: Alarms,
    /// Connections whose publishes are held back.
    pub blocked: BlockedCounts,
    /// Nanoseconds from the arrival of a publish to the delivery's way out.
    pub publish_to_deliver: PreciseHistogram<u64>,
    /// Nanoseconds from becoming ready to leaving the queue.
    pub time_in_queue: PreciseHistogram<u64>,
    /// Each queue that lives here, if asked for.
    pub queue_reports: Vec<QueueReport>,
}

/// The state of a shard's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Counters since the start.
    pub counts: LogCounts,
    /// Segments with records.
    pub segments: usize,
    /// Bytes of their files.
    pub used_bytes: u64,
    /// Bytes of publish records that some queue holds.
    pub live_bytes: u64,
    /// Bytes in memory that wait to be written.
    pub waiting_bytes: usize,
    /// Publishes whose confirm waits for a commit.
    pub unconfirmed: u64,
}

/// Connections whose publishes are held back, by reason; one may have several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockedCounts {
    /// By the memory or the disk alarm.
    pub alarm: usize,
    /// The log is backed up.
    pub log: usize,
    /// Mail to another shard is backed up.
    pub mesh: usize,
    /// For a moment, because consumers are behind.
    pub backlog: usize,
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
            body_bytes: self.body_bytes(),
            connections: self.connections(),
            channels: self.reading_halves().map(Connection::channel_count).sum(),
            consumers: 0,
            queues: 0,
            exchanges: core.topology.exchanges().count(),
            messages_ready: 0,
            messages_unacked: 0,
            store_live_bytes: core.store.live_bytes(),
            store_segment_bytes: core.store.segment_bytes(),
            messages_paged_out: core.store.absent_messages(),
            log: self.log_report(),
            outbox_bytes: core.exits.writers.iter().map(|writer| writer.outbox.len()).sum(),
            mail_bytes: core.exits.post.waiting_bytes(),
            memory_bytes: core.memory_bytes() as usize,
            alarms: core.alarms,
            blocked: self.blocked_counts(),
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
                    latency: queue
                        .latency()
                        .map(|told| (told.publish_to_deliver, told.time_in_queue)),
                });
            }
        }
        report
    }

    /// What was found damaged since this was asked last. At most 64 records are named; the rest is
    /// in [`ShardCounts::damaged`] only.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.core_mut().damage)
    }

    fn body_bytes(&self) -> BodyBytes {
        let core = self.core();
        let mut body_bytes = core.exits.body_bytes;
        body_bytes.copied.store = core.store.copied_body_bytes();
        body_bytes.copied.log = core.log.as_ref().map_or(0, |log| log.counts().body_bytes);
        body_bytes
    }

    fn log_report(&self) -> Option<LogReport> {
        let core = self.core();
        let log = core.log.as_ref()?;
        let segments = log.segments();
        Some(LogReport {
            counts: log.counts(),
            segments: segments.begun().len(),
            used_bytes: segments.used_bytes(),
            live_bytes: segments.live_bytes(),
            waiting_bytes: log.waiting_bytes(),
            unconfirmed: core.unconfirmed.count(),
        })
    }

    /// Connections that read nothing for now, by what they wait for.
    pub fn blocked_counts(&self) -> BlockedCounts {
        let sessions = || self.reading_halves().filter_map(Connection::session);
        let [mesh, log, alarm, backlog] = Pressure::ALL.map(|block| {
            sessions().filter(|session| session.blocks.since(block).is_some()).count()
        });
        BlockedCounts { alarm, log, mesh, backlog }
    }
}
