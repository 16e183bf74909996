//! SIGTERM and SIGINT: the first asks for a graceful stop, the second ends the process at once.

use std::io;
use std::sync::mpsc::Sender;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::thread::ThreadEvent;

/// Watches for signals from now on.
pub(crate) fn watch(thread_events: Sender<ThreadEvent>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut asked = false;
        for signal in signals.forever() {
            if asked {
                eprintln!("leveret: second {}, ending at once", name(signal));
                // Nothing is run at this exit, for other threads may be anywhere.
                low_level::exit(128 + signal);
            }
            asked = true;
            // Nobody listens only where the process is ending anyway.
            let _ = thread_events.send(ThreadEvent::Signal { name: name(signal) });
        }
    })?;
    Ok(())
}

fn name(signal: i32) -> &'static str {
    if signal == SIGINT { "SIGINT" } else { "SIGTERM" }
}
