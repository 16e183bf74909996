//! Pinning threads to cores, within the cores of the process.

use core_affinity::CoreId;

use crate::error::RingError;

/// The cores this thread may run on, ascending: the inherited mask, so that `taskset` and the
/// cpuset of a container are respected. Call it before pinning, which leaves the thread one core.
/// Empty only if the mask cannot be read.
pub fn allowed_cores() -> Vec<usize> {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}

/// Pins the calling thread to one core. Do this before making a [`Ring`](crate::Ring), so that its
/// memory is near.
///
/// # Errors
/// [`RingError::Pin`] when the kernel refuses, as it does for a core outside of the cpuset.
pub fn pin_current_thread(core: usize) -> Result<(), RingError> {
    // Beyond the mask's size the crate would write out of its bounds.
    if core < libc::CPU_SETSIZE as usize && core_affinity::set_for_current(CoreId { id: core }) {
        Ok(())
    } else {
        Err(RingError::Pin { core })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_stays_where_it_is_put() {
        let cores = allowed_cores();
        assert!(!cores.is_empty());
        let last = *cores.last().unwrap();
        let seen = std::thread::spawn(move || {
            pin_current_thread(last).unwrap();
            allowed_cores()
        });
        assert_eq!(seen.join().unwrap(), [last]);
        assert_eq!(allowed_cores(), cores, "other threads are not touched");
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        for core in [libc::CPU_SETSIZE as usize - 1, libc::CPU_SETSIZE as usize, usize::MAX] {
            let refused = std::thread::spawn(move || pin_current_thread(core)).join().unwrap();
            assert!(matches!(refused, Err(RingError::Pin { .. })), "core {core}");
        }
    }
}
