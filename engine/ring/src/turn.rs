//! A turn of the ring: submit, wait, and report completions.

use std::io;

use io_uring::cqueue;

use crate::completion::{Completion, SocketId, Wait};
use crate::error::RingError;
use crate::queue::Completed;
use crate::ring::Ring;
use crate::sockets::Receiving;
use crate::token::Kind;

impl Ring {
    /// Submits all queued operations, waits for the first completion as `wait` says, and appends to
    /// `completions`, in order for each socket. One system call; none if there is nothing to
    /// submit, to run or to wait for. Returns early, with nothing, after a signal.
    ///
    /// # Errors
    /// [`RingError::Enter`]: the ring is unusable (a bug, or the kernel lost completions).
    pub fn turn(&mut self, wait: Wait, completions: &mut Vec<Completion>) -> Result<(), RingError> {
        let mut wait = wait;
        if !self.ready.is_empty() {
            completions.append(&mut self.ready);
            wait = Wait::No;
        }
        self.buffers.reclaim();
        self.feed_starved();
        let starving = wait != Wait::No && self.sockets.any_starved();
        if starving && !self.buffers.pool().starve() {
            wait = Wait::No;
        }
        let entered = self.queue.enter(wait);
        if starving {
            self.buffers.pool().stop_starving();
        }
        entered?;
        let mut completed = std::mem::take(&mut self.completed);
        let drained = self.queue.drain(&mut completed);
        let mut woken = false;
        for done in completed.drain(..) {
            woken |= self.dispatch(done, completions);
        }
        self.completed = completed;
        if woken {
            self.queue.counters.wakes_received += 1;
            completions.push(Completion::Woken);
        }
        drained
    }

    /// Handles one completion; true when it was a wake.
    fn dispatch(&mut self, done: Completed, completions: &mut Vec<Completion>) -> bool {
        let socket = SocketId { slot: done.token.slot, generation: done.token.generation };
        match done.token.kind {
            Kind::Receive => self.on_received(socket, done, completions),
            Kind::Send => self.on_sent(socket, done, completions),
            Kind::Cancel | Kind::Shutdown => self.on_ended(socket),
            Kind::Close => self.on_closed(socket, done, completions),
            Kind::Accept => self.listeners.on_accept(&mut self.queue, done, completions),
            Kind::AcceptBackoff => self.listeners.on_backoff(&mut self.queue, done),
            Kind::WakeFailed => self.on_wake_failed(done),
            Kind::File => self.on_file(done, completions),
            Kind::CancelOther => {}
            Kind::Wake => return true,
            Kind::Doorbell => {
                self.arm_doorbell();
                return true;
            }
        }
        false
    }

    fn on_received(
        &mut self,
        socket: SocketId,
        done: Completed,
        completions: &mut Vec<Completion>,
    ) {
        let length = done.length();
        // The buffer first: it has to come back even if the bytes are not wanted.
        let bytes = cqueue::buffer_select(done.flags)
            .and_then(|index| self.buffers.claim(index, *length.as_ref().unwrap_or(&0)));
        let Some(state) = self.sockets.get_mut(socket) else {
            self.queue.counters.stale_completions += 1;
            return;
        };
        let last = !done.more();
        if last {
            state.in_flight -= 1;
        }
        if state.closing {
            drop(bytes);
            return self.finish_close(socket);
        }
        // Whether to arm a multishot receive again at its end depends on whether it is still
        // wanted.
        let wanted = match state.receiving {
            Receiving::Cancelling { again } => again,
            _ => true,
        };
        if last {
            state.receiving = Receiving::Idle;
        }
        match (length, bytes) {
            (Ok(_), Some(bytes)) => {
                completions.push(Completion::Received { socket, bytes });
                if last && wanted {
                    self.queue.counters.receive_rearms += 1;
                    self.arm_or_starve(socket);
                }
            }
            // After a failed send, the end of the other direction only follows from that failure.
            (Ok(_), None) if state.failed => {}
            (Ok(_), None) => completions.push(Completion::EndOfStream { socket }),
            (Err(_), _) if !last => {}
            (Err(error), _) => match error.raw_os_error() {
                Some(libc::ENOBUFS) if self.buffers.offer_more() => {
                    self.queue.counters.receive_rearms += 1;
                    if wanted {
                        self.arm_or_starve(socket);
                    }
                }
                Some(libc::ENOBUFS) => {
                    self.queue.counters.starvations += 1;
                    if wanted {
                        self.sockets.starve(socket);
                    }
                }
                // The end of our own cancel, or a reason to try again. Kernels before 6.5 report a
                // cancelled poll as ENOENT.
                Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN | libc::ENOENT) => {
                    if wanted {
                        self.queue.counters.receive_rearms += 1;
                        self.arm_or_starve(socket);
                    }
                }
                _ => self.fail(socket, error, completions),
            },
        }
    }

    fn on_sent(&mut self, socket: SocketId, done: Completed, completions: &mut Vec<Completion>) {
        let Some(state) = self.sockets.get_mut(socket) else {
            self.queue.counters.stale_completions += 1;
            return;
        };
        state.in_flight -= 1;
        let Some(mut sending) = state.sending.take() else {
            return;
        };
        if state.closing {
            sending.finish();
            self.sockets.keep_sending(sending);
            return self.finish_close(socket);
        }
        let retry = match done.length() {
            Ok(length) => {
                sending.advance(length);
                if sending.left_bytes() == 0 {
                    let outgoing = sending.finish();
                    self.sockets.keep_sending(sending);
                    completions.push(Completion::Sent { socket, outgoing });
                    return;
                }
                // The kernel took no byte of a send on a stream socket: the connection cannot go
                // on.
                if length > 0 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        };
        match retry {
            Ok(()) => {
                self.queue.counters.send_continuations += 1;
                state.sending = Some(sending);
                self.submit_send(socket);
            }
            Err(error) => {
                sending.finish();
                self.sockets.keep_sending(sending);
                self.fail(socket, error, completions);
            }
        }
    }

    /// An operation ended, and its result changes nothing.
    fn on_ended(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(socket) else {
            self.queue.counters.stale_completions += 1;
            return;
        };
        state.in_flight -= 1;
        self.finish_close(socket);
    }

    fn on_closed(&mut self, socket: SocketId, done: Completed, completions: &mut Vec<Completion>) {
        let Some(state) = self.sockets.get_mut(socket) else {
            self.queue.counters.stale_completions += 1;
            return;
        };
        state.in_flight -= 1;
        if done.result < 0 {
            // The close failed, so the file is still open: remove it from the table directly. That
            // fails only for an empty slot, which is the goal.
            let _ = self.queue.submitter().register_files_update(socket.slot, &[-1]);
        }
        self.sockets.release(socket);
        completions.push(Completion::Closed { socket });
    }

    fn fail(&mut self, socket: SocketId, error: io::Error, completions: &mut Vec<Completion>) {
        let Some(state) = self.sockets.get_mut(socket) else {
            return;
        };
        if !state.failed {
            state.failed = true;
            completions.push(Completion::Failed { socket, error });
        }
    }
}
