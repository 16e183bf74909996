//! The few system calls that the `io-uring` crate and std do not offer in the form we need.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::EnterFlags;

/// `IORING_REGISTER_RING_FDS` of `io_uring_register(2)`.
const REGISTER_RING_FDS: libc::c_uint = 20;

/// Anonymous zeroed memory, page-aligned, unmapped on drop.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length_bytes: usize,
}

// SAFETY: a mapping is plain memory without ties to a thread; every access goes through raw
// pointers whose users prove their own exclusiveness.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` only yields addresses.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length_bytes` (at least one), asks for huge pages where they are worth it, and touches
    /// every page, so that it lies in memory near the calling thread and the first use does not pay
    /// for it (2.4 µs a page).
    pub(crate) fn new(length_bytes: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other
        // memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(address.cast::<u8>()).ok_or_else(|| io::Error::other("mmap gave null"))?;
        if length_bytes >= 2 << 20 {
            // A hint: refused (no transparent huge pages) it changes speed only.
            // SAFETY: the range is exactly the mapping made above.
            unsafe { libc::madvise(address, length_bytes, libc::MADV_HUGEPAGE) };
        }
        for offset in (0..length_bytes).step_by(4_096) {
            // SAFETY: the offset is inside the new mapping, which nobody else knows yet.
            unsafe { base.as_ptr().add(offset).write_volatile(0) };
        }
        Ok(Self { base, length_bytes })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn length_bytes(&self) -> usize {
        self.length_bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped; the owner of the mapping guarantees that
        // neither the kernel nor any thread still uses it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length_bytes) };
    }
}

/// `IORING_UNREGISTER_RING_FDS` of `io_uring_register(2)`.
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_getevents_arg` of `io_uring_enter(2)`.
#[repr(C)]
struct GetEventsArgument {
    signal_mask: u64,
    signal_mask_size: u32,
    min_wait_usec: u32,
    timeout: u64,
}

/// `struct io_uring_rsrc_update` as `IORING_REGISTER_RING_FDS` takes it.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// Registers the ring's descriptor with the calling thread, which saves its look-up in every enter.
/// Returns the index to enter with.
///
/// The `io-uring` crate ties its version of this to a borrowed `Submitter`, which cannot be kept in
/// one struct with the ring that it borrows.
pub(crate) fn register_ring_fd(ring: BorrowedFd<'_>) -> io::Result<RawFd> {
    let mut update =
        ResourceUpdate { offset: u32::MAX, reserved: 0, data: ring.as_raw_fd() as u64 };
    // SAFETY: the argument is one valid update that lives over the call.
    let registered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_RING_FDS,
            &raw mut update,
            1_u32,
        )
    };
    if registered < 0 { Err(io::Error::last_os_error()) } else { Ok(update.offset.cast_signed()) }
}

/// Undoes [`register_ring_fd`]; without it the registration would keep the ring until its thread
/// ends.
pub(crate) fn unregister_ring_fd(ring: BorrowedFd<'_>, index: RawFd) {
    let mut update = ResourceUpdate { offset: index.cast_unsigned(), reserved: 0, data: 0 };
    // SAFETY: the argument is one valid update that lives over the call.
    unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            UNREGISTER_RING_FDS,
            &raw mut update,
            1_u32,
        );
    }
}

/// `io_uring_enter(2)` with a relative timeout. `timeout` of `None` waits without an end.
pub(crate) fn enter(
    ring: RawFd,
    submit: u32,
    complete_min: u32,
    flags: EnterFlags,
    timeout: Option<Duration>,
) -> io::Result<u32> {
    let timespec = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
    });
    let argument = GetEventsArgument {
        signal_mask: 0,
        signal_mask_size: 0,
        min_wait_usec: 0,
        timeout: timespec.as_ref().map_or(0, |timespec| std::ptr::from_ref(timespec) as u64),
    };
    // SAFETY: argument and timespec live over the call. The callers of `Queue::push` promised that
    // the memory of the queued entries is valid.
    let submitted = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring,
            submit,
            complete_min,
            (flags | EnterFlags::EXT_ARG).bits(),
            &raw const argument,
            size_of::<GetEventsArgument>(),
        )
    };
    if submitted < 0 { Err(io::Error::last_os_error()) } else { Ok(submitted as u32) }
}

/// A blocking eventfd (`io_uring` would not wait on one that is not).
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked below.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, so no other code owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Adds one to an eventfd. It cannot fail short of 2^64 - 2 writes without a read.
pub(crate) fn ring_doorbell(eventfd: BorrowedFd<'_>) {
    let one: u64 = 1;
    // SAFETY: writes eight bytes from a local that lives over the call.
    unsafe { libc::write(eventfd.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// Sets `TCP_NODELAY`, for listeners too, which the standard library cannot.
pub(crate) fn set_nodelay(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: reads one integer, of the length that is said, that lives over the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the soft limit of open files to the hard limit and returns it. An accept keeps the limit
/// it was submitted with, so do this before [`Ring::listen`](crate::Ring::listen).
///
/// # Errors
/// Those of `getrlimit(2)` and `setrlimit(2)`.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one rlimit that lives over the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: reads one rlimit that lives over the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Makes this thread, and those that it starts, run only when no other thread wants their core
/// (`SCHED_IDLE`).
///
/// # Errors
/// Those of `sched_setscheduler(2)`.
pub fn give_way() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads one sched_param that lives over the call; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_writable() {
        let mapping = Mapping::new(3 << 20).unwrap();
        // SAFETY: inside the mapping that only this test uses.
        unsafe {
            let last = mapping.base().as_ptr().add(mapping.length_bytes() - 1);
            assert_eq!(last.read(), 0);
            last.write(7);
            assert_eq!(last.read(), 7);
        }
    }

    #[test]
    fn a_thread_that_gives_way_has_the_idle_policy() {
        std::thread::spawn(|| {
            give_way().unwrap();
            // SAFETY: no pointers; 0 is the calling thread.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_IDLE);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_open_files_limit_ends_at_the_hard_limit() {
        assert_eq!(raise_open_files_limit().unwrap(), raise_open_files_limit().unwrap());
    }
}
