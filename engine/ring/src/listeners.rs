//! Accepting: one multishot accept per listener, armed again whenever the kernel ends it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use io_uring::{opcode, types};

use crate::completion::{Completion, ListenerId};
use crate::error::RingError;
use crate::kernel;
use crate::queue::{Completed, Queue};
use crate::token::{Kind, Token};

/// Listeners per ring. A broker has a handful: one per protocol, address family and interface.
const LISTENERS_MAX: u32 = 64;

/// The pause after an accept that failed for lack of descriptors or memory: long enough not to
/// spin, short enough that a client's connect attempt does not time out.
static BACKOFF: types::Timespec = types::Timespec::new().nsec(100_000_000);

#[derive(Default)]
struct Slot {
    generation: u32,
    /// Kept until no operation of it is in flight.
    listener: Option<TcpListener>,
    stopping: bool,
}

pub(crate) struct Listeners {
    slots: Vec<Slot>,
}

impl Listeners {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// Starts to accept. The listener is closed at the end of the last operation on it.
    pub(crate) fn listen(
        &mut self,
        queue: &mut Queue,
        listener: TcpListener,
    ) -> Result<ListenerId, RingError> {
        // The kernel waits only on sockets that may block.
        listener.set_nonblocking(false).map_err(RingError::Socket)?;
        // Accepted sockets inherit it, which is cheaper than setting it on each.
        kernel::set_nodelay(listener.as_fd()).map_err(RingError::Socket)?;
        let slot = match self.slots.iter().position(|slot| slot.listener.is_none()) {
            Some(slot) => slot,
            None if self.slots.len() < LISTENERS_MAX as usize => {
                self.slots.push(Slot::default());
                self.slots.len() - 1
            }
            None => {
                return Err(RingError::ListenersExhausted { listeners_max: LISTENERS_MAX });
            }
        };
        let entry = &mut self.slots[slot];
        entry.stopping = false;
        let id = ListenerId { slot: slot as u32, generation: entry.generation };
        arm(queue, id, &listener);
        entry.listener = Some(listener);
        Ok(id)
    }

    /// Stops to accept. Connections accepted but not yet reported are closed.
    pub(crate) fn stop(&mut self, queue: &mut Queue, id: ListenerId) {
        let Some(slot) = self.slots.get_mut(id.slot as usize) else {
            return;
        };
        if slot.generation != id.generation || slot.listener.is_none() || slot.stopping {
            return;
        }
        slot.stopping = true;
        for kind in [Kind::Accept, Kind::AcceptBackoff] {
            let target = Token::new(kind, id.slot, id.generation).pack();
            let entry = opcode::AsyncCancel::new(target)
                .build()
                .user_data(Token::new(Kind::CancelOther, id.slot, id.generation).pack());
            // SAFETY: a cancel points to nothing.
            unsafe { queue.push(entry) };
        }
    }

    pub(crate) fn on_accept(
        &mut self,
        queue: &mut Queue,
        completed: Completed,
        completions: &mut Vec<Completion>,
    ) {
        let accepted = completed.descriptor().map(|descriptor| {
            // SAFETY: an accept that succeeded made this descriptor for us, and its completion is
            // seen once.
            unsafe { OwnedFd::from_raw_fd(descriptor) }
        });
        let id = ListenerId { slot: completed.token.slot, generation: completed.token.generation };
        let Some(slot) = self.slots.get_mut(id.slot as usize) else {
            return;
        };
        let Some(listener) = slot.listener.as_ref().filter(|_| slot.generation == id.generation)
        else {
            queue.counters.stale_completions += 1;
            return;
        };
        if slot.stopping {
            if !completed.more() {
                slot.end();
            }
            return;
        }
        match accepted {
            Ok(descriptor) => {
                completions.push(Completion::Accepted { listener: id, stream: descriptor.into() });
                if !completed.more() {
                    queue.counters.accept_rearms += 1;
                    arm(queue, id, listener);
                }
            }
            Err(_) if completed.more() => {}
            Err(error) => slot.on_failed(queue, id, error, completions),
        }
    }

    /// The pause after a failed accept is over (or was cancelled).
    pub(crate) fn on_backoff(&mut self, queue: &mut Queue, completed: Completed) {
        let token = completed.token;
        let Some(slot) = self.slots.get_mut(token.slot as usize) else {
            return;
        };
        let Some(listener) = slot.listener.as_ref().filter(|_| slot.generation == token.generation)
        else {
            return;
        };
        if slot.stopping {
            slot.end();
        } else {
            queue.counters.accept_rearms += 1;
            arm(queue, ListenerId { slot: token.slot, generation: token.generation }, listener);
        }
    }
}

impl Slot {
    /// The accept ended with an error: arm it again now, after a pause, or never.
    fn on_failed(
        &mut self,
        queue: &mut Queue,
        id: ListenerId,
        error: io::Error,
        completions: &mut Vec<Completion>,
    ) {
        let retrying = match error.raw_os_error() {
            // The client was gone before the accept.
            Some(
                libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO | libc::ECANCELED,
            ) => {
                queue.counters.accept_rearms += 1;
                if let Some(listener) = &self.listener {
                    arm(queue, id, listener);
                }
                return;
            }
            // Network errors of one client (see accept(2)), such as those of a firewall; they may
            // last.
            Some(
                libc::EPERM
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ETIMEDOUT,
            ) => return back_off(queue, id),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                back_off(queue, id);
                true
            }
            _ => {
                self.end();
                false
            }
        };
        completions.push(Completion::ListenFailed { listener: id, error, retrying });
    }

    /// No operation is left: close the listener and free the slot.
    fn end(&mut self) {
        self.listener = None;
        self.stopping = false;
        self.generation = self.generation.wrapping_add(1);
    }
}

fn arm(queue: &mut Queue, id: ListenerId, listener: &TcpListener) {
    let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd()))
        .flags(libc::SOCK_CLOEXEC)
        .build()
        .user_data(Token::new(Kind::Accept, id.slot, id.generation).pack());
    // SAFETY: a multishot accept points to nothing; the descriptor stays open until its end.
    unsafe { queue.push(entry) };
}

fn back_off(queue: &mut Queue, id: ListenerId) {
    let entry = opcode::Timeout::new(&raw const BACKOFF)
        .build()
        .user_data(Token::new(Kind::AcceptBackoff, id.slot, id.generation).pack());
    // SAFETY: the timespec is static.
    unsafe { queue.push(entry) };
}

/// Closes the descriptor of an accept that completed while the ring is being dropped.
pub(crate) fn discard(completed: Completed) -> io::Result<()> {
    let descriptor = completed.descriptor()?;
    // SAFETY: as in `on_accept`; the ring is going away, so nobody else sees this completion.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    Ok(())
}
