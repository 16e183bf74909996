//! Tests of the parts: normal form, splitting, the table of words, the bitmap.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{naive_matches, naive_words};
use crate::routing::topic::removed::Removed;
use crate::routing::topic::word::{Seed, UNKNOWN, Word, WordTable, split};
use crate::routing::topic::{
    KEY_BYTES_MAX, Matcher, Pattern, TopicBuilder, TopicError, TopicTable,
};

#[test]
fn normal_forms() {
    for (key, normal) in [
        ("", ""),
        ("#", "#"),
        ("#.#", "#"),
        ("#.*", "*.#"),
        ("*.#.*.#.*", "*.*.*.#"),
        ("#.a.#.*.b.*", "#.a.*.#.b.*"),
        (".#.#.", ".#."),
        ("a..*", "a..*"),
        (".", "."),
        ("*#.#*", "*#.#*"),
    ] {
        assert_eq!(Pattern::parse(key.as_bytes()).key(), normal.as_bytes(), "{key:?}");
    }
}

#[test]
fn keys_of_any_length_are_answered() {
    let mut builder = TopicBuilder::new(1);
    let long = vec![b'.'; KEY_BYTES_MAX + 1];
    assert_eq!(builder.insert(&long, 1), Err(TopicError::KeyTooLong(256)));
    assert!(!builder.remove(&long, 1));
    assert_eq!(builder.insert(&long[1..], 1), Ok(true));
    assert_eq!(builder.insert(b"#", 2), Ok(true));
    let table = builder.snapshot();
    let mut matcher = Matcher::new();
    assert_eq!(super::reported(&table, &mut matcher, &long[1..]), [1, 2]);
    assert_eq!(super::reported(&table, &mut matcher, &long), [2]);
}

#[test]
fn table_and_matcher_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Arc<TopicTable>>();
    crosses::<TopicBuilder>();
    crosses::<Matcher>();
}

#[test]
fn removed_slots_in_every_layer() {
    let slots = [0, 1, 63, 64, 4_095, 4_096, 262_143, 262_144, (1 << 22) - 1];
    let mut removed = Removed::default();
    assert!(removed.is_empty());
    let mut earlier = vec![removed.clone()];
    for slot in slots {
        assert!(!removed.contains(slot));
        removed.insert(slot);
        earlier.push(removed.clone());
    }
    for (count, removed) in earlier.iter().enumerate() {
        for (index, &slot) in slots.iter().enumerate() {
            assert_eq!(removed.contains(slot), index < count, "{slot} after {count}");
        }
        assert!(!removed.contains(2) && !removed.contains(8_192) && !removed.contains(1 << 20));
    }
}

/// Words that agree in length and in the bytes at their ends, so that only exact comparison tells
/// them apart, and every length around the borders of the packing.
#[test]
fn similar_words_are_told_apart() {
    let mut words: Vec<Vec<u8>> = (0..40).map(|length| vec![b'x'; length]).collect();
    for length in [2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 33] {
        for at in 0..length {
            let mut word = vec![b'x'; length];
            word[at] = b'y';
            words.push(word);
        }
    }
    let seed = Seed::new(3);
    let (known, unknown) = words.split_at(words.len() / 2);
    let ids = known.iter().zip(2..).map(|(word, id)| (id, &**word));
    let table = WordTable::new(seed, ids.collect::<Vec<_>>().into_iter());
    let find = |word: &[u8]| table.find(Word::new(seed, word, 0, word.len()), word);
    for (word, id) in known.iter().zip(2..) {
        assert_eq!(find(word), id);
    }
    for word in unknown {
        assert_eq!(find(word), UNKNOWN, "{word:?}");
    }
}

fn byte() -> impl Strategy<Value = u8> {
    // `/` and `-` stand beside the dot, and 0xae is a dot with its top bit set.
    let neighbours = prop_oneof![Just(b'/'), Just(b'-'), Just(0xae)];
    prop_oneof![3 => Just(b'.'), 3 => neighbours, 2 => any::<u8>()]
}

proptest! {
    #[test]
    fn splitting_finds_every_word(key in vec(byte(), 0..80), seed in any::<u64>()) {
        let seed = Seed::new(seed);
        let mut words = Vec::new();
        split(seed, &key, &mut words);
        let expected = naive_words(&key);
        prop_assert_eq!(words.len(), expected.len());
        // A word is found under its own bytes, wherever in a key it stands.
        for (word, bytes) in words.into_iter().zip(expected) {
            let table = WordTable::new(seed, [(7, bytes)].into_iter());
            prop_assert_eq!(table.find(word, &key), 7);
        }
    }

    #[test]
    fn a_normal_form_means_the_same(
        pattern in vec(prop_oneof!["\\*", "#", "a", ""], 0..7),
        keys in vec(vec(prop_oneof!["a", "b", ""], 0..7), 20),
    ) {
        let pattern = pattern.join(".");
        let normal = Pattern::parse(pattern.as_bytes());
        prop_assert_eq!(&Pattern::parse(normal.key()), &normal);
        for key in keys {
            let key = key.join(".");
            prop_assert_eq!(
                naive_matches(pattern.as_bytes(), key.as_bytes()),
                naive_matches(normal.key(), key.as_bytes()),
                "{} and {:?} for {}", pattern, normal, key
            );
        }
    }
}
