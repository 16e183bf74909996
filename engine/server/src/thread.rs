//! Starting threads, and the events by which they report to the main thread.

use std::fmt::Display;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::Builder;

use leveret_ring::WakeTarget;

/// What a thread reports to the main thread.
#[derive(Debug)]
pub(crate) enum ThreadEvent {
    /// A member of the mesh has its ring and waits for the start.
    Ready {
        /// The number of the member.
        member: usize,
        /// How to wake it.
        wake: WakeTarget,
    },
    /// A shard that was asked to stop has no connections left.
    Stopped,
    /// A shard that was asked to end its log has made all of it durable.
    Closed,
    /// A thread ended because it was asked to.
    Ended,
    /// A thread cannot go on, so the broker has to end.
    Failed {
        /// The thread.
        thread: String,
        /// What happened and what to do.
        reason: String,
    },
    /// A signal asks the broker to stop.
    Signal {
        /// `SIGTERM` or `SIGINT`.
        name: &'static str,
    },
}

/// Sent to a thread that is ready, to start its work.
pub(crate) struct Start {
    /// Wakes the members of the mesh, by number.
    pub(crate) wakes: Arc<[WakeTarget]>,
    /// Open AMQP listeners; empty for all members but the accepting shard.
    pub(crate) listeners: Vec<TcpListener>,
}

/// Starts a thread. Its end, also by panic, is reported to the main thread.
pub(crate) fn spawn<E: Display>(
    name: String,
    thread_events: Sender<ThreadEvent>,
    body: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> io::Result<()> {
    let end = End { thread: name.clone(), thread_events, event: None };
    Builder::new().name(name).spawn(move || end.after(body))?;
    Ok(())
}

/// Reports the end of a thread when it is dropped, also by panic.
struct End {
    thread: String,
    thread_events: Sender<ThreadEvent>,
    event: Option<ThreadEvent>,
}

impl End {
    fn after<E: Display>(mut self, body: impl FnOnce() -> Result<(), E>) {
        self.event = Some(match body() {
            Ok(()) => ThreadEvent::Ended,
            Err(error) => {
                ThreadEvent::Failed { thread: self.thread.clone(), reason: error.to_string() }
            }
        });
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let event = self.event.take().unwrap_or_else(|| ThreadEvent::Failed {
            thread: std::mem::take(&mut self.thread),
            reason: "it panicked; this is a bug, please report the lines above".to_owned(),
        });
        // Fails only while the process is ending.
        let _ = self.thread_events.send(event);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use leveret_ring::RingError;

    use super::*;

    fn last_words(body: impl FnOnce() -> Result<(), RingError> + Send + 'static) -> ThreadEvent {
        let (sender, receiver) = mpsc::channel();
        spawn("test".to_owned(), sender, body).unwrap();
        receiver.recv().unwrap()
    }

    #[test]
    fn every_end_is_reported() {
        assert!(matches!(last_words(|| Ok(())), ThreadEvent::Ended));
        let failed = last_words(|| Err(RingError::Pin { core: 99 }));
        assert!(matches!(failed, ThreadEvent::Failed { thread, reason }
            if thread == "test" && reason.contains("core 99")));
        let panicked = last_words(|| std::panic::resume_unwind(Box::new("no output")));
        assert!(
            matches!(panicked, ThreadEvent::Failed { reason, .. } if reason.contains("panicked"))
        );
    }
}
