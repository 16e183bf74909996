//! The threads of shards and of the control state: pinned, with a ring of their own, and never gone
//! without a notice.

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
use crate::shared_state::Shared;
use crate::thread::{Notice, Start, spawn};

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
        let ring = Ring::new(&control_driver::ring_config())?;
        let ready = Notice::Ready { member: mesh.id(), wake: ring.wake_target() };
        let Some(Start { wakes, .. }) = await_start(&told, ready, &started) else {
            return Ok(());
        };
        let state = control_driver::TurnState::default();
        ControlDriver { member, metadata, ring, mesh, wakes, shared, state }.run()
    })
}

fn await_start<T>(notices: &Sender<Notice>, ready: Notice, started: &Receiver<T>) -> Option<T> {
    // Both fail only where the main thread is ending.
    notices.send(ready).ok()?;
    started.recv().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

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
