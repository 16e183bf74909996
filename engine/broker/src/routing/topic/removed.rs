//! Which slots of a trie were unbound since it was compiled.

use std::sync::Arc;

/// Slots of one leaf: 512 bytes of bits, the bottom of the copy that one removal makes.
const LEAF_SLOTS: usize = 4_096;

/// Leaves of one branch: 512 bytes of pointers, the middle of the copy. 2²⁴ slots are 64 branches,
/// so no layer of the copy is ever larger than 512 bytes.
const BRANCH_LEAVES: usize = 64;

type Leaf = [u64; LEAF_SLOTS / 64];
type Branch = [Option<Arc<Leaf>>; BRANCH_LEAVES];

/// A bitmap shared by snapshots: a clone is one pointer, and setting a bit copies only the layers
/// that a snapshot still shares (512 bytes each, three of them), never the whole map.
#[derive(Clone, Debug, Default)]
pub(super) struct Removed {
    branches: Option<Arc<Vec<Option<Arc<Branch>>>>>,
}

impl Removed {
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.branches.is_none()
    }

    #[inline]
    pub(super) fn contains(&self, slot: u32) -> bool {
        let Some(branches) = &self.branches else {
            return false;
        };
        let (branch, leaf, word, bit) = position(slot);
        branches
            .get(branch)
            .and_then(Option::as_ref)
            .and_then(|branch| branch[leaf].as_ref())
            .is_some_and(|leaf| leaf[word] & bit != 0)
    }

    pub(super) fn insert(&mut self, slot: u32) {
        let (branch, leaf, word, bit) = position(slot);
        let branches = Arc::make_mut(self.branches.get_or_insert_default());
        if branches.len() <= branch {
            branches.resize(branch + 1, None);
        }
        let branch = branches[branch].get_or_insert_with(|| Arc::new([const { None }; 64]));
        let leaf = Arc::make_mut(branch)[leaf].get_or_insert_with(|| Arc::new([0; 64]));
        Arc::make_mut(leaf)[word] |= bit;
    }
}

#[inline(always)]
fn position(slot: u32) -> (usize, usize, usize, u64) {
    let slot = slot as usize;
    let leaf = slot / LEAF_SLOTS;
    let bit = 1 << (slot % 64);
    (leaf / BRANCH_LEAVES, leaf % BRANCH_LEAVES, slot % LEAF_SLOTS / 64, bit)
}
