//! Errors in words: the meaning of the kernel's number here, and its remedy.

use std::io;

/// Why a ring could not be made, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// A size in [`RingConfig`](crate::RingConfig) is out of its range.
    #[error("invalid ring configuration: {0}")]
    Config(&'static str),
    /// A step of the set-up failed.
    #[error("{step}: {} ({source}). {}", sentence(source), remedy(source))]
    Setup {
        /// Which step, for example `set up io_uring`.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// All socket slots are taken: refuse the connection.
    #[error("all {sockets_max} sockets of this ring are in use")]
    SocketsExhausted {
        /// The limit from the configuration.
        sockets_max: u32,
    },
    /// All listener slots are taken.
    #[error("all {listeners_max} listeners of this ring are in use")]
    ListenersExhausted {
        /// The limit.
        listeners_max: u32,
    },
    /// A socket could not be prepared (options, fixed file table).
    #[error("cannot take over the socket: {0}")]
    Socket(#[source] io::Error),
    /// `io_uring_enter` failed for good: the ring cannot be used any more.
    #[error("io_uring_enter: {} ({source}). {}", sentence(source), remedy(source))]
    Enter {
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread could not be tied to the core.
    #[error(
        "cannot pin the thread to core {core}: it is not in this process's CPU mask. \
         Check taskset, the cpuset of the container and the number of shards."
    )]
    Pin {
        /// The core asked for.
        core: usize,
    },
}

/// What an error of an `io_uring` call usually means, as a sentence without a full stop.
pub(crate) fn sentence(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            "io_uring is forbidden here, by a seccomp profile (containers) or by \
             kernel.io_uring_disabled"
        }
        Some(libc::EACCES) => "io_uring is forbidden here by a security module",
        Some(libc::ENOSYS) => "this kernel, or the sandbox around it, has no io_uring",
        Some(libc::EINVAL) => "the kernel does not know an option that is needed",
        Some(libc::ENOMEM) => "out of memory, or of locked memory (RLIMIT_MEMLOCK)",
        Some(libc::EMFILE) => "this process may not open more files (RLIMIT_NOFILE)",
        Some(libc::ENFILE) => "the system's table of open files is full",
        Some(libc::EEXIST) => "the ring is used from another thread than the one that made it",
        Some(libc::EBADR) => "the kernel had to drop completions for lack of memory",
        Some(libc::EOPNOTSUPP) => "the kernel does not support this operation",
        Some(libc::EBADF) => "the file descriptor is closed",
        Some(libc::ETIMEDOUT) => "the kernel did not answer in time",
        _ => "the kernel refused",
    }
}

/// What to do about it, as one or more full sentences.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "In a container: run with --security-opt seccomp=<a profile that allows \
             io_uring_setup, io_uring_enter and io_uring_register> (Kubernetes: a \
             localhostProfile). On the host: sysctl -w kernel.io_uring_disabled=0, or add the \
             group to kernel.io_uring_group."
        }
        Some(libc::ENOSYS) => {
            "Run on Linux 6.1 or newer with CONFIG_IO_URING, outside of gVisor; in a container \
             allow the three io_uring_* system calls in the seccomp profile."
        }
        Some(libc::EINVAL | libc::EOPNOTSUPP) => "Run on Linux 6.1 or newer.",
        Some(libc::ENOMEM) => {
            "Raise the locked memory limit (ulimit -l, LimitMEMLOCK=, --ulimit memlock), run fewer \
             shards, or use smaller receive buffers."
        }
        Some(libc::EMFILE) => {
            "Raise the open files limit (ulimit -n, LimitNOFILE=, --ulimit nofile) above the \
             number of connections."
        }
        Some(libc::ENFILE) => "Raise fs.file-max.",
        Some(libc::EBADR) => "Add memory, or set a larger completion queue.",
        _ => "Look at the kernel's log; this is not an expected state.",
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_ring_names_cause_and_remedy() {
        let error = RingError::Setup {
            step: "set up io_uring",
            source: io::Error::from_raw_os_error(libc::EPERM),
        };
        let text = error.to_string();
        assert!(text.contains("seccomp") && text.contains("kernel.io_uring_disabled=0"), "{text}");
    }

    #[test]
    fn every_known_number_has_its_own_sentence() {
        let known = [
            libc::EPERM,
            libc::EACCES,
            libc::ENOSYS,
            libc::EINVAL,
            libc::ENOMEM,
            libc::EMFILE,
            libc::ENFILE,
            libc::EEXIST,
            libc::EBADR,
            libc::EOPNOTSUPP,
            libc::EBADF,
        ];
        let mut seen: Vec<_> =
            known.iter().map(|code| sentence(&io::Error::from_raw_os_error(*code))).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), known.len());
    }
}
