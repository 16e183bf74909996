//! What topic routing costs: one match on a warm cache of one core, and one change.
//!
//! Stands for devices and services that subscribe by subject: one match is paid by every publish to
//! a topic exchange whose way is not cached, one change by every bind. Each group says which
//! situation it is. All keys are made beforehand, and a bench walks through many of them, so that
//! the branch predictor and the first cache do not know the answer.
//!
//! What a change means: `unicast` may grow with the words of a key and a little with the number of
//! patterns (cache misses), never in proportion to it; a miss must not cost more than a hit of the
//! same shape. `adversarial` is what a client can make others pay per message: the bound is the
//! words of the key times the nodes of all patterns, and a figure that grows faster than both is a
//! hole to shut. `change` is time of the control thread, which messages do not wait for.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main,
};
use leveret_broker::routing::topic::{Matcher, TopicBuilder, TopicTable};

/// Keys of one bench: more than a branch predictor learns, few enough for the second cache.
const KEYS: u32 = 1_024;

/// The number of patterns of which there is a table of every shape.
const SHAPED_PATTERNS: u32 = 100_000;

/// Spreads consecutive numbers over 32 bits, so that neighbours in a bench are none in the trie.
fn spread(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1)
}

/// As criterion decides: `cargo bench` passes `--bench`, `cargo test` does not and only asks
/// whether the benches work, for which small tables do.
fn measures() -> bool {
    let given = |flag: &str| std::env::args().any(|argument| argument == flag);
    given("--bench") && !given("--test")
}

/// A table's number of patterns, or few of them where nothing is measured.
fn patterns_of(patterns: u32) -> u32 {
    if measures() { patterns } else { patterns.min(1_000) }
}

fn table(patterns: impl Iterator<Item = String>) -> Arc<TopicTable> {
    let mut builder = TopicBuilder::new(1);
    for (pattern, destination) in patterns.zip(0..) {
        builder.insert(pattern.as_bytes(), destination).expect("short keys, few of them");
    }
    builder.snapshot()
}

/// Words before the last of pattern or key number `number`: place, building, … of a device.
fn prefix(number: u32, words: u32) -> Vec<String> {
    (0..words - 1).map(|level| format!("site{level}-{}", number / 100 % 100)).collect()
}

/// A pattern of `words` words with `hashes` of `#` and one `*`, which ends in a device of its own;
/// `prefix` and the device with a `#` are told apart by the number alone.
fn pattern(number: u32, words: u32, hashes: u32) -> String {
    let mut parts = prefix(number, words);
    if let Some(part) = parts.get_mut(1) {
        "*".clone_into(part);
    }
    parts.push(format!("device{number}"));
    for nth in 0..hashes {
        // From the end towards the start: `….device7.#`, `….#.device7.#`, `…#.….#.device7.#`.
        parts.insert(parts.len().saturating_sub(2 * nth as usize), "#".to_owned());
    }
    if words == 1 && hashes == 0 { format!("*.{}", parts[0]) } else { parts.join(".") }
}

/// A routing key for `pattern(number, words, hashes)`, or one that differs in the last word.
fn key(number: u32, words: u32, hashes: u32, hit: bool) -> String {
    let mut parts = prefix(number, words);
    parts.push(format!("{}{number}", if hit { "device" } else { "nobody" }));
    if words == 1 && hashes == 0 {
        parts.insert(0, "site".to_owned());
    }
    parts.join(".")
}

/// One match after the other over `keys`, each with the same `expected` number of destinations.
fn bench_keys(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    table: &TopicTable,
    keys: &[String],
    expected: usize,
) {
    let mut matcher = Matcher::new();
    for key in keys {
        let mut count = 0;
        matcher.matches(table, key.as_bytes(), &mut |_| count += 1);
        assert_eq!(count, expected, "{key}");
    }
    let mut keys = keys.iter().cycle();
    group.bench_function(id, |bencher| {
        bencher.iter(|| {
            let mut sum = 0_u32;
            if let Some(key) = keys.next() {
                matcher.matches(table, black_box(key.as_bytes()), &mut |to| sum ^= to);
            }
            sum
        });
    });
}

/// Devices that each subscribe to their own subject: tables of 10 to a million patterns that all
/// differ, keys that reach exactly one of them or none; and other shapes of as many patterns.
fn sizes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic/unicast");
    let sizes: &[u32] =
        if measures() { &[10, 1_000, 10_000, SHAPED_PATTERNS, 1_000_000] } else { &[10, 1_000] };
    let shapes = [1, 4, 12].into_iter().flat_map(|words| [0, 1, 3].map(|hashes| (words, hashes)));
    for &patterns in sizes {
        for (words, hashes) in shapes.clone() {
            // All shapes of all sizes would take two minutes.
            if patterns != SHAPED_PATTERNS && (words, hashes) != (4, 1) {
                continue;
            }
            let table = table((0..patterns).map(|number| pattern(number, words, hashes)));
            for hit in [true, false] {
                let keys: Vec<String> = (0..KEYS)
                    .map(|number| key(spread(number) % patterns, words, hashes, hit))
                    .collect();
                let name =
                    format!("{words} words, {hashes} #, {}", if hit { "hit" } else { "miss" });
                let id = BenchmarkId::new(name, patterns);
                bench_keys(&mut group, id, &table, &keys, usize::from(hit));
            }
        }
    }
    group.finish();
}

/// A table that grew bind by bind, each with a snapshot, and has not been compacted since: what
/// several levels cost a message, beside the same table after `compact`.
fn levels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic/levels");
    let patterns = patterns_of(10_000);
    let mut builder = TopicBuilder::new(1);
    for number in 0..patterns {
        builder.insert(pattern(number, 4, 1).as_bytes(), number).expect("room for all");
        builder.snapshot();
    }
    let keys: Vec<String> =
        (0..KEYS).map(|number| key(spread(number) % patterns, 4, 1, true)).collect();
    for name in ["grown", "compact"] {
        let table = builder.snapshot();
        let id = BenchmarkId::new(name, format!("{} levels", table.levels()));
        bench_keys(&mut group, id, &table, &keys, 1);
        builder.compact();
    }
    group.finish();
}

/// News to many: one message reaches 1, 100 or 10,000 destinations, by one pattern or by a pattern
/// for each, which have `*` in place of some of the 14 words.
fn fan_out(criterion: &mut Criterion) {
    const WORDS: u32 = 14;
    let mut group = criterion.benchmark_group("topic/fan-out");
    let words: Vec<String> = (0..WORDS).map(|place| format!("word{place}")).collect();
    let keys = vec![words.join(".")];
    for destinations in [1, 100, patterns_of(10_000)] {
        let one = table((0..destinations).map(|_| "word0.#".to_owned()));
        let each = table((0..destinations).map(|number| {
            let words = (0..WORDS).map(|place| match number >> place & 1 {
                0 => &*words[place as usize],
                _ => "*",
            });
            words.collect::<Vec<_>>().join(".")
        }));
        let id = BenchmarkId::new("one pattern", destinations);
        bench_keys(&mut group, id, &one, &keys, destinations as usize);
        let id = BenchmarkId::new("many patterns", destinations);
        bench_keys(&mut group, id, &each, &keys, destinations as usize);
    }
    group.finish();
}

/// A client that means harm: 63 `#` with an `a` behind each against a key of 128 `a`, where
/// backtracking would not end; a thousand patterns of eleven `#` each; ten thousand patterns of `#`
/// on both sides, which a key of the same word over and over almost meets at each of its words; and
/// patterns of all mixtures of a word and `*`, whose common last word is never met.
fn adversarial(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic/adversarial");
    let long_key = vec!["a.".repeat(127) + "a"];
    let deep = table(std::iter::once("#.a.".repeat(63) + "#"));
    bench_keys(&mut group, BenchmarkId::new("63 #", "128 words"), &deep, &long_key, 1);
    let deep = table(std::iter::once("#.a.".repeat(63) + "b"));
    bench_keys(&mut group, BenchmarkId::new("63 # in vain", "128 words"), &deep, &long_key, 0);
    let wide = table((0..1_024_u32).map(|number| {
        let letters = (0..10).map(|bit| if number >> bit & 1 == 0 { "a" } else { "b" });
        format!("#.{}.#", letters.collect::<Vec<_>>().join(".#."))
    }));
    let key = vec!["a.b.".repeat(63) + "a.b"];
    bench_keys(&mut group, BenchmarkId::new("1,024 × 11 #", "128 words"), &wide, &key, 1_024);
    let contains = table((0..patterns_of(10_000)).map(|number| format!("#.a.a.w{number}.#")));
    let id = BenchmarkId::new("10,000 × 2 # in vain", "128 words");
    bench_keys(&mut group, id, &contains, &long_key, 0);
    let key = vec!["a.".repeat(120) + "w7"];
    bench_keys(&mut group, BenchmarkId::new("10,000 × 2 #", "121 words"), &contains, &key, 1);
    let stars = table((0..patterns_of(4_096)).map(|number| {
        let words = (0..12).map(|bit| if number >> bit & 1 == 0 { "a" } else { "*" });
        words.chain(["b"]).collect::<Vec<_>>().join(".")
    }));
    let key = vec!["a.".repeat(12) + "a"];
    bench_keys(&mut group, BenchmarkId::new("4,096 × * in vain", "13 words"), &stars, &key, 0);
    group.finish();
}

/// What the control thread does for a client that binds: one bind or unbind with a snapshot of its
/// own beside 100,000 others (amortised: the rare merges are in the mean), a batch of a thousand
/// binds with one snapshot, and merging everything in idle time.
fn changes(criterion: &mut Criterion) {
    let patterns = patterns_of(100_000);
    let mut group = criterion.benchmark_group("topic/change at 100,000");
    let mut loaded = TopicBuilder::new(1);
    for number in 0..patterns {
        loaded.insert(pattern(number, 4, 1).as_bytes(), number).expect("room for all");
    }
    loaded.snapshot();
    let mut next = patterns;
    group.bench_function("bind", |bencher| {
        bencher.iter(|| {
            next += 1;
            loaded.insert(pattern(next, 4, 1).as_bytes(), next).expect("room for all");
            loaded.snapshot()
        });
    });
    group.bench_function("unbind", |bencher| {
        bencher.iter(|| {
            // The bench may ask for more than were bound before.
            if next == 0 {
                return loaded.snapshot();
            }
            loaded.remove(pattern(next, 4, 1).as_bytes(), next);
            next -= 1;
            loaded.snapshot()
        });
    });
    group.sample_size(10);
    let mut next = patterns;
    let mut builder = TopicBuilder::new(1);
    for number in 0..patterns {
        builder.insert(pattern(number, 4, 1).as_bytes(), number).expect("room for all");
    }
    group.bench_function("batch of 1,000 binds", |bencher| {
        bencher.iter(|| {
            for _ in 0..1_000 {
                next += 1;
                builder.insert(pattern(next, 4, 1).as_bytes(), next).expect("room for all");
            }
            builder.snapshot()
        });
    });
    group.bench_function("compact", |bencher| {
        bencher.iter_batched(
            || {
                let mut builder = TopicBuilder::new(1);
                for number in 0..patterns {
                    let key = pattern(number, 4, 1);
                    builder.insert(key.as_bytes(), number).expect("room for all");
                    if number % 8_000 == 0 {
                        builder.snapshot();
                    }
                }
                builder
            },
            |mut builder| {
                builder.compact();
                builder
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group! {
    name = topic;
    // Small samples: all of it takes about a minute.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .without_plots();
    targets = sizes, levels, fan_out, adversarial, changes
}
criterion_main!(topic);
