//! N shards, the control state, and everything around them, driven by one seed.

pub mod faults;
mod mesh;
pub mod metadata;
pub mod network;
#[cfg(test)]
pub(crate) mod planted_bug;
mod pool;
pub mod restart;

use std::sync::Arc;

use leveret_broker::alarms::Alarms;
use leveret_broker::control::{AdminAnswer, AdminRequest, AdminRequestId, DurableChange};
use leveret_broker::delivery::operation::Operation;
use leveret_broker::id::{ConnectionId, Instant, SECOND_NS, ShardId, Time, WallTime};
use leveret_broker::mesh::batch::Batch;
use leveret_broker::settings::Settings;
use leveret_broker::shard::Shard;
use leveret_broker::shard::control_member::ControlMember;
use leveret_broker::shard::event::Event;
use leveret_broker::storage::log::Log;

use crate::disk::Disk;
use crate::random::Random;
use crate::world::faults::Faults;
use crate::world::mesh::{Mesh, Route};
use crate::world::metadata::MetadataStore;
use crate::world::network::{Sending, Slots, Socket, SocketId};
#[cfg(test)]
use crate::world::planted_bug::PlantedBug;
use crate::world::pool::Pool;
use crate::world::restart::{Boot, Crash, restart};

/// The longest time that one step takes, so that the clock advances on its own.
const STEP_MAX_NS: u64 = 20_000;

/// The wall clock of a world at its begin, and how far it jumps at most when a broker starts: a
/// machine without a battery for its clock begins in 1970, another one is set back by an hour.
const WALL_START: WallTime = WallTime(1_700_000_000 * SECOND_NS);
const WALL_JUMP_MAX_NS: u64 = 400_000_000 * SECOND_NS;

/// A broker in a made-up world.
#[derive(Debug)]
pub struct World {
    /// The source of all choices of the run.
    pub random: Random,
    now: Instant,
    /// The wall time of instant 0, as the running broker was started with.
    wall_at_zero: WallTime,
    faults: Faults,
    shards: Vec<Shard>,
    control: ControlMember,
    settings: Arc<Settings>,
    seed: u64,
    /// The disk of each shard's log.
    disks: Vec<Disk>,
    /// Durable declarations.
    metadata: MetadataStore<DurableChange>,
    /// Shards that may have operations to poll.
    may_have_operations: Vec<bool>,
    /// The control state has received requests since its last turn.
    control_has_requests: bool,
    /// The number of requests of operators so far.
    admin_requests: u64,
    /// Answers to operators that the test has not taken yet.
    admin_answers: Vec<AdminAnswer>,
    /// The control state may have work for its spare time.
    control_may_idle: bool,
    mesh: Mesh,
    sockets: Vec<Socket>,
    slots: Vec<Slots>,
    pools: Vec<Pool>,
    steps: u64,
    choices: Vec<Step>,
    #[cfg(test)]
    pub(crate) planted_bug: Option<PlantedBug>,
}

/// Something that can happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Accept(usize),
    Arrive(usize),
    Deliver(usize),
    End(usize),
    Transmit(usize),
    Complete(usize),
    Close(usize),
    Operate(usize),
    Work(usize),
    Timeout(usize),
    Disk(usize),
    Send(Route),
    Carry(Route),
    Control,
    ControlIdle,
    Store,
}

impl World {
    /// A world of `shards` shards without connections, on empty disks.
    ///
    /// # Panics
    /// If the broker cannot start.
    pub fn new(seed: u64, shards: u16, faults: Faults, settings: Settings) -> Self {
        let settings = Arc::new(Settings {
            outbox_high_bytes: faults.outbox_high_bytes,
            outbox_low_bytes: faults.outbox_high_bytes / 4,
            store_memory_max_bytes: faults.store_memory_max_bytes,
            receive_buffers_kept_max: (faults.pool_buffers / 4) as u16,
            ..settings
        });
        let count = usize::from(shards);
        let mut disks: Vec<Disk> = (0..count).map(|_| Disk::new(faults.disk.clone())).collect();
        let (mut random, now) = (Random::new(seed), Instant(1));
        let mut metadata = MetadataStore::default();
        let boot = Boot {
            shards,
            settings: Arc::clone(&settings),
            seed,
            time: Time { now, wall: WALL_START.after(now.0) },
            segment_bytes: faults.segment_bytes,
            metadata: &mut metadata,
            disks: &mut disks,
            random: &mut random,
            stopped: false,
            forgets_flags: false,
        };
        let (shards, control) = match restart(boot) {
            Ok(booted) => booted,
            Err(error) => panic!("no start on empty disks: {error}"),
        };
        Self {
            random,
            now,
            wall_at_zero: WALL_START,
            shards,
            control,
            seed,
            disks,
            metadata,
            may_have_operations: vec![true; count],
            control_has_requests: false,
            admin_requests: 0,
            admin_answers: Vec::new(),
            control_may_idle: false,
            mesh: Mesh::new(count + 1, faults.lane_batches),
            sockets: Vec::new(),
            slots: (0..count).map(|_| Slots::default()).collect(),
            pools: (0..count).map(|_| Pool::new(faults.pool_buffers)).collect(),
            faults,
            settings,
            steps: 0,
            choices: Vec::new(),
            #[cfg(test)]
            planted_bug: None,
        }
    }

    /// A world without faults, with `RabbitMQ`'s defaults.
    pub fn calm(shards: u16) -> Self {
        Self::new(u64::from(shards), shards, Faults::none(), Settings::default())
    }

    /// The current time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The time on both clocks.
    fn time(&self) -> Time {
        Time { now: self.now, wall: self.wall_at_zero.after(self.now.0) }
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The shards, for reports and invariants.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The disks, for reports and invariants.
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// Whether the log of a shard has failed, so that the process has to end.
    pub fn has_failed(&self) -> bool {
        self.logs().any(Log::has_failed)
    }

    /// Whether everything that the logs were given is durable.
    pub fn is_all_durable(&self) -> bool {
        self.logs().all(Log::is_settled)
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Receive buffers that are lent.
    pub fn lent_buffers(&self) -> usize {
        self.pools.iter().map(Pool::lent).sum()
    }

    /// Whether no mail is in transit or waits to be sent.
    pub fn is_mail_drained(&self) -> bool {
        self.mesh.is_empty() && self.mesh.routes().all(|route| !self.has_mail(route))
    }

    /// Connects a client to a shard.
    pub fn connect(&mut self, shard: u16) -> SocketId {
        let socket = SocketId(self.sockets.len());
        let skipped = self.random.index(3);
        let id = self.slots[usize::from(shard)].take(socket, skipped);
        self.sockets.push(Socket::new(ShardId(shard), id));
        socket
    }

    /// Sends bytes from a client.
    pub fn write(&mut self, socket: SocketId, bytes: &[u8]) {
        let socket = &mut self.sockets[socket.0];
        if !socket.reset && !socket.half_closed && !socket.closed {
            socket.to_server.extend(bytes);
        }
    }

    /// Reads what has reached a client.
    pub fn read(&mut self, socket: SocketId) -> Vec<u8> {
        std::mem::take(&mut self.sockets[socket.0].to_client)
    }

    /// The client sends nothing more, but still reads.
    pub fn half_close(&mut self, socket: SocketId) {
        self.sockets[socket.0].half_closed = true;
    }

    /// Resets a connection; bytes in transit are lost in both directions.
    pub fn reset(&mut self, socket: SocketId) {
        let socket = &mut self.sockets[socket.0];
        if !socket.closed {
            socket.reset = true;
            socket.to_server.clear();
            socket.to_client.clear();
        }
    }

    /// Whether the server has closed the connection. Bytes that reached the client before can still
    /// be read.
    pub fn is_closed(&self, socket: SocketId) -> bool {
        self.sockets[socket.0].closed
    }

    /// The id by which its shard knows a socket.
    pub fn connection_id(&self, socket: SocketId) -> ConnectionId {
        self.sockets[socket.0].id
    }

    /// Advances the clock.
    pub fn advance(&mut self, ns: u64) {
        self.now = self.now.after(ns);
    }

    /// Sets the alarms of one shard.
    pub fn alarm(&mut self, shard: u16, alarms: Alarms) {
        self.handle(usize::from(shard), Event::Alarms(alarms));
    }

    /// Sets the alarms of all shards.
    pub fn alarm_all(&mut self, alarms: Alarms) {
        for shard in 0..self.shards.len() {
            self.handle(shard, Event::Alarms(alarms));
        }
    }

    /// An operator asks the control state for a change; returns the number of the request.
    pub fn administer(&mut self, change: AdminRequest) -> AdminRequestId {
        self.admin_requests += 1;
        let request = AdminRequestId(self.admin_requests);
        self.control.administer(request, change);
        self.control_has_requests = true;
        request
    }

    /// The answers to operators that have come, in their order.
    pub fn take_admin_answers(&mut self) -> Vec<AdminAnswer> {
        std::mem::take(&mut self.admin_answers)
    }

    /// The broker is told to stop.
    pub fn stop(&mut self) {
        for shard in 0..self.shards.len() {
            self.handle(shard, Event::Stop);
        }
    }

    /// Asks the shards to end their logs, after all connections are gone.
    pub fn close_logs(&mut self) {
        for shard in 0..self.shards.len() {
            self.handle(shard, Event::CloseLog);
        }
    }

    /// The broker crashes; all connections and all mail are lost. Another broker starts from the
    /// disks and the metadata.
    ///
    /// # Errors
    /// Why the new broker does not start.
    pub fn crash(&mut self, crash: Crash) -> Result<(), String> {
        self.end(crash, false)
    }

    /// The process ends after [`Self::close_logs`], and the power may be cut. Another broker
    /// starts.
    ///
    /// # Errors
    /// Why the new broker does not start.
    pub fn restart(&mut self, crash: Crash) -> Result<(), String> {
        self.end(crash, true)
    }

    fn end(&mut self, crash: Crash, stopped: bool) -> Result<(), String> {
        for socket in self.sockets.iter_mut().filter(|socket| !socket.closed) {
            socket.die();
        }
        for disk in &mut self.disks {
            match crash {
                Crash::Kill => disk.kill(),
                Crash::PowerCut { kept_percent } => {
                    let random = &mut self.random;
                    let image = disk.volume().image(|_, _| random.chance(kept_percent));
                    disk.reboot(image);
                }
            }
        }
        self.metadata.crash(&mut self.random);
        self.jump_wall_clock();
        self.boot(stopped)?;
        let count = self.shards.len();
        self.mesh = Mesh::new(count + 1, self.faults.lane_batches);
        self.slots = (0..count).map(|_| Slots::default()).collect();
        self.pools = (0..count).map(|_| Pool::new(self.faults.pool_buffers)).collect();
        self.may_have_operations = vec![true; count];
        (self.control_has_requests, self.control_may_idle) = (false, false);
        Ok(())
    }

    /// The wall clock is another one, earlier or later: nothing may depend on it.
    fn jump_wall_clock(&mut self) {
        // Not from the choices of the run, which are the same whatever the clock says.
        let mut random = Random::new(self.seed ^ self.steps);
        let jump_ns = random.pick(&[0, SECOND_NS, 3_600 * SECOND_NS, WALL_JUMP_MAX_NS]);
        let jump_ns = random.below(jump_ns + 1);
        let wall = self.wall_at_zero;
        self.wall_at_zero =
            if random.chance(50) { wall.before(jump_ns) } else { wall.after(jump_ns) };
    }

    fn boot(&mut self, stopped: bool) -> Result<(), String> {
        #[cfg(test)]
        let forgets_flags = self.planted_bug.as_mut().is_some_and(PlantedBug::booted);
        #[cfg(not(test))]
        let forgets_flags = false;
        let booted = restart(Boot {
            shards: self.shards.len() as u16,
            settings: Arc::clone(&self.settings),
            seed: self.seed,
            time: self.time(),
            segment_bytes: self.faults.segment_bytes,
            metadata: &mut self.metadata,
            disks: &mut self.disks,
            random: &mut self.random,
            stopped,
            forgets_flags,
        });
        (self.shards, self.control) = booted?;
        self.admin_answers.clear();
        Ok(())
    }

    /// Plants a bug.
    #[cfg(test)]
    pub(crate) fn plant(&mut self, mut planted_bug: PlantedBug) {
        planted_bug.plant(&mut self.disks);
        self.planted_bug = Some(planted_bug);
    }

    /// Begins to commit the changes that the control state wants to be durable.
    fn store(&mut self) {
        if let Some((through, changes)) = self.control.poll_durable() {
            #[cfg(test)]
            let changes = match &mut self.planted_bug {
                Some(planted_bug) => planted_bug.stored(changes),
                None => changes,
            };
            let due = self.now.after(self.random.below(self.faults.metadata_max_ns + 1));
            self.metadata.commit(through, changes, due);
        }
    }

    /// Makes a random step out of all that are possible; false if there is none.
    pub fn step(&mut self) -> bool {
        self.gather();
        if self.choices.is_empty() {
            let Some(due) = self.next_due() else {
                return false;
            };
            self.now = self.now.max(due);
            self.gather();
        }
        if self.choices.is_empty() {
            return false;
        }
        let step = self.choices[self.random.index(self.choices.len())];
        self.steps += 1;
        self.now = self.now.after(self.random.below(STEP_MAX_NS));
        self.make(step);
        true
    }

    /// Makes steps until the world can only wait for clients or deadlines.
    ///
    /// # Panics
    /// After `steps_max` steps, because the broker then never comes to rest.
    pub fn run(&mut self, steps_max: u64) -> u64 {
        let mut made = 0;
        while self.step() {
            made += 1;
            assert!(made < steps_max, "no rest after {steps_max} steps");
        }
        made
    }

    /// When the next event is due that is not a deadline of a client.
    fn next_due(&self) -> Option<Instant> {
        let disks = self.disks.iter().filter_map(Disk::next_due);
        let logs = self.logs().filter_map(Log::next_timeout);
        // A publisher that is blocked by a backlog is unblocked at a deadline, and clients may wait
        // for what the broker reads then.
        let held_back = self.shards.iter().filter(|shard| shard.blocked_counts().backlog > 0);
        let logs = logs.chain(held_back.filter_map(Shard::next_timeout));
        let others = self.mesh.next_due().into_iter().chain(self.metadata.next_due());
        others.chain(disks).chain(logs).min()
    }

    fn logs(&self) -> impl Iterator<Item = &Log> {
        self.shards.iter().filter_map(|shard| shard.backend().home.log())
    }

    fn gather(&mut self) {
        let mut choices = std::mem::take(&mut self.choices);
        choices.clear();
        for (index, socket) in self.sockets.iter().enumerate().filter(|(_, s)| !s.closed) {
            let possible = [
                (!socket.accepted, Step::Accept(index)),
                (socket.can_arrive(), Step::Arrive(index)),
                (socket.can_deliver(), Step::Deliver(index)),
                (socket.can_end(), Step::End(index)),
                (socket.can_transmit(self.faults.window_bytes), Step::Transmit(index)),
                (socket.can_complete(), Step::Complete(index)),
                (socket.can_close(), Step::Close(index)),
            ];
            choices.extend(possible.into_iter().filter(|(can, _)| *can).map(|(_, step)| step));
        }
        for (index, shard) in self.shards.iter().enumerate() {
            let late = shard.next_timeout().is_some_and(|at| at <= self.now);
            let possible = [
                (self.may_have_operations[index], Step::Operate(index)),
                (shard.has_work(), Step::Work(index)),
                (late, Step::Timeout(index)),
            ];
            choices.extend(possible.into_iter().filter(|(can, _)| *can).map(|(_, step)| step));
        }
        for (index, disk) in self.disks.iter().enumerate() {
            if disk.next_due().is_some_and(|due| due <= self.now) {
                choices.push(Step::Disk(index));
            }
        }
        for route in self.mesh.routes() {
            if self.mesh.due(route).is_some_and(|due| due <= self.now) {
                choices.push(Step::Carry(route));
            }
            if self.mesh.has_room(route) && self.has_mail(route) {
                choices.push(Step::Send(route));
            }
        }
        if self.metadata.next_due().is_some_and(|due| due <= self.now) {
            choices.push(Step::Store);
        }
        if self.control_has_requests {
            choices.push(Step::Control);
        } else if self.control_may_idle {
            choices.push(Step::ControlIdle);
        }
        self.choices = choices;
    }

    fn has_mail(&self, (from, to, lane): Route) -> bool {
        match self.shards.get(usize::from(from.0)) {
            Some(shard) => shard.has_mail(to, lane),
            None => self.control.has_mail(to, lane),
        }
    }

    fn make(&mut self, step: Step) {
        match step {
            Step::Accept(index) => self.accept(index),
            Step::Arrive(index) => self.arrive(index),
            Step::Deliver(index) => {
                let socket = &mut self.sockets[index];
                let Some(bytes) = socket.arrived.pop_front() else {
                    return;
                };
                let (shard, connection) = (usize::from(socket.shard.0), socket.id);
                self.handle(shard, Event::Received { connection, bytes });
            }
            Step::End(index) => {
                self.sockets[index].end_delivered = true;
                let connection = self.sockets[index].id;
                self.handle(self.shard_of(index), Event::Ended { connection });
            }
            Step::Transmit(index) => self.transmit(index),
            Step::Complete(index) => {
                let socket = &mut self.sockets[index];
                let Some(sending) = socket.sending.take() else {
                    return;
                };
                let (connection, outbox) = (socket.id, sending.outbox);
                self.handle(self.shard_of(index), Event::Sent { connection, outbox });
            }
            Step::Close(index) => {
                self.sockets[index].closed = true;
                self.sockets[index].to_server.clear();
                let (shard, connection) = (self.shard_of(index), self.sockets[index].id);
                self.handle(shard, Event::Closed { connection });
                self.slots[shard].release(connection);
            }
            Step::Operate(index) => self.operate(index),
            Step::Work(index) => {
                let time = self.time();
                self.shards[index].work(time);
                self.may_have_operations[index] = true;
            }
            Step::Timeout(index) => {
                let time = self.time();
                self.shards[index].handle_timeout(time);
                self.may_have_operations[index] = true;
            }
            Step::Disk(index) => {
                if let Some(event) = self.disks[index].step(self.now, &mut self.random) {
                    self.handle(index, Event::Disk(event));
                }
            }
            Step::Send(route) => self.send(route),
            Step::Carry(route) => self.carry(route),
            Step::Control => {
                self.control.finish_turn();
                self.admin_answers.extend(std::iter::from_fn(|| self.control.poll_admin_answer()));
                self.control_has_requests = false;
                self.control_may_idle = true;
                self.store();
            }
            Step::ControlIdle => {
                self.control_may_idle = self.control.idle();
                self.store();
            }
            Step::Store => {
                if let Some(through) = self.metadata.complete(self.now) {
                    self.control.made_durable(through);
                    self.control_has_requests = true;
                }
            }
        }
    }

    fn shard_of(&self, socket: usize) -> usize {
        usize::from(self.sockets[socket].shard.0)
    }

    fn handle(&mut self, shard: usize, event: Event) {
        let time = self.time();
        self.shards[shard].handle(event, time);
        self.may_have_operations[shard] = true;
    }

    fn accept(&mut self, index: usize) {
        self.sockets[index].accepted = true;
        let connection = self.sockets[index].id;
        let peer = ([127, 0, 0, 1], 40_000 + (index % 20_000) as u16).into();
        self.handle(self.shard_of(index), Event::Accepted { connection, peer });
    }

    fn arrive(&mut self, index: usize) {
        if self.random.chance(self.faults.exhaustion_percent) {
            return;
        }
        let shard = self.shard_of(index);
        let socket = &mut self.sockets[index];
        let most = socket.to_server.len().min(self.faults.chunk_max_bytes);
        let size = self.random.between(1, most as u64) as usize;
        let bytes: Vec<u8> = socket.to_server.drain(..size).collect();
        let lent = self.pools[shard].lend(bytes);
        #[cfg(test)]
        if let Some(planted_bug) = &mut self.planted_bug {
            planted_bug.received(&lent);
        }
        socket.arrived.push_back(lent);
    }

    fn transmit(&mut self, index: usize) {
        let socket = &mut self.sockets[index];
        let Some(sending) = &mut socket.sending else {
            return;
        };
        let room = self.faults.window_bytes - socket.to_client.len();
        let most = (sending.wire.len() - sending.sent).min(room).min(self.faults.piece_max_bytes);
        let size = self.random.between(1, most as u64) as usize;
        let piece = &sending.wire[sending.sent..sending.sent + size];
        socket.to_client.extend_from_slice(piece);
        sending.sent += size;
    }

    fn operate(&mut self, shard: usize) {
        // Not always all of them: the submission queue of a real driver may be full.
        let most = self.random.between(1, 16);
        for _ in 0..most {
            let Some(operation) = self.shards[shard].poll_operation() else {
                self.may_have_operations[shard] = false;
                return;
            };
            self.carry_out(shard, operation);
        }
    }

    fn carry_out(&mut self, shard: usize, operation: Operation) {
        let operation = match operation {
            Operation::Disk(operation) => {
                self.disks[shard].submit(operation, self.now, &mut self.random);
                return;
            }
            operation => operation,
        };
        let (Operation::Send { connection, .. }
        | Operation::Pause { connection }
        | Operation::Resume { connection }
        | Operation::Close { connection }) = operation
        else {
            return;
        };
        let user = self.slots[shard].user(connection);
        let Some(SocketId(index)) = user else { panic!("{operation:?} for nobody") };
        let socket = &mut self.sockets[index];
        match operation {
            Operation::Disk(_) | Operation::Fail { .. } => {}
            Operation::Send { outbox, .. } => {
                assert!(socket.sending.is_none(), "two sends at a time on {connection:?}");
                #[cfg_attr(not(test), expect(unused_mut, reason = "planted bugs damage it"))]
                let mut wire = outbox.to_vec();
                #[cfg(test)]
                if let Some(planted_bug) = &mut self.planted_bug {
                    planted_bug.transmitted(&mut wire);
                }
                assert!(!wire.is_empty(), "a send of nothing on {connection:?}");
                socket.sending = Some(Sending { outbox, wire, sent: 0 });
            }
            Operation::Pause { .. } => socket.paused = true,
            Operation::Resume { .. } => socket.paused = false,
            Operation::Close { .. } => {
                assert!(!socket.closing, "{connection:?} closed twice");
                socket.closing = true;
            }
        }
    }

    fn send(&mut self, route: Route) {
        let (from, to, lane) = route;
        let batch = match self.shards.get_mut(usize::from(from.0)) {
            Some(shard) => {
                self.may_have_operations[usize::from(from.0)] = true;
                shard.poll_mail(to, lane)
            }
            None => self.control.poll_mail(to, lane),
        };
        let Some(batch) = batch else { return };
        let due = self.now.after(self.random.below(self.faults.mail_delay_max_ns + 1));
        #[cfg(test)]
        let batch = match &mut self.planted_bug {
            Some(planted_bug) => planted_bug.sent(lane, batch),
            None => batch,
        };
        self.mesh.push(route, due, batch);
    }

    fn carry(&mut self, route: Route) {
        let (from, to, _) = route;
        let Some(batch) = self.mesh.pop(route) else {
            return;
        };
        let time = self.time();
        match self.shards.get_mut(usize::from(to.0)) {
            Some(shard) => {
                self.may_have_operations[usize::from(to.0)] = true;
                let emptied = shard.handle_mail(from, batch, time);
                self.give_back(from, emptied);
            }
            None => self.hand_to_control(from, batch),
        }
    }

    fn hand_to_control(&mut self, from: ShardId, batch: Batch) {
        self.control_has_requests = true;
        let emptied = self.control.handle_mail(from, batch);
        self.give_back(from, emptied);
    }

    fn give_back(&mut self, to: ShardId, emptied: Batch) {
        match self.shards.get_mut(usize::from(to.0)) {
            Some(shard) => shard.take_back(emptied),
            None => self.control.take_back(emptied),
        }
    }
}
