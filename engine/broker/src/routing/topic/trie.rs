//! The compiled trie: patterns as flat arrays that never change.

use super::word::{Seed, UNKNOWN, WordId, WordTable};

/// The number of a node. Nodes are numbered depth first, so the children a walk needs next tend to
/// lie on the same or the following cache line.
pub(super) type NodeId = u32;

/// The root, and in every link to a child, where the root cannot stand: no such child.
pub(super) const ROOT: NodeId = 0;

/// Most edges that are scanned in order; more are hashed. Eight edges are one cache line.
pub(super) const SCANNED_EDGES_MAX: usize = 8;

/// One state of the automaton that the patterns are.
///
/// ```text
///  0       4       8         12          16          20             24                28      32
///  ┌───────┬───────┬─────────┬───────────┬───────────┬──────────────┬─────────────────┬───────┐
///  │ star  │ hash  │ edges_at│ edges_len │ only_child│destinations_ │ destinations_   │ stamp │
///  │       │       │         │           │           │at            │ len             │       │
///  └───────┴───────┴─────────┴───────────┴───────────┴──────────────┴─────────────────┴───────┘
/// ```
///
/// Two to a cache line. A node behind a `#` has neither `star` nor `hash`: in normal form the stars
/// stand in front of the hash, and two hashes are one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Node {
    /// The child behind `*`.
    pub(super) star: NodeId,
    /// The child behind `#`.
    pub(super) hash: NodeId,
    /// Where the edges of words start; the word itself if there is only one.
    pub(super) edges_at: u32,
    /// 0; 1: inline; up to 8: a list; more: the size of a hash table, a power of two.
    pub(super) edges_len: u32,
    /// The child of the only edge.
    pub(super) only_child: NodeId,
    /// The slots of the patterns that end here.
    pub(super) destinations_at: u32,
    pub(super) destinations_len: u32,
    /// For a node behind a `#` that has another `#` above it: its stamp, from 1 up. Only such a
    /// node can be entered twice by one key (see `matcher`). 0 for all others.
    pub(super) stamp: u32,
}

const _: () = assert!(size_of::<Node>() == 32);

impl Node {
    /// Whether a further word can lead anywhere from here.
    #[inline(always)]
    pub(super) fn has_children(&self) -> bool {
        self.edges_len != 0 || self.star != ROOT
    }
}

/// A step by one literal word. An empty slot of a hash table has word [`UNKNOWN`] and child
/// [`ROOT`], which is the right answer for an unknown word.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Edge {
    pub(super) word: WordId,
    pub(super) child: NodeId,
}

/// Patterns of one level, compiled. A slot is one (pattern, destination) pair, numbered in the
/// order of patterns.
#[derive(Debug)]
pub(super) struct Trie {
    pub(super) seed: Seed,
    pub(super) words: WordTable,
    /// Never empty: the root is always there.
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Edge>,
    /// The destination of each slot.
    pub(super) destinations: Vec<u32>,
    /// Stamps are numbered from 1 to this.
    pub(super) stamps: u32,
}

impl Trie {
    #[inline(always)]
    pub(super) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node as usize]
    }

    /// The child of `node` behind `word`, or [`ROOT`] if there is none.
    #[inline]
    pub(super) fn child(&self, node: &Node, word: WordId) -> NodeId {
        let length = node.edges_len as usize;
        if length <= 1 {
            return if length == 1 && node.edges_at == word { node.only_child } else { ROOT };
        }
        let start = node.edges_at as usize;
        let edges = &self.edges[start..start + length];
        if length <= SCANNED_EDGES_MAX {
            return edges.iter().find(|edge| edge.word == word).map_or(ROOT, |edge| edge.child);
        }
        let mask = length - 1;
        let mut at = edge_home(self.seed, word) & mask;
        loop {
            let edge = edges[at & mask];
            if edge.word == word || edge.word == UNKNOWN {
                return edge.child;
            }
            at += 1;
        }
    }
}

/// Where the search for `word` starts in a hashed node, before masking. Seeded, because clients
/// choose the order of bindings, hence the numbers of words.
#[inline(always)]
pub(super) fn edge_home(seed: Seed, word: WordId) -> usize {
    seed.fold(u64::from(word), 0) as usize
}
