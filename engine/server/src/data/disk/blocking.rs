//! The disk without a ring and without threads: used at boot to move queues, before the shards run.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use leveret_broker::storage::log::blocks::Blocks;
use leveret_broker::storage::log::operation::{DiskError, DiskEvent, DiskOperation};

use super::segment::{self, SegmentId, disk_error};
use super::{Storage, whole};
use crate::config::Durability;
use crate::data::disk::Access;
use crate::fail_point::{self, Fault, Site};

/// How many files are kept open. A log is read from start to end and written at its end.
const OPEN_MAX: usize = 4;

/// The disk of one shard's log.
#[derive(Debug)]
pub(crate) struct BlockingDisk {
    shard: u16,
    storage: Storage,
    open: BTreeMap<u32, File>,
}

impl BlockingDisk {
    /// The disk of one shard. It always works through the page cache, whatever `storage` says,
    /// because it reads many single blocks next to each other.
    pub(crate) fn new(shard: u16, storage: Storage) -> Self {
        let storage = Storage { access: Access::Buffered, ..storage };
        Self { shard, storage, open: BTreeMap::new() }
    }

    /// Carries out an operation completely. `None` if the operation has no answer.
    pub(crate) fn carry_out(&mut self, operation: DiskOperation) -> Option<DiskEvent> {
        Some(match operation {
            DiskOperation::Prepare { segment, size_bytes, recycled } => {
                if let Some(recycled) = recycled {
                    self.open.remove(&recycled);
                }
                let id = SegmentId { shard: self.shard, segment };
                let made = segment::prepare(&self.storage, id, size_bytes, recycled, &mut || {});
                let result = made.map(|file| self.keep(segment, file));
                DiskEvent::Prepared { segment, result }
            }
            DiskOperation::Commit { segment, offset, blocks } => {
                let result = self.commit(segment, offset, &blocks);
                DiskEvent::Committed { segment, offset, blocks, result }
            }
            DiskOperation::Read { read, segment, offset, length } => {
                DiskEvent::Read { read, result: self.read(segment, offset, length) }
            }
            DiskOperation::Remove { segment, damaged } => {
                self.open.remove(&segment);
                let id = SegmentId { shard: self.shard, segment };
                if !super::files::remove(&self.storage, id, damaged) {
                    return None;
                }
                DiskEvent::Removed { segment }
            }
        })
    }

    fn commit(&mut self, segment: u32, offset: u32, blocks: &Blocks) -> Result<(), DiskError> {
        fail_point::reach("before-commit");
        let what = self.what("write", segment, offset);
        let failed = |error| disk_error(&what, error);
        let durability = self.storage.durability;
        let file = self.file(segment)?;
        let mut bytes = blocks.as_slice();
        match fail_point::fault(Site::Commit) {
            None => {}
            Some(Fault::Short) => bytes = &bytes[..bytes.len() / 2],
            Some(fault) => return Err(failed(fault.error())),
        }
        // A single write, as the ring does it: a short write is not continued.
        let result = file.write_at(bytes, u64::from(offset));
        whole(result, blocks.len(), "write").map_err(failed)?;
        fail_point::reach("after-write");
        if durability == Durability::Flush {
            file.sync_data().map_err(failed)?;
        }
        fail_point::reach("after-commit");
        Ok(())
    }

    fn read(&mut self, segment: u32, offset: u32, length: u32) -> Result<Blocks, DiskError> {
        let what = self.what("read", segment, offset);
        let failed = |error| disk_error(&what, error);
        let file = self.file(segment)?;
        fail_point::fault(Site::Read).map_or(Ok(()), |fault| Err(failed(fault.error())))?;
        let mut blocks = Blocks::zeroed(length as usize);
        file.read_exact_at(blocks.as_mut_slice(), u64::from(offset)).map_err(failed)?;
        Ok(blocks)
    }

    fn file(&mut self, segment: u32) -> Result<&File, DiskError> {
        if !self.open.contains_key(&segment) {
            let id = SegmentId { shard: self.shard, segment };
            let file = segment::open(&self.storage, id)?;
            self.keep(segment, file);
        }
        self.open.get(&segment).ok_or_else(|| DiskError::Failed("the file is closed".to_owned()))
    }

    /// Keeps the files used last: they are the end of the log or close to the current read.
    fn keep(&mut self, segment: u32, file: File) {
        while self.open.len() >= OPEN_MAX {
            self.open.pop_first();
        }
        self.open.insert(segment, file);
    }

    fn what(&self, verb: &str, segment: u32, offset: u32) -> String {
        let path = self.storage.layout.segment(self.shard, segment);
        format!("cannot {verb} {} at {offset}", path.display())
    }
}
