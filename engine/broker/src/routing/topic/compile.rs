//! From sorted patterns to a compiled trie.

use super::trie::{Edge, Node, NodeId, ROOT, SCANNED_EDGES_MAX, Trie, edge_home};
use super::word::{Seed, UNKNOWN, WordId, WordTable};

/// One word of a pattern: a wildcard or the number of a literal word. Wildcards sort first, so that
/// a node's wildcard children are numbered right behind it.
pub(super) type Token = u32;

pub(super) const HASH: Token = 0;
pub(super) const STAR: Token = 1;
/// Numbers of words start here. [`HASH`] is also the number of the unknown word, which is never on
/// an edge.
pub(super) const FIRST_WORD: Token = 2;

const _: () = assert!(HASH == UNKNOWN);

/// Room of at least this size is asked for in multiples of it: a huge page, which costs the kernel
/// a fifth of the same room in 4 KiB pages. A million patterns are 100 MiB of nodes.
const PAGE_BYTES: usize = 2 << 20;

/// An empty list with room for `count` elements.
fn with_room<T>(count: usize) -> Vec<T> {
    if count * size_of::<T>() < PAGE_BYTES {
        return Vec::with_capacity(count);
    }
    // The size of an element divides that of a page but for an odd factor.
    Vec::with_capacity(count.next_multiple_of(PAGE_BYTES >> size_of::<T>().trailing_zeros()))
}

/// How much a trie of some patterns has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    nodes: usize,
    /// Steps by a literal word.
    edges: usize,
    destinations: usize,
}

impl Extent {
    /// Of patterns in ascending order.
    pub(super) fn of<'key>(patterns: impl Iterator<Item = &'key [Token]>) -> Self {
        let mut extent = Self { nodes: 1, ..Self::default() };
        let mut previous: &[Token] = &[];
        for tokens in patterns {
            let added = &tokens[shared_prefix(tokens, previous)..];
            extent.nodes += added.len();
            extent.edges += added.iter().filter(|&&token| token >= FIRST_WORD).count();
            extent.destinations += 1;
            previous = tokens;
        }
        extent
    }
}

/// How many words two patterns begin with alike.
fn shared_prefix(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

struct ParentEdge {
    parent: NodeId,
    word: WordId,
    child: NodeId,
}

/// Collects nodes depth first. `path` is the open branch: the nodes of the latest pattern, from the
/// root down, each with the number of `#` down to it.
struct Compiler {
    nodes: Vec<Node>,
    edges: Vec<ParentEdge>,
    path: Vec<(NodeId, u32)>,
    stamps: u32,
}

/// Compiles `entries`, which are (pattern, destination) in ascending order and distinct; slot `n`
/// of the trie is entry `n`. `words` are the literal words of the patterns, each once; `extent` is
/// that of the patterns.
pub(super) fn compile<'key>(
    seed: Seed,
    extent: Extent,
    words: impl ExactSizeIterator<Item = (WordId, &'key [u8])>,
    entries: impl Iterator<Item = (&'key [Token], u32)>,
) -> Trie {
    let mut compiler = Compiler {
        nodes: with_room(extent.nodes),
        edges: with_room(extent.edges),
        path: vec![(ROOT, 0)],
        stamps: 0,
    };
    compiler.nodes.push(Node::default());
    let mut destinations = with_room(extent.destinations);
    let mut previous: &[Token] = &[];
    for (tokens, destination) in entries {
        let shared = shared_prefix(tokens, previous);
        compiler.path.truncate(shared + 1);
        for &token in &tokens[shared..] {
            compiler.add_child(token);
        }
        let (end, _) = compiler.path[tokens.len()];
        let node = &mut compiler.nodes[end as usize];
        if node.destinations_len == 0 {
            node.destinations_at = destinations.len() as u32;
        }
        node.destinations_len += 1;
        destinations.push(destination);
        previous = tokens;
    }
    let Compiler { nodes, edges, .. } = &compiler;
    let compiled =
        Extent { nodes: nodes.len(), edges: edges.len(), destinations: destinations.len() };
    debug_assert_eq!(compiled, extent);
    let edges = place_edges(seed, &mut compiler.nodes, &compiler.edges);
    Trie {
        seed,
        words: WordTable::new(seed, words),
        nodes: compiler.nodes,
        edges,
        destinations,
        stamps: compiler.stamps,
    }
}

impl Compiler {
    fn add_child(&mut self, token: Token) {
        let (parent, hashes) = self.path[self.path.len() - 1];
        let child = self.nodes.len() as NodeId;
        let mut node = Node::default();
        let mut hashes_here = hashes;
        match token {
            HASH => {
                self.nodes[parent as usize].hash = child;
                if hashes > 0 {
                    self.stamps += 1;
                    node.stamp = self.stamps;
                }
                hashes_here += 1;
            }
            STAR => self.nodes[parent as usize].star = child,
            word => {
                self.edges.push(ParentEdge { parent, word, child });
                self.nodes[parent as usize].edges_len += 1;
            }
        }
        self.nodes.push(node);
        self.path.push((child, hashes_here));
    }
}

/// Gives every node its place among the edges, then puts the edges there. Expects `edges_len` to be
/// the number of edges, and leaves it as [`Node::edges_len`] describes.
fn place_edges(seed: Seed, nodes: &mut [Node], unplaced: &[ParentEdge]) -> Vec<Edge> {
    let mut length = 0;
    for node in nodes.iter_mut() {
        let count = node.edges_len as usize;
        if count < 2 {
            continue;
        }
        if count > SCANNED_EDGES_MAX {
            // At most half full, as the table of words.
            node.edges_len = (count * 2).next_power_of_two() as u32;
        }
        node.edges_at = length;
        length += node.edges_len;
    }
    let mut edges = with_room(length as usize);
    edges.resize(length as usize, Edge::default());
    for &ParentEdge { parent, word, child } in unplaced {
        let node = &mut nodes[parent as usize];
        let count = node.edges_len as usize;
        if count == 1 {
            node.edges_at = word;
            node.only_child = child;
            continue;
        }
        let start = node.edges_at as usize;
        let span = &mut edges[start..start + count];
        let mut at = if count <= SCANNED_EDGES_MAX { 0 } else { edge_home(seed, word) };
        while span[at % count].child != ROOT {
            at += 1;
        }
        span[at % count] = Edge { word, child };
    }
    edges
}
