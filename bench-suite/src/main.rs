//! Load tests of AMQP 0-9-1 brokers.
#![forbid(unsafe_code)]
fn main() {}
