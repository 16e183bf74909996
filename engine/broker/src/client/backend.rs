//! The state of a shard that the reading halves of connections act on.

use std::collections::{BTreeMap, BTreeSet};

use crate::alarms::Alarms;
use crate::client::connection::Deadline;
use crate::client::counts::ClientCounts;
use crate::delivery::outputs::Outputs;
use crate::home::Home;
use crate::id::{ChannelKey, ConnectionId, QueueId, ShardId};
use crate::message::Likeness;
use crate::pressure::Pressure;
use crate::routing::route::RouteScratch;
use crate::routing::topology::Topology;
use crate::timer::Timers;
use crate::turn::Turn;

/// A shard without its reading halves. One of those is taken out to read, and acts on this.
#[derive(Debug)]
pub struct Backend {
    /// The shard's number, its settings, and the time.
    pub turn: Turn,
    /// This shard's replica of the catalog.
    pub topology: Topology,
    /// Scratch of routing.
    pub(super) route: RouteScratch,
    /// The queues that live here.
    pub home: Home,
    /// The ways out of this shard.
    pub outputs: Outputs,
    /// The resources the broker runs out of: publishers wait while any alarm is on.
    pub alarms: Alarms,
    /// Deadlines of connections.
    pub deadlines: Timers<(ConnectionId, Deadline)>,
    /// Queues with a large backlog, here or on other shards, and the publishers here that wait.
    backlogs: BTreeMap<QueueId, BTreeSet<ConnectionId>>,
    /// The last likeness number assigned.
    pub last_likeness: Likeness,
    /// Scratch of publishing: homes that will confirm the messages being published.
    pub(super) awaited: Vec<ShardId>,
    /// Counters since the start.
    pub counts: ClientCounts,
}

impl Backend {
    /// Without connections and queues; all shards start from the same `topology`.
    pub fn new(turn: Turn, topology: Topology) -> Self {
        Self {
            route: RouteScratch::default(),
            home: Home::new(&turn.settings),
            // The control state is a member of the mesh, too.
            outputs: Outputs::new(turn.shard, turn.shards + 1),
            alarms: Alarms::default(),
            deadlines: Timers::new(),
            backlogs: BTreeMap::new(),
            last_likeness: Likeness::UNKNOWN,
            awaited: Vec::new(),
            counts: ClientCounts::default(),
            turn,
            topology,
        }
    }

    /// Bytes of messages: in the store with its tables, and on their way to sockets and other
    /// shards. O(number of shards). A body shared with an outbox counts twice, because the store
    /// may release it first.
    pub fn memory_bytes(&self) -> u64 {
        let on_their_way = self.outputs.writers.waiting_bytes() + self.outputs.mesh.waiting_bytes();
        (self.home.memory_bytes() + on_their_way) as u64
    }

    /// A home notifies this shard that the backlog of a queue is large, or small again.
    pub(crate) fn backlog_changed(&mut self, queue: QueueId, is_large: bool) {
        if is_large {
            self.backlogs.entry(queue).or_default();
        } else if let Some(publishers) = self.backlogs.remove(&queue) {
            let publishers = publishers.into_iter();
            let resumed = publishers.map(|connection| (connection, Pressure::Backlog));
            self.outputs.resumed.extend(resumed);
        }
    }

    /// The publishers that wait for the consumers of a queue; `None` if the queue is gone. A queue
    /// that lives here will notify this shard when its backlog is small again.
    pub(super) fn backlog_publishers(
        &mut self,
        queue: QueueId,
    ) -> Option<&mut BTreeSet<ConnectionId>> {
        let here = self.turn.shard;
        let is_known = self.home.backlog_begins(&self.turn, &mut self.outputs, queue, here)
            || self.backlogs.contains_key(&queue);
        is_known.then(|| self.backlogs.entry(queue).or_default())
    }

    /// A queue among these whose backlog this shard knows to be large.
    #[inline]
    pub(super) fn known_backlog(
        &self,
        mut queues: impl Iterator<Item = QueueId>,
    ) -> Option<QueueId> {
        if self.backlogs.is_empty() {
            return None;
        }
        queues.find(|queue| self.backlogs.contains_key(queue))
    }

    /// Gives waiting consumers of a channel as many grants as its limit allows.
    pub(super) fn grant(&mut self, channel: ChannelKey) {
        self.outputs.grant_waiting(channel);
    }

    /// The log of a home or the lanes to it may have room again: if so, lists its publishers for
    /// resumption and serves the consumers that were passed over.
    pub(crate) fn relieve(&mut self, home: ShardId) {
        let relieved = self.outputs.mesh.relieved(home);
        self.outputs.resumed.extend(relieved.publishers);
        self.home.room_again(&self.turn, &mut self.outputs, relieved.consumers);
    }
}
