//! The floor: the least that satisfies the load client. What a publish brings goes to a consumer as
//! it came, without queues, acknowledgements or checks of contents, and every broker is compared
//! with that. It is written to be simple, not clever: a broker that does better at something, such
//! as waiting for the next message without sleeping, may pass it there.
//!
//! ```text
//!   receive buffer: │publish│header│body│publish│header│body│ …
//!                      │        └──┬───┘ verbatim, copied or by reference
//!                      ▼           ▼
//!   outlet:         │deliver│header│body│ …         one send under way per socket
//! ```
//!
//! Errors end the connection, also those that would end only the channel at a broker.

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

/// As many connections as the largest scenario opens, and some more.
const CLIENTS_MAX: u32 = 16_384;

/// A publisher may go on once its consumer has this little to send: a quarter of the mark, so that
/// it is not stopped again at once.
const RESUME_BELOW: usize = PENDING_MAX / 4;

/// Messages without a consumer, in octets of all queues; with more, publishers are held back.
const RESTING_MAX: usize = 64 << 20;

/// How long it looks for work before it sleeps: about the price of one wake-up of a sleeping core,
/// 15 to 37 µs on the machine that this was written on, so that it costs at most twice as much.
const SPIN: Duration = Duration::from_micros(30);

/// Serves until the standard input ends, which is when the load test is gone; that ends the
/// process.
pub(crate) fn serve(listener: TcpListener, core: Option<usize>) -> Result<(), Fault> {
    procfs::pin(core.as_ref())?;
    thread::spawn(|| {
        let mut rest = [0; 64];
        while !matches!(std::io::stdin().read(&mut rest), Ok(0) | Err(_)) {}
        std::process::exit(0);
    });
    FloorServer::new(listener)?.run()
}

/// All that the connections share but the ring.
struct FloorState {
    /// By slot of the socket.
    outlets: Vec<Outlet>,
    topology: Topology,
    /// Outlets that have something to send.
    dirty: Vec<usize>,
    /// Octets of messages that wait in queues.
    resting: usize,
}

struct FloorServer {
    ring: Ring,
    state: FloorState,
    /// By slot of the socket; `None` for one that is closing.
    intakes: Vec<Option<Box<Intake>>>,
    /// Publishers that wait until fewer messages rest.
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

    /// A client that cannot be served is closed by the drop of its stream.
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

    /// Everything that a connection had goes with it.
    fn leave(&mut self, socket: SocketId) {
        let slot = socket.slot as usize;
        if self.intakes[slot].take().is_some() {
            self.state.leave(slot);
        }
        // They are held back again if another consumer is full.
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

    /// Sends what the turn brought, one send per connection.
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
