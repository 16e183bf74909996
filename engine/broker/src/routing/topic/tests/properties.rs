//! Long histories of changes, compared with the naive matcher.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{naive_matches, reported};
use crate::routing::topic::{Matcher, Pattern, TopicBuilder, TopicSamples, TopicTable};

type Bindings = BTreeSet<(Vec<u8>, u32)>;

/// What `key` reaches: each destination once per normal form.
fn expected(bindings: &Bindings, key: &[u8]) -> Vec<u32> {
    let matching = bindings.iter().filter(|(pattern, _)| naive_matches(pattern, key));
    let distinct: BTreeSet<(Vec<u8>, u32)> = matching
        .map(|(pattern, destination)| (Pattern::parse(pattern).key().to_vec(), *destination))
        .collect();
    let mut destinations: Vec<u32> =
        distinct.into_iter().map(|(_, destination)| destination).collect();
    destinations.sort_unstable();
    destinations
}

#[derive(Clone, Debug)]
enum Change {
    Insert(Vec<u8>, u32),
    Remove(Vec<u8>, u32),
    /// Removes a binding that exists, by its place among them.
    RemoveNth(usize),
    Snapshot,
    Compact,
}

fn key(word: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    vec(word, 0..6).prop_map(|words| words.join(".").into_bytes())
}

fn binding_key() -> impl Strategy<Value = Vec<u8>> {
    let wildcard = prop_oneof![Just("*".to_owned()), Just("#".to_owned())];
    // Twelve one-letter words: some nodes have more edges than are scanned in order.
    key(prop_oneof![2 => wildcard, 1 => "[ab]?", 1 => "[a-l]"])
}

fn routing_key() -> impl Strategy<Value = Vec<u8>> {
    key(prop_oneof![3 => "[ab]?", 2 => "[a-n]", 1 => "[*#]"])
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (binding_key(), 0..3_u32).prop_map(|(key, to)| Change::Insert(key, to)),
        1 => (binding_key(), 0..3_u32).prop_map(|(key, to)| Change::Remove(key, to)),
        3 => any::<usize>().prop_map(Change::RemoveNth),
        2 => Just(Change::Snapshot),
        1 => Just(Change::Compact),
    ]
}

fn check(table: &TopicTable, bindings: &Bindings, keys: &[Vec<u8>], matcher: &mut Matcher) {
    assert_eq!(table.len(), bindings.len());
    for key in keys {
        assert_eq!(
            reported(table, matcher, key),
            expected(bindings, key),
            "{:?} among {:?}",
            String::from_utf8_lossy(key),
            bindings
        );
    }
}

fn apply(builder: &mut TopicBuilder, bindings: &mut Bindings, change: Change) {
    match change {
        Change::Insert(key, destination) => {
            let added = builder.insert(&key, destination);
            assert_eq!(added, Ok(bindings.insert((key, destination))));
        }
        Change::Remove(key, destination) => {
            let removed = builder.remove(&key, destination);
            assert_eq!(removed, bindings.remove(&(key, destination)));
        }
        Change::RemoveNth(nth) => {
            let nth = nth % bindings.len().max(1);
            if let Some((key, destination)) = bindings.iter().nth(nth).cloned() {
                assert!(builder.remove(&key, destination));
                bindings.remove(&(key, destination));
            }
        }
        Change::Snapshot => {
            let table = builder.snapshot();
            assert!(Arc::ptr_eq(&table, &builder.snapshot()), "nothing changed in between");
        }
        Change::Compact => {
            builder.compact();
            assert!(!builder.compact(), "nothing is left to do");
            assert!(builder.snapshot().levels() <= 1);
        }
    }
    assert_eq!(builder.len(), bindings.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Any history of changes ends in a table that routes like the naive matcher; and the tables
    /// taken on the way still route as on the day they were taken.
    #[test]
    fn histories(
        changes in vec(change(), 0..220),
        keys in vec(routing_key(), 12),
        seed in any::<u64>(),
    ) {
        let mut builder = TopicBuilder::new(seed);
        let mut bindings = Bindings::new();
        let mut taken = Vec::new();
        let mut matcher = Matcher::new();
        for change in changes {
            let snapshot = matches!(change, Change::Snapshot);
            apply(&mut builder, &mut bindings, change);
            if snapshot {
                taken.push((builder.snapshot(), bindings.clone()));
            }
        }
        taken.push((builder.snapshot(), bindings));
        for (table, bindings) in &taken {
            check(table, bindings, &keys, &mut matcher);
        }
    }
}

/// Thousands of bindings, so that entries climb three levels, slots die in the middle ones, and
/// numbers of words are used again.
#[test]
fn a_long_history() {
    let mut samples = TopicSamples::new(11);
    let mut builder = TopicBuilder::new(12);
    let mut bindings = Bindings::new();
    let mut matcher = Matcher::new();
    for round in 0..60_u32 {
        for step in 0..150 {
            let mut key = samples.binding_key();
            if step % 2 == 0 {
                // Many words of few uses beside few words of many.
                key.extend_from_slice(format!(".{}.#", (round * 7 + step) % 400).as_bytes());
            }
            apply(&mut builder, &mut bindings, Change::Insert(key, step % 5));
            if step % 3 == 0 {
                let nth = (round * 131 + step * 17) as usize;
                apply(&mut builder, &mut bindings, Change::RemoveNth(nth));
            }
            if step % 10 == 9 {
                builder.snapshot();
            }
        }
        if round % 20 == 19 {
            for _ in 0..bindings.len() * 3 / 4 {
                apply(&mut builder, &mut bindings, Change::RemoveNth(round as usize));
            }
        }
        let mut keys: Vec<Vec<u8>> = (0..6).map(|_| samples.routing_key()).collect();
        keys.push(format!("a.b.{}.x", round * 7).into_bytes());
        check(&builder.snapshot(), &bindings, &keys, &mut matcher);
    }
    assert!(bindings.len() > 512, "the history was too short: {}", bindings.len());
    assert!(builder.compact());
    let keys: Vec<Vec<u8>> = (0..50).map(|_| samples.routing_key()).collect();
    check(&builder.snapshot(), &bindings, &keys, &mut matcher);
}

/// The source of keys for tests against another broker is worth its name: its keys meet.
#[test]
fn samples_match_often_enough() {
    let mut samples = TopicSamples::new(1);
    let mut repeated = TopicSamples::new(1);
    let mut matching = 0;
    for _ in 0..1_000 {
        let (pattern, key) = (samples.binding_key(), samples.routing_key());
        assert_eq!((&pattern, &key), (&repeated.binding_key(), &repeated.routing_key()));
        matching += u32::from(naive_matches(&pattern, &key));
    }
    assert!((50..500).contains(&matching), "{matching} of 1,000");
}
