//! The thread that commits, so that the control thread never waits for the disk.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};

use leveret_broker::control::DurableChange;
use leveret_ring::Waker;

use super::Metadata;
use crate::failure::Failure;
use crate::thread::ThreadEvent;

/// The control thread's end of it. When it is dropped the thread ends, what it has done by then.
///
/// The control state has one commit under way at a time, so neither queue is ever longer.
pub(crate) struct MetadataThread {
    commits: Sender<Commit>,
    done: Receiver<u64>,
}

struct Commit {
    through: u64,
    changes: Vec<DurableChange>,
    /// Whom to wake when it is durable.
    waker: Waker,
}

impl MetadataThread {
    /// Starts the thread, which gives notice of its end.
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

    /// Has changes stored; `waker`'s ring is woken when they are.
    pub(crate) fn commit(&self, through: u64, changes: Vec<DurableChange>, waker: Waker) {
        // Where the thread is gone its notice ends the broker, and nobody is answered.
        let _ = self.commits.send(Commit { through, changes, waker });
    }

    /// The number of a commit that is durable now.
    pub(crate) fn poll_done(&self) -> Option<u64> {
        self.done.try_recv().ok()
    }
}

fn run(metadata: &Metadata, commits: &Receiver<Commit>, done: &Sender<u64>) -> Result<(), Failure> {
    while let Ok(Commit { through, changes, waker }) = commits.recv() {
        // Not tried again: after a failed flush nobody knows what the disk has.
        metadata.commit(&changes)?;
        if done.send(through).is_err() {
            break;
        }
        waker.wake();
    }
    Ok(())
}
