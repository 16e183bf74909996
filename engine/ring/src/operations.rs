//! The submission entries of socket operations.

use std::os::fd::{AsFd, AsRawFd};

use io_uring::{opcode, squeue, types};

use crate::buffers::{GROUP_MAIN, GROUP_RESERVE};
use crate::completion::SocketId;
use crate::ring::Ring;
use crate::sockets::Receiving;
use crate::token::{Kind, Token};

impl Ring {
    /// Queues an operation of a socket.
    ///
    /// # Safety
    /// As for [`Queue::push`].
    pub(crate) unsafe fn push(&mut self, socket: SocketId, kind: Kind, entry: squeue::Entry) {
        let Some(state) = self.sockets.get_mut(socket) else {
            return;
        };
        state.in_flight += 1;
        // SAFETY: passed on from the caller.
        unsafe { self.queue.push(entry.user_data(socket.token(kind))) };
    }

    pub(crate) fn cancel(&mut self, socket: SocketId, kind: Kind) {
        let entry = opcode::AsyncCancel::new(socket.token(kind)).build();
        // SAFETY: a cancel points to nothing.
        unsafe { self.push(socket, Kind::Cancel, entry) };
    }

    /// Arms a receive, or puts the socket at the end of the queue of the starved.
    pub(crate) fn arm_or_starve(&mut self, socket: SocketId) {
        if self.buffers.free_main() == 0 || self.sockets.any_starved() {
            self.sockets.starve(socket);
        } else {
            self.arm(socket);
        }
    }

    fn arm(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get_mut(socket) {
            state.receiving = Receiving::Armed;
        }
        let entry = opcode::RecvMulti::new(types::Fixed(socket.slot), GROUP_MAIN).build();
        // SAFETY: the receive writes only to buffers of the group, which `Buffers` keeps untouched
        // while the kernel has them.
        unsafe { self.push(socket, Kind::Receive, entry) };
    }

    /// Arms a receive that takes one buffer of the reserve.
    fn arm_reserve(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get_mut(socket) {
            state.receiving = Receiving::Armed;
        }
        self.queue.counters.reserve_receives += 1;
        let entry = opcode::Recv::new(types::Fixed(socket.slot), std::ptr::null_mut(), 0)
            .buf_group(GROUP_RESERVE)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        // SAFETY: as in `arm`.
        unsafe { self.push(socket, Kind::Receive, entry) };
    }

    /// Arms starved sockets, at most as many as there are buffers: oldest first, on the main group
    /// while it has any, then one buffer each of the reserve.
    pub(crate) fn feed_starved(&mut self) {
        let mut main = self.buffers.free_main();
        let mut reserve = self.buffers.free_reserve();
        while main > 0 || reserve > 0 {
            let Some(socket) = self.sockets.next_starved() else {
                return;
            };
            if main > 0 {
                main -= 1;
                self.arm(socket);
            } else {
                reserve -= 1;
                self.arm_reserve(socket);
            }
        }
    }

    pub(crate) fn submit_send(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(socket) else {
            return;
        };
        let Some(sending) = state.sending.as_mut() else {
            return;
        };
        let entry = sending.operation(types::Fixed(socket.slot));
        // SAFETY: all the entry points to belongs to the boxed `sending`, which stays in its slot,
        // unchanged, until the completion (`on_sent` is the only one to take or advance it).
        unsafe { self.push(socket, Kind::Send, entry) };
    }

    /// Closes the file when nothing else of the socket is under way.
    pub(crate) fn finish_close(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(socket) else {
            return;
        };
        if !state.closing || state.close_submitted || state.in_flight > 0 {
            return;
        }
        state.close_submitted = true;
        let entry = opcode::Close::new(types::Fixed(socket.slot)).build();
        // SAFETY: a close points to nothing.
        unsafe { self.push(socket, Kind::Close, entry) };
    }

    pub(crate) fn arm_doorbell(&mut self) {
        let descriptor = types::Fd(self.target.waker.doorbell.as_fd().as_raw_fd());
        let entry = opcode::Read::new(descriptor, self.doorbell_count.as_ptr().cast(), 8)
            .build()
            .user_data(Token::new(Kind::Doorbell, 0, 0).pack());
        // SAFETY: the boxed count and the eventfd live as long as the ring, and drop waits for this
        // read or leaves the count allocated.
        unsafe { self.queue.push(entry) };
    }
}
