//! Tests of topic routing against a matcher that is obviously right.

mod cases;
mod cost;
mod parts;
mod properties;

use super::{Matcher, TopicTable};

/// Whether `pattern` matches `key`, straight from the definition and word by word.
fn naive_matches(pattern: &[u8], key: &[u8]) -> bool {
    fn matches(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
        match pattern {
            [] => key.is_empty(),
            [b"#", rest @ ..] => (0..=key.len()).any(|taken| matches(rest, &key[taken..])),
            [b"*", rest @ ..] => !key.is_empty() && matches(rest, &key[1..]),
            [word, rest @ ..] => key.first() == Some(word) && matches(rest, &key[1..]),
        }
    }
    matches(&naive_words(pattern), &naive_words(key))
}

fn naive_words(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() { Vec::new() } else { key.split(|&byte| byte == b'.').collect() }
}

/// The destinations `table` reports for `key`, sorted, with repetitions.
fn reported(table: &TopicTable, matcher: &mut Matcher, key: &[u8]) -> Vec<u32> {
    let mut destinations = Vec::new();
    matcher.matches(table, key, &mut |destination| {
        destinations.push(destination);
    });
    destinations.sort_unstable();
    destinations
}
