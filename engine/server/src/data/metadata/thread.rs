//! The metadata thread: it commits, so that the control thread never waits for the disk.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};

use leveret_broker::control::DurableChange;
use leveret_ring::Waker;

use super::Metadata;
use crate::failure::Failure;
use crate::thread::ThreadEvent;

/// The control thread's handle. If it is dropped, the thread ends after the commits it has got.
///
/// The control state has one commit in progress at a time, so neither channel is ever longer.
pub(crate) struct MetadataThread {
    commits: Sender<Commit>,
    done: Receiver<u64>,
}

struct Commit {
    through: u64,
    changes: Vec<DurableChange>,
    /// Woken when the commit is durable.
    waker: Waker,
}

impl MetadataThread {
    /// Starts the thread; its end is reported to the main thread.
    pub(crate) fn start(
        metadata: Metadata,
        thread_events: &Sender<ThreadEvent>,
    ) -> io::Result<Self> {
        let (commits, to_commit) = mpsc::channel();
        let (done_sender, done) = mpsc::channel();
        crate::thread::spawn("metadata".to_owned(), thread_events.clone(), move || {
            run(&metadata, &to_commit, &done_sender)
        })?;
        Ok(Self { commits, done })
    }

    /// Commits changes; wakes `waker`'s ring when they are durable.
    pub(crate) fn commit(&self, through: u64, changes: Vec<DurableChange>, waker: Waker) {
        // Fails if the thread is gone. That ends the broker, so no client gets an answer.
        let _ = self.commits.send(Commit { through, changes, waker });
    }

    /// The number of a commit that has become durable.
    pub(crate) fn poll_done(&self) -> Option<u64> {
        self.done.try_recv().ok()
    }
}

fn run(metadata: &Metadata, commits: &Receiver<Commit>, done: &Sender<u64>) -> Result<(), Failure> {
    while let Ok(Commit { through, changes, waker }) = commits.recv() {
        // Not retried: after a failed flush the content of the disk is unknown.
        metadata.commit(&changes)?;
        if done.send(through).is_err() {
            break;
        }
        waker.wake();
    }
    Ok(())
}
