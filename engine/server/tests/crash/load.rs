//! The clients: publishers that wait for confirms and consumers that acknowledge, each a thread
//! that comes back after every end of the broker until it is told that the run is over.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::consumer::Consumer;
use crate::history::{Delivered, Id, Outcome, Published};
use crate::random::Random;
use crate::unconfirmed::Unconfirmed;
use crate::wire::{Cut, Received, Wire};
use crate::{topology, traffic};

const PUBLISHERS: u32 = 3;
pub(crate) const CONSUMERS: u8 = 3;

/// Unconfirmed messages per publisher.
const CONFIRM_WINDOW: usize = 1_000;

/// Messages in the queues above which publishers wait: the end of a run has to drain them.
const READY_MAX: u32 = 20_000;

/// Unsent bytes above which a publisher reads confirms first.
const UNSENT_BYTES_MAX: usize = 256 << 10;

const NAP: Duration = Duration::from_micros(300);

/// Heartbeats of all clients; none are due within a cycle.
const HEARTBEAT_S: u16 = 60;

/// What the run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Everybody works.
    Run,
    /// Publishers wait for their last confirms and end.
    Quiet,
    /// Consumers acknowledge all they get.
    Drain,
    End,
}

/// What all threads of a run share.
pub(crate) struct Shared {
    began: Instant,
    pub(crate) address: SocketAddr,
    pub(crate) seed: u64,
    /// The number of the broker that runs, or that is the next to run.
    pub(crate) incarnation: AtomicU32,
    phase: AtomicU8,
    channels: AtomicU32,
    /// Messages ready in the queues of each consumer, as it last heard.
    pub(crate) ready: [AtomicU32; CONSUMERS as usize],
    /// For each consumer one more than the incarnation whose queues it found empty.
    pub(crate) drained: [AtomicU32; CONSUMERS as usize],
    complaints: Mutex<Vec<String>>,
}

impl Shared {
    pub(crate) fn new(address: SocketAddr, seed: u64) -> Self {
        Self {
            began: Instant::now(),
            address,
            seed,
            incarnation: AtomicU32::new(0),
            phase: AtomicU8::new(Phase::Run as u8),
            channels: AtomicU32::new(0),
            ready: Default::default(),
            drained: Default::default(),
            complaints: Mutex::default(),
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    pub(crate) fn is_at_least(&self, phase: Phase) -> bool {
        self.phase.load(SeqCst) >= phase as u8
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, SeqCst);
    }

    pub(crate) fn complain(&self, text: String) {
        self.complaints.lock().unwrap().push(text);
    }

    pub(crate) fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.complaints.lock().unwrap())
    }

    /// A connection and the number of the broker it leads to; `None` when `phase` is reached.
    pub(crate) fn connect(&self, until: Phase) -> Option<(u32, Wire)> {
        while !self.is_at_least(until) {
            let incarnation = self.incarnation.load(SeqCst);
            let opened = Wire::open(self.address, HEARTBEAT_S);
            // The number changes between the end of a broker and the start of the next.
            if let Ok(wire) = opened
                && incarnation == self.incarnation.load(SeqCst)
            {
                return Some((incarnation, wire));
            }
            thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// An ordinary end of a connection, or a complaint.
    pub(crate) fn note_cut(&self, who: &str, cut: Cut) {
        match cut {
            Cut::Lost | Cut::Closed(320, _) => {}
            Cut::Closed(code, text) => self.complain(format!("{who} was closed: {code} {text}")),
        }
    }
}

/// All clients of a run.
pub(crate) struct Load {
    publishers: Vec<JoinHandle<Vec<Published>>>,
    consumers: Vec<JoinHandle<Vec<Delivered>>>,
    topology: JoinHandle<()>,
}

impl Load {
    /// Starts all threads; exchanges and queues must be there.
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let publisher = |number| {
            let shared = Arc::clone(shared);
            thread::spawn(move || publish(&shared, number))
        };
        let consumer = |number| {
            let shared = Arc::clone(shared);
            thread::spawn(move || Consumer::run(&shared, number))
        };
        let topology = Arc::clone(shared);
        Self {
            publishers: (0..PUBLISHERS).map(publisher).collect(),
            consumers: (0..CONSUMERS).map(consumer).collect(),
            topology: thread::spawn(move || topology::change_and_check(&topology)),
        }
    }

    /// Whether all that publish have ended, which they do in [`Phase::Quiet`].
    pub(crate) fn is_quiet(&self) -> bool {
        self.publishers.iter().all(JoinHandle::is_finished) && self.topology.is_finished()
    }

    /// Whether a consumer has panicked, for they go on to the end.
    pub(crate) fn is_broken(&self) -> bool {
        self.consumers.iter().any(JoinHandle::is_finished)
    }

    /// Ends all threads after [`Phase::End`].
    pub(crate) fn join(self) -> (Vec<Published>, Vec<Delivered>) {
        self.topology.join().expect("the topology client");
        let join = |thread: JoinHandle<_>| thread.join().expect("a publisher");
        let published = self.publishers.into_iter().flat_map(join).collect();
        let join = |thread: JoinHandle<_>| thread.join().expect("a consumer");
        (published, self.consumers.into_iter().flat_map(join).collect())
    }
}

/// A publisher: a channel of its own number per connection, until the run is quiet.
fn publish(shared: &Shared, number: u32) -> Vec<Published> {
    let mut random = Random::new(shared.seed ^ u64::from(number + 1) << 32);
    let mut published = Vec::new();
    while let Some((_, mut wire)) = shared.connect(Phase::Quiet) {
        let cut = publish_on(shared, &mut wire, &mut random, &mut published);
        if let Err(cut) = cut {
            shared.note_cut("a publisher", cut);
        }
    }
    published
}

/// Publishes until the connection ends, or until all is confirmed after the run became quiet.
fn publish_on(
    shared: &Shared,
    wire: &mut Wire,
    random: &mut Random,
    published: &mut Vec<Published>,
) -> Result<(), Cut> {
    if let Some(complaint) = traffic::demand(wire)? {
        shared.complain(complaint);
    }
    wire.select_confirms()?;
    let channel = shared.channels.fetch_add(1, SeqCst);
    let mut unconfirmed: Unconfirmed<usize> = Unconfirmed::new();
    let (mut serial, mut blocked) = (0, false);
    loop {
        let quiet = shared.is_at_least(Phase::Quiet);
        if quiet && unconfirmed.len() == 0 {
            return Ok(());
        }
        let ready: u32 = shared.ready.iter().map(|ready| ready.load(SeqCst)).sum();
        let mut idle = true;
        while !quiet
            && !blocked
            && ready < READY_MAX
            && unconfirmed.len() < CONFIRM_WINDOW
            && wire.unsent_bytes() < UNSENT_BYTES_MAX
        {
            unconfirmed.push(published.len());
            published.push(traffic::publish(wire, random, Id::new(channel, serial)));
            serial += 1;
            idle = false;
        }
        while let Some(received) = wire.poll()? {
            idle = false;
            match received {
                Received::Confirm { tag, multiple, refused } => {
                    let outcome = if refused { Outcome::Refused } else { Outcome::Confirmed };
                    match unconfirmed.settle(tag, multiple) {
                        Ok(all) => all.into_iter().for_each(|at| published[at].outcome = outcome),
                        Err(text) => shared.complain(format!("a publisher got {text}")),
                    }
                }
                Received::Blocked => blocked = true,
                Received::Unblocked => blocked = false,
                _ => {}
            }
        }
        if idle {
            thread::sleep(NAP);
        }
    }
}
