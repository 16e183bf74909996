//! What the headers exchange costs: one message compared with all bindings of an exchange.
//!
//! Stands for applications that route by attributes and not by a key: a document store that sends
//! `format=pdf, kind=report` of one tenant to one queue, a firm that filters events by any of
//! several marks. Measured through `Topology::route`, the door that every publish takes, so
//! looking for `CC` and `BCC`, sorting the headers and weeding out duplicates are in the figures.
//!
//! Each binding is compared with each message, as in `RabbitMQ`: the time grows with the number of
//! bindings, and divided by it must stay level. A change in the case of 10 bindings is a change in
//! the fixed part (looking, sorting); one in the case of 1,000 is a change in the comparison of one
//! binding. The hostile cases say what a client can make others pay with bindings that differ in
//! their last condition only, and with messages of many headers.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use leveret_amqp::{PropertiesBuilder, TableBuilder};
use leveret_broker::catalog::object::{Binding, Destination, Target};
use leveret_broker::id::{ExchangeId, QueueId, ShardId, VhostId};
use leveret_broker::routing::change::{Change, Delta};
use leveret_broker::routing::route::RouteScratch;
use leveret_broker::routing::topology::Topology;

/// Messages of one bench, which reach different queues: more than a branch predictor learns.
const MESSAGES: u32 = 256;

/// Conditions of a hostile binding, headers of a hostile message; what 4 KiB of header carry.
const HOSTILE_FIELDS: u32 = 200;

/// Spreads consecutive numbers over 32 bits, so that neighbours in a bench are none in the table.
fn spread(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1)
}

/// A topology in which the exchange `amq.headers` has `count` bindings, each to a queue of its own,
/// with the arguments `arguments(number)`, whose names have to stand in order.
fn bound(count: u32, arguments: impl Fn(u32) -> TableBuilder) -> (Topology, ExchangeId) {
    let mut topology = Topology::with_presets(7, 1);
    let exchange = topology.exchange(VhostId(0), b"amq.headers").expect("it is always there").id;
    for number in 0..count {
        let queue = QueueId { slot: number, generation: 1 };
        let arguments = arguments(number).finish().as_bytes().clone();
        let binding = Binding {
            source: exchange,
            target: Target::Queue(Destination { queue, home: ShardId(0) }),
            key: Arc::from(&b""[..]),
            canonical: arguments.clone(),
            arguments,
        };
        let change = Change::Bound(Arc::new(binding));
        topology.apply(&Delta { sequence: u64::from(number) + 1, change });
    }
    (topology, exchange)
}

/// All three must hold: two that every binding has, and a tenant of its own.
fn all(number: u32) -> TableBuilder {
    TableBuilder::new()
        .long_str("format", "pdf")
        .long_str("kind", "report")
        .long("tenant", i64::from(number))
        .long_str("x-match", "all")
}

/// One of two is enough, and no other binding asks for the same.
fn any(number: u32) -> TableBuilder {
    TableBuilder::new()
        .long("device", -1 - i64::from(number))
        .long("tenant", i64::from(number))
        .long_str("x-match", "any")
}

/// The property flags and values of an ordinary message of this tenant: six headers.
fn message(tenant: i64) -> Vec<u8> {
    let headers = TableBuilder::new()
        .long_str("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .long_str("kind", "report")
        .long_str("format", "pdf")
        .long("tenant", tenant)
        .timestamp("created", 1_700_000_000)
        .bool("final", true);
    properties(headers)
}

fn properties(headers: TableBuilder) -> Vec<u8> {
    let headers = headers.finish();
    PropertiesBuilder { headers: Some(headers.as_ref()), ..PropertiesBuilder::default() }.finish()
}

/// Routes one message after the other; each has to reach exactly the queues expected of it.
fn bench_routes(
    criterion: &mut Criterion,
    id: BenchmarkId,
    (topology, exchange): &(Topology, ExchangeId),
    messages: &[(Vec<u8>, Vec<u32>)],
) {
    let mut scratch = RouteScratch::new();
    let mut found = Vec::new();
    for (properties, expected) in messages {
        topology.route(&mut scratch, *exchange, b"", properties, &mut found).expect("no CC");
        let slots: Vec<u32> = found.iter().map(|destination| destination.queue.slot).collect();
        assert_eq!(slots, *expected);
    }
    let mut messages = messages.iter().cycle();
    let mut group = criterion.benchmark_group("headers");
    group.throughput(Throughput::Elements(1));
    group.bench_function(id, |bencher| {
        bencher.iter(|| {
            if let Some((properties, _)) = messages.next() {
                let properties = black_box(properties);
                let routed = topology.route(&mut scratch, *exchange, b"", properties, &mut found);
                black_box(routed.is_ok());
            }
            found.len()
        });
    });
    group.finish();
}

/// Ordinary bindings and messages: every condition or any, a queue is found or none is.
fn modes(criterion: &mut Criterion) {
    for bindings in [10, 1_000] {
        for (mode, arguments) in [("all", all as fn(u32) -> TableBuilder), ("any", any)] {
            let table = bound(bindings, arguments);
            for hit in [true, false] {
                let messages: Vec<(Vec<u8>, Vec<u32>)> = (0..MESSAGES)
                    .map(|number| {
                        let tenant = spread(number) % bindings;
                        // Nobody is bound to tenants above the last.
                        let asked = if hit { tenant } else { tenant + bindings };
                        (message(asked.into()), if hit { vec![tenant] } else { Vec::new() })
                    })
                    .collect();
                let name = format!("{mode}, {}", if hit { "hit" } else { "miss" });
                bench_routes(criterion, BenchmarkId::new(name, bindings), &table, &messages);
            }
        }
    }
}

/// A message without headers, as from a client that was not told, and one that reaches everybody.
fn extremes(criterion: &mut Criterion) {
    let table = bound(1_000, all);
    let messages = [(PropertiesBuilder::default().finish(), Vec::new())];
    bench_routes(criterion, BenchmarkId::new("no headers", 1_000), &table, &messages);
    let table = bound(1_000, |_| TableBuilder::new().long_str("kind", "report"));
    let messages = [(message(0), (0..1_000).collect())];
    bench_routes(criterion, BenchmarkId::new("everybody", 1_000), &table, &messages);
}

/// Clients that mean harm. `late`: 200 conditions, of which the last fails. `crowd`: a message of
/// 200 headers that all sort before the only one asked for, in descending order.
fn hostile(criterion: &mut Criterion) {
    let fields = |table: TableBuilder| {
        (0..HOSTILE_FIELDS).fold(table, |table, field| table.int(format!("f{field:03}"), 1))
    };
    let table = bound(1_000, |number| fields(TableBuilder::new()).long("z", i64::from(number)));
    let messages = [(properties(fields(TableBuilder::new()).long("z", -1)), Vec::new())];
    bench_routes(criterion, BenchmarkId::new("hostile, late", 1_000), &table, &messages);
    let crowd = (0..HOSTILE_FIELDS)
        .rev()
        .fold(TableBuilder::new(), |table, field| table.int(format!("f{field:03}"), 1));
    let table = bound(1_000, |number| TableBuilder::new().long("z", i64::from(number)));
    let messages = [(properties(crowd.long("z", 7)), vec![7])];
    bench_routes(criterion, BenchmarkId::new("hostile, crowd", 1_000), &table, &messages);
}

criterion_group!(headers, modes, extremes, hostile);
criterion_main!(headers);
