//! Random keys for tests against another broker.

use super::word::split_mix;

/// Few and short, so that random keys meet; two are longer than 8 and 16 bytes, where the packing
/// of words changes, and two only look like wildcards.
const WORDS: [&[u8]; 9] =
    [b"", b"a", b"b", b"ab", b"abcd", b"nine-byte", b"more-than-16-bytes", b"a*", b"#b"];

/// An endless, repeatable source of binding keys, and of routing keys that match some of them.
///
/// The same seed gives the same sequence on every machine, so a difference between two brokers can
/// be replayed from one number.
#[derive(Clone, Debug)]
pub struct TopicSamples {
    state: u64,
}

impl TopicSamples {
    /// A source; equal seeds give equal sequences.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A binding key of 0 to 7 words, about half of them wildcards; it may be without any, and may
    /// have many `#` (late versions of `RabbitMQ` refuse more than two).
    pub fn binding_key(&mut self) -> Vec<u8> {
        self.key(|samples| match samples.below(8) {
            0 | 1 => b"#",
            2 | 3 => b"*",
            _ => samples.word(),
        })
    }

    /// A routing key of 0 to 7 words; now and then one of them is `*` or `#`, which mean nothing
    /// there.
    pub fn routing_key(&mut self) -> Vec<u8> {
        self.key(|samples| match samples.below(32) {
            0 => b"#",
            1 => b"*",
            _ => samples.word(),
        })
    }

    fn key(&mut self, mut word: impl FnMut(&mut Self) -> &'static [u8]) -> Vec<u8> {
        let count = self.below(8);
        (0..count).map(|_| word(self)).collect::<Vec<_>>().join(&b'.')
    }

    fn word(&mut self) -> &'static [u8] {
        // The first three are half of all words.
        let at = if self.below(2) == 0 { self.below(3) } else { self.below(WORDS.len()) };
        WORDS[at]
    }

    fn below(&mut self, limit: usize) -> usize {
        (split_mix(&mut self.state) % limit as u64) as usize
    }
}
