//! One ring, its clients, and turns with a deadline.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use leveret_ring::{Completion, Ring, RingConfig, SocketId, Wait};

/// Far beyond what any step takes on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) ring: Ring,
    /// What happened and was not looked for yet.
    pub(crate) seen: Vec<Completion>,
}

impl World {
    pub(crate) fn new(config: &RingConfig) -> Self {
        Self { ring: Ring::new(config).unwrap(), seen: Vec::new() }
    }

    /// A small ring, for tests do not need 16 MiB each.
    pub(crate) fn small() -> Self {
        Self::new(&small())
    }

    /// A connection: the client's end and the ring's.
    pub(crate) fn connect(&mut self) -> (TcpStream, SocketId) {
        let (client, server) = pair();
        (client, self.ring.adopt(server).unwrap())
    }

    /// Turns until something that `wanted` accepts happens, and takes it out of what was seen.
    pub(crate) fn until(&mut self, wanted: impl Fn(&Completion) -> bool) -> Completion {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(position) = self.seen.iter().position(&wanted) {
                return self.seen.remove(position);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing happened; seen: {:?}", self.seen);
            self.ring.turn(Wait::Until(left), &mut self.seen).unwrap();
        }
    }

    /// Turns for a while, whatever happens.
    pub(crate) fn turn_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.ring.turn(Wait::Until(left), &mut self.seen).unwrap();
        }
    }

    /// Receives exactly `length` bytes of a socket and gives the leases back at once.
    pub(crate) fn read(&mut self, socket: SocketId, length: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < length {
            let received = self.until(|completion| is_received(completion, socket));
            let Completion::Received { bytes, .. } = received else { unreachable!() };
            all.extend_from_slice(&bytes);
        }
        assert_eq!(all.len(), length);
        all
    }

    pub(crate) fn close(&mut self, socket: SocketId) {
        self.ring.close(socket);
        self.until(
            |completion| matches!(completion, Completion::Closed { socket: of } if *of == socket),
        );
    }
}

pub(crate) fn small() -> RingConfig {
    RingConfig {
        lend_above_free_buffers: 0,
        sockets_max: 256,
        buffer_count: 64,
        buffer_size_bytes: 4_096,
        ..RingConfig::default()
    }
}

pub(crate) fn is_received(completion: &Completion, socket: SocketId) -> bool {
    matches!(completion, Completion::Received { socket: of, .. } if *of == socket)
}

pub(crate) fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// A connected pair of plain sockets.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = listener();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.set_write_timeout(Some(DEADLINE)).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Bytes that differ at every cut and with every seed.
pub(crate) fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
