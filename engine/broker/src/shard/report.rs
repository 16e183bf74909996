//! What a shard tells about itself.

use hdrhistogram::Histogram as PreciseHistogram;

use crate::alarms::Alarms;
use crate::catalog::name::Name;
use crate::client::backend::Backend;
use crate::client::connection::Connection;
use crate::delivery::body_bytes::BodyBytes;
use crate::histogram::Histogram;
use crate::home::paging::Damage;
use crate::id::ShardId;
use crate::pressure::Pressure;
use crate::queue::Counts;
use crate::shard::Shard;
use crate::shard::counts::ShardCounts;
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
        let Backend { home, outputs, topology, .. } = self.backend();
        let [publish_to_deliver, time_in_queue] = home.latency().snapshot();
        let mut report = Report {
            shard: self.backend().turn.shard,
            counts: self.counts(),
            body_bytes: self.body_bytes(),
            connections: self.connections(),
            channels: self.reading_halves().map(Connection::channel_count).sum(),
            consumers: 0,
            queues: 0,
            exchanges: topology.exchanges().count(),
            messages_ready: 0,
            messages_unacked: 0,
            store_live_bytes: home.store().live_bytes(),
            store_segment_bytes: home.store().segment_bytes(),
            messages_paged_out: home.store().absent_messages(),
            log: self.log_report(),
            outbox_bytes: outputs.writers.iter().map(|writer| writer.outbox.len()).sum(),
            mail_bytes: outputs.mesh.waiting_bytes(),
            memory_bytes: self.backend().memory_bytes() as usize,
            alarms: self.backend().alarms,
            blocked: self.blocked_counts(),
            publish_to_deliver,
            time_in_queue,
            queue_reports: Vec::new(),
        };
        for queue in home.queues().filter(|queue| !queue.closing) {
            report.queues += 1;
            report.consumers += queue.consumers.count();
            report.messages_ready += queue.kind.ready_count();
            report.messages_unacked += queue.kind.unacked_count();
            if with_queues {
                let vhost = topology.vhost_name(queue.meta.vhost);
                report.queue_reports.push(QueueReport {
                    vhost: vhost.cloned().unwrap_or_default(),
                    name: queue.meta.name.clone(),
                    messages_ready: queue.kind.ready_count(),
                    messages_unacked: queue.kind.unacked_count(),
                    consumers: queue.consumers.count(),
                    counts: queue.counts,
                    latency: queue
                        .latency()
                        .map(|latency| (latency.publish_to_deliver, latency.time_in_queue)),
                });
            }
        }
        report
    }

    /// Counters since the start.
    pub fn counts(&self) -> ShardCounts {
        let Backend { home, outputs, counts, .. } = self.backend();
        let published_confirm = outputs.published_confirm;
        ShardCounts { client: *counts, home: *home.counts(), published_confirm }
    }

    /// What was found damaged since the last call. At most 64 records are named; the rest is only
    /// counted.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        self.backend.home.take_damage()
    }

    fn body_bytes(&self) -> BodyBytes {
        let Backend { home, outputs, .. } = self.backend();
        let mut body_bytes = outputs.body_bytes;
        body_bytes.copied.store = home.store().copied_body_bytes();
        body_bytes.copied.log = home.log().map_or(0, |log| log.counts().body_bytes);
        body_bytes
    }

    fn log_report(&self) -> Option<LogReport> {
        let home = &self.backend().home;
        let log = home.log()?;
        let segments = log.segments();
        Some(LogReport {
            counts: log.counts(),
            segments: segments.begun().len(),
            used_bytes: segments.used_bytes(),
            live_bytes: segments.live_bytes(),
            waiting_bytes: log.waiting_bytes(),
            unconfirmed: home.pending_confirms(),
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
