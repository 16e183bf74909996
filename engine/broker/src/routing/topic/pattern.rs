//! Binding keys as patterns.

/// Whether `key` has no wildcard word: then it matches exactly one routing key, itself, and
/// belongs in a hash map rather than in a trie. `a*` and `#b` are ordinary words.
pub fn is_literal(key: &[u8]) -> bool {
    // Most keys have no wildcard byte at all, and then the words need not be found.
    !key.iter().any(|&byte| matches!(byte, b'*' | b'#'))
        || !words(key).any(|word| matches!(word, b"*" | b"#"))
}

/// The words of a key between its dots. The empty key has none; `.` has two empty ones.
pub(super) fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let limit = if key.is_empty() { 0 } else { usize::MAX };
    key.split(|&byte| byte == b'.').take(limit)
}

/// A binding key in normal form: two keys that match the same routing keys because they differ
/// only in the order of neighbouring wildcards have one normal form.
///
/// A run of `k` stars and at least one hash asks for `k` words or more, whatever their order, so it
/// becomes `k` stars and then one hash: `#.*.#` and `*.#` are the same pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    key: Vec<u8>,
}

impl Pattern {
    /// The normal form of a binding key. Every sequence of bytes is a valid key.
    pub fn parse(key: &[u8]) -> Self {
        let mut normal = Vec::with_capacity(key.len() + 1);
        let mut hash = false;
        for word in words(key) {
            match word {
                b"#" => hash = true,
                b"*" => normal.extend_from_slice(b"*."),
                literal => {
                    if std::mem::take(&mut hash) {
                        normal.extend_from_slice(b"#.");
                    }
                    normal.extend_from_slice(literal);
                    normal.push(b'.');
                }
            }
        }
        if hash {
            normal.extend_from_slice(b"#.");
        }
        // Each word was written with a dot behind it; the last one has none.
        normal.pop();
        Self { key: normal }
    }

    /// The normal form as a binding key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The words of the normal form, wildcards included.
    pub fn words(&self) -> impl Iterator<Item = &[u8]> {
        words(&self.key)
    }
}
