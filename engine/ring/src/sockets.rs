//! The table of sockets: the operations under way on each, and when a slot may be reused.
//!
//! ```text
//!            receive              pause             final completion
//!   Idle ───────────► Armed ───────────► Cancelling ───────────► Idle (or Armed: receive again)
//!    ▲                  │ no buffer
//!    └──── pause ── Starved ──── buffers are back ───► Armed
//! ```

use std::collections::VecDeque;

use crate::completion::SocketId;
use crate::outgoing::Sending;
use crate::token::{Kind, Token};

/// The receiving side of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiving {
    /// Not receiving.
    Idle,
    /// The kernel has a receive.
    Armed,
    /// A cancel of the receive is in the kernel; with `again`, it is armed again after that.
    Cancelling { again: bool },
    /// A receive is wanted, but there was no buffer. Waits in the queue of the starved.
    Starved,
}

pub(crate) struct Socket {
    generation: u32,
    pub(crate) open: bool,
    /// `close` was called: only [`Completion::Closed`](crate::Completion::Closed) is still
    /// reported.
    pub(crate) closing: bool,
    /// The close itself is in the kernel.
    pub(crate) close_submitted: bool,
    /// The failure was reported; later errors follow from it and are not reported.
    pub(crate) failed: bool,
    /// Has an entry in the queue of the starved (which may be out of date).
    pub(crate) queued: bool,
    pub(crate) receiving: Receiving,
    /// Operations of this socket whose last completion is still to come.
    pub(crate) in_flight: u32,
    pub(crate) sending: Option<Box<Sending>>,
}

impl Socket {
    const FREE: Self = Self {
        generation: 0,
        open: false,
        closing: false,
        close_submitted: false,
        failed: false,
        queued: false,
        receiving: Receiving::Idle,
        in_flight: 0,
        sending: None,
    };
}

/// All sockets of a ring. Allocated once: `sockets_max` slots of about 32 bytes.
pub(crate) struct Sockets {
    slots: Vec<Socket>,
    /// Free slots, the one freed last on top: it is still in a cache.
    free: Vec<u32>,
    /// Sockets that wait for buffers, oldest first; at most one entry per slot.
    starved: VecDeque<SocketId>,
    /// Idle send states, kept for their allocations. At most one per socket ever made.
    #[allow(clippy::vec_box, reason = "the kernel holds the address of what is in the box")]
    spare: Vec<Box<Sending>>,
}

/// Send states kept for later. More than this many sends at once are rare, and each is small.
const SPARE_MAX: usize = 256;

impl Sockets {
    pub(crate) fn new(sockets_max: u32) -> Self {
        Self {
            slots: (0..sockets_max).map(|_| Socket::FREE).collect(),
            free: (0..sockets_max).rev().collect(),
            starved: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(crate) fn open_count(&self) -> u32 {
        (self.slots.len() - self.free.len()) as u32
    }

    /// Takes a free slot, if any.
    pub(crate) fn open(&mut self) -> Option<SocketId> {
        let slot = self.free.pop()?;
        let socket = &mut self.slots[slot as usize];
        debug_assert!(!socket.open && socket.in_flight == 0 && socket.sending.is_none());
        let (generation, queued) = (socket.generation, socket.queued);
        *socket = Socket { generation, queued, open: true, ..Socket::FREE };
        Some(SocketId { slot, generation })
    }

    /// Makes the slot free for the next generation.
    pub(crate) fn release(&mut self, id: SocketId) {
        let socket = &mut self.slots[id.slot as usize];
        debug_assert!(socket.generation == id.generation && socket.in_flight == 0);
        socket.open = false;
        socket.generation = socket.generation.wrapping_add(1);
        self.free.push(id.slot);
    }

    /// The open socket of that name; `None` for one that is closed.
    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        let socket = self.slots.get_mut(id.slot as usize)?;
        (socket.open && socket.generation == id.generation).then_some(socket)
    }

    /// Puts a socket at the end of the queue of the starved.
    pub(crate) fn starve(&mut self, id: SocketId) {
        let Some(socket) = self.get_mut(id) else {
            return;
        };
        socket.receiving = Receiving::Starved;
        if !socket.queued {
            socket.queued = true;
            self.starved.push_back(id);
        }
    }

    /// Takes the socket that starves longest, and skips those that no longer starve.
    pub(crate) fn next_starved(&mut self) -> Option<SocketId> {
        loop {
            let SocketId { slot, .. } = self.starved.pop_front()?;
            let socket = &mut self.slots[slot as usize];
            socket.queued = false;
            // The slot may belong to another socket by now. If that one starves too, it goes first.
            if socket.open && !socket.closing && socket.receiving == Receiving::Starved {
                return Some(SocketId { slot, generation: socket.generation });
            }
        }
    }

    /// Whether a socket may wait for buffers.
    pub(crate) fn any_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    pub(crate) fn spare_sending(&mut self) -> Box<Sending> {
        self.spare.pop().unwrap_or_else(Sending::new)
    }

    pub(crate) fn keep_sending(&mut self, sending: Box<Sending>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(sending);
        }
    }
}

impl SocketId {
    pub(crate) fn token(self, kind: Kind) -> u64 {
        Token::new(kind, self.slot, self.generation).pack()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_comes_back_with_a_new_generation() {
        let mut sockets = Sockets::new(2);
        let first = sockets.open().unwrap();
        let second = sockets.open().unwrap();
        assert_ne!(first.slot, second.slot);
        assert_eq!(sockets.open(), None);
        sockets.release(first);
        assert!(sockets.get_mut(first).is_none());
        let third = sockets.open().unwrap();
        assert_eq!((third.slot, third.generation), (first.slot, first.generation + 1));
        assert!(sockets.get_mut(first).is_none() && sockets.get_mut(third).is_some());
        assert_eq!(sockets.open_count(), 2);
    }

    #[test]
    fn the_starved_are_served_in_order_and_once() {
        let mut sockets = Sockets::new(3);
        let ids: Vec<_> = (0..3).map(|_| sockets.open().unwrap()).collect();
        for id in [ids[0], ids[1], ids[0], ids[2]] {
            sockets.starve(id);
        }
        sockets.get_mut(ids[1]).unwrap().receiving = Receiving::Idle;
        assert_eq!(sockets.next_starved(), Some(ids[0]));
        sockets.get_mut(ids[0]).unwrap().receiving = Receiving::Armed;
        assert_eq!(sockets.next_starved(), Some(ids[2]));
        sockets.get_mut(ids[2]).unwrap().receiving = Receiving::Armed;
        assert_eq!(sockets.next_starved(), None);
        assert!(!sockets.any_starved());
    }

    #[test]
    fn an_old_entry_of_a_reused_slot_is_not_queued_twice() {
        let mut sockets = Sockets::new(1);
        let first = sockets.open().unwrap();
        sockets.starve(first);
        sockets.get_mut(first).unwrap().receiving = Receiving::Idle;
        sockets.release(first);
        let second = sockets.open().unwrap();
        sockets.starve(second);
        assert_eq!(sockets.next_starved(), Some(second));
        assert_eq!(sockets.next_starved(), None);
    }
}
