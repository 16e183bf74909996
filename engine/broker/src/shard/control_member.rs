//! The control state as a member of the mesh: mail in, mail out.

use crate::control::{
    AdminAnswer, AdminRequest, AdminRequestId, Control, DurableChange, Request, Warning,
};
use crate::id::ShardId;
use crate::mesh::batch::Batch;
use crate::mesh::mail::{Lane, Mail};
use crate::mesh::outgoing::Outgoing;
use crate::routing::topology::Topology;

/// The last member of the mesh.
#[derive(Debug)]
pub struct ControlMember {
    control: Control,
    outgoing: Outgoing,
    shards: u16,
}

impl ControlMember {
    /// The control state of `shards` shards that all start from `topology`; see [`Control::new`].
    pub fn new(topology: Topology, shards: u16, seed: u64) -> Self {
        Self::of(Control::new(topology, shards, seed))
    }

    /// The same for a control state that has recovered what there was; see [`Control::recover`].
    pub fn of(control: Control) -> Self {
        let shards = control.topology().shards();
        Self { control, outgoing: Outgoing::new(shards), shards }
    }

    /// What to store next; see [`Control::poll_durable`].
    pub fn poll_durable(&mut self) -> Option<(u64, Vec<DurableChange>)> {
        self.control.poll_durable()
    }

    /// That is durable; [`ControlMember::finish_turn`] sends what waited for it.
    pub fn made_durable(&mut self, through: u64) {
        self.control.made_durable(through);
    }

    /// What to log next; see [`Control::poll_warning`].
    pub fn poll_warning(&mut self) -> Option<Warning> {
        self.control.poll_warning()
    }

    /// Takes requests from a shard. Returns the emptied batch, for its sender to fill again.
    pub fn handle_mail(&mut self, from: ShardId, mut batch: Batch) -> Batch {
        for mail in batch.mails.drain(..) {
            match mail {
                Mail::Control(request) => self.control.handle(*request),
                other => debug_assert!(false, "shard {from} sent {other:?}"),
            }
        }
        batch.clear();
        batch
    }

    /// Takes what an operator asks; see [`Control::poll_admin_answer`].
    pub fn administer(&mut self, request: AdminRequestId, change: AdminRequest) {
        self.control.handle(Request::Admin(request, change));
    }

    /// The next answer to an operator, to be asked for after [`ControlMember::finish_turn`].
    pub fn poll_admin_answer(&mut self) -> Option<AdminAnswer> {
        self.control.poll_admin_answer()
    }

    /// Takes back a batch that a shard has emptied.
    pub fn take_back(&mut self, emptied: Batch) {
        self.outgoing.recycle(emptied);
    }

    /// Ends a turn: what was decided is ready to be polled.
    pub fn finish_turn(&mut self) {
        self.control.finish_turn();
        while let Some(delta) = self.control.poll_delta() {
            for shard in 0..self.shards {
                self.outgoing.send(ShardId(shard), Lane::Reply, Mail::Delta(delta.clone()));
            }
        }
        while let Some((shard, answer)) = self.control.poll_answer() {
            self.outgoing.send(shard, Lane::Reply, Mail::ControlAnswer(Box::new(answer)));
        }
    }

    /// The next batch for a shard; to be called while the mesh has room.
    pub fn poll_mail(&mut self, to: ShardId, lane: Lane) -> Option<Batch> {
        self.outgoing.take(to, lane)
    }

    /// Whether there is mail for a shard.
    pub fn has_mail(&self, to: ShardId, lane: Lane) -> bool {
        self.outgoing.has_mail(to, lane)
    }

    /// Does a piece of work that can wait. True if more is left.
    pub fn idle(&mut self) -> bool {
        let more = self.control.idle();
        self.finish_turn();
        more
    }
}
