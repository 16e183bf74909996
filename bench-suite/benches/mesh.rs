//! What a hop between two threads costs: the lanes of the mesh with real mail in them.
//!
//! Stands for every message whose connection and queue live on different shards: it crosses once
//! on its way in and once on its way out, in batches that a turn of the loop fills. Measured with
//! `Batch`es of mails that join no run, as the broker sends them: closed when full, given
//! back emptied, never more under way than a lane holds.
//!
//! `lane` is one thread with itself: the instructions of a push and a pop, without any cache line
//! that moves between cores. `round trip` adds the way there and back with both threads awake: the
//! latency that a hop adds, twice. `stream` keeps a lane full: the throughput of a pair. The time
//! per mail must fall with the size of a batch; if it does not, batching no longer pays.
//!
//! Both threads spin here, and yield now and then so that a machine with fewer free cores than two
//! gets on (its figures then are those of the scheduler, not of the mesh). A shard that has nothing
//! to do sleeps in its ring instead, and a wake is some 10 to 50 µs, far more than a hop: that is
//! measured by `cargo run --release -p leveret-ring --example wake_cost`. What is measured here of
//! sleeping is its price for those who stay awake: `sleep/needs wake`, paid by the sender once per
//! turn and destination, and `sleep/prepare and awake`, paid by a receiver before it waits.

use std::hint::{black_box, spin_loop};
use std::thread::{self, JoinHandle, yield_now};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use leveret_broker::id::ChannelKey;
use leveret_broker::mesh::batch::Batch;
use leveret_broker::mesh::mail::Mail;
use leveret_ring::{Endpoint, Lane, Mesh};

/// Batches under way at once: what the server's lanes hold is of this order.
const WINDOW: usize = 16;

/// Looks at an empty lane between two yields: some microseconds, longer than a hop between cores.
const SPINS_PER_YIELD: u32 = 256;

/// Mails that a turn has for one destination: a lone request, a busy turn, a flood.
const MAILS: [u64; 3] = [1, 50, 1_000];

/// A mail that joins no run, with a number to know it by.
fn confirmed(number: u64) -> Mail {
    Mail::Confirmed { channel: ChannelKey::default(), count: number as u32 }
}

/// Waits for a batch in a lane.
fn await_batch(endpoint: &Endpoint<Batch>, from: usize, lane: Lane) -> Batch {
    let mut spins = 0_u32;
    loop {
        if let Some(batch) = endpoint.receive(from, lane) {
            return batch;
        }
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(SPINS_PER_YIELD) { yield_now() } else { spin_loop() }
    }
}

/// The other end: reads every batch, gives it back emptied, and ends with one that has no mail.
struct Reader(JoinHandle<ReaderReport>);

/// What the other end saw.
#[derive(Default)]
struct ReaderReport {
    /// Mails in the order in which they were sent.
    in_order: u64,
    /// Any that were not.
    out_of_order: u64,
}

impl Reader {
    fn start(endpoint: Endpoint<Batch>) -> Self {
        Self(thread::spawn(move || {
            let mut report = ReaderReport::default();
            loop {
                let mut batch = await_batch(&endpoint, 0, Lane::Work);
                if batch.mails.is_empty() {
                    return report;
                }
                for mail in &batch.mails {
                    match mail {
                        Mail::Confirmed { count, .. } if *count == report.in_order as u32 => {
                            report.in_order += 1;
                        }
                        _ => report.out_of_order += 1,
                    }
                }
                batch.clear();
                let given_back = endpoint.try_send(0, Lane::Reply, batch);
                assert!(given_back.is_ok(), "a lane has room for every batch there is");
            }
        }))
    }
}

/// This end: fills batches and waits for them to come back.
struct Writer {
    endpoint: Endpoint<Batch>,
    reader: Reader,
    spare: Vec<Batch>,
    next_mail: u64,
}

impl Writer {
    fn start() -> Self {
        let [endpoint, other] = pair();
        let spare = (0..WINDOW).map(|_| Batch::default()).collect();
        Self { endpoint, reader: Reader::start(other), spare, next_mail: 0 }
    }

    /// Sends this many mails in as many batches as they need.
    fn send(&mut self, mails: u64) {
        let mut batch = self.spare_batch();
        for _ in 0..mails {
            if batch.is_full() {
                let full = std::mem::replace(&mut batch, self.spare_batch());
                self.push(full);
            }
            batch.push(confirmed(self.next_mail));
            self.next_mail += 1;
        }
        self.push(batch);
    }

    fn push(&mut self, batch: Batch) {
        let sent = self.endpoint.try_send(1, Lane::Work, batch);
        assert!(sent.is_ok(), "a lane has room for every batch there is");
    }

    fn spare_batch(&mut self) -> Batch {
        self.spare.pop().unwrap_or_else(|| await_batch(&self.endpoint, 1, Lane::Reply))
    }

    /// Waits until every batch is back.
    fn settle(&mut self) {
        while self.spare.len() < WINDOW {
            self.spare.push(await_batch(&self.endpoint, 1, Lane::Reply));
        }
    }

    /// Ends the other thread; it must have seen every mail once and in order.
    fn finish(mut self) {
        self.settle();
        self.push(Batch::default());
        let report = self.reader.0.join().expect("the reader does not fail");
        assert_eq!((report.in_order, report.out_of_order), (self.next_mail, 0));
        assert!(self.next_mail > 0, "nothing was sent");
    }
}

fn pair() -> [Endpoint<Batch>; 2] {
    // One more for the empty batch that ends the reader.
    let endpoints = Mesh::new(2, WINDOW + 1);
    endpoints.try_into().ok().expect("a mesh of two has two ends")
}

/// One thread: fills a batch, pushes it, pops it, reads it. `0` is a batch without mail: push and
/// pop alone.
fn lane(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh/lane");
    let [sender, receiver] = pair();
    for mails in [0].into_iter().chain(MAILS) {
        let mut batch = Some(Batch::default());
        let mut pass = || -> u64 {
            let mut filled = batch.take().unwrap_or_default();
            filled.clear();
            filled.mails.extend((0..mails).map(confirmed));
            assert!(sender.try_send(1, Lane::Work, filled).is_ok());
            batch = receiver.receive(0, Lane::Work);
            let read = batch.iter().flat_map(|batch| &batch.mails);
            read.map(
                |mail| if let Mail::Confirmed { count, .. } = mail { u64::from(*count) } else { 0 },
            )
            .sum()
        };
        assert_eq!(pass(), mails * mails.saturating_sub(1) / 2);
        group.throughput(Throughput::Elements(mails.max(1)));
        group.bench_function(BenchmarkId::from_parameter(mails), |bencher| bencher.iter(&mut pass));
    }
    group.finish();
}

/// There and back with both awake: two hops, and the next one starts when the last has ended.
fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh/round trip");
    for mails in MAILS {
        let mut writer = Writer::start();
        group.throughput(Throughput::Elements(mails));
        group.bench_function(BenchmarkId::from_parameter(mails), |bencher| {
            bencher.iter(|| {
                writer.send(mails);
                writer.settle();
            });
        });
        writer.finish();
    }
    group.finish();
}

/// As fast as the lane takes it, up to [`WINDOW`] batches under way.
fn stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh/stream");
    for mails in MAILS {
        let mut writer = Writer::start();
        group.throughput(Throughput::Elements(mails));
        group.bench_function(BenchmarkId::from_parameter(mails), |bencher| {
            bencher.iter(|| writer.send(mails));
        });
        writer.finish();
    }
    group.finish();
}

/// Looking for mail where there is none, which every turn does before it may sleep: it grows with
/// the number of participants, two lanes for each.
fn looking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh/look");
    for participants in [2, 9, 33] {
        let endpoints = Mesh::<Batch>::new(participants, WINDOW);
        let [first, .., last] = &*endpoints else { panic!("a mesh of two has two ends") };
        assert!(!first.has_mail());
        group.bench_function(BenchmarkId::from_parameter(participants), |bencher| {
            bencher.iter(|| black_box(first).has_mail());
        });
        assert!(last.try_send(0, Lane::Work, Batch::default()).is_ok());
        assert!(first.has_mail(), "mail of the last participant was not seen");
    }
    group.finish();
}

/// What the protocol of sleeping costs those who are awake.
fn sleeping(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh/sleep");
    let [sender, receiver] = pair();
    assert!(!sender.needs_wake(1), "it is awake");
    assert!(receiver.prepare_sleep() && sender.needs_wake(1), "it may sleep, and has to be woken");
    receiver.awake();
    group.bench_function("needs wake", |bencher| {
        bencher.iter(|| black_box(&sender).needs_wake(1));
    });
    group.bench_function("prepare and awake", |bencher| {
        bencher.iter(|| {
            let slept = black_box(&receiver).prepare_sleep();
            receiver.awake();
            slept
        });
    });
    group.finish();
}

criterion_group!(mesh, lane, round_trip, stream, looking, sleeping);
criterion_main!(mesh);
