//! The disk under a shard's log: carries out the operations of
//! `leveret_broker::storage::log::operation`.
//!
//! ```text
//!   DiskOperation ─► Commit, Read ───────────► ring ──┐
//!                 └► Prepare, Remove, open ─► files ──┴─► poll_event ─► DiskEvent
//! ```
//! Nothing is retried, and a short write is an error: after a failure the content of the disk is
//! unknown, and the log ends.

pub(crate) mod blocking;
mod commit_poll;
pub(crate) mod directory;
pub(crate) mod files;
mod mounts;
mod open_segments;
pub(crate) mod probe;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use leveret_broker::id::Instant;
use leveret_broker::storage::log::BLOCK_BYTES;
use leveret_broker::storage::log::blocks::Blocks;
use leveret_broker::storage::log::operation::{DiskError, DiskEvent, DiskOperation, ReadId};
use leveret_ring::{Ring, Waker, WriteUntil};

pub(crate) use self::segment::Access;

use self::commit_poll::CommitPoll;
use self::directory::Layout;
use self::files::{Answer, FilesLink, Request, Work};
use self::open_segments::OpenSegments;
use self::segment::disk_error;
use crate::config::Durability;
use crate::fail_point::{self, Fault, Site};

/// Reads in the ring at once: enough to fill the queue of an ordinary device.
const READS_MAX: usize = 64;

/// The tokens of a commit's operations in the ring; reads are numbered after them.
const TOKEN_WRITE: u64 = 0;
const TOKEN_SYNC: u64 = 1;
const TOKEN_READ_MIN: u64 = 2;

/// Where and how all logs are stored.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub(crate) layout: Layout,
    pub(crate) access: Access,
    pub(crate) durability: Durability,
}

/// The disk of one shard's log.
#[derive(Debug)]
pub(crate) struct Disk {
    shard: u16,
    storage: Storage,
    files: FilesLink,
    open: OpenSegments,
    commit: Option<Commit>,
    poll: CommitPoll,
    /// Reads in the ring, by token.
    reads: BTreeMap<u64, Read>,
    /// Reads that wait for room in the ring. The log limits how much it reads ahead.
    waiting: VecDeque<Read>,
    /// Reads that wait until their segment's file is open.
    opening: BTreeMap<u32, Vec<Read>>,
    next_token: u64,
    events: VecDeque<DiskEvent>,
    /// A commit that a test wants to be reported late.
    late: Option<(Instant, DiskEvent)>,
}

/// The commit in progress.
#[derive(Debug)]
struct Commit {
    segment: u32,
    offset: u32,
    length: usize,
    /// Where the blocks start in their vector.
    start: usize,
    file: Arc<File>,
    /// The blocks, once they are written and only the flush is in progress.
    written: Option<Blocks>,
}

/// A read that is waiting or in progress.
#[derive(Debug)]
struct Read {
    id: ReadId,
    segment: u32,
    offset: u32,
    length: u32,
    /// Where the blocks start in their vector.
    start: usize,
}

impl Disk {
    /// For one shard; `waker` wakes its ring.
    pub(crate) fn new(
        shard: u16,
        storage: Storage,
        requests: SyncSender<Request>,
        waker: Waker,
    ) -> Self {
        Self {
            shard,
            storage,
            files: FilesLink::new(shard, requests, waker),
            open: OpenSegments::default(),
            commit: None,
            poll: CommitPoll::default(),
            reads: BTreeMap::new(),
            waiting: VecDeque::new(),
            opening: BTreeMap::new(),
            next_token: TOKEN_READ_MIN,
            events: VecDeque::new(),
            late: None,
        }
    }

    /// The file of a segment of this shard.
    pub(crate) fn path_of(&self, segment: u32) -> PathBuf {
        self.storage.layout.segment(self.shard, segment)
    }

    /// Begins an operation. Its result comes from [`Disk::poll_event`], even if it is known at
    /// once.
    pub(crate) fn carry_out(&mut self, operation: DiskOperation, ring: &mut Ring, now: Instant) {
        match operation {
            DiskOperation::Prepare { segment, size_bytes, recycled } => {
                if let Some(recycled) = recycled {
                    self.open.close(recycled);
                }
                self.files.request(Work::Prepare { segment, size_bytes, recycled });
            }
            DiskOperation::Commit { segment, offset, blocks } => {
                self.begin_commit(segment, offset, blocks, ring, now);
            }
            DiskOperation::Read { read, segment, offset, length } => {
                self.begin_read(Read { id: read, segment, offset, length, start: 0 }, ring);
            }
            DiskOperation::Remove { segment, damaged } => {
                self.open.close(segment);
                self.files.request(Work::Remove { segment, damaged });
            }
        }
    }

    /// Takes a `Completion::File` of the shard's ring.
    pub(crate) fn complete(
        &mut self,
        token: u64,
        bytes: Vec<u8>,
        result: io::Result<usize>,
        ring: &mut Ring,
        now: Instant,
    ) {
        match token {
            TOKEN_WRITE => self.on_written(bytes, result, ring, now),
            TOKEN_SYNC => self.on_synced(result, now),
            _ => self.on_read(token, bytes, result, ring),
        }
    }

    /// The next event. After each turn of the ring, call this until it returns `None`.
    pub(crate) fn poll_event(&mut self, ring: &mut Ring, now: Instant) -> Option<DiskEvent> {
        while let Some(answer) = self.files.answer() {
            match answer {
                Answer::Prepared { segment, result } => {
                    let result = result.map(|file| self.open.add_writable(segment, file));
                    self.events.push_back(DiskEvent::Prepared { segment, result });
                }
                Answer::Opened { segment, result } => self.on_opened(segment, result, ring),
                Answer::Removed { segment, gone: true } => {
                    self.events.push_back(DiskEvent::Removed { segment });
                }
                Answer::Removed { gone: false, .. } => {}
            }
        }
        if let Some((_, event)) = self.late.take_if(|(due, _)| *due <= now) {
            self.events.push_back(event);
        }
        self.events.pop_front()
    }

    /// [`Disk::poll_event`] has an event already, without a turn of the ring.
    pub(crate) fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// When [`Disk::poll_event`] will have an event although nothing wakes the ring.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.late.as_ref().map(|(due, _)| *due)
    }

    /// Whether to poll the ring instead of sleeping, because a commit should complete soon.
    pub(crate) fn commit_is_due(&self, now: Instant) -> bool {
        self.poll.is_due(now)
    }

    fn begin_commit(
        &mut self,
        segment: u32,
        offset: u32,
        blocks: Blocks,
        ring: &mut Ring,
        now: Instant,
    ) {
        assert!(self.commit.is_none(), "one commit at a time");
        let length = blocks.len();
        fail_point::reach("before-commit");
        let Some(file) = self.open.for_writing(segment) else {
            let reason = format!("segment {segment} is written without having been prepared");
            let result = Err(DiskError::Failed(reason));
            self.events.push_back(DiskEvent::Committed { segment, offset, blocks, result });
            return;
        };
        let written_length = match fail_point::fault(Site::Commit) {
            None => length,
            // Writes only a part, like a disk that becomes full.
            Some(Fault::Short) => length / 2 / BLOCK_BYTES * BLOCK_BYTES,
            Some(fault) => {
                let result = Err(self.failed("write", segment, offset, fault.error()));
                self.events.push_back(DiskEvent::Committed { segment, offset, blocks, result });
                return;
            }
        };
        let until = match (self.storage.durability, self.storage.access) {
            (Durability::Flush, Access::Direct) => WriteUntil::Durable,
            _ => WriteUntil::Taken,
        };
        self.poll.begin(now, length);
        let (bytes, start) = blocks.into_parts();
        let range = start..start + written_length;
        ring.write_file(&file, bytes, range, u64::from(offset), until, TOKEN_WRITE);
        self.commit = Some(Commit { segment, offset, length, start, file, written: None });
    }

    fn on_written(
        &mut self,
        bytes: Vec<u8>,
        result: io::Result<usize>,
        ring: &mut Ring,
        now: Instant,
    ) {
        let Some(mut commit) = self.commit.take() else {
            return;
        };
        let blocks = Blocks::from_parts(bytes, commit.start);
        if let Err(error) = whole(result, commit.length, "write") {
            let error = self.failed("write", commit.segment, commit.offset, error);
            return self.end_commit(commit, blocks, Err(error), now);
        }
        if self.storage.durability == Durability::Flush && self.storage.access == Access::Buffered {
            fail_point::reach("after-write");
            ring.sync_file(&commit.file, TOKEN_SYNC);
            commit.written = Some(blocks);
            self.commit = Some(commit);
            return;
        }
        self.end_commit(commit, blocks, Ok(()), now);
    }

    fn on_synced(&mut self, result: io::Result<usize>, now: Instant) {
        let Some(mut commit) = self.commit.take() else {
            return;
        };
        let blocks = commit.written.take().unwrap_or_default();
        let result = result.map(|_| ());
        let result =
            result.map_err(|error| self.failed("flush", commit.segment, commit.offset, error));
        self.end_commit(commit, blocks, result, now);
    }

    fn end_commit(
        &mut self,
        commit: Commit,
        blocks: Blocks,
        result: Result<(), DiskError>,
        now: Instant,
    ) {
        if result.is_ok() {
            fail_point::reach("after-commit");
        }
        self.poll.end(now);
        let Commit { segment, offset, .. } = commit;
        let event = DiskEvent::Committed { segment, offset, blocks, result };
        match fail_point::commit_delay_ns() {
            0 => self.events.push_back(event),
            delay_ns => self.late = Some((now.after(delay_ns), event)),
        }
    }

    fn begin_read(&mut self, read: Read, ring: &mut Ring) {
        if let Some(file) = self.open.for_reading(read.segment) {
            return self.submit_read(read, &file, ring);
        }
        let segment = read.segment;
        let waiting = self.opening.entry(segment).or_default();
        waiting.push(read);
        if waiting.len() == 1 {
            self.files.request(Work::Open { segment });
        }
    }

    fn submit_read(&mut self, mut read: Read, file: &Arc<File>, ring: &mut Ring) {
        if self.reads.len() >= READS_MAX {
            return self.waiting.push_back(read);
        }
        if let Some(fault) = fail_point::fault(Site::Read) {
            return self.read_failed(&read, fault.error());
        }
        let (bytes, start) = Blocks::zeroed(read.length as usize).into_parts();
        read.start = start;
        let token = self.next_token;
        self.next_token += 1;
        let range = start..start + read.length as usize;
        ring.read_file(file, bytes, range, u64::from(read.offset), token);
        self.reads.insert(token, read);
    }

    fn on_opened(&mut self, segment: u32, opened: Result<Arc<File>, DiskError>, ring: &mut Ring) {
        let reads = self.opening.remove(&segment).unwrap_or_default();
        match opened {
            Ok(file) => {
                self.open.add_readable(segment, Arc::clone(&file));
                for read in reads {
                    self.submit_read(read, &file, ring);
                }
            }
            Err(error) => self.events.extend(
                reads
                    .iter()
                    .map(|read| DiskEvent::Read { read: read.id, result: Err(error.clone()) }),
            ),
        }
    }

    fn on_read(&mut self, token: u64, bytes: Vec<u8>, result: io::Result<usize>, ring: &mut Ring) {
        let Some(read) = self.reads.remove(&token) else {
            return;
        };
        match whole(result, read.length as usize, "read") {
            Ok(()) => {
                let result = Ok(Blocks::from_parts(bytes, read.start));
                self.events.push_back(DiskEvent::Read { read: read.id, result });
            }
            Err(error) => self.read_failed(&read, error),
        }
        while self.reads.len() < READS_MAX
            && let Some(next) = self.waiting.pop_front()
        {
            self.begin_read(next, ring);
        }
    }

    fn read_failed(&mut self, read: &Read, error: io::Error) {
        let result = Err(self.failed("read", read.segment, read.offset, error));
        self.events.push_back(DiskEvent::Read { read: read.id, result });
    }

    fn failed(&self, verb: &str, segment: u32, offset: u32, error: io::Error) -> DiskError {
        let path = self.storage.layout.segment(self.shard, segment);
        disk_error(&format!("cannot {verb} {} at {offset}", path.display()), error)
    }
}

/// Treats a read or write of fewer bytes than requested as a failure.
fn whole(result: io::Result<usize>, length: usize, verb: &str) -> io::Result<()> {
    match result? {
        done if done == length => Ok(()),
        done => Err(io::Error::other(format!("short {verb}: {done} of {length} bytes"))),
    }
}
