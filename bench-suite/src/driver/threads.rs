//! One load thread per core, and the thread that watches them.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::driver::{self, DrivePlan};
use crate::fault::Fault;
use crate::load::endpoint::{Attached, Endpoint};
use crate::load::tally::Tally;
use crate::machine::procfs;
use crate::machine::window::{Watch, Window};
use crate::run::{LiveView, Setting};

/// What the watching thread may use while the load threads run.
pub(crate) struct Watched<'a> {
    /// The kernel's ids of the load threads that have started, to read their processor time.
    threads: &'a Mutex<Vec<u32>>,
    /// Set when a thread has failed and the run is over.
    abort: &'a AtomicBool,
}

impl Watched<'_> {
    /// Watches until the end of the measured window, then stops the run.
    pub(crate) fn window(
        &self,
        setting: &Setting<'_>,
        tally: &Tally,
        has_confirms: bool,
        live: LiveView<'_>,
    ) -> Result<Window, Fault> {
        let watch = Watch {
            tally,
            broker: setting.broker.pid,
            load_threads: self.threads,
            warm_up: setting.warm_up,
            window: setting.window,
            has_confirms,
            abort: self.abort,
        };
        let window = watch.run(&|point| live(point, tally.delivery_us()));
        tally.stop();
        window
    }
}

/// Drives the endpoints of each inner vector on a thread of its own until all are done, while
/// `watch` runs on this thread. The endpoints are returned even after a fault, because their counts
/// are needed.
pub(crate) fn drive<E: Endpoint + 'static, T>(
    setting: &Setting<'_>,
    placed: Vec<Vec<Attached<E>>>,
    watch: impl FnOnce(&Watched<'_>) -> T,
) -> (Vec<E>, T, Result<(), Fault>) {
    let abort = Arc::new(AtomicBool::new(false));
    let threads = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let mut driving = Vec::new();
        for (index, attached) in placed.into_iter().enumerate() {
            let plan = DrivePlan {
                transport: setting.transport,
                core: setting.load_cores.get(index).copied(),
                silence_max: setting.silence_max,
                abort: Arc::clone(&abort),
            };
            let threads = &threads;
            driving.push(scope.spawn(move || {
                // Without its id, only the figures of this thread are missing.
                if let (Ok(tid), Ok(mut threads)) = (procfs::current_tid(), threads.lock()) {
                    threads.push(tid);
                }
                driver::drive(attached, &plan)
            }));
        }
        let watched = watch(&Watched { threads: &threads, abort: &abort });
        let (mut endpoints, mut result) = (Vec::new(), Ok(()));
        for thread in driving {
            let (driven, outcome) =
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            endpoints.extend(driven);
            // A thread that was aborted reports only that; the cause is reported by another one.
            result = match (result, outcome) {
                (Err(Fault::Aborted) | Ok(()), Err(fault)) => Err(fault),
                (result, _) => result,
            };
        }
        (endpoints, watched, result)
    })
}
