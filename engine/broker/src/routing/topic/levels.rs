//! The levels of compiled tries: how a change stays cheap.

use std::sync::Arc;

use super::BINDINGS_MAX;
use super::compile::{Extent, FIRST_WORD, HASH, STAR, Token, compile};
use super::interner::Interner;
use super::pattern::Pattern;
use super::removed::Removed;
use super::table::{Level, TopicTable};
use super::trie::Trie;
use super::word::Seed;

/// Entries of the smallest level, which a snapshot after a single bind recompiles: half of it on
/// average.
const FIRST_LEVEL_ENTRIES: usize = 64;

/// How much larger each level is than the one below. A larger factor makes fewer levels to walk per
/// message and more entries to compile per bind.
const LEVEL_FACTOR: usize = 8;

const LEVELS: usize = 7;

/// Merging everything is worth it once this part of the entries has changed: an eighth costs eight
/// entries for each change.
const MERGED_PART: usize = 8;

/// ... or where there are so few of them that it takes milliseconds.
const MERGED_ALWAYS: usize = 4_096;

const _: () = assert!(capacity(LEVELS - 1) >= BINDINGS_MAX);

/// Most live entries of a level.
const fn capacity(level: usize) -> usize {
    FIRST_LEVEL_ENTRIES * LEVEL_FACTOR.pow(level as u32)
}

pub(super) type EntryId = u32;

/// One pattern with one destination.
#[derive(Debug)]
struct Entry {
    tokens: Box<[Token]>,
    destination: u32,
    /// Where it is compiled; `None`: it waits in `pending`.
    level: Option<u8>,
    /// Its slot in the trie of that level, or its place in `pending`.
    slot: u32,
}

/// A level as its builder sees it.
#[derive(Debug)]
struct Compiled {
    trie: Arc<Trie>,
    removed: Removed,
    /// The entry of each slot; meaningless for slots that were removed.
    order: Vec<EntryId>,
    live: usize,
}

/// All entries, in compiled levels of growing size and in a list of those not yet compiled.
#[derive(Debug)]
pub(super) struct Levels {
    seed: Seed,
    words: Interner,
    entries: Vec<Entry>,
    free: Vec<EntryId>,
    pending: Vec<EntryId>,
    compiled: [Option<Compiled>; LEVELS],
    /// Entries added or removed since everything was merged.
    changed: usize,
    work: u64,
}

impl Levels {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed: Seed::new(seed),
            words: Interner::new(seed),
            entries: Vec::new(),
            free: Vec::new(),
            pending: Vec::new(),
            compiled: [const { None }; LEVELS],
            changed: 0,
            work: 0,
        }
    }

    /// Adds an entry that is not there yet.
    pub(super) fn insert(&mut self, pattern: &Pattern, destination: u32) -> EntryId {
        let tokens = pattern.words().map(|word| match word {
            b"#" => HASH,
            b"*" => STAR,
            literal => self.words.acquire(literal),
        });
        let slot = self.pending.len() as u32;
        let entry = Entry { tokens: tokens.collect(), destination, level: None, slot };
        let id = if let Some(id) = self.free.pop() {
            self.entries[id as usize] = entry;
            id
        } else {
            self.entries.push(entry);
            self.entries.len() as EntryId - 1
        };
        self.pending.push(id);
        self.changed += 1;
        id
    }

    /// Removes an entry that is there.
    pub(super) fn remove(&mut self, id: EntryId) {
        let entry = &mut self.entries[id as usize];
        let slot = entry.slot;
        for token in std::mem::take(&mut entry.tokens) {
            if token >= FIRST_WORD {
                self.words.release(token);
            }
        }
        self.free.push(id);
        if let Some(level) = entry.level {
            if let Some(level) = &mut self.compiled[level as usize] {
                level.removed.insert(slot);
                level.live -= 1;
            }
        } else {
            self.pending.swap_remove(slot as usize);
            if let Some(&moved) = self.pending.get(slot as usize) {
                self.entries[moved as usize].slot = slot;
            }
        }
        self.changed += 1;
        self.work += 1;
    }

    /// The current entries as shards read them, made by `len` bindings.
    pub(super) fn table(&mut self, len: usize) -> TopicTable {
        self.settle();
        let compiled = self.compiled.iter().flatten();
        let levels = compiled
            .map(|level| Level { trie: Arc::clone(&level.trie), removed: level.removed.clone() })
            .collect();
        TopicTable { seed: self.seed, levels, len }
    }

    /// Merges everything into one trie without removed slots, or all but the highest level where
    /// few entries have changed. Returns whether anything was to do.
    pub(super) fn compact(&mut self) -> bool {
        let Some(highest) = self.compiled.iter().rposition(Option::is_some) else {
            return self.compact_to(0);
        };
        let below = self.pending.len() + live(&self.compiled[..highest]);
        let entries = below + live(&self.compiled[highest..]);
        if entries > MERGED_ALWAYS && self.changed * MERGED_PART < entries {
            // Not lower than the entries are already: the bound on the cost of a bind rests on
            // entries that only ever move up.
            let lowest = self.compiled[..highest].iter().rposition(Option::is_some).unwrap_or(0);
            if let Some(to) = (lowest..highest).find(|&level| below <= capacity(level)) {
                return self.compact_to(to);
            }
        }
        self.changed = 0;
        self.compact_to((highest..LEVELS).find(|&at| entries <= capacity(at)).unwrap_or(LEVELS - 1))
    }

    /// Merges the pending entries and the levels up to `top` into that one, unless they are one
    /// already.
    fn compact_to(&mut self, top: usize) -> bool {
        let mut levels = self.compiled[..=top].iter().flatten();
        let one_is_clean = levels.next().is_none_or(|level| level.live == level.order.len());
        if self.pending.is_empty() && one_is_clean && levels.next().is_none() {
            return false;
        }
        self.merge(0, top);
        true
    }

    /// Nodes compiled and entries removed so far.
    pub(super) fn work(&self) -> u64 {
        self.work
    }

    /// Compiles the pending entries, and drops removed slots where they are the majority.
    fn settle(&mut self) {
        if !self.pending.is_empty() {
            self.merge(0, self.level_for_pending());
        }
        for at in 0..LEVELS {
            if let Some(level) = &self.compiled[at]
                && level.order.len() > 2 * level.live
            {
                self.merge(at, at);
            }
        }
    }

    /// The lowest level that can take all pending entries and all entries of the levels up to it.
    fn level_for_pending(&self) -> usize {
        let mut entries = self.pending.len();
        let level = self.compiled.iter().enumerate().position(|(at, level)| {
            entries += level.as_ref().map_or(0, |level| level.live);
            entries <= capacity(at)
        });
        // The limit of bindings keeps the highest level from being full.
        level.unwrap_or(LEVELS - 1)
    }

    /// Compiles the entries of the levels from `bottom` to `top` into `top`, together with the
    /// pending ones if `bottom` is 0.
    fn merge(&mut self, bottom: usize, top: usize) {
        // Each level is sorted already, largest first, which the stable sort makes use of.
        let mut order = Vec::new();
        for level in self.compiled[bottom..=top].iter_mut().rev().filter_map(Option::take) {
            let slots = level.order.iter().zip(0..);
            let live = slots.filter(|&(_, slot)| !level.removed.contains(slot));
            order.extend(live.map(|(&id, _)| id));
        }
        if bottom == 0 {
            order.append(&mut self.pending);
        }
        if order.is_empty() {
            return;
        }
        let entries = &mut self.entries;
        order.sort_by(|&a, &b| {
            let (a, b) = (&entries[a as usize], &entries[b as usize]);
            a.tokens.cmp(&b.tokens).then(a.destination.cmp(&b.destination))
        });
        for (slot, &id) in order.iter().enumerate() {
            let entry = &mut entries[id as usize];
            entry.level = Some(top as u8);
            entry.slot = slot as u32;
        }
        let sorted = order.iter().map(|&id| &self.entries[id as usize]);
        let tokens = sorted.clone().flat_map(|entry| entry.tokens.iter().copied());
        let ids = self.words.collect(tokens.filter(|&token| token >= FIRST_WORD));
        let words = ids.iter().map(|&id| (id, self.words.bytes(id)));
        let extent = Extent::of(sorted.clone().map(|entry| &*entry.tokens));
        let entries = sorted.map(|entry| (&*entry.tokens, entry.destination));
        let trie = compile(self.seed, extent, words, entries);
        self.work += trie.nodes.len() as u64;
        let live = order.len();
        let removed = Removed::default();
        self.compiled[top] = Some(Compiled { trie: Arc::new(trie), removed, order, live });
    }
}

/// Live entries of some levels.
fn live(levels: &[Option<Compiled>]) -> usize {
    levels.iter().flatten().map(|level| level.live).sum()
}
