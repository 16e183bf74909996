//! The mount below a path, and whether its device has a volatile write cache.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The mount a path lies in, from `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `major:minor`.
    device: String,
    /// For example `ext4`.
    pub(crate) file_system: String,
    /// Options of the mount and of the file system, separated by commas.
    options: String,
}

impl Mount {
    /// The mount of `path`; `None` if `/proc` does not show it.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        find(&fs::read_to_string("/proc/self/mountinfo").ok()?, &path)
    }

    /// A mount option that stops the file system from flushing the device's cache.
    pub(crate) fn option_without_flushes(&self) -> Option<&str> {
        let without = ["nobarrier", "barrier=0", "barrier=none", "fsync_mode=nobarrier"];
        self.options.split(',').find(|option| without.contains(option))
    }

    /// Whether the device reports a cache that loses its content on a loss of power. `None` if
    /// there is no block device or it does not report this.
    pub(crate) fn volatile_cache(&self) -> Option<bool> {
        let device = fs::canonicalize(format!("/sys/dev/block/{}", self.device)).ok()?;
        // A partition has no queue directory of its own; it is in that of the whole device.
        let queue = [device.as_path(), device.parent()?];
        let mut caches =
            queue.iter().filter_map(|of| fs::read_to_string(of.join("queue/write_cache")).ok());
        Some(caches.next()?.trim() == "write back")
    }
}

/// The mount with the longest mount point above `path`. Of several at the same point the last one
/// counts, because it hides the others.
fn find(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(parse);
    let above = mounts.filter(|(mount_point, _)| path.starts_with(mount_point));
    let (_, mount) = above.max_by_key(|(mount_point, _)| mount_point.components().count())?;
    Some(mount)
}

/// Parses one line: `36 35 98:0 /root /mount/point options optional… - type source options`.
fn parse(line: &str) -> Option<(PathBuf, Mount)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let device = mount.next()?.to_owned();
    let mount_point = unescape(mount.nth(1)?);
    let mount_options = mount.next()?;
    let mut of_file_system = file_system.split(' ');
    let file_system = of_file_system.next()?.to_owned();
    let options = format!("{mount_options},{}", of_file_system.nth(1)?);
    Some((mount_point, Mount { device, file_system, options }))
}

/// Decodes spaces and similar characters, which are written as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped.filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
23 22 0:5 / /proc rw,nosuid - proc proc rw
30 22 0:40 / /var/lib/a\\040b rw,noatime shared:9 master:2 - xfs /dev/mapper/x rw,nobarrier
31 30 0:41 / /var/lib/a\\040b rw,noatime - tmpfs tmpfs rw,size=1024k
32 22 0:42 / /var/li ro - nfs4 server:/x rw,hard
33 22 8:2 / /old rw,barrier=0 - ext3 /dev/sda2 rw
line that is none";

    fn file_system(path: &str) -> String {
        find(MOUNTINFO, Path::new(path)).unwrap().file_system
    }

    #[test]
    fn the_innermost_and_last_mount_counts() {
        assert_eq!(file_system("/var/lib/data"), "ext4");
        assert_eq!(file_system("/var/li/data"), "nfs4");
        assert_eq!(file_system("/var/lib/a b/data"), "tmpfs");
        assert_eq!(file_system("/proc"), "proc");
        let old = find(MOUNTINFO, Path::new("/old/data")).unwrap();
        assert_eq!((old.device.as_str(), old.option_without_flushes()), ("8:2", Some("barrier=0")));
        let root = find(MOUNTINFO, Path::new("/data")).unwrap();
        assert_eq!(root.option_without_flushes(), None);
        let xfs = MOUNTINFO.lines().nth(2).and_then(parse).unwrap();
        assert_eq!(xfs.1.option_without_flushes(), Some("nobarrier"));
    }

    #[test]
    fn this_machine_is_understood() {
        let mount = Mount::of(Path::new("/proc/self")).unwrap();
        assert_eq!((mount.file_system.as_str(), mount.volatile_cache()), ("proc", None));
    }

    #[test]
    fn odd_escapes_stay_as_they_are() {
        for (text, path) in [("/a\\134b", "/a\\b"), ("/a\\9", "/a\\9"), ("/\\04", "/\\04")] {
            assert_eq!(unescape(text), Path::new(path));
        }
    }
}
