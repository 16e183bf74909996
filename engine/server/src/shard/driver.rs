//! The event loop of one shard. Completions and mail go into the shard; operations and mail that
//! the shard wants to send go out. Each turn makes one system call.
//!
//! ```text
//!        ┌── ring.turn (submit, wait, collect) ◄── sleep until: completion, wake, timeout
//!        ▼
//!   completions ─► handle ─┐                   ┌─► poll_operation ─► ring
//!   mesh inboxes ─► handle_mail ─► shard ──────┼─► disk ─► ring, files thread
//!   clock ─► handle_timeout┘                   └─► poll_mail ─► mesh, and wake whom it reached
//! ```

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use leveret_broker::alarms::Alarms;
use leveret_broker::delivery::operation::Operation;
use leveret_broker::delivery::outbox::Outbox;
use leveret_broker::home::paging::Damage;
use leveret_broker::id::{ConnectionId, Instant, ShardId, Time};
use leveret_broker::mesh::batch::Batch;
use leveret_broker::mesh::mail;
use leveret_broker::shard::Shard;
use leveret_broker::shard::event::Event;
use leveret_ring::{
    Completion, Endpoint, Lane, Outgoing, Ring, RingError, SocketId, Wait, WakeTarget,
};
use tracing::{debug, error, warn};

use crate::clock::Clock;
use crate::data::disk::Disk;
use crate::log::Rate;
use crate::shard::acceptor::Acceptor;
use crate::shard::polling::Polling;
use crate::shard::receive_queue::{ReceiveQueue, Received};
use crate::shared_state::shard_reports::ShardReport;
use crate::shared_state::{SharedState, Stage};
use crate::thread::ThreadEvent;

/// The lanes of the mesh, by their names in both crates. Replies come first, because they free
/// resources that work needs.
pub(crate) const LANES: [(Lane, mail::Lane); 2] =
    [(Lane::Reply, mail::Lane::Reply), (Lane::Work, mail::Lane::Work)];

/// Batches taken from one lane per turn. With this limit a busy peer cannot keep the shard from its
/// sockets, and the output fits an outbox: 256 KiB are up to 8,000 small messages.
const BATCHES_PER_LANE_MAX: usize = 4;

/// Received bytes handled per turn, unless a single buffer is larger. With this limit the output is
/// sent while both are still in the level 2 cache, and before it fills an outbox.
const RECEIVED_BYTES_PER_TURN: usize = 512 << 10;

/// Connections taken from the inbox per turn; each costs two system calls.
const ADOPTIONS_PER_TURN_MAX: usize = 64;

/// Rounds of polling the shard per turn. The operations of one round can give the next round
/// something to send.
const FLUSH_ROUNDS_MAX: usize = 8;

/// How soon to try again to send on a full lane. The receiver needs longer than this to empty it.
const FULL_LANE_RETRY_NS: u64 = 100_000;

/// Turns without a sleep after which the shard publishes its memory use. A busy turn takes about
/// ten microseconds; the monitor looks every 100 ms.
const TURNS_PER_MEMORY_REPORT: u32 = 64;

/// Log lines about damage per second: enough to see a pattern. The broker crate has the same limit.
const DAMAGE_LINES_MAX: u32 = 64;

/// One shard with the ring of its thread and its endpoint of the mesh.
pub(crate) struct Driver {
    pub(crate) index: usize,
    pub(crate) shard: Shard,
    pub(crate) ring: Ring,
    pub(crate) acceptor: Acceptor,
    pub(crate) disk: Disk,
    pub(crate) mesh: Endpoint<Batch>,
    /// Wakes the members of the mesh, by number.
    pub(crate) wakes: Arc<[WakeTarget]>,
    pub(crate) shared: Arc<SharedState>,
    pub(crate) thread_events: Sender<ThreadEvent>,
    pub(crate) clock: Clock,
    /// Opening and closing connections does not count as work worth polling for: such clients
    /// usually pause for longer than a wake-up takes.
    pub(crate) polling: Polling,
    pub(crate) state: TurnState,
}

/// State kept from one turn to the next.
#[derive(Default)]
pub(crate) struct TurnState {
    completions: Vec<Completion>,
    receive_queue: ReceiveQueue,
    /// A wake-up came: check the state that other threads share outside the mesh.
    woken: bool,
    /// There is more to do at once: do not sleep.
    busy: bool,
    /// Mail waits because a lane is full.
    lane_full: bool,
    is_stopping: bool,
    stop_reported: bool,
    is_closing: bool,
    close_reported: bool,
    refusals: Rate,
    damages: Rate,
    /// The alarms that the shard knows of.
    alarms: Alarms,
    /// Turns since the memory use was last published.
    turns: u32,
}

impl Driver {
    /// Runs until the broker quits.
    pub(crate) fn run(mut self) -> Result<(), RingError> {
        let mut time = self.clock.time();
        // Other threads may have left something before this thread could be woken.
        self.state.woken = true;
        loop {
            let wait = self.wait(time.now);
            self.publish_memory(wait);
            self.turn(wait)?;
            time = self.clock.time();
            let mut found = !self.state.completions.is_empty();
            let mut worked = self.take_completions(time);
            self.handle_received(time);
            worked |=
                self.take_disk_events(time) | self.take_mail(time) | self.shard.take_traffic();
            if std::mem::take(&mut self.state.woken) && !self.check_shared_state(time) {
                return Ok(());
            }
            if self.shard.next_timeout().is_some_and(|due| due <= time.now) {
                self.shard.handle_timeout(time);
            }
            self.flush(time);
            self.report_damage();
            self.report_stop();
            found |= self.state.busy;
            self.polling.turned(worked, found, time.now);
        }
    }

    fn wait(&self, now: Instant) -> Wait {
        let has_work =
            self.state.busy || !self.state.receive_queue.is_empty() || self.disk.has_event();
        if has_work || self.polling.looks_again(now) {
            return Wait::No;
        }
        // A shard that is allowed to poll also polls for its commit.
        if self.polling.is_on() && self.disk.commit_is_due(now) {
            return Wait::No;
        }
        let timeouts = self.shard.next_timeout().into_iter().chain(self.disk.next_timeout());
        let timeout = timeouts.min().map(|due| due.since(now));
        let retry = self.state.lane_full.then_some(FULL_LANE_RETRY_NS);
        match timeout.into_iter().chain(retry).min() {
            None => Wait::Forever,
            Some(0) => Wait::No,
            Some(nanoseconds) => Wait::Until(Duration::from_nanos(nanoseconds)),
        }
    }

    /// Publishes the memory use before each sleep, so that the value of a sleeping shard is
    /// current.
    fn publish_memory(&mut self, wait: Wait) {
        self.state.turns += 1;
        let sleeps = wait != Wait::No;
        if sleeps || self.state.turns >= TURNS_PER_MEMORY_REPORT {
            self.state.turns = 0;
            self.shared.resources.publish(self.index, self.shard.backend().memory_bytes());
        }
    }

    fn turn(&mut self, wait: Wait) -> Result<(), RingError> {
        if wait == Wait::No {
            return self.ring.turn(wait, &mut self.state.completions);
        }
        let wait = if self.mesh.prepare_sleep() { wait } else { Wait::No };
        if wait != Wait::No {
            self.polling.sleeps();
        }
        let turned = self.ring.turn(wait, &mut self.state.completions);
        self.mesh.awake();
        turned
    }

    /// True if a file operation completed. Socket completions count only if the shard says so
    /// (`take_traffic`).
    fn take_completions(&mut self, time: Time) -> bool {
        let mut worked = false;
        let mut completions = std::mem::take(&mut self.state.completions);
        for completion in completions.drain(..) {
            match completion {
                // Handled before the received bytes of this turn, because a completed send makes
                // room for their output.
                Completion::Sent { socket, outgoing } => {
                    let outbox = Outbox::from_parts(outgoing.scratch, outgoing.bodies);
                    self.shard.handle(Event::Sent { connection: connection(socket), outbox }, time);
                }
                Completion::Received { socket, bytes } => {
                    let connection = connection(socket);
                    if self.state.receive_queue.push(Received { connection, bytes: Some(bytes) }) {
                        self.ring.pause(socket);
                    }
                }
                Completion::EndOfStream { socket } | Completion::Failed { socket, .. } => {
                    let connection = connection(socket);
                    self.state.receive_queue.push(Received { connection, bytes: None });
                }
                // The shard closed the connection itself, so it ignores buffers that still wait for
                // it.
                Completion::Closed { socket } => {
                    self.shared.placement.release(self.index);
                    self.shard.handle(Event::Closed { connection: connection(socket) }, time);
                    worked = true;
                }
                Completion::Woken => self.state.woken = true,
                Completion::File { token, bytes, result } => {
                    self.disk.complete(token, bytes, result, &mut self.ring, time.now);
                    worked = true;
                }
                Completion::Accepted { stream, .. } => self.accept(stream),
                Completion::ListenFailed { error, retrying, .. } => {
                    self.acceptor.listen_failed(&error, retrying);
                }
            }
        }
        self.state.completions = completions;
        worked
    }

    /// Handles received buffers up to the limit of one turn.
    fn handle_received(&mut self, time: Time) {
        let mut bytes_left = RECEIVED_BYTES_PER_TURN;
        while bytes_left > 0
            && let Some(Received { connection, bytes }) = self.state.receive_queue.pop()
        {
            let event = match bytes {
                Some(bytes) => {
                    bytes_left = bytes_left.saturating_sub(bytes.len());
                    Event::Received { connection, bytes }
                }
                None => Event::Ended { connection },
            };
            self.shard.handle(event, time);
        }
        while let Some(connection) = self.state.receive_queue.resume_next() {
            self.ring.receive(socket(connection));
        }
    }

    /// True if there was any event.
    fn take_disk_events(&mut self, time: Time) -> bool {
        let mut worked = false;
        while let Some(event) = self.disk.poll_event(&mut self.ring, time.now) {
            self.shard.handle(Event::Disk(event), time);
            worked = true;
        }
        worked
    }

    /// True if there was any mail.
    fn take_mail(&mut self, time: Time) -> bool {
        let mut worked = false;
        for (lane, _) in LANES {
            for from in (0..self.mesh.participants()).filter(|from| *from != self.index) {
                for _ in 0..BATCHES_PER_LANE_MAX {
                    let Some(batch) = self.mesh.receive(from, lane) else {
                        break;
                    };
                    let emptied = self.shard.handle_mail(ShardId(from as u16), batch, time);
                    self.mesh.give_back(from, emptied);
                    worked = true;
                }
            }
        }
        worked
    }

    /// Reads what other threads put into the shared state before they wake this shard. False if the
    /// broker quits.
    fn check_shared_state(&mut self, time: Time) -> bool {
        let alarms = self.shared.resources.alarms();
        if alarms != std::mem::replace(&mut self.state.alarms, alarms) {
            self.shard.handle(Event::Alarms(alarms), time);
        }
        self.adopt(time);
        match self.shared.stage() {
            Stage::Running => {}
            Stage::Stopping => self.begin_stop(time),
            Stage::Closing => {
                self.begin_stop(time);
                if !std::mem::replace(&mut self.state.is_closing, true) {
                    self.shard.handle(Event::CloseLog, time);
                }
            }
            Stage::Quitting => return false,
        }
        self.shared.shard_reports.answer(self.index, |with_queues| ShardReport {
            report: self.shard.report(with_queues),
            ring: self.ring.counters(),
            buffers_free: self.ring.free_buffers(),
            buffers_leased: self.ring.leases_out(),
        });
        true
    }

    fn accept(&mut self, stream: TcpStream) {
        match self.acceptor.place(stream, &self.shared.placement) {
            Some(shard) if shard == self.index => self.state.woken = true,
            // Wakes the shard even if it is not asleep: it looks into its inbox only after a
            // wake-up.
            Some(shard) => self.ring.wake(&self.wakes[shard]),
            None => {}
        }
    }

    fn adopt(&mut self, time: Time) {
        for _ in 0..ADOPTIONS_PER_TURN_MAX {
            let Some(stream) = self.shared.placement.take(self.index) else {
                return;
            };
            if let Err(error) = self.adopt_one(stream, time) {
                self.shared.placement.release(self.index);
                if let Some(withheld) = self.state.refusals.admit() {
                    warn!(withheld, "shard {} dropped a new connection: {error}", self.index);
                }
            }
        }
        // No further wake-up will come for the connections that are left.
        self.state.woken = true;
    }

    fn adopt_one(&mut self, stream: TcpStream, time: Time) -> Result<(), RingError> {
        // Fails if the client is already gone.
        let peer = canonical(stream.peer_addr().map_err(RingError::Socket)?);
        let socket = self.ring.adopt_accepted(stream)?;
        debug!("shard {} serves {peer}", self.index);
        self.state.receive_queue.begin(connection(socket));
        self.shard.handle(Event::Accepted { connection: connection(socket), peer }, time);
        self.ring.receive(socket);
        Ok(())
    }

    /// Carries out operations and sends mail until the shard has nothing more to do.
    fn flush(&mut self, time: Time) {
        self.state.busy = self.state.woken;
        for _ in 0..FLUSH_ROUNDS_MAX {
            self.operate(time.now);
            let sent = self.send_mail();
            if self.shard.has_work() {
                self.shard.work(time);
            } else if !sent {
                return;
            }
        }
        self.operate(time.now);
        self.state.busy = true;
    }

    fn operate(&mut self, now: Instant) {
        while let Some(operation) = self.shard.poll_operation() {
            match operation {
                Operation::Send { connection, outbox } => {
                    let (scratch, bodies) = outbox.into_parts();
                    self.ring.send(socket(connection), Outgoing { scratch, bodies });
                }
                Operation::Pause { connection } => {
                    if self.state.receive_queue.want(connection, false) {
                        self.ring.pause(socket(connection));
                    }
                }
                Operation::Resume { connection } => {
                    if self.state.receive_queue.want(connection, true) {
                        self.ring.receive(socket(connection));
                    }
                }
                Operation::Close { connection } => self.ring.close(socket(connection)),
                Operation::Disk(operation) => {
                    self.disk.carry_out(operation, &mut self.ring, now);
                }
                Operation::Fail { reason } => self.fail(reason),
            }
        }
    }

    /// Reports that the shard cannot go on. The main thread then ends the process, after a short
    /// delay in which replies to clients may still leave.
    fn fail(&self, reason: String) {
        let thread = format!("shard-{}", self.index);
        // Fails only while the process is ending.
        let _ = self.thread_events.send(ThreadEvent::Failed { thread, reason });
    }

    /// True if anything was sent.
    fn send_mail(&mut self) -> bool {
        let mut any = false;
        self.state.lane_full = false;
        for to in (0..self.mesh.participants()).filter(|to| *to != self.index) {
            let mut sent = false;
            for (lane, of_mail) in LANES {
                let member = ShardId(to as u16);
                while self.shard.has_mail(member, of_mail) {
                    if !self.mesh.has_room(to, lane) {
                        self.state.lane_full = true;
                        break;
                    }
                    let Some(batch) = self.shard.poll_mail(member, of_mail) else {
                        break;
                    };
                    let delivered = self.mesh.try_send(to, lane, batch).is_ok();
                    assert!(delivered, "we are the lane's only sender and saw room");
                    sent = true;
                    if let Some(emptied) = self.mesh.take_back(to) {
                        self.shard.take_back(emptied);
                    }
                }
            }
            if sent && self.mesh.needs_wake(to) {
                self.ring.wake(&self.wakes[to]);
            }
            any |= sent;
        }
        any
    }

    fn begin_stop(&mut self, time: Time) {
        if !std::mem::replace(&mut self.state.is_stopping, true) {
            self.acceptor.stop(&mut self.ring);
            self.shard.handle(Event::Stop, time);
        }
    }

    /// Logs damage that the shard found in its log.
    fn report_damage(&mut self) {
        for Damage { place, is_rescued, error } in self.shard.take_damage() {
            let Some(withheld) = self.state.damages.admit_some(DAMAGE_LINES_MAX) else { continue };
            let file = self.disk.path_of(place.segment);
            let found = error.map_or("not the record".to_owned(), |error| error.to_string());
            let outcome = if is_rescued {
                "It was in memory too and is written anew: nothing is lost"
            } else {
                "The message is lost"
            };
            error!(
                withheld,
                "damage in {}: {} bytes at {}: {found}. {outcome}. The file is kept.",
                file.display(),
                place.length,
                place.offset
            );
        }
    }

    fn report_stop(&mut self) {
        if self.state.is_stopping && !self.state.stop_reported && self.shard.is_stopped() {
            self.state.stop_reported = true;
            // The main thread receives until the process ends.
            let _ = self.thread_events.send(ThreadEvent::Stopped);
        }
        let closed = self.state.is_closing && self.shard.backend().home.is_log_settled();
        if closed && !std::mem::replace(&mut self.state.close_reported, true) {
            let _ = self.thread_events.send(ThreadEvent::Closed);
        }
    }
}

fn connection(socket: SocketId) -> ConnectionId {
    ConnectionId { slot: socket.slot, generation: socket.generation }
}

fn socket(connection: ConnectionId) -> SocketId {
    SocketId { slot: connection.slot, generation: connection.generation }
}

/// An IPv4 client of an IPv6 listener counts as an IPv4 client, so that `guest` may also use a
/// mapped loopback address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_both_crates_name_the_same_connection() {
        let id = ConnectionId { slot: 7, generation: 9 };
        assert_eq!(connection(socket(id)), id);
    }

    #[test]
    fn a_mapped_loopback_address_is_loopback() {
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:5672".parse().unwrap();
        assert!(!mapped.ip().is_loopback() && canonical(mapped).ip().is_loopback());
        let plain: SocketAddr = "[::1]:5672".parse().unwrap();
        assert_eq!(canonical(plain), plain);
    }
}
