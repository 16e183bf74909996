//! Deterministic simulation of Leveret shards.
#![forbid(unsafe_code)]
