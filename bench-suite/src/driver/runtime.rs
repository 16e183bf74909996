//! Drives the endpoints of one thread with tokio-uring: one task per connection that reads, one
//! that writes, and one for all, the pump, that polls the endpoints.
//!
//! ```text
//!   reader ── chunk ──► endpoint ◄── pass ── pump ── out ──► writer
//!      └───────────── calls ───────────────►  ▲ └─ calls ────► │
//!                                             └─── calls ──────┘
//! ```
//!
//! The runtime submits operations only when it parks, which is when no task can run: a task that
//! yields in a loop would keep all reads and writes from the kernel. To wait without sleeping, the
//! pump therefore reads `/dev/null` through the ring, which completes at once and makes the runtime
//! park.

use std::cell::{RefCell, RefMut};
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio_uring::fs::File as RingFile;
use tokio_uring::net::TcpStream as RingStream;

use super::{Link, Pass, Watch, pass};
use crate::fault::Fault;
use crate::load::endpoint::Endpoint;

/// The timers of the runtime have a resolution of milliseconds and round up. For anything that is
/// due sooner than this, the pump waits without sleeping, so a send is late by at most one pass.
/// Reports show the delay as `send_lag`.
const SPIN: Duration = Duration::from_millis(2);

/// The size of all read buffers together; a few connections share it evenly.
const READ_BUFFERS_SIZE: usize = 4 << 20;

/// With larger buffers, a chunk leaves the level 2 cache before it is read.
const READ_BUFFER_SIZE_MAX: usize = 256 << 10;

/// With smaller buffers, system calls are most of the cost.
const READ_BUFFER_SIZE_MIN: usize = 16 << 10;

/// Entries of the submission queue: a read and a write of 128 connections.
const SUBMISSION_ENTRIES: u32 = 256;

/// Completions that may wait for the next turn before the kernel has to store them elsewhere.
const COMPLETION_ENTRIES: u32 = 4_096;

/// Drives `links`, each on the stream with the same index.
pub(super) fn drive<E: Endpoint + 'static>(
    links: Vec<Link<E>>,
    streams: Vec<TcpStream>,
    watch: Watch,
) -> (Vec<Link<E>>, Result<(), Fault>) {
    let opened = start_runtime().and_then(|runtime| Ok((runtime, File::open("/dev/null")?)));
    let (runtime, null) = match opened.map_err(Fault::io("start the tokio-uring runtime")) {
        Ok(opened) => opened,
        Err(fault) => return (links, Err(fault)),
    };
    let engine = Engine {
        writers: links.iter().map(|_| Writer::default()).collect(),
        links,
        watch,
        pump: Call::default(),
        fault: None,
    };
    let shared = Shared(Rc::new(RefCell::new(engine)));
    let task = shared.clone();
    let result = runtime.block_on(async move {
        let chunk_size = (READ_BUFFERS_SIZE / streams.len().max(1))
            .clamp(READ_BUFFER_SIZE_MIN, READ_BUFFER_SIZE_MAX);
        for (index, stream) in streams.into_iter().enumerate() {
            // The ring waits on a blocking socket; on a non-blocking one the operation would fail.
            stream.set_nonblocking(false).map_err(Fault::io("set the options of a socket"))?;
            let stream = Rc::new(RingStream::from_std(stream));
            tokio_uring::spawn(task.clone().read(index, Rc::clone(&stream), chunk_size));
            tokio_uring::spawn(task.clone().write(index, stream));
        }
        let pump = tokio_uring::spawn(task.pump(RingFile::from_std(null)));
        pump.await.map_err(|error| Fault::Machine(format!("the load client failed: {error}")))?
    });
    // Ends the tasks, which hold references to the engine.
    drop(runtime);
    let links = std::mem::take(&mut shared.engine().links);
    (links, result)
}

fn start_runtime() -> io::Result<tokio_uring::Runtime> {
    let mut queues = tokio_uring::uring_builder();
    queues.setup_cqsize(COMPLETION_ENTRIES);
    let plain = queues.clone();
    // Completions wait for our next system call instead of interrupting this core. Kernels before
    // 5.19 do not support this.
    queues.setup_coop_taskrun();
    let start = |queues| {
        let mut builder = tokio_uring::builder();
        builder.entries(SUBMISSION_ENTRIES).uring_builder(queues);
        tokio_uring::Runtime::new(&builder)
    };
    start(&queues).or_else(|_| start(&plain))
}

/// Lets one task wait for a call by another.
#[derive(Debug, Default)]
struct Call {
    called: bool,
    waiting: Option<Waker>,
}

impl Call {
    fn call(&mut self) {
        self.called = true;
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether there was a call since the last time. If not, `waker` is kept for the next call.
    fn take(&mut self, waker: &Waker) -> bool {
        if std::mem::take(&mut self.called) {
            return true;
        }
        self.waiting = Some(waker.clone());
        false
    }
}

/// The output of one connection on its way to the writer.
#[derive(Debug, Default)]
struct Writer {
    out: Option<Vec<u8>>,
    call: Call,
}

struct Engine<E> {
    links: Vec<Link<E>>,
    /// By the index of the link.
    writers: Vec<Writer>,
    watch: Watch,
    pump: Call,
    /// The fault of a reader or a writer, with which the pump ends.
    fault: Option<Fault>,
}

/// The engine, shared by the tasks of one thread. No borrow is held across an await.
struct Shared<E>(Rc<RefCell<Engine<E>>>);

impl<E> Clone for Shared<E> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<E: Endpoint> Shared<E> {
    fn engine(&self) -> RefMut<'_, Engine<E>> {
        self.0.borrow_mut()
    }

    /// Reads until the connection ends or the run fails.
    async fn read(self, index: usize, stream: Rc<RingStream>, chunk_size: usize) {
        let mut chunk = Vec::with_capacity(chunk_size);
        loop {
            chunk.clear();
            let (result, back) = stream.read(chunk).await;
            chunk = back;
            let now = Instant::now();
            let mut engine = self.engine();
            let engine = &mut *engine;
            let link = &mut engine.links[index];
            let (open, taken) = match result {
                Ok(0) => (false, link.ended(None)),
                Ok(_) => {
                    engine.watch.moved(now);
                    (true, link.endpoint.receive(&chunk, now))
                }
                Err(error) => (false, link.ended(Some(error))),
            };
            engine.settle(taken);
            if !open {
                return;
            }
        }
    }

    /// Sends the output that the pump leaves for this writer.
    async fn write(self, index: usize, stream: Rc<RingStream>) {
        loop {
            let out = poll_fn(|context| {
                let writer = &mut self.engine().writers[index];
                match writer.out.take() {
                    Some(out) => Poll::Ready(out),
                    None => {
                        // A call with nothing to send does not happen; only the waker matters.
                        writer.call.called = false;
                        writer.call.take(context.waker());
                        Poll::Pending
                    }
                }
            });
            let (result, out) = stream.write_all(out.await).await;
            let mut engine = self.engine();
            let engine = &mut *engine;
            engine.watch.moved(Instant::now());
            let link = &mut engine.links[index];
            link.sent(out);
            let taken = result.or_else(|error| link.ended(Some(error)));
            engine.settle(taken);
        }
    }

    /// Polls the endpoints whenever something happened or a time has come.
    async fn pump(self, null: RingFile) -> Result<(), Fault> {
        let mut spin = Vec::with_capacity(1);
        loop {
            let now = Instant::now();
            let found = self.engine().pass(now)?;
            match found {
                Pass::Done => return Ok(()),
                // What was sent may have given other endpoints something to do. Each pass gives
                // output to at least one more writer, so there are few passes.
                Pass::Sent => continue,
                Pass::Until(due) => {
                    let left = due.saturating_duration_since(now);
                    if left > SPIN {
                        self.sleep(now + left.saturating_sub(SPIN)).await;
                        continue;
                    }
                }
            }
            let (result, back) = null.read_at(spin, 0).await;
            result.map_err(Fault::io("read /dev/null"))?;
            spin = back;
        }
    }

    /// Sleeps until the given time, or until the pump is called.
    async fn sleep(&self, until: Instant) {
        let mut timer = std::pin::pin!(tokio::time::sleep_until(until.into()));
        poll_fn(|context| {
            if self.engine().pump.take(context.waker()) {
                return Poll::Ready(());
            }
            timer.as_mut().poll(context)
        })
        .await;
    }
}

impl<E: Endpoint> Engine<E> {
    fn pass(&mut self, now: Instant) -> Result<Pass, Fault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let writers = &mut self.writers;
        pass(&mut self.links, &mut self.watch, now, |index, out| {
            writers[index].out = Some(out);
            writers[index].call.call();
        })
    }

    /// Keeps a fault and calls the pump.
    fn settle(&mut self, result: Result<(), Fault>) {
        if let Err(fault) = result {
            self.fault.get_or_insert(fault);
        }
        self.pump.call();
    }
}
