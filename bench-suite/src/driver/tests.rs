use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::thread;

use super::*;

const TRANSPORTS: [Transport; 2] = [Transport::IoUring, Transport::TokioUring];

/// Sends blocks at their times and waits for a number of octets.
#[derive(Default)]
struct Probe {
    name: usize,
    blocks: VecDeque<(Option<Instant>, Vec<u8>)>,
    awaited: usize,
    received: Vec<u8>,
    /// Asks to be polled every 200 µs without ever having output.
    restless: bool,
    polled: Arc<AtomicU64>,
    order: Arc<Mutex<Vec<(usize, usize)>>>,
}

impl Endpoint for Probe {
    fn receive(&mut self, chunk: &[u8], _now: Instant) -> Result<(), Fault> {
        assert!(!chunk.is_empty());
        self.received.extend_from_slice(chunk);
        Ok(())
    }

    fn poll_send(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Fault> {
        assert!(out.is_empty(), "the last send is still with the kernel");
        let Some((due, block)) = self.blocks.pop_front() else { return Ok(()) };
        assert!(due.is_none_or(|due| due <= now), "sent before its time");
        self.polled.fetch_add(block.len() as u64, Relaxed);
        self.order.lock().unwrap().push((self.name, self.blocks.len()));
        out.extend_from_slice(&block);
        Ok(())
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.blocks.front() {
            Some((due, _)) => Some(due.unwrap_or(now)),
            None => self.restless.then_some(now + Duration::from_micros(200)),
        }
    }

    fn is_done(&self) -> bool {
        self.blocks.is_empty() && self.received.len() >= self.awaited
    }

    fn awaits(&self) -> &'static str {
        "an echo"
    }
}

fn plan(transport: Transport, silence_ms: u64) -> DrivePlan {
    DrivePlan {
        transport,
        core: None,
        silence_max: Duration::from_millis(silence_ms),
        abort: Arc::default(),
    }
}

/// A server that runs `serve` for each connection on a thread of its own.
fn server(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn attach(address: SocketAddr, endpoint: Probe) -> Attached<Probe> {
    Attached { stream: TcpStream::connect(address).unwrap(), received: Vec::new(), endpoint }
}

/// The octets differ with the length, so that swapped blocks are noticed.
fn block(random: &mut u64, size_max: u64) -> Vec<u8> {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    let size = 1 + (*random >> 33) % size_max;
    (0..size).map(|at| (at as u8) ^ (size as u8)).collect()
}

/// Echoes everything in pieces of different sizes.
fn echo(mut stream: TcpStream) {
    let (mut chunk, mut random) = (vec![0; 9_000], 1);
    loop {
        let size_max = block(&mut random, 9_000).len();
        match stream.read(&mut chunk[..size_max]) {
            Ok(size) if size > 0 => stream.write_all(&chunk[..size]).unwrap(),
            _ => return,
        }
    }
}

/// Reads and never answers.
fn mute(mut stream: TcpStream) {
    let _ = io::copy(&mut stream, &mut io::sink());
}

#[test]
fn octets_come_back_in_order_on_every_connection() {
    for transport in TRANSPORTS {
        let address = server(echo);
        let mut random = 7;
        let (mut attached, mut sent) = (Vec::new(), Vec::new());
        for name in 0..7 {
            let blocks: Vec<_> = (0..20).map(|_| block(&mut random, 30_000)).collect();
            let all = blocks.concat();
            let blocks = blocks.into_iter().map(|block| (None, block)).collect();
            let probe = Probe { name, blocks, awaited: all.len() + 2, ..Probe::default() };
            attached.push(Attached { received: vec![1, 2], ..attach(address, probe) });
            sent.push([&[1, 2][..], &all].concat());
        }
        let (probes, result) = drive(attached, &plan(transport, 20_000));
        result.unwrap();
        for (name, (probe, sent)) in probes.iter().zip(sent).enumerate() {
            assert_eq!(probe.name, name);
            assert!(probe.received == sent, "{transport:?}: connection {name} got other octets");
        }
    }
}

#[test]
fn a_server_that_does_not_read_holds_the_endpoint_back() {
    /// More than both socket buffers can hold.
    const BLOCKS: u64 = 64;
    const BLOCK_SIZE: u64 = 1 << 20;
    for transport in TRANSPORTS {
        let polled = Arc::new(AtomicU64::new(0));
        let before_reading = Arc::new(AtomicU64::new(u64::MAX));
        let (watched, noted) = (Arc::clone(&polled), Arc::clone(&before_reading));
        let address = server(move |mut stream| {
            thread::sleep(Duration::from_millis(200));
            noted.store(watched.load(Relaxed), Relaxed);
            let mut left = vec![0; BLOCK_SIZE as usize];
            (0..BLOCKS).for_each(|_| stream.read_exact(&mut left).unwrap());
            stream.write_all(b"all").unwrap();
        });
        let blocks = (0..BLOCKS).map(|_| (None, vec![7; BLOCK_SIZE as usize])).collect();
        let probe = Probe { blocks, awaited: 3, polled, ..Probe::default() };
        let (probes, result) = drive(vec![attach(address, probe)], &plan(transport, 20_000));
        result.unwrap();
        assert_eq!(probes[0].received, b"all");
        assert!(before_reading.load(Relaxed) < BLOCKS * BLOCK_SIZE, "{transport:?}");
    }
}

#[test]
fn silence_is_a_fault_also_for_those_who_look_again() {
    for (transport, restless) in TRANSPORTS.into_iter().flat_map(|t| [(t, false), (t, true)]) {
        let blocks = VecDeque::from([(None, vec![1])]);
        let probe = Probe { awaited: 1, restless, blocks, ..Probe::default() };
        let done = Probe::default();
        let address = server(mute);
        let attached = vec![attach(address, done), attach(address, probe)];
        let plan = plan(transport, 250);
        let (probes, result) = drive(attached, &plan);
        assert!(matches!(result, Err(Fault::Silent { expected: "an echo", .. })), "{result:?}");
        assert!(probes[1].blocks.is_empty() && plan.abort.load(Relaxed));
    }
}

#[test]
fn a_slow_schedule_is_no_silence_and_its_times_are_kept_in_order() {
    for transport in TRANSPORTS {
        let address = server(echo);
        let start = Instant::now();
        let order = Arc::new(Mutex::new(Vec::new()));
        let at = |ms: u64| (Some(start + Duration::from_millis(ms)), vec![1]);
        let probe = |name, times: [u64; 3]| Probe {
            name,
            blocks: times.map(at).into(),
            awaited: 3,
            order: Arc::clone(&order),
            ..Probe::default()
        };
        // The last gap is longer than the allowed silence.
        let attached = vec![
            attach(address, probe(0, [20, 100, 1_300])),
            attach(address, probe(1, [60, 140, 1_350])),
        ];
        let (_, result) = drive(attached, &plan(transport, 300));
        result.unwrap();
        assert_eq!(*order.lock().unwrap(), [(0, 2), (1, 2), (0, 1), (1, 1), (0, 0), (1, 0)]);
    }
}

#[test]
fn who_is_cut_off_says_so_and_who_is_done_does_not_mind() {
    for transport in TRANSPORTS {
        let address = server(drop);
        let waiting = Probe { awaited: 1, ..Probe::default() };
        let (_, result) = drive(vec![attach(address, waiting)], &plan(transport, 20_000));
        assert!(matches!(result, Err(Fault::Cut)), "{result:?}");

        let cut = attach(address, Probe::default());
        let echoed = Probe { awaited: 1, ..Probe::default() };
        let blocks = [(Some(Instant::now() + Duration::from_millis(100)), vec![1])].into();
        let echoed = attach(server(echo), Probe { blocks, ..echoed });
        let (_, result) = drive(vec![cut, echoed], &plan(transport, 20_000));
        result.unwrap();
    }
}

#[test]
fn a_failure_elsewhere_ends_the_thread() {
    for transport in TRANSPORTS {
        let plan = plan(transport, 60_000);
        let abort = Arc::clone(&plan.abort);
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            abort.store(true, Relaxed);
        });
        let probe = Probe { awaited: 1, ..Probe::default() };
        let (probes, result) = drive(vec![attach(server(mute), probe)], &plan);
        assert!(matches!(result, Err(Fault::Aborted)), "{result:?}");
        assert_eq!(probes.len(), 1);
        other.join().unwrap();
    }
}

#[test]
fn a_core_that_is_not_there_is_refused() {
    let plan = DrivePlan { core: Some(1_000), ..plan(Transport::IoUring, 1_000) };
    let (probes, result) = drive(vec![attach(server(mute), Probe::default())], &plan);
    assert!(matches!(result, Err(Fault::Machine(_))) && probes.len() == 1);
}
