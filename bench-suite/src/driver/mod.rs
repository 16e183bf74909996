//! Moves the octets of many endpoints on one thread, until all are done or one fails.
//!
//! ```text
//!            ┌─ receive ◄── chunk ──┐
//!   endpoint ┤                      ├── transport: ring (bare io_uring) or runtime (tokio-uring)
//!            └─ poll_send ─► out ───┘
//!   pass: once a turn every endpoint is asked what is due, and the watch whether all is well
//! ```

mod ring;
mod runtime;
pub(crate) mod threads;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::load::endpoint::{Attached, Endpoint};
use crate::machine::procfs;
use crate::scenario::Transport;

/// How often a thread checks whether another one has failed and whether the broker is silent.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An endpoint that wants to be polled again within this time only waits for a change. One that is
/// due later follows a schedule, and waiting for a schedule does not count as silence of the
/// broker.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(10);

/// How a thread drives its endpoints.
#[derive(Debug, Clone)]
pub(crate) struct DrivePlan {
    pub(crate) transport: Transport,
    /// The core to run on; `None` for any core.
    pub(crate) core: Option<usize>,
    /// A broker is silent after this long without an octet in either direction.
    pub(crate) silence_max: Duration,
    /// Set by the first thread of the run that fails; checked by the others.
    pub(crate) abort: Arc<AtomicBool>,
}

/// Drives all endpoints on the calling thread. Returns them in order, even after a fault, because
/// their counts are needed. Their sockets are closed by then.
pub(crate) fn drive<E: Endpoint + 'static>(
    attached: Vec<Attached<E>>,
    plan: &DrivePlan,
) -> (Vec<E>, Result<(), Fault>) {
    let now = Instant::now();
    let mut links = Vec::with_capacity(attached.len());
    let mut streams = Vec::with_capacity(attached.len());
    let mut ready = procfs::pin(plan.core.as_ref());
    for Attached { stream, received, endpoint } in attached {
        let mut link = Link { endpoint, out: Some(Vec::new()), done: false };
        if ready.is_ok() && !received.is_empty() {
            ready = link.endpoint.receive(&received, now);
        }
        links.push(link);
        streams.push(stream);
    }
    let watch = Watch::new(plan, now);
    let (links, result) = match (ready, plan.transport) {
        (Err(fault), _) => (links, Err(fault)),
        (Ok(()), Transport::IoUring) => ring::drive(links, streams, watch),
        (Ok(()), Transport::TokioUring) => runtime::drive(links, streams, watch),
    };
    if result.is_err() {
        plan.abort.store(true, Relaxed);
    }
    (links.into_iter().map(|link| link.endpoint).collect(), result)
}

/// An endpoint with its state in the transport.
struct Link<E> {
    endpoint: E,
    /// The send buffer; `None` while the kernel has it.
    out: Option<Vec<u8>>,
    done: bool,
}

impl<E: Endpoint> Link<E> {
    /// The kernel has taken all of the last send, or has refused it. The buffer is reusable.
    fn sent(&mut self, mut out: Vec<u8>) {
        out.clear();
        self.out = Some(out);
    }

    /// The connection has ended; without an error if it ended orderly.
    fn ended(&mut self, error: Option<io::Error>) -> Result<(), Fault> {
        self.done = self.done || self.endpoint.is_done();
        match error {
            // An endpoint that waits for nothing more does not need its connection.
            _ if self.done => Ok(()),
            Some(error) if !is_cut(&error) => {
                Err(Fault::io("use a connection to the broker")(error))
            }
            _ => Err(Fault::Cut),
        }
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}

/// The result of a pass over all endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// All endpoints are done, and the kernel has taken all sends.
    Done,
    /// Something was sent, which may have given other endpoints something to do.
    Sent,
    /// There is nothing to do before this time unless something arrives.
    Until(Instant),
}

/// Polls every endpoint and passes its output to `send`.
fn pass<E: Endpoint>(
    links: &mut [Link<E>],
    watch: &mut Watch,
    now: Instant,
    mut send: impl FnMut(usize, Vec<u8>),
) -> Result<Pass, Fault> {
    let (mut all_done, mut any_sent) = (true, false);
    let mut next = watch.next_look;
    for (index, link) in links.iter_mut().enumerate() {
        if !link.done {
            link.done = link.endpoint.is_done();
        }
        let Some(out) = link.out.as_mut() else {
            all_done = false;
            continue;
        };
        if link.done {
            continue;
        }
        all_done = false;
        let Some(due) = link.endpoint.next_due(now) else { continue };
        if due > now {
            next = next.min(due);
            watch.scheduled(due, now);
            continue;
        }
        link.endpoint.poll_send(now, out)?;
        if out.is_empty() {
            // It is due but has no output: poll it again in the next turn.
            next = now;
        } else if let Some(out) = link.out.take() {
            any_sent = true;
            send(index, out);
        }
    }
    if all_done {
        return Ok(Pass::Done);
    }
    watch.look(links, now)?;
    Ok(if any_sent { Pass::Sent } else { Pass::Until(next) })
}

/// Detects that the broker is silent or that another thread has failed.
struct Watch {
    silence_max: Duration,
    abort: Arc<AtomicBool>,
    /// When octets last moved, or the end of the latest schedule if that is later.
    alive: Instant,
    next_look: Instant,
}

impl Watch {
    fn new(plan: &DrivePlan, now: Instant) -> Self {
        Self {
            silence_max: plan.silence_max,
            abort: Arc::clone(&plan.abort),
            alive: now,
            next_look: now + LOOK_EVERY,
        }
    }

    /// Octets were received, or taken by the kernel.
    fn moved(&mut self, now: Instant) {
        self.alive = self.alive.max(now);
    }

    fn scheduled(&mut self, due: Instant, now: Instant) {
        if due > now + LOOK_AGAIN_MAX {
            self.alive = self.alive.max(due);
        }
    }

    fn look<E: Endpoint>(&mut self, links: &[Link<E>], now: Instant) -> Result<(), Fault> {
        if now < self.next_look {
            return Ok(());
        }
        self.next_look = now + LOOK_EVERY;
        if self.abort.load(Relaxed) {
            return Err(Fault::Aborted);
        }
        if now.saturating_duration_since(self.alive) < self.silence_max {
            return Ok(());
        }
        let waiting = links.iter().find(|link| !link.done);
        let expected = waiting.map_or("the end of a send", |link| link.endpoint.awaits());
        Err(Fault::Silent { expected, seconds: self.silence_max.as_secs() })
    }
}

#[cfg(test)]
mod tests;
