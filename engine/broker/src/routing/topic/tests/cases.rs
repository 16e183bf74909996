//! The meaning of patterns, case by case: the behaviours that `RabbitMQ`'s own tests of its topic
//! exchange ask for, with cases of our own.

use super::{naive_matches, reported};
use crate::routing::topic::{Matcher, TopicBuilder, is_literal};

/// Pattern, routing keys it matches, routing keys it does not match. A key stands in brackets, so
/// that the empty one can be seen.
const CASES: &[(&str, &str, &str)] = &[
    // The empty key has no words.
    ("", "[]", "[a] [.] [..]"),
    ("#", "[] [a] [.] [a.b.c] [..a]", ""),
    ("*", "[a] [*] [#]", "[] [.] [a.b]"),
    ("*.*", "[a.b] [.] [a.] [.a]", "[] [a] [..]"),
    // Empty words are words.
    ("a.", "[a.]", "[a] [a..] [.a]"),
    (".a", "[.a]", "[a] [a.] [..a]"),
    ("a..b", "[a..b]", "[a.b] [a...b]"),
    ("a.*", "[a.] [a.b]", "[a] [a..]"),
    ("a.#", "[a] [a.] [a.b] [a...]", "[] [b.a] [aa]"),
    ("..#", "[.] [..] [..a]", "[] [a] [a.]"),
    (".#.", "[.] [..] [.a.]", "[] [a] [.a]"),
    // One wildcard, in each place.
    ("*.b.c", "[a.b.c] [.b.c]", "[b.c] [a.a.b.c]"),
    ("a.*.c", "[a.b.c] [a..c]", "[a.c] [a.b.b.c]"),
    ("#.c", "[c] [b.c] [a.b.c] [.c]", "[] [c.a] [c.]"),
    ("a.#.c", "[a.c] [a.b.c] [a..c] [a.c.c]", "[a] [c] [a.c.b]"),
    // Runs of wildcards mean how many words at least.
    ("*.#", "[a] [a.b] [.]", "[]"),
    ("#.*", "[a] [a.b] [.]", "[]"),
    ("*.#.*", "[a.b] [.] [a.b.c]", "[] [a]"),
    ("#.*.#", "[a] [a.b.c]", "[]"),
    ("#.#", "[] [a] [a.b]", ""),
    ("#.#.#.a", "[a] [a.a] [b.a]", "[] [a.b]"),
    ("#.*.#.*.#", "[a.b] [a.b.c]", "[] [a]"),
    ("a.*.#.*.b", "[a.x.y.b] [a.x.y.z.b]", "[a.b] [a.x.b]"),
    // Several `#` with words between them.
    ("#.a.#", "[a] [b.a.b] [a.a]", "[] [b] [ab]"),
    ("#.a.#.b.#", "[a.b] [x.a.x.b.x] [b.a.b]", "[a] [b.a] [b.a.a]"),
    ("#.a.#.a.#", "[a.a] [a.b.a] [a.a.a.a]", "[a] [b.a.b]"),
    ("a.#.b.#.c", "[a.b.c] [a.b.b.c.c] [a.x.b.y.c]", "[a.c] [a.c.b] [a.b.c.d]"),
    ("*.#.a.*.#.b", "[x.a.y.b] [x.y.a.b.b] [x.a.a.z.b]", "[a.y.b] [x.a.b]"),
    // Wildcard characters inside a word are ordinary, as is a wildcard in a routing key.
    ("a*", "[a*]", "[ab] [a]"),
    ("#a.*", "[#a.b] [#a.]", "[a.b] [x.a.b]"),
    ("**.#", "[**] [**.a]", "[*] [a.b]"),
    ("a.*.b", "[a.#.b] [a.*.b]", "[#.b] [a.b]"),
    // Bytes are compared as bytes, whatever their length.
    ("é.*", "[é.x]", "[e.x] [É.x]"),
    ("exactly-16-bytes.*", "[exactly-16-bytes.a]", "[exactly-16-bytez.a] [exactly.a]"),
    (
        "this-word-is-longer-than-16-bytes.#",
        "[this-word-is-longer-than-16-bytes]",
        "[this-word-is-longer-than-16-bytez] [this-word-is-longer-than-16-byte] [this-wor]",
    ),
];

fn keys(list: &str) -> impl Iterator<Item = &str> {
    list.split(' ').filter(|key| !key.is_empty()).map(|key| {
        let inner = key.strip_prefix('[').and_then(|key| key.strip_suffix(']'));
        inner.expect("keys stand in brackets")
    })
}

#[test]
fn each_pattern_alone() {
    let mut matcher = Matcher::new();
    for &(pattern, matching, others) in CASES {
        let mut builder = TopicBuilder::new(1);
        assert_eq!(builder.insert(pattern.as_bytes(), 5), Ok(true));
        let table = builder.snapshot();
        for key in keys(matching) {
            assert_eq!(reported(&table, &mut matcher, key.as_bytes()), [5], "{pattern:?} {key:?}");
            assert!(naive_matches(pattern.as_bytes(), key.as_bytes()), "{pattern:?} {key:?}");
        }
        for key in keys(others) {
            assert_eq!(reported(&table, &mut matcher, key.as_bytes()), [], "{pattern:?} {key:?}");
            assert!(!naive_matches(pattern.as_bytes(), key.as_bytes()), "{pattern:?} {key:?}");
        }
    }
}

#[test]
fn all_patterns_in_one_table() {
    let mut builder = TopicBuilder::new(2);
    for (&(pattern, ..), destination) in CASES.iter().zip(0..) {
        assert_eq!(builder.insert(pattern.as_bytes(), destination), Ok(true));
    }
    let table = builder.snapshot();
    assert_eq!(table.len(), CASES.len());
    let mut matcher = Matcher::new();
    for key in CASES.iter().flat_map(|&(_, matching, others)| keys(matching).chain(keys(others))) {
        let expected: Vec<u32> = (0..)
            .zip(CASES)
            .filter(|&(_, &(pattern, ..))| naive_matches(pattern.as_bytes(), key.as_bytes()))
            .map(|(destination, _)| destination)
            .collect();
        assert_eq!(reported(&table, &mut matcher, key.as_bytes()), expected, "{key:?}");
    }
}

#[test]
fn literal_keys_are_told_from_patterns() {
    for literal in ["", "a", "a.b", ".", "a*", "#b.c", "**", "##.a", "a.*b", "é"] {
        assert!(is_literal(literal.as_bytes()), "{literal:?}");
    }
    for pattern in ["*", "#", "a.*", "*.a", "a.#.b", ".#", "a*.#", "*."] {
        assert!(!is_literal(pattern.as_bytes()), "{pattern:?}");
    }
}

#[test]
fn an_empty_table_matches_nothing() {
    let mut builder = TopicBuilder::new(3);
    let empty = builder.snapshot();
    assert!(empty.is_empty() && empty.levels() == 0);
    assert_eq!(reported(&empty, &mut Matcher::new(), b"a"), []);
    builder.insert(b"#", 1).unwrap();
    assert!(builder.remove(b"#", 1));
    assert!(builder.is_empty() && builder.snapshot().levels() == 0);
}

/// A pattern leaves nothing behind for its neighbours when it goes: `a.*.c` shares nodes with both.
#[test]
fn removal_leaves_neighbours() {
    let mut builder = TopicBuilder::new(4);
    for (key, destination) in [("a.*", 1), ("a.*.c", 2), ("a.*.c.#", 3), ("a.*.c", 4)] {
        builder.insert(key.as_bytes(), destination).unwrap();
    }
    let before = builder.snapshot();
    assert!(builder.remove(b"a.*.c", 2));
    assert!(!builder.remove(b"a.*.c", 2));
    assert!(!builder.remove(b"a.b.c", 4));
    let after = builder.snapshot();
    let mut matcher = Matcher::new();
    assert_eq!(reported(&before, &mut matcher, b"a.b.c"), [2, 3, 4]);
    assert_eq!(reported(&after, &mut matcher, b"a.b.c"), [3, 4]);
    assert_eq!(reported(&after, &mut matcher, b"a.b"), [1]);
}

#[test]
fn one_normal_form_is_reported_once_and_lives_as_long_as_a_binding_has_it() {
    let mut builder = TopicBuilder::new(5);
    let mut matcher = Matcher::new();
    for key in ["#.*.a", "*.#.a", "#.*.#.a"] {
        assert_eq!(builder.insert(key.as_bytes(), 9), Ok(true));
        assert_eq!(builder.insert(key.as_bytes(), 9), Ok(false));
        assert_eq!(reported(&builder.snapshot(), &mut matcher, b"b.a"), [9]);
    }
    assert_eq!(builder.len(), 3);
    for key in ["*.#.a", "#.*.#.a"] {
        assert!(builder.remove(key.as_bytes(), 9));
        assert!(!builder.remove(key.as_bytes(), 9));
        assert_eq!(reported(&builder.snapshot(), &mut matcher, b"b.a"), [9]);
    }
    assert!(builder.remove(b"#.*.a", 9));
    assert!(builder.snapshot().is_empty());
    assert_eq!(reported(&builder.snapshot(), &mut matcher, b"b.a"), []);
}
