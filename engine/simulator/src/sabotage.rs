//! Planted bugs: each must be caught, or the oracle is blind.

use bytes::Bytes;
use leveret_broker::mail::{Batch, Lane};

/// A bug in the mesh or in the network.
#[derive(Debug)]
pub(crate) struct Sabotage {
    kept: Vec<Bytes>,
}

impl Sabotage {
    pub(crate) fn received(&mut self, bytes: &Bytes) {
        self.kept.push(bytes.clone());
    }

    pub(crate) fn sent(&mut self, _: Lane, batch: Batch) -> Option<Batch> {
        Some(batch)
    }
}
