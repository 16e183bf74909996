//! What a queue costs per message: its state alone, then with the store that keeps the messages.
//!
//! Stands for what a message does in its home: it is enqueued, given out, settled or put back, or
//! dropped by a purge; with nobody waiting, a thousand, or a million (consumers were away for the
//! night). The promise is that a queue's depth does not show: the cases of one name must be level
//! from depth 0 to 1,000,000 but for cache misses and the logarithm of a backlog that was requeued.
//! `purge` is the exception: it walks over what the queue holds, and the shard serves nobody else
//! meanwhile, so its whole time (not its time per message) is the longest pause that one client's
//! purge can cause.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime as Clock;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use leveret_broker::id::{Instant, WallTime};
use leveret_broker::message::{Body, Likeness, Message};
use leveret_broker::queue::ready::Entry;
use leveret_broker::queue::state::{State, none};
use leveret_broker::queue::step::Step;
use leveret_broker::queue::terms::{Deliveries, Holder};
use leveret_broker::storage::store::{MessageId, Store, Where};

/// The consumer that takes messages, and one that holds none.
const HOLDER: Holder = Holder(0);
const STRANGER: Holder = Holder(1);

/// Messages that wait, or are not settled. `cargo test` only asks whether the benches work: no
/// million there.
fn depths() -> &'static [u32] {
    if measures() { &[0, 1_000, 1_000_000] } else { &[0, 1_000] }
}

/// As criterion decides: `cargo bench` passes `--bench`, `cargo test` does not.
fn measures() -> bool {
    let given = |flag: &str| std::env::args().any(|argument| argument == flag);
    given("--bench") && !given("--test")
}

/// A queue in which `depth` messages wait.
fn filled(depth: u32) -> State {
    let mut state = State::default();
    for number in 0..depth {
        enqueue(&mut state, number);
    }
    state
}

/// A queue that has given out `count` messages, with their deliveries, oldest first.
fn given_out(count: u32) -> (State, Vec<u64>) {
    let mut state = filled(count);
    let deliveries = (0..count).map(|_| deliver(&mut state)).collect();
    (state, deliveries)
}

fn enqueue(state: &mut State, number: u32) {
    arrive(state, MessageId(number), WallTime(u64::from(number)));
}

fn arrive(state: &mut State, id: MessageId, at: WallTime) {
    let position = state.next_position();
    let step = Step::Enqueue { position, count: 1, at, redelivered: false };
    black_box(state.apply(step, std::iter::once(Where::Store(id)), |_| {}));
}

/// Takes the front message: the number of its delivery, if a holder gets it.
fn check_out(state: &mut State, holder: Option<Holder>) -> (Entry, Option<u64>) {
    let front = state.front().expect("a message waits");
    let step = Step::CheckOut { from: front.position, count: 1, holder };
    let mut left = 0;
    let effect = state.apply(step, none(), |_| left += 1);
    assert_eq!(left, u32::from(holder.is_none()));
    (front, effect.first_delivery)
}

/// Gives the next message to [`HOLDER`].
fn deliver(state: &mut State) -> u64 {
    check_out(state, Some(HOLDER)).1.expect("the holder has a number for it")
}

fn settle(state: &mut State, delivery: u64) {
    let step = Step::Settle(Deliveries { holder: HOLDER, first: delivery, count: 1 });
    let mut settled = 0;
    state.apply(step, none(), |_| settled += 1);
    assert_eq!(settled, 1, "delivery {delivery} was not there");
}

fn requeue(state: &mut State, delivery: u64) {
    let deliveries = Deliveries { holder: HOLDER, first: delivery, count: 1 };
    let effect = state.apply(Step::Requeue { deliveries, at: WallTime(1) }, none(), |_| {});
    assert_eq!(effect.count, 1, "delivery {delivery} was not there");
}

/// Drops all that waits; how many that were.
fn purge(state: &mut State, mut dropped: impl FnMut(MessageId)) -> u32 {
    let (from, count) = (state.front().map_or(0, |front| front.position), state.ready_count());
    let step = Step::Drop { from, count: count as u64 };
    state.apply(step, none(), |message| dropped(in_store(message.location))).count as u32
}

fn in_store(location: Where) -> MessageId {
    let Where::Store(message) = location else { panic!("{location:?} is in no log here") };
    message
}

/// One step that leaves the queue as deep as it was, which is checked at the end.
fn bench_step(
    group: &mut BenchmarkGroup<'_, Clock>,
    id: BenchmarkId,
    mut state: State,
    mut step: impl FnMut(&mut State),
) {
    let counts = |state: &State| (state.ready_count(), state.unacked_count());
    let before = counts(&state);
    group.throughput(Throughput::Elements(1));
    group.bench_function(id, |bencher| bencher.iter(|| step(&mut state)));
    assert_eq!(counts(&state), before, "a step lost or kept a message");
}

/// A message passes a queue in which others wait: in at the end, out at the front.
fn waiting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue/waiting");
    for &depth in depths() {
        bench_step(&mut group, BenchmarkId::new("auto-ack", depth), filled(depth), |state| {
            enqueue(state, 7);
            assert_eq!(check_out(state, None).1, None);
        });
        bench_step(&mut group, BenchmarkId::new("ack", depth), filled(depth), |state| {
            enqueue(state, 7);
            let delivery = deliver(state);
            settle(state, delivery);
        });
        // A client that refuses the front message for ever.
        let requeue_front = |state: &mut State| {
            let delivery = deliver(state);
            requeue(state, delivery);
        };
        let state = filled(depth.max(1));
        bench_step(&mut group, BenchmarkId::new("requeue", depth), state, requeue_front);
        // The same among messages that all came back from a client that died.
        let (mut state, deliveries) = given_out(depth.max(1));
        deliveries.iter().rev().for_each(|delivery| requeue(&mut state, *delivery));
        let id = BenchmarkId::new("requeue among returned", depth);
        bench_step(&mut group, id, state, requeue_front);
    }
    group.finish();
}

/// A consumer without a prefetch limit that holds many messages and settles in one order or
/// another; for each settled one a new one is given out.
fn unsettled(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue/unsettled");
    for &held in depths() {
        let next = |state: &mut State| {
            enqueue(state, 7);
            deliver(state)
        };
        let (state, _) = given_out(held.max(1));
        let mut oldest = 0;
        bench_step(&mut group, BenchmarkId::new("ack oldest", held), state, |state| {
            settle(state, oldest);
            oldest += 1;
            next(state);
        });
        let (state, _) = given_out(held.max(1));
        bench_step(&mut group, BenchmarkId::new("ack newest", held), state, |state| {
            let newest = next(state);
            settle(state, newest);
        });
        let (state, mut deliveries) = given_out(held.max(1));
        let mut turn = 0_usize;
        bench_step(&mut group, BenchmarkId::new("ack scattered", held), state, |state| {
            turn = turn.wrapping_add(0x9e37_79b1);
            let place = turn % deliveries.len();
            settle(state, deliveries[place]);
            deliveries[place] = next(state);
        });
        let (state, deliveries) = given_out(held);
        assert!(state.held_by(HOLDER).eq(deliveries));
        bench_step(&mut group, BenchmarkId::new("holder leaves", held), state, |state| {
            assert_eq!(state.held_by(black_box(STRANGER)).next(), None);
        });
    }
    group.finish();
}

/// A channel closes with a thousand unsettled messages, which return to their places in front of
/// those that wait, and another one takes them.
fn returning(criterion: &mut Criterion) {
    const RETURNING: u32 = 1_000;
    let mut group = criterion.benchmark_group("queue/1,000 return");
    group.throughput(Throughput::Elements(u64::from(RETURNING)));
    for &depth in depths() {
        let mut state = filled(depth + RETURNING);
        let mut deliveries: Vec<u64> = (0..RETURNING).map(|_| deliver(&mut state)).collect();
        let mut cycle = |state: &mut State| {
            for delivery in &deliveries {
                requeue(state, *delivery);
            }
            for delivery in &mut deliveries {
                *delivery = deliver(state);
            }
        };
        cycle(&mut state);
        group.bench_function(BenchmarkId::from_parameter(depth), |bencher| {
            bencher.iter(|| cycle(&mut state));
        });
        // Those that returned were given out again, so the next one is the first that waited.
        if depth > 0 {
            let (entry, _) = check_out(&mut state, None);
            assert_eq!((in_store(entry.rests), entry.redelivered), (MessageId(RETURNING), false));
        }
        assert_eq!(state.unacked_count(), RETURNING as usize);
    }
    group.finish();
}

/// `queue.purge` and `queue.delete`: everything that waits is dropped in one go, from the state
/// alone and with the messages themselves. The second is what stops the shard.
fn purging(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue/purge");
    // Each purge needs a queue that is filled anew, which takes longer than the purge.
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(50)).measurement_time(Duration::from_millis(200));
    for &depth in depths().iter().filter(|depth| **depth > 0) {
        group.throughput(Throughput::Elements(u64::from(depth)));
        group.bench_function(BenchmarkId::new("state", depth), |bencher| {
            bencher.iter_batched(
                || filled(depth),
                |mut state| {
                    assert_eq!(purge(&mut state, |_| ()), depth);
                    state
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("state and store", depth), |bencher| {
            bencher.iter_batched(
                || stored(depth, 16),
                |(mut state, mut store)| {
                    assert_eq!(
                        purge(&mut state, |message| {
                            store.release(message);
                        }),
                        depth
                    );
                    assert_eq!(store.live_bytes(), 0);
                    (state, store)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn message(body: &[u8]) -> Message<'_> {
    Message {
        exchange: b"amq.topic",
        routing_key: b"site7.device42.temperature",
        properties: &[0x10, 0, 2],
        body: Body::Inline(body),
        published_at: Instant(1),
        likeness: Likeness::UNKNOWN,
    }
}

/// A queue in which `depth` messages wait, and the store that has them.
fn stored(depth: u32, body_size: usize) -> (State, Store) {
    let (mut state, mut store) = (State::default(), Store::default());
    let body = vec![b'x'; body_size];
    for _ in 0..depth {
        let id = store.put(&message(&body), 1);
        arrive(&mut state, id, WallTime(1));
    }
    (state, store)
}

/// A message with its octets: copied in, enqueued, given out, read, settled, freed. 256 B are
/// copied with their record, 1 KiB are kept beside it and shared.
fn resting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue/resting");
    group.throughput(Throughput::Elements(1));
    for &depth in depths() {
        for size in [16, 256, 1024] {
            // A million of 1 KiB would be a gigabyte, which says nothing more.
            let depth = if size > 16 { depth.min(100_000) } else { depth };
            let (mut state, mut store) = stored(depth, size);
            let body = vec![b'x'; size];
            let mut pass = || {
                let id = store.put(&message(black_box(&body)), 1);
                arrive(&mut state, id, WallTime(1));
                let (entry, delivery) = check_out(&mut state, Some(HOLDER));
                let id = in_store(entry.rests);
                let read = black_box(store.message(id)).body.len();
                settle(&mut state, delivery.expect("the holder has a number for it"));
                store.release(id);
                read
            };
            assert_eq!(pass(), size);
            group.bench_function(BenchmarkId::new(format!("{size}B"), depth), |bencher| {
                bencher.iter(&mut pass);
            });
            assert_eq!((state.ready_count(), store.messages()), (depth as usize, depth as usize));
        }
    }
    group.finish();
}

criterion_group!(queue, waiting, unsettled, returning, purging, resting);
criterion_main!(queue);
