//! The one writer of the catalog.
//!
//! Shards ask, the control state decides in one order and sends every shard the same deltas.
//! `*-ok` goes out when all shards have applied what it promises, so that a client that has read
//! `bind-ok` may publish through any connection and find the binding there.
//!
//! ```text
//!            Request                      Arc<Delta>, all of them, in order
//!   shard ───────────────► Control ──────────────────────────────────────► every shard
//!     ▲                      │ ▲                                               │
//!     └──────────────────────┘ └───────────────────────────────────────────────┘
//!              Answer                  Request::Applied { sequence }
//! ```
//!
//! A driver's turn: [`Control::handle`] for all requests at hand, [`Control::finish_turn`], then
//! drain [`Control::poll_delta`] and [`Control::poll_answer`]. Topic patterns are compiled once
//! per turn and exchange, however many bindings changed.
//!
//! One that [`Control::recover`] made also has changes stored before it sends their deltas: its
//! driver takes them by [`Control::poll_durable`] and reports by [`Control::made_durable`].
//!
//! Nothing here grows without a request that grows it: deltas and answers are drained every turn
//! or wait for a commit, and an answer waits only while a channel waits for it.

mod admin;
mod binding_index;
mod declare;
mod definition;
mod delete;
mod patterns;
mod placement;
mod progress;
mod recover;
mod request;
mod server_name;
mod slots;
mod users;
mod vhosts;
mod warning;
mod write_ahead;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::catalog::name::Name;
use crate::id::{ChannelKey, ExchangeId, Map, Owner, QueueId, ShardId, seeded_map};
use crate::routing::change::{Change, Delta};
use crate::routing::topology::Topology;

pub use self::admin::{AdminAnswer, AdminRefusal, AdminRequest, AdminRequestId};
use self::binding_index::BindingIndex;
pub use self::definition::{
    BindingDefinition, Definitions, DurableChange, ExchangeDefinition, PermissionsDefinition,
    QueueDefinition, Rejected, VhostDefinition,
};
use self::patterns::Patterns;
pub use self::placement::home_of;
use self::progress::Progress;
pub use self::request::{
    Answer, BindingChange, ExchangeDeclaration, Outcome, QueueDeclaration, Request,
};
use self::server_name::ServerNames;
use self::slots::Slots;
pub use self::users::{PERMISSIONS_MAX, TAGS_MAX, USERS_MAX};
pub use self::vhosts::VHOSTS_MAX;
pub use self::warning::Warning;
use self::warning::Warnings;
use self::write_ahead::WriteAhead;

/// Most exchanges at a time. A shard keeps a stamp of 4 octets per slot: 4 MiB.
pub const EXCHANGES_MAX: u32 = 1 << 20;

/// Most queues at a time. A shard keeps 12 octets per slot in its tables: 48 MiB.
pub const QUEUES_MAX: u32 = 1 << 22;

/// Most bindings at a time. Each takes about 200 octets here and 100 on each shard, so the limit
/// of a few GiB comes before the memory of a machine that could use them.
pub const BINDINGS_MAX: usize = 1 << 23;

/// The one writer of the topology. A plain value without clock, threads or IO.
#[derive(Debug)]
pub struct Control {
    topology: Topology,
    bindings: BindingIndex,
    patterns: Patterns,
    exchange_slots: Slots,
    queue_slots: Slots,
    exclusive_queues: Map<Owner, BTreeSet<QueueId>>,
    server_names: ServerNames,
    deltas: VecDeque<Arc<Delta>>,
    progress: Progress,
    /// `None` where nothing outlives the process: deltas go out at once.
    write_ahead: Option<WriteAhead>,
    /// The log id of the next durable queue.
    next_log_id: u64,
    /// The id of the next virtual host.
    next_vhost_id: u32,
    /// Users that may enter a virtual host, over all virtual hosts.
    permission_count: usize,
    /// Virtual host and name of queues that were declared and cannot be restored.
    quarantined: BTreeSet<(Name, Name)>,
    warnings: Warnings,
}

impl Control {
    /// A control state that starts from `topology`, of which every shard holds a copy, and which
    /// has no bindings yet. Nothing outlives the process. `seed` decides the names that the server
    /// makes.
    pub fn new(topology: Topology, shards: u16, seed: u64) -> Self {
        debug_assert_eq!(topology.shards(), shards);
        let mut control = Self {
            bindings: BindingIndex::new(seed),
            patterns: Patterns::new(seed),
            exchange_slots: Slots::new(EXCHANGES_MAX),
            queue_slots: Slots::new(QUEUES_MAX),
            exclusive_queues: seeded_map(seed),
            server_names: ServerNames::new(seed),
            deltas: VecDeque::new(),
            progress: Progress::new(shards, topology.sequence()),
            write_ahead: None,
            next_log_id: 1,
            next_vhost_id: 0,
            permission_count: 0,
            quarantined: BTreeSet::new(),
            warnings: Warnings::default(),
            topology,
        };
        for (vhost, _) in control.topology.vhosts() {
            control.next_vhost_id = vhost.0 + 1;
            control.permission_count += control.topology.permissions_of(vhost).count();
        }
        for exchange in control.topology.exchanges() {
            control.exchange_slots.reserve(exchange.id.slot, exchange.id.generation);
        }
        for queue in control.topology.queues() {
            control.queue_slots.reserve(queue.id.slot, queue.id.generation);
            if let Some(owner) = queue.exclusive {
                control.exclusive_queues.entry(owner).or_default().insert(queue.id);
            }
        }
        control
    }

    /// Takes a request. Its answer, if it has one, comes after [`Control::finish_turn`].
    pub fn handle(&mut self, request: Request) {
        match request {
            Request::DeclareExchange(asker, declaration) => {
                let outcome = self.declare_exchange(&declaration);
                self.progress.answer(asker, outcome);
            }
            Request::DeleteExchange { asker, vhost, name, if_unused } => {
                let outcome = self.delete_exchange(vhost, &name, if_unused);
                self.progress.answer(asker, outcome);
            }
            Request::DeclareQueue(asker, declaration) => {
                let outcome = self.declare_queue(asker.owner.shard, &declaration);
                self.progress.answer(asker, outcome);
            }
            Request::Bind(asker, change) => {
                let outcome = self.bind(&change);
                self.progress.answer(asker, outcome);
            }
            Request::Unbind(asker, change) => {
                let outcome = self.unbind(&change);
                self.progress.answer(asker, outcome);
            }
            Request::QueueGone { queue, asker } => {
                self.delete_queue(queue);
                if let Some((asker, messages)) = asker {
                    self.progress.answer(asker, Ok(Outcome::QueueDeleted(messages)));
                }
            }
            Request::OwnerGone(owner) => {
                self.delete_queues_of(owner);
                let asker = ChannelKey { owner, channel: 0, incarnation: 0 };
                self.progress.answer(asker, Ok(Outcome::OwnerReleased));
            }
            Request::Applied { shard, sequence } => self.progress.applied(shard, sequence),
            Request::Admin(request, change) => {
                let outcome = self.administer(change);
                self.progress.answer_operator(AdminAnswer { request, outcome });
            }
        }
    }

    /// Ends a turn: compiles the patterns that changed and lets the turn's answers wait for the
    /// shards.
    pub fn finish_turn(&mut self) {
        while let Some((exchange, table)) = self.patterns.compile_next() {
            self.emit(Change::TopicCompiled { exchange, table });
        }
        self.progress.finish_turn(self.topology.sequence());
    }

    /// The next delta for every shard. Send them in this order. `None` where the next one waits
    /// for a change that is not durable yet.
    pub fn poll_delta(&mut self) -> Option<Arc<Delta>> {
        let next = self.deltas.front()?.sequence;
        if self.write_ahead.as_ref().is_some_and(|changes| !changes.releases(next)) {
            return None;
        }
        self.deltas.pop_front()
    }

    /// The next commit: changes to store in this order, all or none, and the number to report them
    /// by. `None` while a commit is under way; changes that come meanwhile gather for the next one.
    pub fn poll_durable(&mut self) -> Option<(u64, Vec<DurableChange>)> {
        self.write_ahead.as_mut()?.poll_commit()
    }

    /// The commit that [`Control::poll_durable`] returned with this number is durable: drain the
    /// deltas again.
    pub fn made_durable(&mut self, through: u64) {
        if let Some(changes) = &mut self.write_ahead {
            changes.made_durable(through);
        }
    }

    /// The next answer whose deltas every shard has applied, and the shard it goes to.
    ///
    /// Answers leave in the order of their requests, and none before the changes made until its
    /// turn ended. An answer that changed nothing waits like the others: it may rest on a change
    /// that some shard has not seen yet, such as the declaration it found.
    pub fn poll_answer(&mut self) -> Option<(ShardId, Answer)> {
        self.progress.poll_answer()
    }

    /// The next warning for the log about a new queue.
    pub fn poll_warning(&mut self) -> Option<Warning> {
        self.warnings.poll()
    }

    /// The next answer to an operator. It waits as [`Control::poll_answer`] says, and keeps the
    /// order among the requests of operators only.
    pub fn poll_admin_answer(&mut self) -> Option<AdminAnswer> {
        self.progress.poll_admin_answer()
    }

    /// Does work that can wait, a piece at a time: merges the compiled patterns of one topic
    /// exchange into a single table. False if there was nothing to do. Call it when no request is
    /// at hand, and drain the deltas after it.
    pub fn idle(&mut self) -> bool {
        let Some((exchange, table)) = self.patterns.compact_next() else {
            return false;
        };
        self.emit(Change::TopicCompiled { exchange, table });
        true
    }

    /// The topology as of the last request.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// How many bindings there are, those of the default exchange not counted.
    pub fn binding_count(&self) -> usize {
        self.bindings.len()
    }

    /// The log id that the next durable queue gets.
    pub fn next_log_id(&self) -> u64 {
        self.next_log_id
    }

    /// Whether a queue was declared and cannot be restored.
    fn is_quarantined(&self, vhost: &Name, queue: &Name) -> bool {
        !self.quarantined.is_empty() && self.quarantined.contains(&(vhost.clone(), queue.clone()))
    }

    /// Has a change stored before the next delta goes out. Call it before that is emitted.
    fn store(&mut self, change: DurableChange) {
        let sequence = self.topology.sequence() + 1;
        if let Some(changes) = &mut self.write_ahead {
            changes.gather(sequence, change);
        }
    }

    fn emit(&mut self, change: Change) {
        let delta = Delta { sequence: self.topology.sequence() + 1, change };
        // Before it is applied: that takes the table out of the topology, and shards still read it.
        if let Some(table) = self.topology.table_that_goes(&delta.change) {
            self.progress.retire(delta.sequence, Arc::clone(table));
        }
        self.topology.apply(&delta);
        self.deltas.push_back(Arc::new(delta));
    }

    /// A new exchange identity; `None` at the limit.
    fn take_exchange_id(&mut self) -> Option<ExchangeId> {
        self.exchange_slots.take().map(|(slot, generation)| ExchangeId { slot, generation })
    }

    /// A new queue identity; `None` at the limit.
    fn take_queue_id(&mut self) -> Option<QueueId> {
        self.queue_slots.take().map(|(slot, generation)| QueueId { slot, generation })
    }
}
