//! Probes the disk below the data directory: how it can be written to, and whether it can keep the
//! promise of a confirm.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use leveret_broker::storage::log::BLOCK_BYTES;
use leveret_broker::storage::log::blocks::Blocks;
use leveret_ring::{Completion, Ring, RingConfig, Wait, WriteUntil};
use nix::libc;
use nix::sys::statfs;

use super::directory::Layout;
use super::mounts::Mount;
use super::{Access, Storage};
use crate::config::Durability;

/// The results of the probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Findings {
    /// How segments are read and written in the mode `flush`.
    access: Access,
    /// Why direct I/O does not work.
    why_buffered: Option<String>,
    /// For example `ext4`.
    file_system: String,
    /// See [`Mount::volatile_cache`].
    volatile_cache: Option<bool>,
    option_without_flushes: Option<String>,
}

/// Probes the disk below `directory`, which must exist. Leaves nothing there.
pub(crate) fn probe(directory: &Path) -> io::Result<Findings> {
    let (access, why_buffered) = match write_directly(directory) {
        Ok(()) => (Access::Direct, None),
        // A full disk has no room for a test file, but an existing log has room in its segments.
        Err(error) if is_full(&error) => (Access::Direct, None),
        Err(error) => {
            write_buffered(directory).or_else(|e| if is_full(&e) { Ok(()) } else { Err(e) })?;
            (Access::Buffered, Some(error.to_string()))
        }
    };
    let mount = Mount::of(directory);
    let known = mount.as_ref().map(|mount| mount.file_system.clone());
    let file_system = known.unwrap_or_else(|| file_system_by_magic(directory).to_owned());
    let option = mount.as_ref().and_then(Mount::option_without_flushes).map(str::to_owned);
    Ok(Findings {
        access,
        why_buffered,
        file_system,
        volatile_cache: mount.as_ref().and_then(Mount::volatile_cache),
        option_without_flushes: option,
    })
}

impl Findings {
    /// How logs are stored. In the mode `os` a write only has to reach the page cache, so it does
    /// not wait for the device.
    pub(crate) fn storage(&self, layout: Layout, durability: Durability) -> Storage {
        let access = match durability {
            Durability::Flush => self.access,
            Durability::Os => Access::Buffered,
        };
        Storage { layout, access, durability }
    }

    /// What a confirm guarantees, in one line.
    pub(crate) fn describe(&self, durability: Durability) -> String {
        let how = match (durability, self.access) {
            (Durability::Os, _) => {
                return "os (a confirm survives the process, not the machine)".to_owned();
            }
            (Durability::Flush, Access::Direct) => "O_DIRECT + RWF_DSYNC",
            (Durability::Flush, Access::Buffered) => "write + fdatasync",
        };
        format!("flush ({how} on {})", self.file_system)
    }

    /// The reasons for the chosen mode and the facts about the device, for the debug log and
    /// `leveret check`.
    pub(crate) fn details(&self) -> Vec<String> {
        let cache = match self.volatile_cache {
            Some(true) => "volatile, flushed by every commit",
            Some(false) => "none that loses its content, says the device",
            None => "unknown, there is no block device that says",
        };
        let mut details = vec![format!("write cache: {cache}")];
        if let Some(why) = &self.why_buffered {
            details.push(format!("direct I/O does not work here: {why}"));
        }
        details
    }

    /// Why the promise cannot be kept here, and what to do about it.
    pub(crate) fn warnings(&self, durability: Durability) -> Vec<String> {
        let name = &self.file_system;
        let mut warnings = Vec::new();
        if let Some(warning) = warning_of(name) {
            warnings.push(format!("the data directory is on {name}: {warning}"));
        }
        if let (Some(option), Durability::Flush) = (&self.option_without_flushes, durability) {
            warnings.push(format!(
                "the file system is mounted with {option} and does not flush the device's cache: \
                 a power failure can take confirmed messages. Mount it without that option."
            ));
        }
        warnings
    }
}

fn warning_of(file_system: &str) -> Option<&'static str> {
    Some(match file_system {
        "tmpfs" | "ramfs" => {
            "it lives in memory, and all messages are gone when the machine restarts. Choose \
             another directory with --data-dir."
        }
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "ceph" => {
            "what a confirm is worth is up to the server and how it exports, and locks may not \
             keep a second broker out. Choose a local directory with --data-dir."
        }
        "overlay" | "aufs" => {
            "this is a container's own layer, and all messages go with the container. Mount a \
             volume for the data directory."
        }
        _ => return None,
    })
}

/// Writes a block as a commit does and reads it back.
fn write_directly(directory: &Path) -> io::Result<()> {
    let file = Arc::new(scratch_file(directory, libc::O_DIRECT)?);
    file.write_all_at(Blocks::zeroed(2 * BLOCK_BYTES).as_slice(), 0)?;
    let config = RingConfig {
        sockets_max: 1,
        buffer_count: 4,
        buffer_size_bytes: 4_096,
        submission_entries: 8,
        completion_entries: 16,
        ..RingConfig::default()
    };
    let mut ring = Ring::new(&config).map_err(io::Error::other)?;
    let mut blocks = Blocks::with_capacity(BLOCK_BYTES);
    blocks.extend(&[0xa5; BLOCK_BYTES]);
    let (bytes, range) = parts(blocks);
    let offset = BLOCK_BYTES as u64;
    ring.write_file(&file, bytes, range, offset, WriteUntil::Durable, 0);
    await_block(&mut ring)?;
    let (bytes, range) = parts(Blocks::zeroed(BLOCK_BYTES));
    ring.read_file(&file, bytes, range.clone(), offset, 0);
    let read = await_block(&mut ring)?;
    let same = read.get(range).is_some_and(|read| read.iter().all(|byte| *byte == 0xa5));
    if same { Ok(()) } else { Err(io::Error::other("a block reads otherwise than written")) }
}

fn parts(blocks: Blocks) -> (Vec<u8>, Range<usize>) {
    let (bytes, start) = blocks.into_parts();
    let end = bytes.len();
    (bytes, start..end)
}

fn await_block(ring: &mut Ring) -> io::Result<Vec<u8>> {
    let mut completions = Vec::new();
    loop {
        ring.turn(Wait::Forever, &mut completions).map_err(io::Error::other)?;
        for completion in completions.drain(..) {
            if let Completion::File { bytes, result, .. } = completion {
                return match result? {
                    BLOCK_BYTES => Ok(bytes),
                    length => Err(io::Error::other(format!("{length} bytes of a block"))),
                };
            }
        }
    }
}

fn write_buffered(directory: &Path) -> io::Result<()> {
    let file = scratch_file(directory, 0)?;
    file.write_all_at(&[0xa5; BLOCK_BYTES], 0)?;
    file.sync_data()
}

/// A temporary file without a name. If the file system does not support that, it has a name for a
/// moment.
fn scratch_file(directory: &Path, flags: i32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    if let Ok(file) = options.custom_flags(flags | libc::O_TMPFILE).open(directory) {
        return Ok(file);
    }
    let path = directory.join(format!("probe-{}.tmp", std::process::id()));
    let opened = options.create_new(true).custom_flags(flags).open(&path);
    // Some file systems refuse direct I/O only after they have created the file.
    let removed = std::fs::remove_file(&path);
    let file = opened?;
    removed.map(|()| file)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The names of the relevant file systems, for the case that `/proc` does not show the mount.
fn file_system_by_magic(directory: &Path) -> &'static str {
    let Ok(found) = statfs::statfs(directory) else {
        return "an unknown file system";
    };
    match found.filesystem_type() {
        statfs::TMPFS_MAGIC => "tmpfs",
        statfs::NFS_SUPER_MAGIC => "nfs",
        statfs::OVERLAYFS_SUPER_MAGIC => "overlay",
        statfs::EXT4_SUPER_MAGIC => "ext4",
        statfs::XFS_SUPER_MAGIC => "xfs",
        statfs::BTRFS_SUPER_MAGIC => "btrfs",
        _ => "an unknown file system",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(file_system: &str, option: Option<&str>) -> Findings {
        Findings {
            access: Access::Direct,
            why_buffered: None,
            file_system: file_system.to_owned(),
            volatile_cache: None,
            option_without_flushes: option.map(str::to_owned),
        }
    }

    #[test]
    fn a_probe_finds_a_way_to_write_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let findings = probe(directory.path()).unwrap();
        assert_eq!(findings.access == Access::Direct, findings.why_buffered.is_none());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(findings.describe(Durability::Flush).contains(&findings.file_system));
        assert!(probe(&directory.path().join("missing")).is_err());
    }

    #[test]
    fn memory_is_told_from_disk() {
        let memory = Path::new("/dev/shm");
        let mount = Mount::of(memory);
        if mount.is_some_and(|mount| mount.file_system == "tmpfs") {
            assert_eq!(file_system_by_magic(memory), "tmpfs");
            let warnings = probe(memory).unwrap().warnings(Durability::Flush);
            assert!(warnings[0].contains("tmpfs") && warnings[0].contains("gone"), "{warnings:?}");
        }
    }

    #[test]
    fn warnings_come_only_where_the_promise_cannot_hold() {
        let ext4 = findings("ext4", None);
        assert_eq!(ext4.describe(Durability::Flush), "flush (O_DIRECT + RWF_DSYNC on ext4)");
        assert!(ext4.warnings(Durability::Flush).is_empty());
        let unflushed = findings("ext4", Some("nobarrier"));
        assert!(unflushed.warnings(Durability::Flush)[0].contains("nobarrier"));
        assert!(unflushed.warnings(Durability::Os).is_empty(), "which promises no more");
        for (file_system, part) in [("overlay", "volume"), ("nfs4", "server"), ("tmpfs", "memory")]
        {
            let warnings = findings(file_system, None).warnings(Durability::Os);
            assert!(warnings[0].contains(part), "{warnings:?}");
        }
        let buffered = Findings { access: Access::Buffered, ..ext4.clone() };
        assert_eq!(buffered.describe(Durability::Flush), "flush (write + fdatasync on ext4)");
        let storage = ext4.storage(Layout::new(Path::new("x")), Durability::Os);
        assert_eq!(storage.access, Access::Buffered);
    }
}
