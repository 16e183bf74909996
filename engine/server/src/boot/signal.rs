//! SIGTERM and SIGINT: the first requests a graceful stop, the second ends the process at once.

use std::io;
use std::sync::mpsc::Sender;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::thread::ThreadEvent;

/// Starts the thread that waits for signals.
pub(crate) fn watch(thread_events: Sender<ThreadEvent>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut asked = false;
        for signal in signals.forever() {
            if asked {
                eprintln!("leveret: second {}, ending at once", name(signal));
                // Exits without running any cleanup, because other threads may be in the middle of
                // anything.
                low_level::exit(128 + signal);
            }
            asked = true;
            // Fails only while the process is ending.
            let _ = thread_events.send(ThreadEvent::Signal { name: name(signal) });
        }
    })?;
    Ok(())
}

fn name(signal: i32) -> &'static str {
    if signal == SIGINT { "SIGINT" } else { "SIGTERM" }
}
