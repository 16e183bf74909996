//! The mesh between shards and control state: bounded lanes, delayed mail.

use std::collections::VecDeque;

use leveret_broker::id::{Instant, ShardId};
use leveret_broker::mesh::batch::Batch;
use leveret_broker::mesh::mail::Lane;

/// Both lanes of every ordered pair of members.
#[derive(Debug)]
pub(crate) struct Mesh {
    lanes: Vec<VecDeque<(Instant, Batch)>>,
    members: usize,
    lane_batches: usize,
}

/// One lane: sender, receiver, and which of the two.
pub(crate) type Route = (ShardId, ShardId, Lane);

impl Mesh {
    pub(crate) fn new(members: usize, lane_batches: usize) -> Self {
        let lanes = (0..members * members * 2).map(|_| VecDeque::new()).collect();
        Self { lanes, members, lane_batches }
    }

    /// All lanes between different members, in a fixed order.
    pub(crate) fn routes(&self) -> impl Iterator<Item = Route> + use<> {
        let members = self.members as u16;
        (0..members)
            .flat_map(move |from| (0..members).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .flat_map(|(from, to)| {
                [Lane::Work, Lane::Reply].map(|lane| (ShardId(from), ShardId(to), lane))
            })
    }

    pub(crate) fn has_room(&self, route: Route) -> bool {
        self.lanes[self.index(route)].len() < self.lane_batches
    }

    /// Sends a batch that arrives at `due`, or later if an earlier batch does.
    pub(crate) fn push(&mut self, route: Route, due: Instant, batch: Batch) {
        let index = self.index(route);
        let last = self.lanes[index].back().map_or(due, |(last, _)| due.max(*last));
        self.lanes[index].push_back((last, batch));
    }

    /// When the oldest batch of a lane arrives.
    pub(crate) fn due(&self, route: Route) -> Option<Instant> {
        self.lanes[self.index(route)].front().map(|(due, _)| *due)
    }

    pub(crate) fn pop(&mut self, route: Route) -> Option<Batch> {
        let index = self.index(route);
        self.lanes[index].pop_front().map(|(_, batch)| batch)
    }

    /// When the next batch of any lane arrives.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(VecDeque::front).map(|(due, _)| *due).min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    fn index(&self, (from, to, lane): Route) -> usize {
        (usize::from(from.0) * self.members + usize::from(to.0)) * 2 + lane as usize
    }
}
