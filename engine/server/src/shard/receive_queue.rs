//! What arrived and is not worked off, and whose turn it is.
//!
//! ```text
//!   waiting, as the kernel brought it     one round: the front of each connection,
//!                                         those with the least waiting first
//!   A₁ A₂ B₁ A₃ C₁ B₂            ──►      C₁ B₁ A₁
//!      A₂    A₃    B₂            ──►      B₂ A₂
//!            A₃                  ──►      A₃
//! ```
//! A publisher in full flow fills buffer after buffer; the acks that make room for its messages and
//! the request of somebody else are short. They do not stand in line behind all of it, nor behind
//! what the kernel would bring of it yet: of which more waits than its share nothing is received.

use std::collections::VecDeque;

use bytes::Bytes;
use leveret_broker::id::ConnectionId;

/// Received bytes that wait, of all connections, before those with more than an equal share of them
/// are held back: four turns' worth. Senders that are faster than the shard had better wait
/// themselves, and what waits here would leave too few receive buffers, out of which it had to be
/// copied.
const WAITING_BYTES_MAX: usize = 2 << 20;

/// The least share, as a buffer is more than most send at once: where thousands of connections send
/// together, none of them is stopped and started again for a buffer each.
const SHARE_MIN_BYTES: usize = 64 << 10;

/// The part of its share down to which who was held back is worked off: one turn's worth, so that
/// the next is there when it is done.
const RESUME_PART: usize = 4;

/// A buffer of a connection, or its end.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) connection: ConnectionId,
    /// `None`: nothing more will come.
    pub(crate) bytes: Option<Bytes>,
}

/// Received buffers of all connections, each connection's in their order.
#[derive(Default)]
pub(crate) struct ReceiveQueue {
    waiting: VecDeque<Received>,
    /// What is left of the round, the next one last.
    round: Vec<Received>,
    /// By slot of the connection.
    backlogs: Vec<Backlog>,
    /// Connections of which something is in `waiting` or `round`.
    connections: usize,
    bytes: usize,
    /// Connections that are held back.
    held_back: Vec<ConnectionId>,
    rounds: u32,
    /// Memory of `waiting` for the next round.
    spare: VecDeque<Received>,
}

/// What waits of one connection.
#[derive(Clone, Copy, Default)]
struct Backlog {
    buffers: u32,
    bytes: usize,
    /// The last round that it was in.
    round: u32,
    /// The shard takes nothing of it now.
    unwanted: bool,
    /// It is among those held back.
    held_back: bool,
}

impl ReceiveQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.connections == 0
    }

    /// A new connection, which wants to be received from.
    pub(crate) fn begin(&mut self, connection: ConnectionId) {
        let backlog = self.backlog(connection);
        (backlog.unwanted, backlog.held_back) = (false, false);
        self.held_back.retain(|held| held.slot != connection.slot);
    }

    /// Whether the shard wants more of a connection. True when that is to be told to the ring now:
    /// of who is held back nothing is received anyway.
    pub(crate) fn want(&mut self, connection: ConnectionId, wanted: bool) -> bool {
        let backlog = self.backlog(connection);
        backlog.unwanted = !wanted;
        !backlog.held_back
    }

    /// Adds what arrived last. True when nothing more of that connection is to be received now.
    pub(crate) fn push(&mut self, received: Received) -> bool {
        let (connection, bytes) = (received.connection, received.size_bytes());
        let backlog = self.backlog(connection);
        let is_first = backlog.buffers == 0;
        backlog.buffers += 1;
        backlog.bytes += bytes;
        self.connections += usize::from(is_first);
        self.bytes += bytes;
        self.waiting.push_back(received);
        if self.bytes <= WAITING_BYTES_MAX {
            return false;
        }
        let share = self.share_bytes();
        let backlog = self.backlog(connection);
        if backlog.held_back || backlog.bytes <= share {
            return false;
        }
        backlog.held_back = true;
        let wanted = !backlog.unwanted;
        self.held_back.push(connection);
        wanted
    }

    /// Takes one that was held back and is to be received from again.
    pub(crate) fn resume_next(&mut self) -> Option<ConnectionId> {
        let enough = self.share_bytes() / RESUME_PART;
        loop {
            let backlogs = &self.backlogs;
            let at = self
                .held_back
                .iter()
                .position(|held| backlogs[held.slot as usize].bytes <= enough)?;
            let connection = self.held_back.swap_remove(at);
            let backlog = self.backlog(connection);
            backlog.held_back = false;
            if !backlog.unwanted {
                return Some(connection);
            }
        }
    }

    /// Takes what is next.
    pub(crate) fn pop(&mut self) -> Option<Received> {
        if self.round.is_empty() && self.connections > 1 {
            self.begin_round();
        }
        let received = self.round.pop().or_else(|| self.waiting.pop_front())?;
        let bytes = received.size_bytes();
        let backlog = self.backlog(received.connection);
        backlog.buffers -= 1;
        backlog.bytes -= bytes;
        let is_last = backlog.buffers == 0;
        self.connections -= usize::from(is_last);
        self.bytes -= bytes;
        Some(received)
    }

    /// What may wait of one connection.
    fn share_bytes(&self) -> usize {
        (WAITING_BYTES_MAX / self.connections.max(1)).max(SHARE_MIN_BYTES)
    }

    fn backlog(&mut self, connection: ConnectionId) -> &mut Backlog {
        let slot = connection.slot as usize;
        if self.backlogs.len() <= slot {
            self.backlogs.resize(slot + 1, Backlog::default());
        }
        &mut self.backlogs[slot]
    }

    fn begin_round(&mut self) {
        self.rounds = self.rounds.wrapping_add(1);
        let mut left = std::mem::take(&mut self.spare);
        for received in self.waiting.drain(..) {
            let backlog = &mut self.backlogs[received.connection.slot as usize];
            if std::mem::replace(&mut backlog.round, self.rounds) == self.rounds {
                left.push_back(received);
            } else {
                self.round.push(received);
            }
        }
        self.spare = std::mem::replace(&mut self.waiting, left);
        // Stable: those with equally much stay in the order of their arrival.
        self.round.reverse();
        let backlogs = &self.backlogs;
        self.round.sort_by_key(|received| {
            std::cmp::Reverse(backlogs[received.connection.slot as usize].bytes)
        });
    }
}

impl Received {
    fn size_bytes(&self) -> usize {
        self.bytes.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(slot: u32, bytes: &'static [u8]) -> Received {
        let connection = ConnectionId { slot, generation: 1 };
        Received { connection, bytes: Some(Bytes::from_static(bytes)) }
    }

    fn ended(slot: u32) -> Received {
        Received { connection: ConnectionId { slot, generation: 1 }, bytes: None }
    }

    fn popped(queue: &mut ReceiveQueue) -> Option<(u32, usize)> {
        queue.pop().map(|received| (received.connection.slot, received.size_bytes()))
    }

    #[test]
    fn short_ones_go_first_and_long_ones_take_turns() {
        let mut queue = ReceiveQueue::default();
        for received in [
            received(0, b"a long one"),
            received(0, b"goes"),
            received(1, b"another"),
            received(0, b"on"),
            received(2, b"ack"),
            received(1, b"one"),
        ] {
            queue.push(received);
        }
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue)).collect();
        assert_eq!(order, [(2, 3), (1, 7), (0, 10), (1, 3), (0, 4), (0, 2)]);
        assert!(queue.is_empty() && queue.bytes == 0);
        assert!(queue.backlogs.iter().all(|backlog| backlog.bytes == 0));
    }

    #[test]
    fn what_comes_during_a_round_is_in_the_next_one() {
        let mut queue = ReceiveQueue::default();
        queue.push(received(0, b"aaaa"));
        queue.push(received(0, b"bbb"));
        queue.push(received(1, b"cc"));
        assert_eq!(popped(&mut queue), Some((1, 2)));
        queue.push(received(1, b"d"));
        assert_eq!(popped(&mut queue), Some((0, 4)), "the long one is not passed over");
        assert_eq!(popped(&mut queue), Some((1, 1)));
        assert_eq!(popped(&mut queue), Some((0, 3)));
        assert_eq!(popped(&mut queue), None);
    }

    #[test]
    fn the_end_of_a_connection_stays_behind_what_it_sent() {
        let mut queue = ReceiveQueue::default();
        queue.push(received(0, b"aaaa"));
        queue.push(ended(0));
        queue.push(received(1, b"b"));
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue)).collect();
        assert_eq!(order, [(1, 1), (0, 4), (0, 0)]);
    }

    #[test]
    fn who_sends_more_than_its_share_is_held_back_until_most_is_worked_off() {
        static BUFFER: [u8; SHARE_MIN_BYTES] = [7; SHARE_MIN_BYTES];
        let mut queue = ReceiveQueue::default();
        let buffers = WAITING_BYTES_MAX / BUFFER.len();
        let hold: Vec<bool> = (0..buffers + 2).map(|_| queue.push(received(0, &BUFFER))).collect();
        assert_eq!(hold.iter().position(|&hold| hold), Some(buffers), "one more than its share");
        assert!(!hold[buffers + 1], "it is told once");
        assert!(!queue.push(received(1, b"a short one")), "nobody else is");
        // The short one goes first, so all is its share again, of which a quarter may be left.
        let mut left = buffers + 2;
        while queue.resume_next().is_none() {
            left -= usize::from(queue.pop().is_some_and(|next| next.connection.slot == 0));
        }
        assert_eq!(left, buffers / RESUME_PART);
        assert_eq!(queue.resume_next(), None);
        assert!(!queue.push(received(0, &BUFFER)), "it has its share again");
    }

    #[test]
    fn the_shard_and_the_share_both_have_to_agree() {
        static LONG: [u8; WAITING_BYTES_MAX + 1] = [7; WAITING_BYTES_MAX + 1];
        let connection = ConnectionId { slot: 0, generation: 1 };
        let mut queue = ReceiveQueue::default();
        assert!(queue.want(connection, false), "the ring is told");
        assert!(!queue.push(received(0, &LONG)), "nothing is received of it already");
        queue.pop();
        assert_eq!(queue.resume_next(), None, "the shard wants nothing");
        assert!(queue.want(connection, true));
        assert!(queue.push(received(0, &LONG)));
        assert!(!queue.want(connection, false) && !queue.want(connection, true));
        queue.pop();
        assert_eq!(queue.resume_next(), Some(connection));
    }

    #[test]
    fn the_next_connection_of_a_slot_begins_anew() {
        static LONG: [u8; WAITING_BYTES_MAX + 1] = [7; WAITING_BYTES_MAX + 1];
        let next = ConnectionId { slot: 0, generation: 2 };
        let mut queue = ReceiveQueue::default();
        assert!(queue.push(received(0, &LONG)));
        assert!(!queue.want(next, false));
        queue.begin(next);
        queue.pop();
        assert_eq!(queue.resume_next(), None);
        assert!(queue.want(next, true), "it is not held back");
    }

    #[test]
    fn equally_long_ones_keep_their_order() {
        let mut queue = ReceiveQueue::default();
        for slot in [3, 1, 2, 0] {
            queue.push(received(slot, b"same"));
        }
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue)).collect();
        assert_eq!(order, [(3, 4), (1, 4), (2, 4), (0, 4)]);
    }
}
