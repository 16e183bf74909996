//! What the threads of the broker tell the main thread.

use std::fmt::Display;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::Builder;

use leveret_ring::WakeTarget;

/// News for the main thread.
#[derive(Debug)]
pub(crate) enum ThreadEvent {
    /// A member of the mesh has its ring and waits for the start.
    Ready {
        /// Which member.
        member: usize,
        /// How to wake it.
        wake: WakeTarget,
    },
    /// A shard has no connections left after it was told to stop.
    Stopped,
    /// Everything in a shard's log is durable after it was told to end it.
    Closed,
    /// A thread ended as asked.
    Ended,
    /// A thread cannot go on, and so the broker cannot.
    Failed {
        /// The thread.
        thread: String,
        /// What happened and what to do.
        reason: String,
    },
    /// Somebody asked for a stop.
    Signal {
        /// `SIGTERM` or `SIGINT`.
        name: &'static str,
    },
}

/// Lets a thread go.
pub(crate) struct Start {
    /// Every member of the mesh, by number.
    pub(crate) wakes: Arc<[WakeTarget]>,
    /// Open AMQP listeners, for the shard that accepts.
    pub(crate) listeners: Vec<TcpListener>,
}

/// Starts a thread of which notice is given when it ends.
pub(crate) fn spawn<E: Display>(
    name: String,
    thread_events: Sender<ThreadEvent>,
    body: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> io::Result<()> {
    let end = End { thread: name.clone(), thread_events, event: None };
    Builder::new().name(name).spawn(move || end.after(body))?;
    Ok(())
}

/// Gives notice of a thread's end, by panic too.
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
        // Nobody listens only where the process is ending.
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
