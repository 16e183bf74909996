//! The data directory: its lock, its file names, and its content. See `docs/STORE_FORMAT.md`.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use tracing::{debug, info, warn};

use crate::failure::Failure;

const SEGMENT_SUFFIX: &str = ".segment";

/// Suffix of a segment's file while it is being laid out.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A data directory that belongs to this process as long as this value lives.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    layout: Layout,
    /// Locked with `flock`, which the kernel releases when the process ends in any way.
    #[expect(dead_code, reason = "held, not used")]
    lock: File,
}

impl DataDirectory {
    /// Creates the directory if it is missing, without access for other users, because messages are
    /// private; locks it for this process, and removes files that a crash left unfinished.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let failure = |source| Failure::DataDirectory { path: path.into(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failure)?;
        let lock = take_lock(path)?;
        let layout = Layout::new(path);
        let survey = layout.survey().map_err(failure)?;
        for refused in survey.refused {
            let what = "is named like a part of a log and is none (a link, a pipe, …)";
            warn!("{} {what}; it is left alone", refused.display());
        }
        for temporary in survey.temporaries {
            std::fs::remove_file(&temporary).map_err(failure)?;
            info!("removed {}, which was not finished", temporary.display());
        }
        Ok(Self { layout, lock })
    }

    /// The file names in it.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }
}

fn take_lock(directory: &Path) -> Result<File, Failure> {
    let failure = |source| Failure::DataDirectory { path: directory.into(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(directory.join("lock"))
        .map_err(failure)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(source)) => return Err(failure(source)),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // If the process id cannot be read, the error names no process.
            let _ = lock.take(32).read_to_string(&mut text);
            let holder = text.trim().parse().ok();
            return Err(Failure::DataDirectoryInUse { path: directory.into(), holder });
        }
    }
    lock.set_len(0).map_err(failure)?;
    lock.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failure)?;
    Ok(lock)
}

/// The file names in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The names in the directory `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The data directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of one shard's log.
    pub(crate) fn shard(&self, shard: u16) -> PathBuf {
        self.root.join(format!("shard-{shard:04}"))
    }

    /// A segment's file.
    pub(crate) fn segment(&self, shard: u16, segment: u32) -> PathBuf {
        self.shard(shard).join(format!("{segment:010}{SEGMENT_SUFFIX}"))
    }

    /// A segment's file while it is being laid out.
    pub(crate) fn temporary(&self, shard: u16, segment: u32) -> PathBuf {
        self.shard(shard).join(format!("{segment:010}{SEGMENT_SUFFIX}{TEMPORARY_SUFFIX}"))
    }

    /// The directory of segments with damage.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Where a segment with damage is moved to.
    pub(crate) fn quarantined(&self, shard: u16, segment: u32) -> PathBuf {
        self.quarantine().join(format!("shard-{shard:04}-{segment:010}{SEGMENT_SUFFIX}"))
    }

    /// Lists the content of the directory. Reads only names and sizes.
    pub(crate) fn survey(&self) -> io::Result<Survey> {
        let mut survey = Survey::default();
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            let Some(shard) = entry.file_name().to_str().and_then(shard_number) else {
                if !entry.file_name().to_str().is_some_and(is_ours) {
                    debug!("{} is not ours, left alone", entry.path().display());
                }
                continue;
            };
            if entry.file_type()?.is_dir() {
                let segments = survey_shard(&entry.path(), &mut survey)?;
                survey.shards.insert(shard, segments);
            } else {
                survey.refused.push(entry.path());
            }
        }
        Ok(survey)
    }
}

/// The content of a data directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// The segments of each shard that has a directory, by number.
    pub(crate) shards: BTreeMap<u16, Vec<SegmentFile>>,
    /// Files that were being laid out when the process ended.
    pub(crate) temporaries: Vec<PathBuf>,
    /// Entries that have the name of a segment or of a shard's directory but are something else,
    /// such as a link or a pipe.
    pub(crate) refused: Vec<PathBuf>,
}

/// A segment's file, from its directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentFile {
    /// From its name.
    pub(crate) number: u32,
    /// Of the file.
    pub(crate) size_bytes: u64,
}

fn survey_shard(directory: &Path, survey: &mut Survey) -> io::Result<Vec<SegmentFile>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let finished = name.strip_suffix(TEMPORARY_SUFFIX);
        let Some(number) = segment_number(finished.unwrap_or(name)) else {
            debug!("{} is not ours, left alone", entry.path().display());
            continue;
        };
        // Does not follow links.
        let metadata = entry.metadata()?;
        if !metadata.is_file() {
            survey.refused.push(entry.path());
        } else if finished.is_some() {
            survey.temporaries.push(entry.path());
        } else {
            segments.push(SegmentFile { number, size_bytes: metadata.len() });
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// The number in a name, which must be exactly as [`Layout::shard`] makes it.
fn shard_number(name: &str) -> Option<u16> {
    let shard = name.strip_prefix("shard-")?.parse().ok()?;
    (name == format!("shard-{shard:04}")).then_some(shard)
}

/// The number in a name, which must be exactly as [`Layout::segment`] makes it.
fn segment_number(name: &str) -> Option<u32> {
    let segment = name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()?;
    (name == format!("{segment:010}{SEGMENT_SUFFIX}")).then_some(segment)
}

fn is_ours(name: &str) -> bool {
    matches!(name, "lock" | "metadata.redb" | "quarantine")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_second_user_is_refused_and_told_who_the_first_is() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDirectory::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = DataDirectory::open(&path).unwrap_err();
        let text = refused.to_string();
        let pid = std::process::id().to_string();
        assert!(text.contains("in use") && text.contains(&pid), "{text}");
        drop(first);
        DataDirectory::open(&path).unwrap();
    }

    #[test]
    fn a_lock_that_is_a_link_or_a_directory_is_no_lock() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("precious");
        std::fs::write(&target, b"precious").unwrap();
        let data = root.path().join("data");
        std::fs::create_dir(&data).unwrap();
        symlink(&target, data.join("lock")).unwrap();
        assert!(matches!(DataDirectory::open(&data), Err(Failure::DataDirectory { .. })));
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
        std::fs::remove_file(data.join("lock")).unwrap();
        std::fs::create_dir(data.join("lock")).unwrap();
        assert!(matches!(DataDirectory::open(&data), Err(Failure::DataDirectory { .. })));
    }

    #[test]
    fn only_what_is_a_segment_counts_as_one() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        let shard = layout.shard(3);
        std::fs::create_dir(&shard).unwrap();
        std::fs::create_dir(layout.shard(1)).unwrap();
        for (number, size) in [(12, 5), (u32::MAX, 0), (7, 4_096)] {
            std::fs::write(layout.segment(3, number), vec![0; size]).unwrap();
        }
        std::fs::write(layout.temporary(3, 13), b"half").unwrap();
        for foreign in ["7.segment", "+000000007.segment", "00000000007.segment", "notes.txt"] {
            std::fs::write(shard.join(foreign), b"mine").unwrap();
        }
        std::fs::write(root.path().join("shard-00002"), b"mine").unwrap();
        let (link, pipe) = (layout.segment(3, 20), layout.segment(3, 21));
        symlink(shard.join("notes.txt"), &link).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let stray = layout.shard(9);
        std::fs::write(&stray, b"a file").unwrap();

        let mut survey = layout.survey().unwrap();
        survey.refused.sort();
        let file = |number, size_bytes| SegmentFile { number, size_bytes };
        let segments = vec![file(7, 4_096), file(12, 5), file(u32::MAX, 0)];
        assert_eq!(survey.shards, BTreeMap::from([(1, vec![]), (3, segments)]));
        assert_eq!(survey.temporaries, [layout.temporary(3, 13)]);
        assert_eq!(survey.refused, [link, pipe, stray]);

        let _owned = DataDirectory::open(root.path()).unwrap();
        assert!(!layout.temporary(3, 13).exists(), "what was not finished is removed");
        assert!(shard.join("notes.txt").exists() && layout.segment(3, 12).exists());
    }
}
