//! The threads of the shards and of the control state: each has its own ring, and the main thread
//! always learns of its end.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use leveret_broker::home::durability::Recovered;
use leveret_broker::id::ShardId;
use leveret_broker::mesh::batch::Batch;
use leveret_broker::routing::topology::Topology;
use leveret_broker::settings::Settings;
use leveret_broker::shard::Shard;
use leveret_broker::shard::control_member::ControlMember;
use leveret_ring::{Endpoint, Ring, RingConfig, RingError, pin_current_thread};

use crate::clock::Clock;
use crate::data::disk::files::Request;
use crate::data::disk::{Disk, Storage};
use crate::data::metadata::MetadataThread;
use crate::shard::acceptor::Acceptor;
use crate::shard::control_driver::{self, ControlDriver};
use crate::shard::driver::{self, Driver};
use crate::shard::polling::Polling;
use crate::shared_state::SharedState;
use crate::thread::{Start, ThreadEvent, spawn};

/// Everything a shard's thread needs before it starts.
pub(crate) struct ShardParts {
    pub(crate) index: usize,
    pub(crate) shards: u16,
    /// `None`: the thread is not pinned.
    pub(crate) core: Option<usize>,
    pub(crate) ring: RingConfig,
    pub(crate) settings: Arc<Settings>,
    pub(crate) spin_ns: u64,
    pub(crate) storage: Storage,
    /// To the files thread.
    pub(crate) files: SyncSender<Request>,
    /// What recovery found in the shard's log.
    pub(crate) log: Recovered,
    pub(crate) shared: Arc<SharedState>,
    pub(crate) thread_events: Sender<ThreadEvent>,
    pub(crate) clock: Clock,
}

/// Starts a shard's thread. It creates its ring, reports that it is ready, and waits for `started`.
/// If the sender of `started` is dropped, the thread ends.
pub(crate) fn spawn_shard(
    parts: ShardParts,
    mesh: Endpoint<Batch>,
    topology: Topology,
    started: Receiver<Start>,
) -> io::Result<()> {
    let name = format!("shard-{}", parts.index);
    spawn(name, parts.thread_events.clone(), move || -> Result<(), RingError> {
        if let Some(core) = parts.core {
            pin_current_thread(core)?;
        }
        let mut ring = Ring::new(&parts.ring)?;
        // Created on this thread, so that its memory is close to this core.
        let id = ShardId(parts.index as u16);
        let mut shard = Shard::new(id, parts.shards, parts.settings, topology);
        shard.open_log(parts.log, parts.clock.time());
        let ready = ThreadEvent::Ready { member: parts.index, wake: ring.wake_target() };
        let Some(Start { wakes, listeners }) = await_start(&parts.thread_events, ready, &started)
        else {
            return Ok(());
        };
        let acceptor = Acceptor::new(&mut ring, listeners, usize::from(parts.shards))?;
        let waker = ring.wake_target().waker();
        let disk = Disk::new(parts.index as u16, parts.storage, parts.files, waker);
        let driver = Driver {
            index: parts.index,
            shard,
            ring,
            acceptor,
            disk,
            mesh,
            wakes,
            shared: parts.shared,
            thread_events: parts.thread_events,
            clock: parts.clock,
            polling: Polling::new(parts.spin_ns, parts.clock.now()),
            state: driver::TurnState::default(),
        };
        driver.run()
    })
}

/// Starts the control thread, which is not pinned.
pub(crate) fn spawn_control(
    mesh: Endpoint<Batch>,
    member: ControlMember,
    metadata: MetadataThread,
    shared: &Arc<SharedState>,
    thread_events: &Sender<ThreadEvent>,
    started: Receiver<Start>,
) -> io::Result<()> {
    let (shared, events) = (Arc::clone(shared), thread_events.clone());
    spawn("control".to_owned(), thread_events.clone(), move || -> Result<(), RingError> {
        let ring = Ring::new(&control_driver::ring_config())?;
        let ready = ThreadEvent::Ready { member: mesh.id(), wake: ring.wake_target() };
        let Some(Start { wakes, .. }) = await_start(&events, ready, &started) else {
            return Ok(());
        };
        let state = control_driver::TurnState::default();
        ControlDriver { member, metadata, ring, mesh, wakes, shared, state }.run()
    })
}

fn await_start<T>(
    thread_events: &Sender<ThreadEvent>,
    ready: ThreadEvent,
    started: &Receiver<T>,
) -> Option<T> {
    // Both fail only if the main thread is ending.
    thread_events.send(ready).ok()?;
    started.recv().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_is_not_started_ends() {
        let (sender, thread_events) = mpsc::channel();
        let (start, started) = mpsc::channel();
        let events = sender.clone();
        spawn("test".to_owned(), sender, move || -> Result<(), RingError> {
            let ready = ThreadEvent::Signal { name: "ready" };
            assert!(await_start::<()>(&events, ready, &started).is_none());
            Ok(())
        })
        .unwrap();
        assert!(matches!(thread_events.recv().unwrap(), ThreadEvent::Signal { .. }));
        drop(start);
        assert!(matches!(thread_events.recv().unwrap(), ThreadEvent::Ended));
    }
}
