//! Received buffers that wait to be handled, and the order in which connections take turns.
//!
//! ```text
//!   waiting, as the kernel brought it     one round: the front of each connection,
//!                                         those with the least waiting first
//!   A₁ A₂ B₁ A₃ C₁ B₂            ──►      C₁ B₁ A₁
//!      A₂    A₃    B₂            ──►      B₂ A₂
//!            A₃                  ──►      A₃
//! ```
//! A fast publisher fills buffer after buffer, while acks and requests of other connections are
//! short. In turns, short buffers do not wait behind everything that the publisher sent. A
//! connection with more than its share waiting is not read from until it has caught up.

use std::collections::VecDeque;

use bytes::Bytes;
use leveret_broker::id::ConnectionId;

/// Received bytes of all connections that may wait before connections above their share are held
/// back: four turns' worth. More would occupy so many receive buffers that bodies had to be copied
/// out of them; senders that are faster than the shard have to wait instead.
const WAITING_BYTES_MAX: usize = 2 << 20;

/// The smallest share. A buffer is more than most connections send at once, so when thousands of
/// connections send together, none of them is stopped and started again for each buffer.
const SHARE_MIN_BYTES: usize = 64 << 10;

/// A connection that was held back is read from again once its backlog is down to this part of its
/// share: one turn's worth, so that new data arrives before the backlog is empty.
const RESUME_PART: usize = 4;

/// A received buffer, or the end of a connection's input.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) connection: ConnectionId,
    /// `None`: nothing more will come.
    pub(crate) bytes: Option<Bytes>,
}

/// The received buffers of all connections, in order within each connection.
#[derive(Default)]
pub(crate) struct ReceiveQueue {
    waiting: VecDeque<Received>,
    /// What is left of the current round; the next buffer is last.
    round: Vec<Received>,
    /// By the slot of the connection.
    backlogs: Vec<Backlog>,
    /// Connections with a buffer in `waiting` or `round`.
    connections: usize,
    bytes: usize,
    /// Connections that are not read from because of their backlog.
    held_back: Vec<ConnectionId>,
    rounds: u32,
    /// Memory for the next round's `waiting`.
    spare: VecDeque<Received>,
}

/// The waiting buffers of one connection.
#[derive(Clone, Copy, Default)]
struct Backlog {
    buffers: u32,
    bytes: usize,
    /// The last round with a buffer of this connection.
    round: u32,
    /// The shard has paused this connection.
    unwanted: bool,
    /// The connection is in `ReceiveQueue::held_back`.
    held_back: bool,
}

impl ReceiveQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.connections == 0
    }

    /// Registers a new connection, which is read from at first.
    pub(crate) fn begin(&mut self, connection: ConnectionId) {
        let backlog = self.backlog(connection);
        (backlog.unwanted, backlog.held_back) = (false, false);
        self.held_back.retain(|held| held.slot != connection.slot);
    }

    /// Notes whether the shard wants to read from a connection. True if the ring has to be informed
    /// now; a connection that is held back is not read from anyway.
    pub(crate) fn want(&mut self, connection: ConnectionId, wanted: bool) -> bool {
        let backlog = self.backlog(connection);
        backlog.unwanted = !wanted;
        !backlog.held_back
    }

    /// Adds a buffer. True if the ring has to stop reading from that connection.
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

    /// Returns a connection that was held back and can be read from again.
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

    /// The next buffer to handle.
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

    /// How many bytes of one connection may wait.
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
        // A stable sort: connections with equal backlogs keep their order of arrival.
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
        // The short buffer goes first. Then the connection is alone again and may have its whole
        // share, of which a quarter may be left.
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
