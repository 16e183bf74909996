//! The literal words of all patterns of a builder, each with one number.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::compile::FIRST_WORD;
use super::word::WordId;

/// Numbers of words, counted and used again when free. Tries keep the bytes of their own words, so
/// a number may come to mean another word while an old trie still uses it for the former one.
#[derive(Debug)]
pub(super) struct Interner {
    ids: HashMap<Arc<[u8]>, WordId, FixedState>,
    words: Vec<Interned>,
    free: Vec<WordId>,
    collection: u32,
}

#[derive(Debug)]
struct Interned {
    bytes: Arc<[u8]>,
    /// How often a pattern contains it.
    uses: u32,
    /// The latest collection that has it.
    collection: u32,
}

impl Interner {
    pub(super) fn new(seed: u64) -> Self {
        let ids = HashMap::with_hasher(FixedState::with_seed(seed));
        Self { ids, words: Vec::new(), free: Vec::new(), collection: 0 }
    }

    /// The number of `bytes`, used once more.
    pub(super) fn acquire(&mut self, bytes: &[u8]) -> WordId {
        if let Some(&id) = self.ids.get(bytes) {
            self.words[index(id)].uses += 1;
            return id;
        }
        let bytes: Arc<[u8]> = bytes.into();
        let word = Interned { bytes: Arc::clone(&bytes), uses: 1, collection: 0 };
        let id = if let Some(id) = self.free.pop() {
            self.words[index(id)] = word;
            id
        } else {
            self.words.push(word);
            self.words.len() as WordId - 1 + FIRST_WORD
        };
        self.ids.insert(bytes, id);
        id
    }

    /// Takes back one use of `id`.
    pub(super) fn release(&mut self, id: WordId) {
        let word = &mut self.words[index(id)];
        word.uses -= 1;
        if word.uses == 0 {
            self.ids.remove(&word.bytes);
            word.bytes = Arc::default();
            self.free.push(id);
        }
    }

    pub(super) fn bytes(&self, id: WordId) -> &[u8] {
        &self.words[index(id)].bytes
    }

    /// The distinct words among `ids`, in time linear in their number.
    pub(super) fn collect(&mut self, ids: impl Iterator<Item = WordId>) -> Vec<WordId> {
        self.collection = self.collection.wrapping_add(1);
        if self.collection == 0 {
            self.words.iter_mut().for_each(|word| word.collection = 0);
            self.collection = 1;
        }
        ids.filter(|&id| {
            let word = &mut self.words[index(id)];
            std::mem::replace(&mut word.collection, self.collection) != self.collection
        })
        .collect()
    }
}

fn index(id: WordId) -> usize {
    (id - FIRST_WORD) as usize
}
