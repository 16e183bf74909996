//! The files thread: it creates, opens and removes segment files, which a ring cannot do without
//! blocking its shard. There is one for the whole broker, so that creating files delays commits by
//! at most one disk write at a time.
//!
//! ```text
//!  shard ── Request ──► channel ──► files ── Answer ──► the shard's answers, and its waker
//! ```
//! Reads wait for the opening of a file, so `Open` passes all other requests.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};

use crossbeam_queue::ArrayQueue;
use leveret_broker::storage::log::operation::DiskError;
use leveret_ring::Waker;
use tracing::warn;

use super::Storage;
use super::segment::{self, SegmentId};
use crate::thread::{self, ThreadEvent};

/// Requests that one shard may have in progress; further ones wait in the shard. A log prepares one
/// segment in advance and removes empty ones, and the disk gains nothing from more at once.
const REQUESTS_PER_SHARD_MAX: usize = 16;

/// An operation on a segment's file.
#[derive(Debug)]
pub(crate) enum Work {
    Prepare { segment: u32, size_bytes: u32, recycled: Option<u32> },
    Open { segment: u32 },
    Remove { segment: u32, damaged: bool },
}

/// The result of an operation.
#[derive(Debug)]
pub(crate) enum Answer {
    Prepared { segment: u32, result: Result<Arc<File>, DiskError> },
    Opened { segment: u32, result: Result<Arc<File>, DiskError> },
    Removed { segment: u32, gone: bool },
}

/// A request of a shard to the files thread.
#[derive(Debug)]
pub(crate) struct Request {
    answers: Arc<Answers>,
    work: Work,
}

/// The answers for one shard.
#[derive(Debug)]
struct Answers {
    shard: u16,
    queue: ArrayQueue<Answer>,
    waker: Waker,
}

/// The channel to the thread, with room for all requests that `shards` shards may have in progress.
pub(crate) fn channel(shards: usize) -> (SyncSender<Request>, Receiver<Request>) {
    sync_channel(REQUESTS_PER_SHARD_MAX * shards)
}

/// A shard's connection to the files thread.
#[derive(Debug)]
pub(crate) struct FilesLink {
    requests: SyncSender<Request>,
    answers: Arc<Answers>,
    under_way: usize,
    /// At most one per segment of the log.
    waiting: VecDeque<Work>,
}

impl FilesLink {
    /// For one shard; `waker` wakes its ring.
    pub(crate) fn new(shard: u16, requests: SyncSender<Request>, waker: Waker) -> Self {
        let queue = ArrayQueue::new(REQUESTS_PER_SHARD_MAX);
        let answers = Arc::new(Answers { shard, queue, waker });
        Self { requests, answers, under_way: 0, waiting: VecDeque::new() }
    }

    /// Requests an operation; one answer follows.
    pub(crate) fn request(&mut self, work: Work) {
        self.waiting.push_back(work);
        self.send();
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let answer = self.answers.queue.pop()?;
        self.under_way -= 1;
        self.send();
        Some(answer)
    }

    fn send(&mut self) {
        while self.under_way < REQUESTS_PER_SHARD_MAX
            && let Some(work) = self.waiting.pop_front()
        {
            let request = Request { answers: Arc::clone(&self.answers), work };
            self.under_way += 1;
            // There is always room for the requests in progress. It fails only if the thread is
            // gone, which ends the broker.
            let _ = self.requests.try_send(request);
        }
    }
}

/// Starts the files thread, which ends after the last shard.
pub(crate) fn spawn(
    storage: Storage,
    requests: Receiver<Request>,
    thread_events: &Sender<ThreadEvent>,
) -> io::Result<()> {
    thread::spawn("files".to_owned(), thread_events.clone(), move || {
        run(&storage, &requests);
        Ok::<(), Infallible>(())
    })
}

/// The body of the thread. It ends when all shards have ended and their last requests are done.
pub(crate) fn run(storage: &Storage, requests: &Receiver<Request>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match requests.recv() {
                Ok(request) => sort(storage, request, &mut waiting),
                Err(_) => return,
            }
        }
        take_waiting(storage, requests, &mut waiting);
        if let Some(request) = waiting.pop_front() {
            let between = &mut || take_waiting(storage, requests, &mut waiting);
            carry_out(storage, request, between);
        }
    }
}

/// Takes the requests that came meanwhile and carries out the urgent ones at once.
fn take_waiting(storage: &Storage, requests: &Receiver<Request>, waiting: &mut VecDeque<Request>) {
    while let Ok(request) = requests.try_recv() {
        sort(storage, request, waiting);
    }
}

fn sort(storage: &Storage, request: Request, waiting: &mut VecDeque<Request>) {
    match request.work {
        Work::Open { .. } => carry_out(storage, request, &mut || {}),
        _ => waiting.push_back(request),
    }
}

fn carry_out(storage: &Storage, request: Request, between: &mut dyn FnMut()) {
    let Request { answers, work } = request;
    let id = |segment| SegmentId { shard: answers.shard, segment };
    let answer = match work {
        Work::Prepare { segment, size_bytes, recycled } => {
            let made = segment::prepare(storage, id(segment), size_bytes, recycled, between);
            Answer::Prepared { segment, result: made.map(Arc::new) }
        }
        Work::Open { segment } => {
            let result = segment::open(storage, id(segment)).map(Arc::new);
            Answer::Opened { segment, result }
        }
        Work::Remove { segment, damaged } => {
            Answer::Removed { segment, gone: remove(storage, id(segment), damaged) }
        }
    };
    let delivered = answers.queue.push(answer).is_ok();
    assert!(delivered, "a shard has no more under way than its letter box holds");
    answers.waker.wake();
}

/// Removes a segment durably. A failure is only logged, because the file that is left merely takes
/// space.
pub(crate) fn remove(storage: &Storage, id: SegmentId, damaged: bool) -> bool {
    let removed = segment::remove(storage, id, damaged);
    if let Err(error) = &removed {
        let path = storage.layout.segment(id.shard, id.segment);
        let what = if damaged { "move to quarantine" } else { "remove" };
        warn!("cannot {what} {}: {error}; it is left there and takes space", path.display());
    }
    removed.is_ok()
}
