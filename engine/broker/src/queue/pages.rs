//! The messages of a queue that are on disk only, and the requests that wait for them.

use std::collections::VecDeque;

use crate::id::ChannelKey;

/// The paging state of a queue. Made when its first message leaves memory.
#[derive(Debug, Default)]
pub struct Pages {
    /// Messages at positions from here up to `to` were evicted, but for a few that could not be.
    pub from: u64,
    /// End of the evicted positions, exclusive; `from` or less if there are none.
    pub to: u64,
    /// When the front reaches this position, the next messages have to be read.
    pub check_at: u64,
    /// Reads under way.
    pub under_way: u32,
    /// It stands in the line of queues that may not read yet.
    pub in_line: bool,
    /// `basic.get`s that wait for the front message, oldest first, each with its `no_ack`.
    pub getters: VecDeque<(ChannelKey, bool)>,
}

impl Pages {
    /// Whether no message is known to be on disk only, and no request waits.
    pub fn are_idle(&self) -> bool {
        self.from >= self.to && self.under_way == 0 && self.getters.is_empty() && !self.in_line
    }
}
