//! What a field table costs: checked when it arrives, then read in place.
//!
//! Stands for the tables that clients send: none with most methods, their properties once per
//! connection, `x-death` with each message that was dead-lettered, application headers with each
//! message of firms that trace. `parse` is paid by every publish with headers, whether anybody
//! reads them or not, so it matters most; `walk` and `get` are paid by headers exchanges and
//! dead-lettering. The time must grow with the number of values alone: a case of 1,000 fields is a
//! hundred times one of ten, and the hostile cases (nested to the limit, as many values as are
//! allowed) cost per value what a harmless table costs.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use leveret_amqp::table::{DEPTH_MAX, VALUE_COUNT_MAX};
use leveret_amqp::{ArrayBuilder, OwnedTable, TableBuilder, TableError, TableRef, Value};

/// A table as it comes from the wire, how many values it has (nested ones included) and how many
/// fields (outermost ones only).
struct Sample {
    name: &'static str,
    table: OwnedTable,
    values: usize,
    fields: usize,
}

/// What clients send, from nothing to far more than anybody needs.
fn samples() -> Vec<Sample> {
    let sample = |name, table: OwnedTable, values| {
        let fields = table.as_ref().iter().count();
        Sample { name, table, values, fields }
    };
    let entries =
        (0..1_000).fold(TableBuilder::new(), |table, n| table.int(format!("entry-{n:04}"), n));
    vec![
        sample("empty", TableBuilder::new().finish(), 0),
        sample("client properties", client_properties(), 12),
        sample("headers", headers(), 20),
        sample("x-death", deaths(), 23),
        sample("1,000 entries", entries.finish(), 1_000),
    ]
}

/// What a client says of itself in `connection.start-ok`.
fn client_properties() -> OwnedTable {
    let capabilities = TableBuilder::new()
        .bool("publisher_confirms", true)
        .bool("exchange_exchange_bindings", true)
        .bool("basic.nack", true)
        .bool("consumer_cancel_notify", true)
        .bool("connection.blocked", true)
        .bool("authentication_failure_close", true)
        .finish();
    TableBuilder::new()
        .long_str("product", "RabbitMQ")
        .long_str("version", "5.22.0")
        .long_str("platform", "Java")
        .long_str("copyright", "Copyright (c) 2007-2024 Broadcom Inc. and/or its subsidiaries.")
        .long_str("information", "Licensed under the MPL. See https://www.rabbitmq.com/")
        .table("capabilities", &capabilities)
        .finish()
}

/// Application headers: four of tracing and origin, and 16 short strings.
fn headers() -> OwnedTable {
    let first = TableBuilder::new()
        .long_str("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .bool("retried", true)
        .long("offset", 1 << 40)
        .timestamp("created", 1_700_000_000);
    let table = (0..16).fold(first, |table, number| {
        table.long_str(format!("x-application-header-{number}"), "some short value")
    });
    table.finish()
}

/// A message that went round twice: rejected in one queue, expired in another.
fn deaths() -> OwnedTable {
    let death = |reason: &str, queue: &str| {
        TableBuilder::new()
            .long("count", 7)
            .long_str("reason", reason)
            .long_str("queue", queue)
            .timestamp("time", 1_700_000_000)
            .long_str("exchange", "work.retry")
            .array("routing-keys", &ArrayBuilder::new().long_str("order.created"))
            .finish()
    };
    let deaths = ArrayBuilder::new()
        .table(&death("rejected", "work"))
        .table(&death("expired", "work.wait.30s"))
        .table(&TableBuilder::new().long_str("reason", "maxlen").finish());
    TableBuilder::new()
        .array("x-death", &deaths)
        .long_str("x-first-death-exchange", "work.retry")
        .long_str("x-first-death-queue", "work")
        .long_str("x-first-death-reason", "rejected")
        .long_str("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .finish()
}

/// The values of a table, those of nested tables and arrays included: the bench's own count.
fn count_values(table: TableRef<'_>) -> usize {
    table.iter().map(|(_, value)| count_value(value)).sum()
}

fn count_value(value: Value<'_>) -> usize {
    1 + match value {
        Value::Table(table) => count_values(table),
        Value::Array(array) => array.iter().map(count_value).sum(),
        _ => 0,
    }
}

/// Checking octets from the wire: what arrival costs.
fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table/parse");
    for sample in samples() {
        let octets = sample.table.as_bytes();
        let parsed = TableRef::parse(octets).expect("a valid table");
        assert_eq!(count_values(parsed), sample.values, "{}", sample.name);
        if let Some((_, cut)) = octets.split_last() {
            assert_eq!(TableRef::parse(cut), Err(TableError::Truncated));
        }
        group.throughput(Throughput::Elements(sample.values.max(1) as u64));
        group.bench_function(sample.name, |bencher| {
            bencher.iter(|| TableRef::parse(black_box(octets)).is_ok());
        });
    }
    group.finish();
}

/// Reading all fields of a checked table, and looking for one that is not there, which costs the
/// same without the values.
fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table/read");
    for sample in samples() {
        let table = sample.table.as_ref();
        group.throughput(Throughput::Elements(sample.fields.max(1) as u64));
        group.bench_function(BenchmarkId::new("walk", sample.name), |bencher| {
            bencher.iter(|| black_box(table).iter().map(|(name, _)| name.len()).sum::<usize>());
        });
        assert_eq!(table.get("nobody"), None);
        group.bench_function(BenchmarkId::new("get, miss", sample.name), |bencher| {
            bencher.iter(|| black_box(table).get(black_box("nobody")).is_some());
        });
        let Some((last, value)) = table.iter().last() else {
            continue;
        };
        assert_eq!(table.get(last), Some(value), "the last field of {}", sample.name);
        group.bench_function(BenchmarkId::new("get, last", sample.name), |bencher| {
            bencher.iter(|| black_box(table).get(black_box(last)).is_some());
        });
    }
    group.finish();
}

/// What a broker pays to add headers of its own: dead-lettering rewrites the table.
fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table/build");
    let built = deaths();
    assert_eq!(built.get("x-first-death-reason"), Some(Value::LongStr(b"rejected")));
    group.bench_function("x-death", |bencher| bencher.iter(deaths));
    group.finish();
}

/// Tables that mean harm: nested to the limit (and one level more, which is refused), as many
/// values as are allowed in the fewest octets (and one more), and a chain that ends in an error
/// only with its last octet.
fn hostile(criterion: &mut Criterion) {
    let nested = |levels: usize| {
        (1..levels).fold(TableBuilder::new().finish(), |inner, _| {
            TableBuilder::new().table("", &inner).finish()
        })
    };
    let wide = |values: usize| {
        // A field without a name and without a value: two octets.
        (0..values).fold(TableBuilder::new(), |table, _| table.value("", Value::Void)).finish()
    };
    let many_nested = |tables: usize| {
        let inner = nested(DEPTH_MAX - 1);
        (0..tables).fold(TableBuilder::new(), |table, _| table.table("", &inner)).finish()
    };
    let (deep, full) = (DEPTH_MAX, VALUE_COUNT_MAX);
    // Each of the nested tables is `DEPTH_MAX - 1` values: the innermost table is empty.
    let towers = full / (DEPTH_MAX - 1);
    let mut late_error = wide(full - 1).as_bytes().to_vec();
    late_error.extend_from_slice(b"\0?");
    let cases = [
        ("deep", nested(deep).as_bytes().to_vec(), deep - 1, None),
        ("too deep", nested(deep + 1).as_bytes().to_vec(), deep, Some(TableError::TooDeep)),
        ("wide", wide(full).as_bytes().to_vec(), full, None),
        ("too wide", wide(full + 1).as_bytes().to_vec(), full, Some(TableError::TooManyValues)),
        ("towers", many_nested(towers).as_bytes().to_vec(), towers * (deep - 1), None),
        ("late error", late_error, full, Some(TableError::UnknownType(b'?'))),
    ];
    let mut group = criterion.benchmark_group("table/hostile");
    for (name, octets, values, refused) in cases {
        assert_eq!(TableRef::parse(&octets).err(), refused, "{name}");
        group.throughput(Throughput::Elements(values as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| TableRef::parse(black_box(&octets)).is_ok());
        });
    }
    group.finish();
}

criterion_group!(table, parse, read, build, hostile);
criterion_main!(table);
