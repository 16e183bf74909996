//! The reading half of a channel: what its client's methods do.
//!
//! A method either answers at once or asks somebody: the home of a queue or the control state.
//! While it waits the connection reads no further, so a channel has at most one question open.

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
    /// Who this is to queues and to the control state.
    pub key: ChannelKey,
    /// We have sent `channel.close`: everything but close and close-ok is swallowed.
    pub closing: bool,
    /// The message that is being received.
    pub content: Content,
    /// Where the last message went.
    pub route: Route,
    /// What the last message was like, unless something has changed since.
    pub likeness: Likeness,
    /// How the last message began, if it was like the one before it and the next one may be too.
    pub prelude: Prelude,
    /// What an empty queue name stands for; empty while nothing was declared.
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
