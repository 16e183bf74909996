//! A TCP proxy between clients and broker: it cuts the stream at random bytes, or breaks it off.
//!
//! ```text
//! client ──▶ accept ──▶ pump, pieces of 1..4096 bytes ──▶ broker
//! client ◀── pieces of 1..4096 bytes, pump ◀────────────── broker
//! ```

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::broker::free_address;
use crate::program::PATIENCE;

/// The busiest test holds about 60 connections; beyond this a client is looping.
const LINKS_MAX: usize = 512;

/// One read of a pump; two of them per link bound its memory.
const READ_BYTES: usize = 16 * 1024;

/// How often the acceptor looks for clients and for its own end.
const POLL: Duration = Duration::from_millis(3);

/// A running proxy; dropping it closes every link.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    broker: SocketAddr,
    /// `None`: bytes pass as they come.
    cut_seed: Option<u64>,
    /// Nobody listens: new connections are refused as by a broker that is not there.
    away: AtomicBool,
    ended: AtomicBool,
    links: Mutex<BTreeMap<u64, [TcpStream; 2]>>,
}

impl Proxy {
    /// Cuts both directions at places that depend on `seed`, connection and direction alone.
    pub(crate) fn cutting(broker: SocketAddr, seed: u64) -> Self {
        Self::start(broker, Some(seed))
    }

    /// Passes everything on, until [`Proxy::outage`].
    pub(crate) fn relaying(broker: SocketAddr) -> Self {
        Self::start(broker, None)
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection and refuses new ones for `pause`.
    pub(crate) fn outage(&self, pause: Duration) {
        self.shared.away.store(true, Ordering::SeqCst);
        // The acceptor may be just about to add a link: it is gone after its next look.
        std::thread::sleep(POLL * 4);
        self.shared.close_links();
        std::thread::sleep(pause);
        self.shared.away.store(false, Ordering::SeqCst);
    }

    fn start(broker: SocketAddr, cut_seed: Option<u64>) -> Self {
        let address = free_address();
        let listener = listen(address);
        let shared = Arc::new(Shared {
            broker,
            cut_seed,
            away: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            links: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&accepting, address, listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor does not panic");
        }
        self.shared.close_links();
    }
}

impl Shared {
    fn close_links(&self) {
        for link in self.links.lock().unwrap().values() {
            for stream in link {
                // It may have been closed by its own end before.
                let _closed = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true).unwrap();
                return listener;
            }
            // After an outage: a child that another test has just forked holds the old listener
            // until it runs its program.
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(POLL);
            }
            Err(error) => panic!("the proxy cannot listen on {address}: {error}"),
        }
    }
}

fn accept(shared: &Arc<Shared>, address: SocketAddr, listener: TcpListener) {
    let mut listener = Some(listener);
    let mut number = 0;
    while !shared.ended.load(Ordering::SeqCst) {
        if shared.away.load(Ordering::SeqCst) {
            listener = None;
            std::thread::sleep(POLL);
            continue;
        }
        match listener.get_or_insert_with(|| listen(address)).accept() {
            Ok((client, _)) => {
                number += 1;
                // Without a broker the client sees its connection closed at once.
                if let Ok(broker) = TcpStream::connect(shared.broker) {
                    link(shared, number, client, broker);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(POLL),
            Err(error) => panic!("the proxy cannot accept: {error}"),
        }
    }
}

fn link(shared: &Arc<Shared>, number: u64, client: TcpStream, broker: TcpStream) {
    client.set_nonblocking(false).unwrap();
    for stream in [&client, &broker] {
        stream.set_nodelay(true).unwrap();
    }
    let copies = [client.try_clone().unwrap(), broker.try_clone().unwrap()];
    let mut links = shared.links.lock().unwrap();
    assert!(links.len() < LINKS_MAX, "more than {LINKS_MAX} connections through one proxy");
    links.insert(number, [client.try_clone().unwrap(), broker.try_clone().unwrap()]);
    drop(links);
    let cuts = |direction| shared.cut_seed.map(|seed| Cuts::new(seed ^ (number << 1 | direction)));
    let [to_broker, to_client] = [cuts(0), cuts(1)];
    let [client_copy, broker_copy] = copies;
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let back = std::thread::spawn(move || pump(broker_copy, client_copy, to_client));
        pump(client, broker, to_broker);
        // Pumps end by themselves when their streams do.
        let _ended = back.join();
        shared.links.lock().unwrap().remove(&number);
    });
}

/// Passes bytes on until one side ends, and then its end.
fn pump(mut from: TcpStream, mut to: TcpStream, mut cuts: Option<Cuts>) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => {
                let _closed = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let written = match &mut cuts {
            Some(cuts) => cuts.write(&mut to, &buffer[..count]),
            None => to.write_all(&buffer[..count]),
        };
        if written.is_err() {
            break;
        }
    }
    let _closed = to.shutdown(Shutdown::Both);
    let _closed = from.shutdown(Shutdown::Both);
}

/// Where one direction of one connection is cut.
struct Cuts {
    state: u64,
    passed_bytes: usize,
}

impl Cuts {
    /// The handshake goes byte by byte: every boundary of it is tried on every connection.
    const SINGLE_BYTES: usize = 256;

    fn new(seed: u64) -> Self {
        Self { state: seed, passed_bytes: 0 }
    }

    fn write(&mut self, to: &mut TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(self.piece().min(bytes.len()));
            to.write_all(piece)?;
            self.passed_bytes += piece.len();
            bytes = rest;
            // Else the kernel glues the pieces together before the other side looks.
            match self.random() % 16 {
                0 => std::thread::sleep(Duration::from_micros(100)),
                _ => std::thread::yield_now(),
            }
        }
        Ok(())
    }

    /// Mostly shorter than a frame's header, sometimes several frames at once.
    fn piece(&mut self) -> usize {
        if self.passed_bytes < Self::SINGLE_BYTES {
            return 1;
        }
        let largest = [8, 8, 64, 512, 4096, 4096][(self.random() % 6) as usize];
        1 + (self.random() % largest) as usize
    }

    /// `SplitMix64`: small, seeded, the same everywhere.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
