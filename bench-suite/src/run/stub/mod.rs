//! A broker that speaks just enough AMQP to be put under load, and can be told to do wrong: the
//! truth of the harness is tested against it.
//!
//! ```text
//! connection ──► reader thread ──► State: exchanges ─► queues ─► outboxes ──► writer threads
//! ```
//!
//! A queue delivers to its first consumer at once and keeps what comes while it has none. Prefetch
//! counts are answered and not heeded; what was not acknowledged is not delivered again.

mod session;
mod state;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::session::Session;
use self::state::{Connection, State};

const FRAME_SIZE_MAX: u32 = 131_072;

/// Octets that may wait in queues and outboxes; above, publishers are not read.
const WAITING_SIZE_MAX: usize = 64 << 20;

/// How often [`Defect::Slow`] delivers what has come due.
const PACE_INTERVAL: Duration = Duration::from_millis(5);

/// What the stub does wrong. Numbers of messages count copies: one for each queue that a publish
/// is routed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    Lose,
    Duplicate,
    /// Delivers a message after its successor of the same stream; without one, never.
    Reorder,
    /// Changes one bit of the stamp.
    Corrupt,
    /// Changes one bit of the last octet.
    CorruptFiller,
    /// Cuts the last octet of the body off.
    Shorten,
    /// Puts a message into another queue that has a consumer; there must be one.
    Misroute,
    /// Takes publishes and says nothing, ever.
    ForgetConfirms,
    /// Says everything twice.
    ConfirmTwice,
    /// Confirms negatively, although it delivers.
    Nack,
    /// Answers `queue.declare` with 404.
    RefuseQueue,
    /// Delivers at most so many messages a second, over all queues.
    Slow {
        per_s: u64,
    },
    /// Neither reads nor writes for the last part, so long, of each period since the start.
    Stall {
        every: Duration,
        length: Duration,
    },
    /// Cuts all connections once so many messages were published, and takes no others.
    Die {
        after: u64,
    },
    /// Accepts connections and says nothing.
    Deaf,
}

/// A running stub. Dropped, it cuts all connections and listens no longer.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Stub {
    /// Listens on a free port of loopback.
    pub(crate) fn start(defect: Defect) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared {
            defect,
            started: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        if let Defect::Slow { per_s } = defect {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.pace(per_s));
        }
        let accepting = Arc::clone(&shared);
        let acceptor = Some(thread::spawn(move || accepting.accept(&listener)));
        Self { address, shared, acceptor }
    }

    /// Messages that were published so far.
    pub(crate) fn published(&self) -> u64 {
        self.shared.lock().published
    }

    /// Deliveries so far, answers to `basic.get` included.
    pub(crate) fn delivered(&self) -> u64 {
        self.shared.lock().delivered
    }

    /// Deliveries that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.lock().acknowledged
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.shared.lock().close();
        self.shared.changed.notify_all();
        // Wakes the acceptor, which sees that it is over.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    defect: Defect,
    started: Instant,
    state: Mutex<State>,
    /// Something is to be written, has been written, or has ended.
    changed: Condvar,
}

impl Shared {
    /// A test that failed elsewhere shall not hide behind a poisoned lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for (id, stream) in (0..).zip(listener.incoming()) {
            let mut state = self.lock();
            if state.is_closed {
                return;
            }
            // A client may have gone already.
            let Ok((stream, writing, handle)) = stream.and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok((stream.try_clone()?, stream.try_clone()?, stream))
            }) else {
                continue;
            };
            let connection =
                Connection { stream: handle, outbox: Vec::new(), channels: BTreeMap::new() };
            state.connections.insert(id, connection);
            drop(state);
            let (reader, writer) = (Arc::clone(self), Arc::clone(self));
            thread::spawn(move || {
                // A client that goes at any time is no failure of the stub.
                let _ = Session::new(&reader, id).read(stream);
                reader.disconnect(id);
            });
            thread::spawn(move || {
                let _ = writer.write(id, writing);
                writer.disconnect(id);
            });
        }
    }

    /// Writes what comes into an outbox, until its connection ends.
    fn write(&self, id: u64, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut state = self.lock();
            let outbox = loop {
                match state.connections.get_mut(&id) {
                    None => return Ok(()),
                    Some(connection) if !connection.outbox.is_empty() => {
                        break std::mem::take(&mut connection.outbox);
                    }
                    Some(_) => state = self.wait(state),
                }
            };
            drop(state);
            self.sit_out_stall();
            stream.write_all(&outbox)?;
            // There is room for publishers.
            self.changed.notify_all();
        }
    }

    fn sit_out_stall(&self) {
        if let Defect::Stall { every, length } = self.defect {
            let at =
                Duration::from_nanos((self.started.elapsed().as_nanos() % every.as_nanos()) as u64);
            if at + length >= every {
                thread::sleep(every.saturating_sub(at));
            }
        }
    }

    /// Delivers so many messages a second; time without messages is not caught up.
    fn pace(&self, per_s: u64) {
        let (mut due, mut last) = (0.0, Instant::now());
        loop {
            thread::sleep(PACE_INTERVAL);
            let elapsed_s = last.elapsed().as_secs_f64();
            (due, last) = (due + elapsed_s * per_s as f64, Instant::now());
            let mut state = self.lock();
            if state.is_closed {
                return;
            }
            let names: Vec<String> = state.queues.keys().cloned().collect();
            for name in names {
                while due >= 1.0 && state.deliver_next(&name) {
                    due -= 1.0;
                }
            }
            due = due.min(1.0);
            drop(state);
            self.changed.notify_all();
        }
    }

    fn disconnect(&self, id: u64) {
        let mut state = self.lock();
        if let Some(connection) = state.connections.remove(&id) {
            // It may be cut already.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        for queue in state.queues.values_mut() {
            queue.consumers.retain(|consumer| consumer.connection != id);
        }
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
