//! The walk of a routing key through a table.

use super::removed::Removed;
use super::table::{Level, TopicTable};
use super::trie::{Node, NodeId, ROOT, Trie};
use super::word::{self, UNKNOWN, Word};

/// Scratch memory of matching, one per shard, used for all exchanges in turn.
///
/// # The walk
///
/// A trie is a nondeterministic automaton, walked word by word with the set of its active nodes.
/// Entering a node also enters its `#` child, which has then matched no word yet. A node behind a
/// `#` stays active to the end of the key, and whatever follows, the patterns that end there match:
/// it is reported when it is entered, and kept in `kept` if words can lead on from it. All other
/// nodes are active for one word, in `active`, and are reported if the key ends there.
///
/// In a tree, a node is entered only from its one parent, so it is entered twice at the same word
/// only if its parent was; and twice at different words only if a `#` is above it. So of all nodes,
/// the ones behind a `#` with another `#` above are the only ones that could be kept twice. They
/// carry a stamp, all others need no check. Hence no node is active twice at a word, and one match
/// takes at most words × nodes steps, however many `#` the patterns have.
///
/// Memory: the three lists of nodes hold each node of a trie at most once, the stamps are as many
/// as the nested `#` nodes of the largest trie, and the words as many as a key has. They grow to
/// the largest size they were needed at and keep it, so a warm match does not allocate.
#[derive(Debug, Default)]
pub struct Matcher {
    words: Vec<Word>,
    walk: Walk,
}

#[derive(Debug, Default)]
struct Walk {
    kept: Vec<NodeId>,
    active: Vec<NodeId>,
    next: Vec<NodeId>,
    /// `stamps[n] == stamp`: the node with stamp `n` was entered in this walk.
    stamps: Vec<u32>,
    stamp: u32,
    visited: u64,
}

impl Matcher {
    /// An empty scratch; it grows with use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `found` with the destination of every binding of `table` that matches `routing_key`.
    ///
    /// A destination is reported once for each of its patterns that match, where patterns with one
    /// normal form count as one; a caller that wants it once per message keeps a stamp per
    /// destination. The order is stable for one table and otherwise unspecified.
    #[inline]
    pub fn matches(&mut self, table: &TopicTable, routing_key: &[u8], found: &mut impl FnMut(u32)) {
        if table.levels.is_empty() {
            return;
        }
        word::split(table.seed, routing_key, &mut self.words);
        for level in &table.levels {
            self.walk.run(level, &self.words, routing_key, found);
        }
    }

    /// How many nodes were active in all matches so far, summed over the words of their keys: the
    /// work done, for statistics and for tests that bound it. Wraps around.
    pub fn visited(&self) -> u64 {
        self.walk.visited
    }
}

impl Walk {
    fn run(&mut self, level: &Level, words: &[Word], key: &[u8], found: &mut impl FnMut(u32)) {
        let trie = &*level.trie;
        if trie.stamps != 0 {
            self.start_stamps(trie);
        }
        self.kept.clear();
        self.active.clear();
        self.enter(level, ROOT, words.is_empty(), found);
        std::mem::swap(&mut self.active, &mut self.next);
        for (index, &word) in words.iter().enumerate() {
            if self.active.is_empty() && self.kept.is_empty() {
                return;
            }
            let last = index + 1 == words.len();
            let word = trie.words.find(word, key);
            let visited = self.kept.len() + self.active.len();
            self.visited = self.visited.wrapping_add(visited as u64);
            // Nodes kept from now on have not seen this word, only those before.
            if word != UNKNOWN {
                for at in 0..self.kept.len() {
                    let child = trie.child(trie.node(self.kept[at]), word);
                    if child != ROOT {
                        self.enter(level, child, last, found);
                    }
                }
            }
            for at in 0..self.active.len() {
                let node = trie.node(self.active[at]);
                if word != UNKNOWN {
                    let child = trie.child(node, word);
                    if child != ROOT {
                        self.enter(level, child, last, found);
                    }
                }
                if node.star != ROOT {
                    self.enter(level, node.star, last, found);
                }
            }
            self.active.clear();
            std::mem::swap(&mut self.active, &mut self.next);
        }
    }

    /// Enters a node that is not behind a `#`, and its `#` child.
    #[inline(always)]
    fn enter(&mut self, level: &Level, id: NodeId, last: bool, found: &mut impl FnMut(u32)) {
        let node = level.trie.node(id);
        if last {
            report(level, node, found);
        } else if node.has_children() {
            self.next.push(id);
        }
        if node.hash != ROOT {
            self.enter_hash(level, node.hash, found);
        }
    }

    fn enter_hash(&mut self, level: &Level, id: NodeId, found: &mut impl FnMut(u32)) {
        let node = level.trie.node(id);
        if node.stamp != 0 {
            let stamp = &mut self.stamps[node.stamp as usize];
            if *stamp == self.stamp {
                return;
            }
            *stamp = self.stamp;
        }
        report(level, node, found);
        if node.has_children() {
            self.kept.push(id);
        }
    }

    /// Makes every stamp of `trie` an old one.
    fn start_stamps(&mut self, trie: &Trie) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.stamps.fill(0);
            self.stamp = 1;
        }
        let length = trie.stamps as usize + 1;
        if self.stamps.len() < length {
            self.stamps.resize(length, 0);
        }
    }
}

#[inline]
fn report(level: &Level, node: &Node, found: &mut impl FnMut(u32)) {
    let start = node.destinations_at as usize;
    let destinations = &level.trie.destinations[start..start + node.destinations_len as usize];
    if level.removed.is_empty() {
        for &destination in destinations {
            found(destination);
        }
    } else {
        report_bound(&level.removed, node, destinations, found);
    }
}

#[inline(never)]
fn report_bound(removed: &Removed, node: &Node, destinations: &[u32], found: &mut impl FnMut(u32)) {
    for (slot, &destination) in (node.destinations_at..).zip(destinations) {
        if !removed.contains(slot) {
            found(destination);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Matcher;
    use crate::routing::topic::TopicBuilder;

    #[test]
    fn stamps_survive_their_wrap_around() {
        let mut builder = TopicBuilder::new(1);
        builder.insert(b"#.a.#.b.#", 7).unwrap();
        let table = builder.snapshot();
        let mut matcher = Matcher::new();
        let count = |matcher: &mut Matcher| {
            let mut count = 0;
            matcher.matches(&table, b"a.b.a.b.b", &mut |_| count += 1);
            count
        };
        // New memory is filled with stamp 0, which would look entered already.
        matcher.walk.stamp = u32::MAX;
        assert_eq!(count(&mut matcher), 1);
        // That left stamps of 1 behind, the first number used after the next wrap.
        matcher.walk.stamp = u32::MAX;
        assert_eq!(count(&mut matcher), 1);
        assert_eq!(count(&mut matcher), 1);
    }
}
