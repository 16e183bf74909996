//! The endpoints of one thread on a bare ring: one system call a turn.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use leveret_ring::{Completion, Outgoing, Ring, RingConfig, RingError, SocketId, Wait};

use super::{Link, Pass, Watch, pass};
use crate::fault::Fault;
use crate::load::endpoint::Endpoint;

/// A core that sleeps takes tens of microseconds to wake. What is due sooner than this is waited
/// for awake, so a send is late by the work of one turn at most. Reports show how late: `send_lag`.
const SPIN: Duration = Duration::from_micros(60);

/// What plain multishot receives like best: smaller ones cost a completion more often.
const BUFFER_SIZE_BYTES: u32 = 64 << 10;

/// With the fewest, 1 MiB, all stay in the second cache; each goes back in the turn that it came.
const BUFFERS_MIN: usize = 16;

/// With the most, 16 MiB: thousands of sockets that receive at once share them turn by turn.
const BUFFERS_MAX: usize = 256;

/// Drives `links`, each on the stream of the same index.
pub(super) fn drive<E: Endpoint>(
    mut links: Vec<Link<E>>,
    streams: Vec<TcpStream>,
    watch: Watch,
) -> (Vec<Link<E>>, Result<(), Fault>) {
    let result = Turns::new(streams, watch).and_then(|mut turns| turns.run(&mut links));
    (links, result)
}

struct Turns {
    ring: Ring,
    watch: Watch,
    /// By index of the link.
    sockets: Vec<SocketId>,
    /// The index of the link by slot of the socket.
    links_by_slot: Vec<usize>,
    completions: Vec<Completion>,
}

impl Turns {
    fn new(streams: Vec<TcpStream>, watch: Watch) -> Result<Self, Fault> {
        let mut ring = Ring::new(&config(streams.len())).map_err(ring_fault)?;
        let mut sockets = Vec::with_capacity(streams.len());
        let mut links_by_slot = vec![usize::MAX; streams.len().max(1)];
        for (index, stream) in streams.into_iter().enumerate() {
            let socket = ring.adopt(stream).map_err(ring_fault)?;
            ring.receive(socket);
            links_by_slot[socket.slot as usize] = index;
            sockets.push(socket);
        }
        Ok(Self { ring, watch, sockets, links_by_slot, completions: Vec::new() })
    }

    fn run<E: Endpoint>(&mut self, links: &mut [Link<E>]) -> Result<(), Fault> {
        let mut now = Instant::now();
        loop {
            let (ring, sockets) = (&mut self.ring, &self.sockets);
            let found = pass(links, &mut self.watch, now, |index, scratch| {
                ring.send(sockets[index], Outgoing { scratch, bodies: Vec::new() });
            })?;
            let wait = match found {
                Pass::Done => return Ok(()),
                Pass::Sent => Wait::No,
                Pass::Until(due) => match due.saturating_duration_since(now) {
                    soon if soon <= SPIN => Wait::No,
                    later => Wait::Until(later.saturating_sub(SPIN)),
                },
            };
            self.ring.turn(wait, &mut self.completions).map_err(ring_fault)?;
            now = Instant::now();
            now = self.take_completions(links, now)?;
        }
    }

    /// Returns the time of the last one: a turn can bring milliseconds of work, and stamps are
    /// compared with the time at which their chunk is read.
    fn take_completions<E: Endpoint>(
        &mut self,
        links: &mut [Link<E>],
        mut now: Instant,
    ) -> Result<Instant, Fault> {
        for completion in self.completions.drain(..) {
            match completion {
                Completion::Received { socket, bytes } => {
                    let link = &mut links[self.links_by_slot[socket.slot as usize]];
                    self.watch.moved(now);
                    link.endpoint.receive(&bytes, now)?;
                    now = Instant::now();
                }
                Completion::Sent { socket, outgoing } => {
                    self.watch.moved(now);
                    links[self.links_by_slot[socket.slot as usize]].sent(outgoing.scratch);
                }
                Completion::EndOfStream { socket } => {
                    links[self.links_by_slot[socket.slot as usize]].ended(None)?;
                }
                Completion::Failed { socket, error } => {
                    let link = &mut links[self.links_by_slot[socket.slot as usize]];
                    link.ended(Some(error))?;
                    // The ring tells of no send of a socket that failed.
                    link.sent(Vec::new());
                }
                // No listeners, no closes, no files, and nobody who would wake us.
                Completion::Closed { .. }
                | Completion::Woken
                | Completion::Accepted { .. }
                | Completion::ListenFailed { .. }
                | Completion::File { .. } => {}
            }
        }
        Ok(now)
    }
}

fn config(connections: usize) -> RingConfig {
    let buffers = (2 * connections).next_power_of_two().clamp(BUFFERS_MIN, BUFFERS_MAX);
    RingConfig {
        sockets_max: connections.max(1) as u32,
        buffer_count: buffers as u16,
        buffer_size_bytes: BUFFER_SIZE_BYTES,
        // A chunk is read before the next turn: leases never run out.
        lend_above_free_buffers: 0,
        submission_entries: 256,
        completion_entries: 4_096,
    }
}

fn ring_fault(error: RingError) -> Fault {
    Fault::Machine(error.to_string())
}
