//! Creates, opens and removes segment files; each step is durable before the next. These calls
//! block.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use leveret_broker::storage::log::BLOCK_BYTES;
use leveret_broker::storage::log::blocks::Blocks;
use leveret_broker::storage::log::operation::DiskError;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;

use super::Storage;
use crate::fail_point::{self, Site};

/// Zeros are written in pieces of this size: large enough for the full speed of a disk, small
/// enough that a commit of another shard does not wait long for one.
const PIECE_BYTES: u32 = 1 << 20;

/// How segment files are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Bypassing the page cache (`O_DIRECT`).
    Direct,
    /// Through the page cache.
    Buffered,
}

impl Access {
    fn open_flag(self) -> i32 {
        match self {
            Self::Direct => libc::O_DIRECT,
            Self::Buffered => 0,
        }
    }
}

/// The file of one segment of one shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId {
    pub(crate) shard: u16,
    pub(crate) segment: u32,
}

/// Carries out `DiskOperation::Prepare` and opens the file. Calls `between` between two pieces of
/// work.
pub(crate) fn prepare(
    storage: &Storage,
    id: SegmentId,
    size_bytes: u32,
    recycled: Option<u32>,
    between: &mut dyn FnMut(),
) -> Result<File, DiskError> {
    fail_point::reach("before-prepare");
    let layout = &storage.layout;
    let path = layout.segment(id.shard, id.segment);
    let failed = |error| disk_error(&format!("cannot prepare {}", path.display()), error);
    make_shard_directory(storage, id.shard).map_err(failed)?;
    if path.symlink_metadata().is_ok() {
        // This process alone uses the directory, so the file cannot appear between this check and
        // the rename.
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let made = match recycled {
        Some(old) => rename(&layout.segment(id.shard, old), &path),
        None => {
            let temporary = layout.temporary(id.shard, id.segment);
            let made = lay_out(&temporary, storage.access, size_bytes, between)
                .and_then(|()| rename(&temporary, &path));
            if made.is_err() {
                // An unfinished file is useless and takes space on a disk that may be full.
                let _ = std::fs::remove_file(&temporary);
            }
            made
        }
    };
    made.map_err(failed)?;
    fail_point::reach("before-directory-sync");
    sync_directory(&layout.shard(id.shard)).map_err(failed)?;
    fail_point::reach("after-prepare");
    open(storage, id)
}

/// Opens a segment for reading and writing. Refuses a link or a pipe with its name.
pub(crate) fn open(storage: &Storage, id: SegmentId) -> Result<File, DiskError> {
    let path = storage.layout.segment(id.shard, id.segment);
    let failed = |error| disk_error(&format!("cannot open {}", path.display()), error);
    fail_point::fault(Site::Open).map_or(Ok(()), |fault| Err(failed(fault.error())))?;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(storage.access.open_flag() | libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(&path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not an ordinary file")));
    }
    Ok(file)
}

/// Carries out `DiskOperation::Remove`, durably.
pub(crate) fn remove(storage: &Storage, id: SegmentId, damaged: bool) -> io::Result<()> {
    fail_point::reach("before-remove");
    let layout = &storage.layout;
    let path = layout.segment(id.shard, id.segment);
    if !damaged {
        std::fs::remove_file(path)?;
        return sync_directory(&layout.shard(id.shard));
    }
    let quarantine = layout.quarantine();
    if !quarantine.is_dir() {
        DirBuilder::new().mode(0o700).create(&quarantine)?;
        sync_directory(layout.root())?;
    }
    std::fs::rename(path, layout.quarantined(id.shard, id.segment))?;
    // In this order, so that a crash in between cannot lose the only copy of a segment that may
    // still be needed.
    sync_directory(&quarantine)?;
    sync_directory(&layout.shard(id.shard))
}

/// Converts an error of the operating system for the log.
pub(crate) fn disk_error(what: &str, error: io::Error) -> DiskError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => DiskError::Full,
        _ => DiskError::Failed(format!("{what}: {error}")),
    }
}

fn make_shard_directory(storage: &Storage, shard: u16) -> io::Result<()> {
    let directory = storage.layout.shard(shard);
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().mode(0o700).create(&directory)?;
    sync_directory(storage.layout.root())
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fail_point::reach("before-rename");
    fail_point::fault(Site::Rename).map_or(Ok(()), |fault| Err(fault.error()))?;
    std::fs::rename(from, to)
}

/// Creates a file whose blocks are allocated, written and durable, so that a later write changes
/// nothing but the data.
fn lay_out(
    path: &Path,
    access: Access,
    size_bytes: u32,
    between: &mut dyn FnMut(),
) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.custom_flags(access.open_flag() | libc::O_NOFOLLOW);
    let file = options.open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, i64::from(size_bytes)) {
        // Not every file system supports this. Writing zeros allocates the blocks as well, but less
        // contiguously.
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let zeros = Blocks::zeroed(PIECE_BYTES.min(size_bytes) as usize);
    for offset in (0..size_bytes).step_by(PIECE_BYTES as usize) {
        let length = PIECE_BYTES.min(size_bytes - offset) as usize;
        file.write_all_at(&zeros.as_slice()[..length], u64::from(offset))?;
        fail_point::fault(Site::Prepare).map_or(Ok(()), |fault| Err(fault.error()))?;
        between();
    }
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

const _: () = assert!((PIECE_BYTES as usize).is_multiple_of(BLOCK_BYTES));
