//! What matching and changing may cost, counted in steps rather than in time.

use super::reported;
use crate::routing::topic::{KEY_BYTES_MAX, Matcher, TopicBuilder};

/// `#.a.#.a.#…` against a key of 128 words: a backtracking matcher would take longer than the
/// universe has. Each node is visited at most once per word.
#[test]
fn many_hashes_cost_words_times_nodes() {
    let pattern = format!("{}#", "#.a.".repeat(63));
    assert!(pattern.len() <= KEY_BYTES_MAX);
    let all_a = ["a"; 128].join(".");
    let matching = &all_a[..KEY_BYTES_MAX];
    let failing_pattern = format!("{}b", "#.a.".repeat(63));
    for (pattern, expected) in [(pattern, &[1][..]), (failing_pattern, &[])] {
        let mut builder = TopicBuilder::new(1);
        builder.insert(pattern.as_bytes(), 1).unwrap();
        let table = builder.snapshot();
        let mut matcher = Matcher::new();
        assert_eq!(reported(&table, &mut matcher, matching.as_bytes()), expected);
        let (words, nodes) = (128, builder.work());
        assert_eq!(nodes, 128, "63 pairs, one more word, and the root");
        assert!(matcher.visited() <= words * nodes, "{} visits", matcher.visited());
        // All 63 hashes are kept before half of the key is read, so it is not trivially small.
        assert!(matcher.visited() > words * nodes / 4, "{} visits", matcher.visited());
    }
}

/// The same with a thousand patterns that share only beginnings, and two letters.
#[test]
fn many_hashes_in_many_patterns() {
    let mut builder = TopicBuilder::new(2);
    for number in 0..1_024_u32 {
        let letters = (0..10).map(|bit| if number >> bit & 1 == 0 { "a" } else { "b" });
        let pattern = format!("#.{}.#", letters.collect::<Vec<_>>().join(".#."));
        builder.insert(pattern.as_bytes(), number).unwrap();
    }
    let table = builder.snapshot();
    let nodes = builder.work();
    let mut matcher = Matcher::new();
    let key = "a.b.".repeat(64);
    let key = &key.as_bytes()[..KEY_BYTES_MAX];
    assert_eq!(reported(&table, &mut matcher, key).len(), 1_024, "each once");
    assert!(matcher.visited() <= 128 * nodes, "{} visits of {nodes} nodes", matcher.visited());
}

/// A key that leaves the trie costs nothing for the words behind.
#[test]
fn a_miss_ends_the_walk() {
    let mut builder = TopicBuilder::new(3);
    builder.insert(b"a.*.c", 1).unwrap();
    let table = builder.snapshot();
    let mut matcher = Matcher::new();
    assert_eq!(reported(&table, &mut matcher, ["b"; 100].join(".").as_bytes()), []);
    assert_eq!(matcher.visited(), 1);
}

fn device(number: u32) -> Vec<u8> {
    format!("region{}.*.device{number}.#", number % 100).into_bytes()
}

/// Work per change of `range`, where every change is followed by a snapshot.
fn bind_each(builder: &mut TopicBuilder, range: std::ops::Range<u32>) -> f64 {
    let (before, count) = (builder.work(), range.len());
    for number in range {
        builder.insert(&device(number), number).unwrap();
        assert!(builder.snapshot().levels() <= 7);
    }
    (builder.work() - before) as f64 / count as f64
}

/// 100,000 binds and unbinds, each with a snapshot of its own: the cost per change grows by a level
/// where the table grows eightfold. An entry has up to four nodes of its own.
#[test]
fn a_change_does_not_cost_the_table() {
    let mut builder = TopicBuilder::new(4);
    let small = bind_each(&mut builder, 0..12_500);
    let large = bind_each(&mut builder, 12_500..100_000);
    assert!(small < 200.0, "{small} nodes per bind up to 12,500");
    assert!(large < 200.0, "{large} nodes per bind up to 100,000");
    assert!(large - small < 4.0 * 8.0, "less than one more level: {small} → {large}");

    let before = builder.work();
    for number in 0..100_000 {
        assert!(builder.remove(&device(number), number));
        builder.snapshot();
    }
    let unbind = (builder.work() - before) as f64 / 100_000.0;
    assert!(unbind < 6.0, "{unbind} units per unbind");
    assert!(builder.snapshot().levels() == 0);
}

/// A binding that comes and goes beside 20,000 others costs the smallest level only.
#[test]
fn coming_and_going() {
    let mut builder = TopicBuilder::new(5);
    for number in 0..20_000 {
        builder.insert(&device(number), number).unwrap();
    }
    let loaded = builder.snapshot();
    assert_eq!(loaded.levels(), 1, "one batch is one trie");
    let before = builder.work();
    for _ in 0..1_000 {
        builder.insert(b"*.visitor.#", 1).unwrap();
        builder.snapshot();
        assert!(builder.remove(b"*.visitor.#", 1));
        builder.snapshot();
    }
    assert!(builder.work() - before < 1_000 * 8, "{} units", builder.work() - before);
    assert_eq!(builder.snapshot().len(), 20_000);
}

/// What is merged in quiet moments is in proportion to what changed, not to the table.
#[test]
fn a_quiet_moment_does_not_cost_the_table() {
    let mut builder = TopicBuilder::new(7);
    for number in 0..20_000 {
        builder.insert(&device(number), number).unwrap();
        if number % 3_000 == 0 {
            builder.snapshot();
        }
    }
    assert!(builder.compact(), "all of it is new");
    assert_eq!(builder.snapshot().levels(), 1);
    let before = builder.work();
    for number in 20_000..20_100 {
        builder.insert(&device(number), number).unwrap();
        builder.snapshot();
        builder.compact();
        assert_eq!(builder.snapshot().levels(), 2);
    }
    // On average 50 entries of up to four nodes are merged, beside those of the snapshot.
    assert!(builder.work() - before < 100 * 2 * 50 * 4, "{} units", builder.work() - before);
    for number in 20_100..23_000 {
        builder.insert(&device(number), number).unwrap();
    }
    assert!(builder.compact() && builder.snapshot().levels() == 1, "an eighth of it is new");
}

/// One pattern with many destinations: a bind there is as cheap as elsewhere.
#[test]
fn a_wide_pattern() {
    let mut builder = TopicBuilder::new(6);
    for destination in 0..10_000 {
        builder.insert(b"news.#", destination).unwrap();
        builder.snapshot();
    }
    assert!(builder.work() < 10_000 * 8, "{} units", builder.work());
    let all: Vec<u32> = (0..10_000).collect();
    let mut matcher = Matcher::new();
    assert_eq!(reported(&builder.snapshot(), &mut matcher, b"news.today"), all);
    for destination in 0..5_000 {
        assert!(builder.remove(b"news.#", destination));
    }
    assert_eq!(reported(&builder.snapshot(), &mut matcher, b"news.today"), all[5_000..]);
}
