//! The reading half of a channel: the methods of its client.
//!
//! A method answers at once, or asks the home of a queue or the control state. While it waits for
//! that answer the connection reads no further, so a channel has at most one open request.

mod answer;
mod call;
mod consume;
mod content;
mod exchange;
mod publish;
mod queue;
mod repeats;
mod route;
mod settle;
mod transaction;

use leveret_amqp::prelude::Prelude;

use crate::catalog::name::Name;
use crate::id::ChannelKey;
use crate::message::Likeness;

pub use answer::{Answered, Awaited, Awaiting};
pub use call::{Call, Flow};
pub use content::Content;
pub use route::Route;
pub use transaction::Transaction;

/// The reading half of a channel.
#[derive(Debug)]
pub struct Channel {
    /// The name of the channel towards queues and the control state.
    pub key: ChannelKey,
    /// We have sent `channel.close`: everything but close and close-ok is ignored.
    pub closing: bool,
    /// The message that is being received.
    pub content: Content,
    /// The route of the last message.
    pub route: Route,
    /// The likeness of the last message; unknown once the current one differs from it.
    pub likeness: Likeness,
    /// The first two frames of the last message, if it was like the one before it; else empty.
    pub prelude: Prelude,
    /// The queue that an empty queue name means; empty until the channel has declared one.
    pub last_queue: Name,
    /// `basic.qos` for consumers started from now on; 0 = any number.
    pub prefetch: u16,
    /// Publishes are confirmed.
    pub confirm: bool,
    /// Publishes and settlements wait for a commit.
    pub transaction: Option<Box<Transaction>>,
}

impl Channel {
    /// A channel that has just been opened.
    pub fn new(key: ChannelKey) -> Self {
        Self {
            key,
            closing: false,
            content: Content::default(),
            route: Route::default(),
            likeness: Likeness::UNKNOWN,
            prelude: Prelude::default(),
            last_queue: Name::default(),
            prefetch: 0,
            confirm: false,
            transaction: None,
        }
    }
}
