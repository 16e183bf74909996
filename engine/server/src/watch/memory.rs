//! How much memory the broker may use: the configured limit, or a share of the memory of the host
//! or of the process's control groups.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The share used if no limit is configured, in percent: the watermark of `RabbitMQ` 3.x. The rest
/// is for the receive buffers and for the kernel's page cache, which serves the logs.
const SHARE_PERCENT: u64 = 40;

/// The smallest limit that may be configured or derived.
const LEAST_BYTES: u64 = 64 << 20;

/// The smallest limit per shard. Segments that are mostly dead are not compacted below 2 MiB, so
/// with less memory the limit could be reached by messages that no consumer can take.
const LEAST_PER_SHARD_BYTES: u64 = 4 << 20;

/// The memory assumed for a host whose memory size is unknown.
const UNKNOWN_HOST_BYTES: u64 = 1 << 30;

/// The limit, and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    /// Publishers are blocked above this.
    pub(crate) bytes: u64,
    /// The origin of the limit, as text for the log.
    pub(crate) source: String,
}

impl MemoryLimit {
    /// The limit for a broker of `shards` shards on the machine whose root directory is `root`.
    pub(crate) fn find(configured: Option<u64>, shards: usize, root: &Path) -> Self {
        let (wanted, source) = match configured {
            Some(bytes) => (bytes, "memory_limit_bytes".to_owned()),
            None => derived(root),
        };
        let least = LEAST_BYTES.max(LEAST_PER_SHARD_BYTES * shards as u64);
        if wanted >= least {
            return Self { bytes: wanted, source };
        }
        let source = format!("the least for {shards} shards, above {wanted} bytes by {source}");
        Self { bytes: least, source }
    }

    /// Memory for the messages of each of `shards` shards; together they have half of the limit.
    pub(crate) fn store_bytes(&self, shards: usize) -> u64 {
        self.bytes / 2 / shards.max(1) as u64
    }
}

fn derived(root: &Path) -> (u64, String) {
    let host = host_bytes(root).unwrap_or(UNKNOWN_HOST_BYTES);
    let (of, bytes) = match group_bytes(root) {
        Some(group) if group < host => ("control group", group),
        _ => ("host", host),
    };
    (bytes / 100 * SHARE_PERCENT, format!("{SHARE_PERCENT} % of the {bytes} bytes of the {of}"))
}

fn host_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The smallest limit of all control groups that contain this process, parents included.
fn group_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = text.lines().filter_map(|line| {
        // `0::/path` is version 2, `N:memory,…:/path` is version 1.
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (mount, file) = match controllers {
            "" if number == "0" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        least_upwards(&root.join(mount), Path::new(path), file)
    });
    limits.min()
}

/// Reads the limit of the group and of all its parents. In a container the path may be that of the
/// host and not exist; then the group at the mount point is the container's own.
fn least_upwards(mount: &Path, group: &Path, file: &str) -> Option<u64> {
    // A group outside of the process's namespace is shown as `/../..`.
    let inside: PathBuf =
        group.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let limits = inside.ancestors().filter_map(|group| {
        let text = fs::read_to_string(mount.join(group).join(file)).ok()?;
        // Version 2 shows `max` if there is no limit, version 1 a number larger than any memory.
        text.trim().parse().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Creates files in a temporary directory.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn found(files: &[(&str, &str)]) -> u64 {
        MemoryLimit::find(None, 2, tree(files).path()).bytes
    }

    const HOST: (&str, &str) = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:  123 kB\n");
    const HOST_SHARE: u64 = (8_192 * MIB) / 100 * 40;
    const GROUP_V2: (&str, &str) = ("proc/self/cgroup", "0::/system.slice/leveret.service\n");

    #[test]
    fn without_groups_the_host_counts() {
        assert_eq!(found(&[HOST]), HOST_SHARE);
        let unlimited = ("sys/fs/cgroup/system.slice/leveret.service/memory.max", "max\n");
        assert_eq!(found(&[HOST, GROUP_V2, unlimited]), HOST_SHARE);
    }

    #[test]
    fn the_least_group_on_the_way_up_counts() {
        let own = ("sys/fs/cgroup/system.slice/leveret.service/memory.max", "2147483648\n");
        assert_eq!(found(&[HOST, GROUP_V2, own]), 2_048 * MIB / 100 * 40);
        let above = ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n");
        assert_eq!(found(&[HOST, GROUP_V2, own, above]), 1_024 * MIB / 100 * 40);
        let beyond = ("sys/fs/cgroup/memory.max", "99999999999999\n");
        assert_eq!(found(&[HOST, GROUP_V2, beyond]), HOST_SHARE);
    }

    #[test]
    fn containers_see_their_group_at_the_top() {
        let outside = ("proc/self/cgroup", "0::/../../kubepods/pod7\n");
        let top = ("sys/fs/cgroup/memory.max", "536870912\n");
        assert_eq!(found(&[HOST, outside, top]), 512 * MIB / 100 * 40);
        let of_host = ("proc/self/cgroup", "12:pids:/x\n5:cpu,memory:/docker/abc\n0::/x\n");
        let top = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
        assert_eq!(found(&[HOST, of_host, top]), 512 * MIB / 100 * 40);
    }

    #[test]
    fn version_1_says_no_limit_by_a_huge_number() {
        let group = ("proc/self/cgroup", "5:memory:/a/b\n1:name=systemd:/memory\n");
        let own = ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(found(&[HOST, group, own]), HOST_SHARE);
        let above = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3221225472\n");
        assert_eq!(found(&[HOST, group, own, above]), 3_072 * MIB / 100 * 40);
    }

    #[test]
    fn rubbish_is_no_limit_and_no_panic() {
        let rubbish = ("proc/self/cgroup", "\n:\n0:\n0::\u{1}\nmemory\n7:memory:/é/..//\n");
        let odd = ("sys/fs/cgroup/memory/é/memory.limit_in_bytes", "-5\n");
        assert_eq!(found(&[HOST, rubbish, odd]), HOST_SHARE);
        let none = ("proc/meminfo", "MemTotal: many kB\n");
        assert_eq!(found(&[none]), UNKNOWN_HOST_BYTES / 100 * 40);
        assert_eq!(found(&[]), UNKNOWN_HOST_BYTES / 100 * 40);
    }

    #[test]
    fn what_is_configured_counts_and_every_shard_has_its_least() {
        let root = tree(&[HOST]);
        let find = |configured, shards| MemoryLimit::find(configured, shards, root.path());
        let configured = find(Some(64 * MIB), 4);
        assert_eq!(
            (configured.bytes, configured.source.as_str()),
            (64 * MIB, "memory_limit_bytes")
        );
        assert_eq!(configured.store_bytes(4), 8 * MIB);
        let many = find(Some(64 * MIB), 1024);
        assert_eq!(many.bytes, 4_096 * MIB);
        assert!(many.source.contains("1024 shards"), "{}", many.source);
        assert!(many.store_bytes(1024) >= MIB, "what settings allow at least");
    }
}
