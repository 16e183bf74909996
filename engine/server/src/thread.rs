//! The threads of shards and of the control state: pinned, with a ring of their own, and never gone
//! without a notice.

use std::fmt::Display;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::thread::Builder;

use leveret_broker::home::durability::Recovered;
use leveret_broker::id::ShardId;
use leveret_broker::mesh::batch::Batch;
use leveret_broker::routing::topology::Topology;
use leveret_broker::settings::Settings;
use leveret_broker::shard::Shard;
use leveret_broker::shard::control_member::ControlMember;
use leveret_ring::{Endpoint, Ring, RingConfig, RingError, WakeTarget, Waker, pin_current_thread};

use crate::acceptor::Acceptor;
use crate::clock::Clock;
use crate::control::{self, ControlDriver};
use crate::disk::files::{self, Request};
use crate::disk::{Disk, Storage};
use crate::driver::{self, Driver};
use crate::metadata::MetadataThread;
use crate::monitor::Monitor;
use crate::notice::Notice;
use crate::polling::Polling;
use crate::shared::Shared;

/// What a shard's thread is given before it starts.
pub(crate) struct ShardSeat {
    pub(crate) index: usize,
    pub(crate) shards: u16,
    /// `None`: not pinned.
    pub(crate) core: Option<usize>,
    pub(crate) ring: RingConfig,
    pub(crate) settings: Arc<Settings>,
    pub(crate) spin_ns: u64,
    pub(crate) storage: Storage,
    /// To the files thread.
    pub(crate) files: SyncSender<Request>,
    /// What the shard's log was found to hold.
    pub(crate) log: Recovered,
    pub(crate) shared: Arc<Shared>,
    pub(crate) notices: Sender<Notice>,
    pub(crate) clock: Clock,
}

/// Lets a thread go.
pub(crate) struct Start {
    /// Every member of the mesh, by number.
    pub(crate) wakes: Arc<[WakeTarget]>,
    /// Open AMQP listeners, for the shard that accepts.
    pub(crate) listeners: Vec<TcpListener>,
}

/// Starts a shard's thread. It makes its ring, gives notice, and waits for `started`; where the
/// other side of that is dropped it ends.
pub(crate) fn spawn_shard(
    seat: ShardSeat,
    mesh: Endpoint<Batch>,
    topology: Topology,
    started: Receiver<Start>,
) -> io::Result<()> {
    let name = format!("shard-{}", seat.index);
    spawn(name, seat.notices.clone(), move || -> Result<(), RingError> {
        if let Some(core) = seat.core {
            pin_current_thread(core)?;
        }
        let mut ring = Ring::new(&seat.ring)?;
        // Made here and not before, so that its memory is near this core.
        let id = ShardId(seat.index as u16);
        let mut shard = Shard::new(id, seat.shards, seat.settings, topology);
        shard.open_log(seat.log, seat.clock.time());
        let ready = Notice::Ready { member: seat.index, wake: ring.wake_target() };
        let Some(Start { wakes, listeners }) = await_start(&seat.notices, ready, &started) else {
            return Ok(());
        };
        let acceptor = Acceptor::new(&mut ring, listeners, usize::from(seat.shards))?;
        let waker = ring.wake_target().waker();
        let disk = Disk::new(seat.index as u16, seat.storage, seat.files, waker);
        let driver = Driver {
            index: seat.index,
            shard,
            ring,
            acceptor,
            disk,
            mesh,
            wakes,
            shared: seat.shared,
            notices: seat.notices,
            clock: seat.clock,
            polling: Polling::new(seat.spin_ns, seat.clock.now()),
            state: driver::TurnState::default(),
        };
        driver.run()
    })
}

/// Starts the control thread, which runs wherever the kernel puts it.
pub(crate) fn spawn_control(
    mesh: Endpoint<Batch>,
    member: ControlMember,
    metadata: MetadataThread,
    shared: &Arc<Shared>,
    notices: &Sender<Notice>,
    started: Receiver<Start>,
) -> io::Result<()> {
    let (shared, told) = (Arc::clone(shared), notices.clone());
    spawn("control".to_owned(), notices.clone(), move || -> Result<(), RingError> {
        let ring = Ring::new(&control::ring_config())?;
        let ready = Notice::Ready { member: mesh.id(), wake: ring.wake_target() };
        let Some(Start { wakes, .. }) = await_start(&told, ready, &started) else {
            return Ok(());
        };
        let state = control::TurnState::default();
        ControlDriver { member, metadata, ring, mesh, wakes, shared, state }.run()
    })
}

/// Starts the monitor's thread, which watches once the shards can be woken.
pub(crate) fn spawn_monitor(
    monitor: Monitor,
    shards: usize,
    notices: &Sender<Notice>,
    started: Receiver<Start>,
) -> io::Result<()> {
    spawn("monitor".to_owned(), notices.clone(), move || {
        if let Ok(Start { wakes, .. }) = started.recv() {
            let doorbells: Vec<Waker> = wakes.iter().take(shards).map(WakeTarget::waker).collect();
            monitor.run(&doorbells);
        }
        Ok::<(), RingError>(())
    })
}

/// Starts the files thread, which ends after the last shard.
pub(crate) fn spawn_files(
    storage: Storage,
    requests: Receiver<Request>,
    notices: &Sender<Notice>,
) -> io::Result<()> {
    spawn("files".to_owned(), notices.clone(), move || {
        files::run(&storage, &requests);
        Ok::<(), RingError>(())
    })
}

fn await_start<T>(notices: &Sender<Notice>, ready: Notice, started: &Receiver<T>) -> Option<T> {
    // Both fail only where the main thread is ending.
    notices.send(ready).ok()?;
    started.recv().ok()
}

/// Starts a thread of which notice is given when it ends.
pub(crate) fn spawn<E: Display>(
    name: String,
    notices: Sender<Notice>,
    body: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> io::Result<()> {
    let end = End { thread: name.clone(), notices, notice: None };
    Builder::new().name(name).spawn(move || end.after(body))?;
    Ok(())
}

/// Gives notice of a thread's end, by panic too.
struct End {
    thread: String,
    notices: Sender<Notice>,
    notice: Option<Notice>,
}

impl End {
    fn after<E: Display>(mut self, body: impl FnOnce() -> Result<(), E>) {
        self.notice = Some(match body() {
            Ok(()) => Notice::Ended,
            Err(error) => Notice::Failed { thread: self.thread.clone(), reason: error.to_string() },
        });
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let notice = self.notice.take().unwrap_or_else(|| Notice::Failed {
            thread: std::mem::take(&mut self.thread),
            reason: "it panicked; this is a bug, please report the lines above".to_owned(),
        });
        // Nobody listens only where the process is ending.
        let _ = self.notices.send(notice);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn last_words(body: impl FnOnce() -> Result<(), RingError> + Send + 'static) -> Notice {
        let (sender, receiver) = mpsc::channel();
        spawn("test".to_owned(), sender, body).unwrap();
        receiver.recv().unwrap()
    }

    #[test]
    fn every_end_is_noticed() {
        assert!(matches!(last_words(|| Ok(())), Notice::Ended));
        let failed = last_words(|| Err(RingError::Pin { core: 99 }));
        assert!(matches!(failed, Notice::Failed { thread, reason }
            if thread == "test" && reason.contains("core 99")));
        let panicked = last_words(|| std::panic::resume_unwind(Box::new("no output")));
        assert!(matches!(panicked, Notice::Failed { reason, .. } if reason.contains("panicked")));
    }

    #[test]
    fn a_thread_that_is_not_started_ends() {
        let (sender, notices) = mpsc::channel();
        let (start, started) = mpsc::channel();
        let told = sender.clone();
        spawn("test".to_owned(), sender, move || -> Result<(), RingError> {
            let ready = Notice::Signal { name: "ready" };
            assert!(await_start::<()>(&told, ready, &started).is_none());
            Ok(())
        })
        .unwrap();
        assert!(matches!(notices.recv().unwrap(), Notice::Signal { .. }));
        drop(start);
        assert!(matches!(notices.recv().unwrap(), Notice::Ended));
    }
}
