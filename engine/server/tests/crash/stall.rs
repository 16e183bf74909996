//! Watches the disk: what stands still on a busy host is not the broker.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::history::Stall;
use crate::load::Shared;

const BLOCK: [u8; 4096] = [0; 4096];

const INTERVAL: Duration = Duration::from_millis(20);

/// A flush that takes longer is noted: some hundred times what one takes, and a fraction of the
/// window in which an ack may be forgotten.
const STALL_MIN_NS: u64 = 50_000_000;

/// A thread that writes and flushes one block over and over beside the data directory.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Stall>>,
}

impl Watch {
    pub(crate) fn start(directory: &Path, shared: &Arc<Shared>) -> Self {
        let file = File::create(directory.join("watched")).unwrap();
        let (over, shared) = (Arc::new(AtomicBool::new(false)), Arc::clone(shared));
        let ends = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut stalls = Vec::new();
            while !ends.load(SeqCst) {
                let from_ns = shared.now_ns();
                file.write_all_at(&BLOCK, 0).and_then(|()| file.sync_data()).unwrap();
                let to_ns = shared.now_ns();
                if to_ns - from_ns > STALL_MIN_NS {
                    stalls.push(Stall { from_ns, to_ns });
                }
                thread::sleep(INTERVAL);
            }
            stalls
        });
        Self { over, thread }
    }

    /// When the disk stood still.
    pub(crate) fn end(self) -> Vec<Stall> {
        self.over.store(true, SeqCst);
        self.thread.join().unwrap()
    }
}
