//! Words of routing keys, and the table that names them with numbers.

/// Words up to this length, in bytes, are compared as two integers without touching their bytes.
const INLINE_BYTES: u32 = 16;

/// Secrets of the hashes of one exchange, so that a client cannot choose words that collide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    low: u64,
    high: u64,
}

impl Seed {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self { low: split_mix(&mut state), high: split_mix(&mut state) }
    }

    /// 64 well mixed bits of 128: the halves of a 128-bit product, folded.
    #[inline(always)]
    pub(super) fn fold(self, low: u64, high: u64) -> u64 {
        let product = u128::from(low ^ self.low) * u128::from(high ^ self.high);
        product as u64 ^ (product >> 64) as u64
    }
}

/// The next number of Steele and others' `SplitMix64` sequence.
pub(super) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// One word of a key, packed so that short words (nearly all) compare without their bytes.
///
/// ```text
///  bytes   low                      high
///  0       0                        0
///  1–3     first, middle, last      0
///  4–7     first 4                  last 4 (may overlap the first)
///  8–16    first 8                  last 8 (may overlap the first)
///  17–     hash                     0; the bytes are compared as well
/// ```
///
/// With the length, `low` and `high` are the whole word for up to 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    low: u64,
    high: u64,
    hash: u64,
    start: u32,
    length: u32,
}

impl Word {
    #[inline]
    pub(super) fn new(seed: Seed, key: &[u8], start: usize, end: usize) -> Self {
        let bytes = &key[start..end];
        let length = bytes.len() as u32;
        let (low, high) = pack(seed, bytes);
        let hash = seed.fold(low, high ^ u64::from(length) << 56);
        Self { low, high, hash, start: start as u32, length }
    }

    fn bytes(self, key: &[u8]) -> &[u8] {
        &key[self.start as usize..(self.start + self.length) as usize]
    }
}

#[inline]
fn pack(seed: Seed, bytes: &[u8]) -> (u64, u64) {
    let length = bytes.len();
    if length > INLINE_BYTES as usize {
        return (hash_long(seed, bytes), 0);
    }
    if let (Some(&first), Some(&last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u64::from_le_bytes(first), u64::from_le_bytes(last));
    }
    if let (Some(&first), Some(&last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u32::from_le_bytes(first).into(), u32::from_le_bytes(last).into());
    }
    if length == 0 {
        return (0, 0);
    }
    let [first, middle, last] = [bytes[0], bytes[length / 2], bytes[length - 1]];
    (u32::from_le_bytes([first, middle, last, 0]).into(), 0)
}

#[cold]
fn hash_long(seed: Seed, bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut padded = [0; 8];
        padded[..chunk.len()].copy_from_slice(chunk);
        hash = seed.fold(u64::from_le_bytes(padded), hash);
    }
    hash
}

/// Splits `key` at its dots into `words`, which it clears first. Finds the dots of eight bytes at a
/// time.
#[inline]
pub(super) fn split(seed: Seed, key: &[u8], words: &mut Vec<Word>) {
    words.clear();
    if key.is_empty() {
        return;
    }
    let mut start = 0;
    let (chunks, rest) = key.as_chunks::<8>();
    for (index, &chunk) in chunks.iter().enumerate() {
        let mut dots = dots_of(u64::from_le_bytes(chunk));
        while dots != 0 {
            let end = index * 8 + dots.trailing_zeros() as usize / 8;
            words.push(Word::new(seed, key, start, end));
            start = end + 1;
            dots &= dots - 1;
        }
    }
    let rest_start = key.len() - rest.len();
    for (index, &byte) in rest.iter().enumerate() {
        if byte == b'.' {
            words.push(Word::new(seed, key, start, rest_start + index));
            start = rest_start + index + 1;
        }
    }
    words.push(Word::new(seed, key, start, key.len()));
}

/// The top bit of every byte that is a dot. Exact, unlike the usual shorter formula, whose borrow
/// also marks a `/` behind a dot.
#[inline(always)]
fn dots_of(chunk: u64) -> u64 {
    const LOW_BITS: u64 = u64::from_le_bytes([0x7f; 8]);
    let zeros = chunk ^ u64::from_le_bytes([b'.'; 8]);
    !(((zeros & LOW_BITS) + LOW_BITS) | zeros | LOW_BITS)
}

/// The number of a word, unique among the words of one builder.
pub(super) type WordId = u32;

/// The number of a word that no pattern contains: only wildcards match it.
pub(super) const UNKNOWN: WordId = 0;

#[derive(Clone, Copy, Debug)]
struct Slot {
    low: u64,
    /// For words over 16 bytes: where their bytes start in `long_words`.
    high: u64,
    id: WordId,
    length: u32,
}

const EMPTY: Slot = Slot { low: 0, high: 0, id: UNKNOWN, length: 0 };

/// Immutable map of the words of one trie to their numbers: open addressing, linear probing,
/// at most half full.
#[derive(Debug)]
pub(super) struct WordTable {
    slots: Box<[Slot]>,
    long_words: Box<[u8]>,
}

impl WordTable {
    /// A table of `words`, which are distinct.
    pub(super) fn new<'word>(
        seed: Seed,
        words: impl ExactSizeIterator<Item = (WordId, &'word [u8])>,
    ) -> Self {
        let slots = vec![EMPTY; (words.len() * 2).next_power_of_two().max(2)];
        let mut table = Self { slots: slots.into(), long_words: Box::default() };
        let mut long_words = Vec::new();
        for (id, bytes) in words {
            let word = Word::new(seed, bytes, 0, bytes.len());
            let mut high = word.high;
            if word.length > INLINE_BYTES {
                high = long_words.len() as u64;
                long_words.extend_from_slice(bytes);
            }
            let mut at = word.hash as usize & table.mask();
            while table.slots[at].id != UNKNOWN {
                at = (at + 1) & table.mask();
            }
            table.slots[at] = Slot { low: word.low, high, id, length: word.length };
        }
        table.long_words = long_words.into();
        table
    }

    /// The number of `word` of `key`, or [`UNKNOWN`].
    #[inline]
    pub(super) fn find(&self, word: Word, key: &[u8]) -> WordId {
        let mut at = word.hash as usize & self.mask();
        loop {
            let slot = self.slots[at];
            if slot.id == UNKNOWN {
                return UNKNOWN;
            }
            if slot.low == word.low && slot.length == word.length {
                let equal = if word.length <= INLINE_BYTES {
                    slot.high == word.high
                } else {
                    self.long_word(slot) == word.bytes(key)
                };
                if equal {
                    return slot.id;
                }
            }
            at = (at + 1) & self.mask();
        }
    }

    #[inline]
    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    fn long_word(&self, slot: Slot) -> &[u8] {
        let start = slot.high as usize;
        &self.long_words[start..start + slot.length as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::{Seed, UNKNOWN, Word, WordTable};

    /// A chunk that equals half of the seed makes the hash forget what was before it, so these
    /// words collide in all 64 bits: their bytes must decide.
    #[test]
    fn long_words_with_one_hash_are_told_apart() {
        let seed = Seed { low: u64::from_le_bytes(*b"collides"), high: 3 };
        let find =
            |table: &WordTable, word: &[u8]| table.find(Word::new(seed, word, 0, word.len()), word);
        let [known, other] = [b"a-word--collides-end", b"another-collides-end"];
        let hash = |word: &[u8]| Word::new(seed, word, 0, word.len()).hash;
        assert_eq!(hash(known), hash(other));
        let table = WordTable::new(seed, [(2, &known[..])].into_iter());
        assert_eq!((find(&table, known), find(&table, other)), (2, UNKNOWN));
        let table = WordTable::new(seed, [(2, &known[..]), (3, &other[..])].into_iter());
        assert_eq!((find(&table, known), find(&table, other)), (2, 3));
    }
}
