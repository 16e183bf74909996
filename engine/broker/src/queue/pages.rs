//! Which of a queue's messages are on disk only, and who waits for them.

use std::collections::VecDeque;

use crate::id::ChannelKey;

/// What a queue knows of its messages on disk. Made when its first one leaves memory.
#[derive(Debug, Default)]
pub struct Pages {
    /// Messages at positions from here up to `to` were evicted, but for a few that could not be.
    pub from: u64,
    /// Behind the evicted ones; `from` or less where there are none.
    pub to: u64,
    /// When the front comes to this position, more is to be read.
    pub check_at: u64,
    /// Reads under way.
    pub under_way: u32,
    /// It stands in the line of queues that may not read yet.
    pub in_line: bool,
    /// `basic.get`s that wait for the front, oldest first, and whether they acknowledge nothing.
    pub getters: VecDeque<(ChannelKey, bool)>,
}

impl Pages {
    /// Whether no message is known to be on disk only, and nobody waits.
    pub fn are_idle(&self) -> bool {
        self.from >= self.to && self.under_way == 0 && self.getters.is_empty() && !self.in_line
    }
}
