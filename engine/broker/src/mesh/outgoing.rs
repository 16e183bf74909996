//! Mail that waits for the driver to carry it to another member of the mesh.
//!
//! Nothing here blocks or drops. A backed-up lane stops its feeders instead: publishers towards a
//! home are paused, consumers on the receiving shard are passed over.

use std::collections::VecDeque;

use crate::id::{ConnectionId, ConsumerKey, QueueId, ShardId};
use crate::mesh::batch::Batch;
use crate::mesh::mail::{Lane, Mail};
use crate::pressure::Pressure;

/// Bytes towards one member at which its feeders are stopped: half of what stays in a core's
/// level 2 cache, and more than a turn's worth of mail.
pub const BACKED_UP_BYTES: usize = 512 << 10;

/// The feeders go on below this many bytes.
const RELIEVED_BYTES: usize = BACKED_UP_BYTES / 4;

/// Emptied batches kept for reuse; more would only be cold memory.
const SPARE_BATCHES_MAX: usize = 64;

/// The outgoing mail of one shard.
#[derive(Debug)]
pub struct Outgoing {
    /// Indexed by member; the last one is the control state.
    members: Vec<Member>,
    spare: Vec<Batch>,
}

#[derive(Debug, Default)]
struct Member {
    lanes: [LaneQueue; 2],
    /// Connections whose publishes towards this member are paused, and why.
    publishers: Vec<(ConnectionId, Pressure)>,
    /// Consumers that were passed over because the reply lane was backed up.
    passed_over: Vec<(QueueId, ConsumerKey)>,
    /// The member's log is backed up.
    log_backed_up: bool,
}

/// The feeders that may go on after a lane was relieved.
#[derive(Debug, Default)]
pub struct Relieved {
    /// Paused connections, with the pressure that ended.
    pub publishers: Vec<(ConnectionId, Pressure)>,
    /// Passed-over consumers of queues that live here.
    pub consumers: Vec<(QueueId, ConsumerKey)>,
}

#[derive(Debug, Default)]
struct LaneQueue {
    closed: VecDeque<Batch>,
    closed_bytes: usize,
    open: Batch,
}

impl Outgoing {
    /// Without mail, for `members` members including the control state.
    pub fn new(members: u16) -> Self {
        let members = (0..members).map(|_| Member::default()).collect();
        Self { members, spare: Vec::new() }
    }

    /// Adds a mail that has no spans or parcels of a batch.
    pub fn send(&mut self, to: ShardId, lane: Lane, mail: Mail) {
        self.open(to, lane).push(mail);
    }

    /// The batch for the next mail of this lane. Add at most one before the next call.
    #[inline(always)]
    pub fn open(&mut self, to: ShardId, lane: Lane) -> &mut Batch {
        let queue = &mut self.members[usize::from(to.0)].lanes[lane as usize];
        if queue.open.is_full() {
            queue.close(&mut self.spare);
        }
        &mut queue.open
    }

    /// Takes the oldest batch of a lane, if it has mail.
    pub fn take(&mut self, to: ShardId, lane: Lane) -> Option<Batch> {
        let queue = &mut self.members[usize::from(to.0)].lanes[lane as usize];
        if let Some(batch) = queue.closed.pop_front() {
            queue.closed_bytes -= batch.weight_bytes();
            return Some(batch);
        }
        if queue.open.mails.is_empty() {
            return None;
        }
        let fresh = self.spare.pop().unwrap_or_default();
        Some(std::mem::replace(&mut queue.open, fresh))
    }

    /// Whether a lane has mail.
    pub fn has_mail(&self, to: ShardId, lane: Lane) -> bool {
        let queue = &self.members[usize::from(to.0)].lanes[lane as usize];
        !queue.closed.is_empty() || !queue.open.mails.is_empty()
    }

    /// Keeps an emptied batch for reuse: its memory is allocated and probably still in a cache.
    pub fn recycle(&mut self, mut batch: Batch) {
        batch.clear();
        if self.spare.len() < SPARE_BATCHES_MAX {
            self.spare.push(batch);
        }
    }

    /// Whether the feeders of this lane have to stop.
    #[inline]
    pub fn is_backed_up(&self, to: ShardId, lane: Lane) -> bool {
        self.members[usize::from(to.0)].lanes[lane as usize].closed_bytes >= BACKED_UP_BYTES
    }

    /// Why publishers towards a home have to wait, if they have to.
    #[inline]
    pub fn publish_pressure(&self, to: ShardId) -> Option<Pressure> {
        if self.members[usize::from(to.0)].log_backed_up {
            return Some(Pressure::Log);
        }
        self.is_backed_up(to, Lane::Work).then_some(Pressure::Mesh)
    }

    /// Notes that a member's log is backed up, or no longer is.
    pub fn set_log_backed_up(&mut self, member: ShardId, backed_up: bool) {
        self.members[usize::from(member.0)].log_backed_up = backed_up;
    }

    /// Lists a publisher to go on when the pressure towards a home has ended.
    pub fn wait_to_publish(&mut self, to: ShardId, connection: ConnectionId, pressure: Pressure) {
        self.members[usize::from(to.0)].publishers.push((connection, pressure));
    }

    /// Lists a consumer whose queue goes on when the reply lane has room again.
    pub fn pass_over(&mut self, to: ShardId, queue: QueueId, consumer: ConsumerKey) {
        self.members[usize::from(to.0)].passed_over.push((queue, consumer));
    }

    /// Takes the feeders that may go on, after the driver took batches to this member.
    pub fn relieved(&mut self, to: ShardId) -> Relieved {
        let member = &mut self.members[usize::from(to.0)];
        let mut relieved = Relieved::default();
        let work_bytes = member.lanes[Lane::Work as usize].closed_bytes;
        if work_bytes < RELIEVED_BYTES && !member.log_backed_up {
            relieved.publishers = std::mem::take(&mut member.publishers);
        }
        if member.lanes[Lane::Reply as usize].closed_bytes < RELIEVED_BYTES {
            relieved.consumers = std::mem::take(&mut member.passed_over);
        }
        relieved
    }

    /// Bytes waiting for all other members, for the metrics.
    pub fn waiting_bytes(&self) -> usize {
        let lanes = self.members.iter().flat_map(|member| &member.lanes);
        lanes.map(|queue| queue.closed_bytes + queue.open.weight_bytes()).sum()
    }
}

impl LaneQueue {
    #[inline(never)]
    fn close(&mut self, spare: &mut Vec<Batch>) {
        let fresh = spare.pop().unwrap_or_default();
        let full = std::mem::replace(&mut self.open, fresh);
        self.closed_bytes += full.weight_bytes();
        self.closed.push_back(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_leave_in_order_and_relieve_their_feeders() {
        let mut outgoing = Outgoing::new(2);
        let (to, lane) = (ShardId(1), Lane::Reply);
        let consumer = ConsumerKey::default();
        let mut sent = 0u32;
        while !outgoing.is_backed_up(to, lane) {
            let channel = consumer.channel;
            outgoing.send(to, lane, Mail::Confirmed { channel, count: sent });
            sent += 1;
        }
        outgoing.pass_over(to, QueueId::default(), consumer);
        assert!(outgoing.relieved(to).consumers.is_empty());
        let mut seen = 0;
        while let Some(batch) = outgoing.take(to, lane) {
            for mail in &batch.mails {
                assert!(matches!(mail, Mail::Confirmed { count, .. } if *count == seen));
                seen += 1;
            }
            outgoing.recycle(batch);
        }
        assert_eq!(seen, sent);
        assert_eq!(outgoing.relieved(to).consumers, [(QueueId::default(), consumer)]);
        assert!(!outgoing.has_mail(to, lane));
    }
}
