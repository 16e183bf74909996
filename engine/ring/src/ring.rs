//! The ring: one per pinned thread, owner of that thread's sockets, listeners, receive buffers and
//! operations on files.

use std::marker::PhantomData;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use io_uring::{opcode, types};

use crate::buffers::Buffers;
use crate::completion::{Completion, ListenerId, SocketId, Wait};
use crate::config::RingConfig;
use crate::error::RingError;
use crate::files::Files;
use crate::kernel;
use crate::listeners::{Listeners, discard};
use crate::outgoing::Outgoing;
use crate::pool::Pool;
use crate::queue::{Completed, Queue, RingCounters};
use crate::sockets::{Receiving, Sockets};
use crate::token::{Kind, Token};
use crate::wake::{WakeTarget, Waker};

/// Most other rings that one ring wakes: one per core of the largest machine we know of.
const PEERS_MAX: usize = 4_096;

/// Rounds without a completion after which a dropped ring stops waiting for cancelled operations.
const DROP_ROUNDS_MAX: u32 = 200;

/// How long each of those rounds waits.
const DROP_ROUND: Duration = Duration::from_millis(10);

/// Sockets, listeners and receive buffers of one thread, driven by [`Ring::turn`].
///
/// A ring stays on the thread that made it (it is not `Send`). Dropping it closes all its sockets
/// and listeners, and waits a bounded time for what is under way with files; leases of received
/// bytes stay valid.
pub struct Ring {
    pub(crate) queue: Queue,
    pub(crate) sockets: Sockets,
    pub(crate) listeners: Listeners,
    pub(crate) files: Files,
    pub(crate) buffers: Buffers,
    pub(crate) target: WakeTarget,
    /// The kernel writes the count of the eventfd here; the value is not used.
    pub(crate) doorbell_count: Box<AtomicU64>,
    /// Rings we have woken, kept open for the messages under way to them.
    peers: Vec<WakeTarget>,
    /// Reports that come from the ring itself, not from the kernel.
    pub(crate) ready: Vec<Completion>,
    /// Kept for its allocation.
    pub(crate) completed: Vec<Completed>,
    pool: Arc<Pool>,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl Ring {
    /// Makes a ring on the calling thread, which should be pinned before: the buffers are allocated
    /// and touched here. Raises the process's soft limit of open files to the hard one if the file
    /// table needs it.
    ///
    /// # Errors
    /// [`RingError::Config`] for a size out of range, [`RingError::Setup`] with cause and remedy
    /// when the kernel refuses.
    pub fn new(config: &RingConfig) -> Result<Self, RingError> {
        config.validate()?;
        let queue = Queue::new(config)?;
        let setup = |step| move |source| RingError::Setup { step, source };
        let submitter = queue.submitter();
        if submitter.register_files_sparse(config.sockets_max).is_err() {
            // The table counts against the soft limit, which is often 1,024.
            kernel::raise_open_files_limit().map_err(setup("raise the open files limit"))?;
            submitter
                .register_files_sparse(config.sockets_max)
                .map_err(setup("register the table of sockets"))?;
        }
        let waker = Waker::new().map_err(setup("make an eventfd"))?;
        let pool = Pool::new(
            config.buffer_count,
            config.buffer_size_bytes as usize,
            Arc::clone(&waker.doorbell),
        )
        .map_err(setup("map the receive buffers"))?;
        let buffers = Buffers::new(config, &submitter, Arc::clone(&pool))
            .map_err(setup("register the receive buffers"))?;
        let descriptor =
            queue.descriptor().try_clone_to_owned().map_err(setup("duplicate the ring"))?;
        let mut ring = Self {
            queue,
            sockets: Sockets::new(config.sockets_max),
            listeners: Listeners::new(),
            files: Files::default(),
            buffers,
            target: WakeTarget { waker, ring: Arc::new(descriptor) },
            doorbell_count: Box::new(AtomicU64::new(0)),
            peers: Vec::new(),
            ready: Vec::new(),
            completed: Vec::new(),
            pool,
            stays_on_its_thread: PhantomData,
        };
        ring.arm_doorbell();
        Ok(ring)
    }

    /// Accepts connections until [`Ring::stop_listening`], each reported as
    /// [`Completion::Accepted`], with `TCP_NODELAY` set.
    ///
    /// # Errors
    /// When the listener cannot be prepared, or 64 are in use.
    pub fn listen(&mut self, listener: TcpListener) -> Result<ListenerId, RingError> {
        self.listeners.listen(&mut self.queue, listener)
    }

    /// Accepts no more. Takes effect within the next turns; nothing is reported.
    pub fn stop_listening(&mut self, listener: ListenerId) {
        self.listeners.stop(&mut self.queue, listener);
    }

    /// Takes over a connection: sets `TCP_NODELAY`, puts it into the ring's file table and closes
    /// the plain descriptor. Nothing is received before [`Ring::receive`].
    ///
    /// # Errors
    /// [`RingError::SocketsExhausted`] when all slots are taken, [`RingError::Socket`] when the
    /// kernel refuses. The connection is closed either way.
    pub fn adopt(&mut self, stream: TcpStream) -> Result<SocketId, RingError> {
        stream.set_nodelay(true).map_err(RingError::Socket)?;
        // io_uring does not wait on a non-blocking socket but fails with EAGAIN.
        stream.set_nonblocking(false).map_err(RingError::Socket)?;
        self.adopt_accepted(stream)
    }

    /// As [`Ring::adopt`], for a stream that a ring has accepted and that is unchanged since: its
    /// options are set already, which saves two system calls.
    ///
    /// # Errors
    /// As [`Ring::adopt`].
    pub fn adopt_accepted(&mut self, stream: TcpStream) -> Result<SocketId, RingError> {
        self.adopt_descriptor(&OwnedFd::from(stream))
    }

    /// As [`Ring::adopt`], for any blocking stream socket.
    pub(crate) fn adopt_descriptor(&mut self, descriptor: &OwnedFd) -> Result<SocketId, RingError> {
        let Some(id) = self.sockets.open() else {
            return Err(RingError::SocketsExhausted { sockets_max: self.sockets.capacity() });
        };
        let update = [descriptor.as_raw_fd()];
        if let Err(error) = self.queue.submitter().register_files_update(id.slot, &update) {
            self.sockets.release(id);
            return Err(RingError::Socket(error));
        }
        Ok(id)
    }

    /// Reports what the peer sends from now on, until [`Ring::pause`], the end of the stream or a
    /// failure. Does nothing when that is so already, or when the socket is closed.
    pub fn receive(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(socket) else {
            return;
        };
        if state.closing || state.failed {
            return;
        }
        match state.receiving {
            Receiving::Idle => self.arm_or_starve(socket),
            Receiving::Cancelling { .. } => state.receiving = Receiving::Cancelling { again: true },
            Receiving::Armed | Receiving::Starved => {}
        }
    }

    /// Stops receiving; the kernel's socket buffer fills and TCP holds the peer back. Bytes that
    /// the ring has received before are still reported, in this or the next turns.
    pub fn pause(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(socket) else {
            return;
        };
        match state.receiving {
            Receiving::Armed => {
                state.receiving = Receiving::Cancelling { again: false };
                self.cancel(socket, Kind::Receive);
            }
            Receiving::Cancelling { .. } => {
                state.receiving = Receiving::Cancelling { again: false }
            }
            Receiving::Starved => state.receiving = Receiving::Idle,
            Receiving::Idle => {}
        }
    }

    /// Sends; [`Completion::Sent`] gives the buffers back once all bytes are in the kernel. For a
    /// closed or failed socket the bytes are dropped.
    ///
    /// # Panics
    /// When the last send of the socket has not completed, or when the offsets of the bodies do not
    /// ascend or exceed the scratch.
    pub fn send(&mut self, socket: SocketId, outgoing: Outgoing) {
        let Some(state) = self.sockets.get_mut(socket) else {
            return;
        };
        if state.closing || state.failed {
            return;
        }
        assert!(state.sending.is_none(), "one send at a time per socket");
        if outgoing.is_empty() {
            let outgoing = Outgoing { scratch: outgoing.scratch, bodies: Vec::new() };
            self.ready.push(Completion::Sent { socket, outgoing });
            return;
        }
        let mut sending = self.sockets.spare_sending();
        sending.start(outgoing);
        if let Some(state) = self.sockets.get_mut(socket) {
            state.sending = Some(sending);
        }
        self.submit_send(socket);
    }

    /// Ends the sending direction (a half close), after the last send completed. Receiving goes on.
    /// Not reported.
    pub fn shutdown_send(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(socket) else {
            return;
        };
        if state.closing || state.failed {
            return;
        }
        let file = types::Fixed(socket.slot);
        let entry = opcode::Shutdown::new(file, libc::SHUT_WR).build();
        // SAFETY: a shutdown points to nothing.
        unsafe { self.push(socket, Kind::Shutdown, entry) };
    }

    /// Closes at once: cancels operations under way, drops unsent bytes, and reports
    /// [`Completion::Closed`] once the kernel no longer uses the socket. To have everything sent,
    /// wait for [`Completion::Sent`] before. A second call does nothing.
    pub fn close(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(socket) else {
            return;
        };
        if state.closing {
            return;
        }
        state.closing = true;
        let receives = state.receiving == Receiving::Armed;
        let sends = state.sending.is_some();
        if receives {
            self.cancel(socket, Kind::Receive);
        }
        if sends {
            self.cancel(socket, Kind::Send);
        }
        self.ready
            .retain(|ready| !matches!(ready, Completion::Sent { socket: of, .. } if *of == socket));
        self.finish_close(socket);
    }

    /// Wakes another ring from this thread, by an entry of the next turn's system call.
    pub fn wake(&mut self, target: &WakeTarget) {
        self.queue.counters.wakes_sent += 1;
        let known = self.peers.iter().position(|peer| Arc::ptr_eq(&peer.ring, &target.ring));
        let peer = match known {
            Some(peer) => peer,
            None if self.peers.len() < PEERS_MAX => {
                self.peers.push(target.clone());
                self.peers.len() - 1
            }
            None => return target.waker.wake(),
        };
        let descriptor = types::Fd(target.ring.as_raw_fd());
        let message = Token::new(Kind::Wake, 0, 0).pack();
        let entry = opcode::MsgRingData::new(descriptor, 0, message, None)
            .build()
            .user_data(Token::new(Kind::WakeFailed, peer as u32, 0).pack());
        // SAFETY: the message points to nothing, and `peers` keeps the descriptor open.
        unsafe { self.queue.push_silent(entry) };
    }

    /// A message to another ring failed (it is short of memory, or gone): use its eventfd.
    pub(crate) fn on_wake_failed(&mut self, completed: Completed) {
        if let Some(peer) = self.peers.get(completed.token.slot as usize) {
            peer.waker.wake();
        }
    }

    /// This ring for others to wake.
    pub fn wake_target(&self) -> WakeTarget {
        self.target.clone()
    }

    /// Receive buffers that hold nothing, without the reserve. At 0 sockets starve: drop leases, or
    /// pause the sockets that hold most of them.
    pub fn free_buffers(&self) -> u32 {
        self.buffers.free_main()
    }

    /// Receive buffers held by leases, as of the start of the last turn and what it reported.
    pub fn leases_out(&self) -> u32 {
        self.buffers.leases_out()
    }

    /// Sockets in use, including those that are being closed.
    pub fn open_sockets(&self) -> u32 {
        self.sockets.open_count()
    }

    /// Counters since the start.
    pub fn counters(&self) -> RingCounters {
        let received_bytes_copied = self.buffers.copied_bytes();
        RingCounters { received_bytes_copied, ..self.queue.counters }
    }

    /// Cancels everything and waits for its end. False when the kernel did not answer in time.
    fn quiesce(&mut self) -> bool {
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any())
            .build()
            .user_data(Token::new(Kind::CancelOther, 0, 0).pack());
        // SAFETY: a cancel points to nothing.
        unsafe { self.queue.push(entry) };
        let mut completed = Vec::new();
        let mut rounds_in_vain = 0;
        while rounds_in_vain < DROP_ROUNDS_MAX {
            let before = self.queue.in_flight();
            if before == 0 {
                return true;
            }
            if self.queue.enter(Wait::Until(DROP_ROUND)).is_err() {
                return false;
            }
            let drained = self.queue.drain(&mut completed);
            for accepted in completed.drain(..).filter(|done| done.token.kind == Kind::Accept) {
                // An accept that failed, the cancelled ones among them, leaves nothing to close.
                let _ = discard(accepted);
            }
            if drained.is_err() {
                return false;
            }
            // A round ends with the first completion; only rounds without one count against the
            // limit.
            rounds_in_vain += u32::from(self.queue.in_flight() >= before);
        }
        false
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.quiesce() {
            // The kernel may still use this memory: leak it.
            std::mem::forget(std::mem::replace(&mut self.sockets, Sockets::new(0)));
            std::mem::forget(std::mem::take(&mut self.files));
            std::mem::forget(std::mem::take(&mut self.doorbell_count));
            std::mem::forget(Arc::clone(&self.pool));
        }
        // A `WakeTarget` on another thread may hold the ring open; its sockets close now anyway.
        let _ = self.queue.submitter().unregister_files();
    }
}
