//! Drives the endpoints of one thread with a bare ring: one system call per turn.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use leveret_ring::{Completion, Outgoing, Ring, RingConfig, RingError, SocketId, Wait};

use super::{Link, Pass, Watch, pass};
use crate::fault::Fault;
use crate::load::endpoint::Endpoint;

/// A sleeping core takes tens of microseconds to wake up. For anything that is due sooner than
/// this, the thread waits without sleeping, so a send is late by at most the work of one turn.
/// Reports show the delay as `send_lag`.
const SPIN: Duration = Duration::from_micros(60);

/// The size that plain multishot receives handle best: with smaller buffers there are more
/// completions.
const BUFFER_SIZE_BYTES: u32 = 64 << 10;

/// The fewest buffers, 1 MiB, fit the level 2 cache; each is returned in the turn in which it was
/// filled.
const BUFFERS_MIN: usize = 16;

/// The most buffers, 16 MiB. Thousands of sockets that receive at once share them.
const BUFFERS_MAX: usize = 256;

/// Drives `links`, each on the stream with the same index.
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
    /// By the index of the link.
    sockets: Vec<SocketId>,
    /// The index of the link, by the slot of the socket.
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

    /// Returns the time of the last completion. A turn can bring milliseconds of work, and stamps
    /// are compared with the time at which their chunk is read.
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
                    // The ring does not report the sends of a socket that failed.
                    link.sent(Vec::new());
                }
                // There are no listeners, closes or files here, and no other thread wakes this one.
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
        // A chunk is read before the next turn, so all buffers are returned in time.
        lend_above_free_buffers: 0,
        submission_entries: 256,
        completion_entries: 4_096,
    }
}

fn ring_fault(error: RingError) -> Fault {
    Fault::Machine(error.to_string())
}
