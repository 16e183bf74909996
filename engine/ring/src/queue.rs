//! The submission and completion queues and the one system call that moves them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, Submitter, cqueue, squeue};

use crate::completion::Wait;
use crate::config::RingConfig;
use crate::error::RingError;
use crate::kernel;
use crate::token::{Kind, Token};

/// Counters of a ring since its start. All counts only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Entries given to the kernel.
    pub submissions: u64,
    /// Entries taken from the kernel.
    pub completions: u64,
    /// Multishot receives armed again after the kernel ended them.
    pub receive_rearms: u64,
    /// Multishot accepts armed again after the kernel ended them.
    pub accept_rearms: u64,
    /// Receives that found no buffer.
    pub starvations: u64,
    /// Received bytes that were copied out of their buffers, because buffers ran short.
    pub received_bytes_copied: u64,
    /// Single receives armed on the reserve.
    pub reserve_receives: u64,
    /// Sends that were cut short by the kernel or needed more than 1,024 pieces.
    pub send_continuations: u64,
    /// Times the submission queue was full before the end of a turn.
    pub submission_queue_full: u64,
    /// Times the kernel had to keep completions outside of the queue. More than a few: enlarge it.
    pub completion_overflows: u64,
    /// Completions of operations whose socket, listener or purpose is gone.
    pub stale_completions: u64,
    /// Wakes sent to other rings.
    pub wakes_sent: u64,
    /// Wakes received, from rings and from threads.
    pub wakes_received: u64,
}

/// A completion as the kernel gave it, with its `user_data` unpacked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completed {
    pub(crate) token: Token,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Completed {
    /// True when the operation goes on and will complete again.
    pub(crate) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The result as a length or as an error.
    pub(crate) fn length(self) -> io::Result<usize> {
        self.descriptor().map(|result| result as usize)
    }

    /// The result as a descriptor or as an error.
    pub(crate) fn descriptor(self) -> io::Result<RawFd> {
        if self.result < 0 {
            return Err(io::Error::from_raw_os_error(-self.result));
        }
        Ok(self.result)
    }
}

pub(crate) struct Queue {
    ring: IoUring,
    /// The ring for `io_uring_enter`: the registered index, or the plain descriptor.
    enter_descriptor: RawFd,
    enter_flags: EnterFlags,
    /// Entries that found the queue full even after a submit. Each socket can have only a handful
    /// of operations open, which limits it.
    backlog: VecDeque<squeue::Entry>,
    /// Operations whose last completion is still to come.
    in_flight: u64,
    pub(crate) counters: RingCounters,
}

impl Queue {
    /// Sets up the ring on the calling thread, which is then the only one that may use it.
    pub(crate) fn new(config: &RingConfig) -> Result<Self, RingError> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.completion_entries)
            .build(config.submission_entries)
            .map_err(|source| RingError::Setup { step: "set up io_uring", source })?;
        let mut enter_flags = EnterFlags::empty();
        if ring.params().is_feature_no_iowait() {
            // A broker that waits for clients is idle, not waiting for a disk.
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        // Each thread may register only 16 rings; one more works as well, a little slower.
        let enter_descriptor = match kernel::register_ring_fd(ring.as_fd()) {
            Ok(index) => {
                enter_flags |= EnterFlags::REGISTERED_RING;
                index
            }
            Err(_) => ring.as_raw_fd(),
        };
        Ok(Self {
            ring,
            enter_descriptor,
            enter_flags,
            backlog: VecDeque::new(),
            in_flight: 0,
            counters: RingCounters::default(),
        })
    }

    pub(crate) fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Operations whose last completion is still to come.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Queues an operation that will complete.
    ///
    /// # Safety
    /// Everything the entry points to must stay valid, and what the kernel writes must stay unused,
    /// until the last completion of the operation.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.in_flight += 1;
        // SAFETY: passed on from the caller.
        unsafe { self.push_entry(entry) };
    }

    /// Queues an operation that completes only when it fails (`SKIP_SUCCESS`).
    ///
    /// # Safety
    /// As for [`Queue::push`]. Its success is not reported, so it must not point to anything.
    pub(crate) unsafe fn push_silent(&mut self, entry: squeue::Entry) {
        // SAFETY: passed on from the caller.
        unsafe { self.push_entry(entry.flags(squeue::Flags::SKIP_SUCCESS)) };
    }

    unsafe fn push_entry(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: passed on from the caller.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.counters.submission_queue_full += 1;
            // An error here is met again, and reported, at the enter of the turn.
            let _ = self.call(0, None, EnterFlags::empty());
            // SAFETY: passed on from the caller.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn flush_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the caller of `push` promised that the entry stays valid until it completes.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Submits all and waits for the first completion: one system call, or none when there is
    /// nothing to submit, to run or to wait for.
    pub(crate) fn enter(&mut self, wait: Wait) -> Result<(), RingError> {
        self.flush_backlog();
        let (queued, work) = {
            let submission = self.ring.submission();
            (submission.len(), submission.taskrun() || submission.cq_overflow())
        };
        let is_free = self.ring.completion().is_empty() && self.backlog.is_empty();
        let wait = if is_free { wait } else { Wait::No };
        let result = match wait {
            Wait::Until(timeout) if !timeout.is_zero() => {
                self.call(1, Some(timeout), EnterFlags::GETEVENTS)
            }
            Wait::Forever => self.call(1, None, EnterFlags::GETEVENTS),
            Wait::No | Wait::Until(_) if queued > 0 || work => {
                // GETEVENTS although nothing is waited for: deferred work runs only then.
                self.call(0, None, EnterFlags::GETEVENTS)
            }
            Wait::No | Wait::Until(_) => Ok(()),
        };
        match result {
            Ok(()) => Ok(()),
            // ETIME: the timeout. EINTR: a signal. EAGAIN and EBUSY: short of memory, or
            // completions have to be drained first; either way the entries are still queued for the
            // next turn.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(RingError::Enter { source: error }),
            },
        }
    }

    fn call(
        &mut self,
        complete_min: u32,
        timeout: Option<Duration>,
        flags: EnterFlags,
    ) -> io::Result<()> {
        let submit = self.ring.submission().len() as u32;
        self.counters.enters += 1;
        let submitted = kernel::enter(
            self.enter_descriptor,
            submit,
            complete_min,
            flags | self.enter_flags,
            timeout,
        )?;
        self.counters.submissions += u64::from(submitted);
        Ok(())
    }

    /// Moves all completions to `into`, including those that the kernel kept outside of the queue.
    pub(crate) fn drain(&mut self, into: &mut Vec<Completed>) -> Result<(), RingError> {
        self.drain_queue(into);
        // As many rounds as the backlog of a queue can need, so that a flood cannot hold us here.
        for _ in 0..16 {
            if !self.ring.submission().cq_overflow() {
                break;
            }
            self.counters.completion_overflows += 1;
            self.enter(Wait::No)?;
            self.drain_queue(into);
        }
        Ok(())
    }

    fn drain_queue(&mut self, into: &mut Vec<Completed>) {
        let queue = self.ring.completion();
        for entry in queue {
            self.counters.completions += 1;
            let flags = entry.flags();
            let Some(token) = Token::unpack(entry.user_data()) else {
                self.counters.stale_completions += 1;
                continue;
            };
            let ours = !matches!(token.kind, Kind::Wake | Kind::WakeFailed);
            if ours && !cqueue::more(flags) {
                self.in_flight -= 1;
            }
            into.push(Completed { token, result: entry.result(), flags });
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.enter_flags.contains(EnterFlags::REGISTERED_RING) {
            kernel::unregister_ring_fd(self.ring.as_fd(), self.enter_descriptor);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_queue_gives_its_registered_descriptor_back() {
        // The kernel allows 16 registered rings per thread.
        for number in 0..40 {
            let queue = Queue::new(&RingConfig {
                submission_entries: 8,
                completion_entries: 16,
                ..RingConfig::default()
            })
            .unwrap();
            let registered = queue.enter_flags.contains(EnterFlags::REGISTERED_RING);
            assert!(registered, "ring {number} was not registered");
        }
    }
}
