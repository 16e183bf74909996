//! A broker for tests that speaks just enough AMQP to be loaded and can have a defect. It is used
//! to test that the harness detects defects.
//!
//! ```text
//! connection ──► reader thread ──► State: exchanges ─► queues ─► outboxes ──► writer threads
//! ```
//!
//! A queue delivers to its first consumer at once and stores messages while it has none. Prefetch
//! limits are answered and ignored; unacknowledged messages are not redelivered.

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

/// Octets that may wait in queues and outboxes; above this, publishers are not read.
const WAITING_SIZE_MAX: usize = 64 << 20;

/// How often [`Defect::Slow`] delivers messages that are due.
const PACE_INTERVAL: Duration = Duration::from_millis(5);

/// The defect of a stub. Numbers of messages count copies: one for each queue that a publish is
/// routed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    Lose,
    Duplicate,
    /// Delivers a message after the next one of the same stream; never, if there is none.
    Reorder,
    /// Changes one bit of the stamp.
    Corrupt,
    /// Changes one bit of the last octet.
    CorruptFiller,
    /// Cuts off the last octet of the body.
    Shorten,
    /// Puts a message into another queue; there must be one with a consumer.
    Misroute,
    /// Never confirms publishes.
    ForgetConfirms,
    /// Confirms everything twice.
    ConfirmTwice,
    /// Sends negative confirms, although it delivers.
    Nack,
    /// Answers `queue.declare` with 404.
    RefuseQueue,
    /// Delivers at most this many messages per second, over all queues.
    Slow {
        per_s: u64,
    },
    /// Neither reads nor writes during the last part of each period, of the given length.
    Stall {
        every: Duration,
        length: Duration,
    },
    /// Cuts all connections after this many messages were published, and accepts no others.
    Die {
        after: u64,
    },
    /// Accepts connections and never sends anything.
    Deaf,
}

/// A running stub. When dropped, it cuts all connections and stops listening.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Stub {
    /// Listens on a free loopback port.
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

    /// Messages published so far.
    pub(crate) fn published(&self) -> u64 {
        self.shared.lock().published
    }

    /// Deliveries so far, including answers to `basic.get`.
    pub(crate) fn delivered(&self) -> u64 {
        self.shared.lock().delivered
    }

    /// Deliveries acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.lock().acknowledged
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.shared.lock().close();
        self.shared.changed.notify_all();
        // Wakes the acceptor, which then sees that the stub is closed.
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
    /// Something was queued for writing, was written, or has ended.
    changed: Condvar,
}

impl Shared {
    /// A failed test elsewhere must not be hidden by a poisoned lock.
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
            // The client may be gone already.
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
                // A client may leave at any time.
                let _ = Session::new(&reader, id).read(stream);
                reader.disconnect(id);
            });
            thread::spawn(move || {
                let _ = writer.write(id, writing);
                writer.disconnect(id);
            });
        }
    }

    /// Writes the outbox of a connection until the connection ends.
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
            // Publishers may have room again.
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

    /// Delivers this many messages per second; time without messages is not made up for.
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
            // The connection may be cut already.
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
