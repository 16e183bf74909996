//! The floor: the least that the load client needs. It forwards the octets of a publish to a
//! consumer, without queues, acknowledgements or checks of contents, and every broker is compared
//! with it. It is written to be simple, not clever: a broker that does something better, such as
//! waiting for the next message without sleeping, may surpass it there.
//!
//! ```text
//!   receive buffer: │publish│header│body│publish│header│body│ …
//!                      │        └──┬───┘ verbatim, copied or by reference
//!                      ▼           ▼
//!   outlet:         │deliver│header│body│ …         one send under way per socket
//! ```
//!
//! Errors always end the connection, even those that would end only a channel in a broker.

mod answer;
mod delivery;
mod intake;
mod message;
mod outlet;
pub(crate) mod process;
mod topology;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use leveret_ring::{Completion, Ring, RingConfig, RingError, SocketId, Wait};

use self::intake::Intake;
use self::outlet::{Outlet, PENDING_MAX};
use self::topology::Topology;
use crate::fault::Fault;
use crate::machine::procfs;

/// More connections than the largest scenario opens.
const CLIENTS_MAX: u32 = 16_384;

/// A publisher continues once its consumer has only this much to send: a quarter of the limit, so
/// that it is not stopped again at once.
const RESUME_BELOW: usize = PENDING_MAX / 4;

/// The limit on stored messages, in octets over all queues; above it, publishers are held back.
const RESTING_MAX: usize = 64 << 20;

/// How long to poll for work before sleeping: about the cost of waking a sleeping core, 15 to 37 µs
/// on the machine where this was written. So polling costs at most twice as much as the better
/// choice.
const SPIN: Duration = Duration::from_micros(30);

/// Serves until standard input ends, which means that the load test is gone; then ends the process.
pub(crate) fn serve(listener: TcpListener, core: Option<usize>) -> Result<(), Fault> {
    procfs::pin(core.as_ref())?;
    thread::spawn(|| {
        let mut rest = [0; 64];
        while !matches!(std::io::stdin().read(&mut rest), Ok(0) | Err(_)) {}
        std::process::exit(0);
    });
    FloorServer::new(listener)?.run()
}

/// State that all connections share, without the ring.
struct FloorState {
    /// By the slot of the socket.
    outlets: Vec<Outlet>,
    topology: Topology,
    /// Outlets with something to send.
    dirty: Vec<usize>,
    /// Octets of stored messages.
    resting: usize,
}

struct FloorServer {
    ring: Ring,
    state: FloorState,
    /// By the slot of the socket; `None` while it is closing.
    intakes: Vec<Option<Box<Intake>>>,
    /// Publishers that wait until fewer messages are stored.
    held: Vec<SocketId>,
}

impl FloorServer {
    fn new(listener: TcpListener) -> Result<Self, Fault> {
        let config = RingConfig { sockets_max: CLIENTS_MAX, ..RingConfig::default() };
        let mut ring = Ring::new(&config).map_err(ring_fault)?;
        ring.listen(listener).map_err(ring_fault)?;
        let state = FloorState {
            outlets: Vec::new(),
            topology: Topology::new(),
            dirty: Vec::new(),
            resting: 0,
        };
        Ok(Self { ring, state, intakes: Vec::new(), held: Vec::new() })
    }

    fn run(&mut self) -> Result<(), Fault> {
        let mut completions = Vec::new();
        let mut worked = Instant::now();
        loop {
            let wait = if worked.elapsed() < SPIN { Wait::No } else { Wait::Forever };
            self.ring.turn(wait, &mut completions).map_err(ring_fault)?;
            if !completions.is_empty() {
                worked = Instant::now();
            }
            for completion in completions.drain(..) {
                self.take(completion);
            }
            self.flush();
        }
    }

    fn take(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { stream, .. } => self.adopt(stream),
            Completion::Received { socket, bytes } => self.receive(socket, &bytes),
            Completion::Sent { socket, outgoing } => {
                let outlet = &mut self.state.outlets[socket.slot as usize];
                outlet.sent(outgoing);
                if !outlet.is_empty() {
                    self.state.dirty.push(socket.slot as usize);
                } else if outlet.closing {
                    self.ring.close(socket);
                }
                self.resume_feeders(socket.slot as usize);
            }
            Completion::EndOfStream { socket } | Completion::Failed { socket, .. } => {
                self.leave(socket);
                self.ring.close(socket);
            }
            Completion::Closed { socket } => {
                self.leave(socket);
                self.state.outlets[socket.slot as usize] = Outlet::default();
            }
            Completion::Woken | Completion::ListenFailed { .. } | Completion::File { .. } => {}
        }
    }

    /// If a client cannot be served, dropping its stream closes it.
    fn adopt(&mut self, stream: TcpStream) {
        let Ok(socket) = self.ring.adopt(stream) else { return };
        let slot = socket.slot as usize;
        if self.intakes.len() <= slot {
            self.intakes.resize_with(slot + 1, || None);
            self.state.outlets.resize_with(slot + 1, Outlet::default);
        }
        self.intakes[slot] = Some(Box::new(Intake::new(slot)));
        self.state.outlets[slot].socket = Some(socket);
        self.ring.receive(socket);
    }

    fn receive(&mut self, socket: SocketId, bytes: &Bytes) {
        let slot = socket.slot as usize;
        let Some(mut intake) = self.intakes[slot].take() else { return };
        let open = intake.receive(&mut self.state, bytes);
        let over = intake.take_over();
        self.intakes[slot] = Some(intake);
        if !open {
            self.leave(socket);
            self.state.outlets[slot].closing = true;
            self.state.dirty.push(slot);
            return;
        }
        if let Some(consumer) = over
            && self.state.outlets[consumer].is_behind()
        {
            self.ring.pause(socket);
            self.state.outlets[consumer].feeders.push(socket);
        } else if self.state.resting > RESTING_MAX {
            self.ring.pause(socket);
            self.held.push(socket);
        }
    }

    /// Removes everything that belongs to a connection.
    fn leave(&mut self, socket: SocketId) {
        let slot = socket.slot as usize;
        if self.intakes[slot].take().is_some() {
            self.state.leave(slot);
        }
        // They are held back again if another consumer has too much to send.
        for feeder in std::mem::take(&mut self.state.outlets[slot].feeders) {
            self.ring.receive(feeder);
        }
    }

    fn resume_feeders(&mut self, slot: usize) {
        let outlet = &mut self.state.outlets[slot];
        if outlet.pending() <= RESUME_BELOW {
            for feeder in outlet.feeders.drain(..) {
                self.ring.receive(feeder);
            }
        }
    }

    /// Sends the output of this turn, with one send per connection.
    fn flush(&mut self) {
        for slot in self.state.dirty.drain(..) {
            let outlet = &mut self.state.outlets[slot];
            let Some(socket) = outlet.socket else { continue };
            if let Some(outgoing) = outlet.start() {
                self.ring.send(socket, outgoing);
            } else if outlet.closing && outlet.is_idle() {
                self.ring.close(socket);
            }
        }
        if !self.held.is_empty() && self.state.resting <= RESTING_MAX / 2 {
            for publisher in self.held.drain(..) {
                self.ring.receive(publisher);
            }
        }
    }
}

fn ring_fault(error: RingError) -> Fault {
    Fault::Machine(error.to_string())
}

#[cfg(test)]
mod tests;
