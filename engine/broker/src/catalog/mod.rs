//! What can exist, as values: names, exchanges, queues, users, permissions.

pub mod arguments;
pub(crate) mod base64;
pub mod equivalence;
pub(crate) mod erlang_term;
pub mod name;
pub mod object;
pub mod permission;
pub mod presets;
pub mod user;
