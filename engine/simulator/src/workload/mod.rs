//! Random clients of a broker, and the oracle that accounts for every message.

mod actions;
mod channel_view;
mod observations;
pub mod oracle;
#[cfg(test)]
mod planted_bugs_tests;
mod random_client;
pub mod run;
pub mod topology;
