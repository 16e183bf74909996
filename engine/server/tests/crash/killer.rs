//! Starts the broker over and over on one data directory and ends it in every way there is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::checker::{ACK_WINDOW_NS, Report, check};
use crate::history::{End, History};
use crate::home::{Home, SMALL_SEGMENTS, log_of};
use crate::load::{Load, Phase, Shared};
use crate::process::Broker;
use crate::random::Random;
use crate::stall::Watch;
use crate::traffic;
use crate::wire::Wire;

/// Bounds a hang: of a stop, of publishers that wait for confirms, of queues that do not empty.
const PATIENCE: Duration = Duration::from_mins(3);

/// How often a living broker is looked at, so how well the time of its death is known.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// How often a recovery may be killed before it is left alone.
const NESTED_MAX: usize = 3;

/// After so many starts the number of shards changes.
const STARTS_PER_SHARDS: usize = 5;

/// Places where the process kills itself: name, the highest number of the arrival at which it
/// does, and whether it is on the way to the banner.
pub(crate) const FAIL_POINTS: [FailPoint; 13] = [
    FailPoint::new("before-commit", 100),
    FailPoint::new("after-write", 100),
    FailPoint::new("after-commit", 100),
    FailPoint::new("before-prepare", 5),
    FailPoint::new("after-prepare", 5),
    FailPoint::new("before-rename", 3),
    FailPoint::new("before-directory-sync", 3),
    FailPoint::new("before-remove", 2),
    FailPoint::new("before-metadata-commit", 20),
    FailPoint::new("after-metadata-commit", 20),
    FailPoint::new("recovery-segment", 4),
    FailPoint::new("recovery-done", 1),
    FailPoint::new("rehome-copied", 1),
];

/// See [`FAIL_POINTS`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailPoint {
    pub(crate) name: &'static str,
    pub(crate) arrivals_max: usize,
}

impl FailPoint {
    const fn new(name: &'static str, arrivals_max: usize) -> Self {
        Self { name, arrivals_max }
    }

    fn is_in_recovery(self) -> bool {
        self.name.starts_with("recovery-") || self.name.starts_with("rehome-")
    }
}

/// How a data directory is set up and what is done to its brokers.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) seed: u64,
    pub(crate) cycles: usize,
    /// Segments of 256 KiB, so that rolling, recycling and copying forward never stop; else all
    /// is at its default.
    pub(crate) small_segments: bool,
    /// Use only these, in turn; empty = random ends of all kinds.
    pub(crate) fail_points: Vec<FailPoint>,
}

/// What a round found.
pub(crate) struct Findings {
    pub(crate) report: Report,
    /// How often the process killed itself where it was told to.
    pub(crate) reached: BTreeMap<&'static str, usize>,
    /// How often it did not get there within its cycle.
    pub(crate) not_reached: BTreeMap<&'static str, usize>,
    pub(crate) took: Duration,
    pub(crate) disk_stood_still: Duration,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let stood_still = self.disk_stood_still.as_secs_f64();
        writeln!(
            f,
            "{seconds:.1} s, the disk stood still for {stood_still:.1} s; {}",
            self.report
        )?;
        write!(f, "fail points reached {:?}; not reached {:?}", self.reached, self.not_reached)
    }
}

/// How a cycle is to end.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Kill,
    At(FailPoint),
    Term,
    Interrupt,
    TermTwice,
}

/// A data directory with the brokers that live on it one after the other.
struct Killer {
    round: Round,
    random: Random,
    home: Home,
    shared: Arc<Shared>,
    ends: Vec<End>,
    shards: usize,
    starts: usize,
    reached: BTreeMap<&'static str, usize>,
    not_reached: BTreeMap<&'static str, usize>,
}

/// Plays a round and judges it.
pub(crate) fn play(round: Round) -> Findings {
    // Two at a time would have each other's disk stand still.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    println!("round of {round:?}");
    let mut killer = Killer::new(round);
    let mut first = killer.launch(None).unwrap_or_else(|broker| panic!("{}", log_of(broker)));
    declare_at(killer.shared.address);
    killer.end(&mut first, Ending::Kill);
    let watch = Watch::start(killer.home.path(), &killer.shared);
    let load = Load::start(&killer.shared);
    for cycle in 0..killer.round.cycles {
        let ending = killer.choose_ending(cycle);
        let (mut broker, ending) = killer.start(ending);
        if !killer.lives_on(&mut broker, ending) {
            continue;
        }
        killer.end(&mut broker, ending);
    }
    let (mut broker, _) = killer.start(Ending::Term);
    killer.drain(&mut broker, &load);
    let (published, delivered) = load.join();
    let complaints = killer.shared.take_complaints();
    let stalls = watch.end();
    let disk_stood_still = stalls.iter().map(|stall| stall.to_ns - stall.from_ns).sum();
    let history = History { published, delivered, ends: killer.ends, stalls, complaints };
    Findings {
        disk_stood_still: Duration::from_nanos(disk_stood_still),
        report: check(&history),
        reached: killer.reached,
        not_reached: killer.not_reached,
        took: began.elapsed(),
    }
}

fn declare_at(address: SocketAddr) {
    let mut wire = Wire::open(address, 0).expect("the first connection");
    traffic::declare(&mut wire).expect("the first declarations");
}

impl Killer {
    fn new(round: Round) -> Self {
        let home = Home::new(if round.small_segments { SMALL_SEGMENTS } else { "" });
        Self {
            random: Random::new(round.seed),
            shared: Arc::new(Shared::new(home.address, round.seed)),
            round,
            home,
            ends: Vec::new(),
            shards: 2,
            starts: 0,
            reached: BTreeMap::new(),
            not_reached: BTreeMap::new(),
        }
    }

    fn choose_ending(&mut self, cycle: usize) -> Ending {
        if !self.round.fail_points.is_empty() {
            return Ending::At(self.round.fail_points[cycle % self.round.fail_points.len()]);
        }
        let ending = self.random.weighted(&[
            (10, Ending::Kill),
            (7, Ending::At(FAIL_POINTS[0])),
            (1, Ending::Term),
            (1, Ending::Interrupt),
            (1, Ending::TermTwice),
        ]);
        match ending {
            Ending::At(_) => Ending::At(self.random.pick(&FAIL_POINTS)),
            ending => ending,
        }
    }

    /// Starts the next broker, if need be after some that killed themselves while they recovered,
    /// and says which end is left for it.
    fn start(&mut self, ending: Ending) -> (Broker, Ending) {
        let rehomes = matches!(ending, Ending::At(point) if point.name.starts_with("rehome-"));
        self.starts += 1;
        if rehomes || self.starts.is_multiple_of(STARTS_PER_SHARDS) {
            self.shards = 1 + (self.shards + self.random.below(2)) % 3;
        }
        let mut ending = ending;
        if let Ending::At(point) = ending {
            for _ in 0..if point.is_in_recovery() { NESTED_MAX } else { 1 } {
                let first = !self.reached.contains_key(point.name);
                let arrival = if first { 1 } else { 1 + self.random.below(point.arrivals_max) };
                match self.launch(Some(format!("{}:{arrival}", point.name))) {
                    Ok(broker) => return (broker, ending),
                    Err(mut broker) => {
                        broker.wait(PATIENCE);
                        self.note_reached(point);
                        let now_ns = self.shared.now_ns();
                        self.next(End::Crashed(now_ns));
                        ending = Ending::Kill;
                    }
                }
            }
        }
        let broker = self.launch(None).unwrap_or_else(|broker| {
            panic!("it does not start again:\n{}", log_of(broker));
        });
        (broker, ending)
    }

    fn launch(&self, fail_point: Option<String>) -> Result<Broker, Broker> {
        let environment = fail_point.map(|point| ("LEVERET_FAIL_POINT", point));
        self.home.launch(self.shards, environment.as_slice())
    }

    /// Lets the load run for a moment; false if the broker killed itself meanwhile, as it was told.
    fn lives_on(&mut self, broker: &mut Broker, ending: Ending) -> bool {
        // Some die as soon as they listen, while clients are still coming back.
        let brief = matches!(ending, Ending::Kill) && self.random.chance(15);
        let most_ms =
            if brief { self.random.below(30) } else { 200 + self.random.below(600) } as u64;
        let until = Instant::now() + Duration::from_millis(most_ms);
        while Instant::now() < until {
            let alive_ns = self.shared.now_ns();
            if let Some(status) = broker.ended() {
                let Ending::At(point) = ending else {
                    panic!("it ended by itself, {status}:\n{}", broker.drain_stderr());
                };
                self.note_reached(point);
                // Its last sign of life came before the look that found it dead.
                let look_ns = 2 * LOOK_INTERVAL.as_nanos() as u64;
                self.next(End::Crashed(alive_ns.saturating_sub(look_ns)));
                return false;
            }
            thread::sleep(LOOK_INTERVAL);
        }
        true
    }

    /// Ends a broker that lives.
    fn end(&mut self, broker: &mut Broker, ending: Ending) {
        let now_ns = self.shared.now_ns();
        match ending {
            Ending::Kill => {
                broker.kill();
                self.next(End::Crashed(now_ns));
            }
            Ending::At(point) => {
                let late = broker.ended().is_some();
                broker.kill();
                if late {
                    self.note_reached(point);
                } else {
                    *self.not_reached.entry(point.name).or_default() += 1;
                }
                let look_ns = 2 * LOOK_INTERVAL.as_nanos() as u64;
                self.next(End::Crashed(now_ns.saturating_sub(look_ns)));
            }
            Ending::Term | Ending::Interrupt => {
                broker.signal(if let Ending::Term = ending { "TERM" } else { "INT" });
                expect_code(broker, &[0]);
                self.next(End::Stopped);
            }
            Ending::TermTwice => {
                broker.signal("TERM");
                thread::sleep(Duration::from_millis(self.random.below(30) as u64));
                if broker.ended().is_none() {
                    broker.signal("TERM");
                }
                let status = expect_code(broker, &[0, 143]);
                let stopped = status.code() == Some(0);
                self.next(if stopped { End::Stopped } else { End::Crashed(now_ns) });
            }
        }
    }

    fn note_reached(&mut self, point: FailPoint) {
        *self.reached.entry(point.name).or_default() += 1;
    }

    /// Writes down an end. From now on clients belong to the next broker.
    fn next(&mut self, end: End) {
        self.ends.push(end);
        self.shared.incarnation.fetch_add(1, SeqCst);
    }

    /// Publishers end, queues are emptied, and nothing must come back: neither after a stop nor
    /// after a crash that comes later than all acks are durable.
    fn drain(&mut self, broker: &mut Broker, load: &Load) {
        self.shared.enter(Phase::Quiet);
        wait_until(broker, load, "publishers wait for confirms", || load.is_quiet());
        self.shared.enter(Phase::Drain);
        self.wait_until_drained(broker, load);
        for ending in [Ending::Term, Ending::Kill] {
            if let Ending::Kill = ending {
                thread::sleep(Duration::from_nanos(ACK_WINDOW_NS) + 10 * LOOK_INTERVAL);
            }
            self.end(broker, ending);
            (*broker, _) = self.start(Ending::Term);
            self.wait_until_drained(broker, load);
        }
        self.shared.enter(Phase::End);
    }

    fn wait_until_drained(&self, broker: &mut Broker, load: &Load) {
        let number = self.shared.incarnation.load(SeqCst);
        wait_until(broker, load, "queues do not become empty", || {
            self.shared.drained.iter().all(|of| of.load(SeqCst) == number + 1)
        });
    }
}

fn wait_until(broker: &mut Broker, load: &Load, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if let Some(status) = broker.ended() {
            panic!("it ended by itself, {status}:\n{}", broker.drain_stderr());
        }
        assert!(!load.is_broken(), "a consumer has panicked, see above");
        assert!(Instant::now() < deadline, "{what}:\n{}", broker.drain_stderr());
        thread::sleep(LOOK_INTERVAL);
    }
}

fn expect_code(broker: &mut Broker, codes: &[i32]) -> ExitStatus {
    let status = broker.wait(PATIENCE);
    let good = status.code().is_some_and(|code| codes.contains(&code));
    assert!(good, "{status} instead of {codes:?}:\n{}", broker.drain_stderr());
    status
}
