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
/// of the trie is entry `n`. `words` are the literal words of the patterns, each once.
pub(super) fn compile<'key>(
    seed: Seed,
    words: impl ExactSizeIterator<Item = (WordId, &'key [u8])>,
    entries: impl ExactSizeIterator<Item = (&'key [Token], u32)>,
) -> Trie {
    let mut compiler = Compiler {
        nodes: Vec::with_capacity(entries.len() * 2 + 1),
        edges: Vec::with_capacity(entries.len() * 2),
        path: vec![(ROOT, 0)],
        stamps: 0,
    };
    compiler.nodes.push(Node::default());
    let mut destinations = Vec::with_capacity(entries.len());
    let mut previous: &[Token] = &[];
    for (tokens, destination) in entries {
        let shared = tokens.iter().zip(previous).take_while(|(a, b)| a == b).count();
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
    let edges = place_edges(seed, &mut compiler.nodes, &compiler.edges);
    Trie {
        seed,
        words: WordTable::new(seed, words),
        nodes: compiler.nodes.into(),
        edges,
        destinations: destinations.into(),
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
fn place_edges(seed: Seed, nodes: &mut [Node], unplaced: &[ParentEdge]) -> Box<[Edge]> {
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
    let mut edges = vec![Edge::default(); length as usize];
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
    edges.into()
}
