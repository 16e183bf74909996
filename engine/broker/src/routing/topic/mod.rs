//! Topic routing: which destinations a routing key reaches through wildcard patterns.
//!
//! Meaning is `RabbitMQ`'s (AMQP 0-9-1 §3.1.3.3 and `rabbit_exchange_type_topic`): keys are words
//! between dots, empty words count (`a.` is `a` and an empty word), the empty key is no word at
//! all, `*` is exactly one word, `#` is any number of words and also none. Any number of `#` is
//! allowed in a pattern, because matching is polynomial here.
//!
//! Two halves, for two threads:
//!
//! ```text
//!   control thread                                  every shard
//!   ┌──────────────┐  snapshot(): Arc<TopicTable>   ┌─────────┐  matches(table, routing key)
//!   │ TopicBuilder ├───────────────────────────────►│ Matcher ├──► destination, destination, …
//!   └──────────────┘                                └─────────┘
//!    levels 0…6, each one compiled, immutable trie:
//!    64 ─► 512 ─► 4,096 ─► 32,768 ─► … entries      (a level that is full moves up)
//! ```
//!
//! A change recompiles the smallest level only, so a bind among a million bindings costs as much as
//! one among a thousand, give or take a level. Literal keys do not belong here: keep them in a hash
//! map (see [`is_literal`]).

mod builder;
mod compile;
mod interner;
mod levels;
mod matcher;
mod pattern;
mod removed;
mod samples;
mod table;
mod trie;
mod word;

#[cfg(test)]
mod tests;

pub use builder::{TopicBuilder, TopicError};
pub use matcher::Matcher;
pub use pattern::{Pattern, is_literal};
pub use samples::TopicSamples;
pub use table::TopicTable;

/// Longest key in bytes: a short string of the protocol (AMQP 0-9-1 §4.2.5.3).
pub const KEY_BYTES_MAX: usize = 255;

/// Most words of a key: 255 dots stand between 256 empty words.
pub const KEY_WORDS_MAX: usize = KEY_BYTES_MAX + 1;

/// Most bindings of one table, so that the numbers of nodes and edges fit 32 bits however odd the
/// patterns are: a binding adds at most a node and an edge per word, and a table of edges has less
/// than four slots per edge.
pub const BINDINGS_MAX: usize = 1 << 22;

const _: () = assert!((BINDINGS_MAX as u64) * (KEY_WORDS_MAX as u64) * 4 <= 1 << 32);
