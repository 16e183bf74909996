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
//! the request of somebody else are short. They do not stand in line behind all of it.

use std::collections::VecDeque;

use bytes::Bytes;
use leveret_broker::id::ConnectionId;

/// A buffer of a connection, or its end.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) connection: ConnectionId,
    /// `None`: nothing more will come.
    pub(crate) bytes: Option<Bytes>,
}

/// Arrivals of all connections, each connection's in their order.
#[derive(Default)]
pub(crate) struct Arrivals {
    waiting: VecDeque<Arrival>,
    /// What is left of the round, the next one last.
    round: Vec<Arrival>,
    /// By slot of the connection.
    lines: Vec<Line>,
    /// Connections of which something is in `waiting` or `round`.
    connections: usize,
    bytes: usize,
    rounds: u32,
    /// Memory of `waiting` for the next round.
    spare: VecDeque<Arrival>,
}

/// What waits of one connection.
#[derive(Clone, Copy, Default)]
struct Line {
    arrivals: u32,
    bytes: usize,
    /// The last round that it was in.
    round: u32,
}

impl Arrivals {
    pub(crate) fn is_empty(&self) -> bool {
        self.connections == 0
    }

    /// Bytes that wait, of all connections.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what arrived last.
    pub(crate) fn push(&mut self, arrival: Arrival) {
        let (slot, bytes) = arrival.key();
        if self.lines.len() <= slot {
            self.lines.resize(slot + 1, Line::default());
        }
        let line = &mut self.lines[slot];
        self.connections += usize::from(line.arrivals == 0);
        line.arrivals += 1;
        line.bytes += bytes;
        self.bytes += bytes;
        self.waiting.push_back(arrival);
    }

    /// Takes what is next.
    pub(crate) fn pop(&mut self) -> Option<Arrival> {
        if self.round.is_empty() && self.connections > 1 {
            self.begin_round();
        }
        let arrival = self.round.pop().or_else(|| self.waiting.pop_front())?;
        let (slot, bytes) = arrival.key();
        let line = &mut self.lines[slot];
        line.arrivals -= 1;
        line.bytes -= bytes;
        self.bytes -= bytes;
        self.connections -= usize::from(line.arrivals == 0);
        Some(arrival)
    }

    fn begin_round(&mut self) {
        self.rounds = self.rounds.wrapping_add(1);
        let mut left = std::mem::take(&mut self.spare);
        for arrival in self.waiting.drain(..) {
            let line = &mut self.lines[arrival.key().0];
            if std::mem::replace(&mut line.round, self.rounds) == self.rounds {
                left.push_back(arrival);
            } else {
                self.round.push(arrival);
            }
        }
        self.spare = std::mem::replace(&mut self.waiting, left);
        // Stable: those with equally much stay in the order of their arrival.
        self.round.reverse();
        let lines = &self.lines;
        self.round.sort_by_key(|arrival| std::cmp::Reverse(lines[arrival.key().0].bytes));
    }
}

impl Arrival {
    /// The slot of the connection, and the size.
    fn key(&self) -> (usize, usize) {
        (self.connection.slot as usize, self.bytes.as_ref().map_or(0, Bytes::len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(slot: u32, bytes: &'static [u8]) -> Arrival {
        let connection = ConnectionId { slot, generation: 1 };
        Arrival { connection, bytes: Some(Bytes::from_static(bytes)) }
    }

    fn ended(slot: u32) -> Arrival {
        Arrival { connection: ConnectionId { slot, generation: 1 }, bytes: None }
    }

    fn popped(arrivals: &mut Arrivals) -> Option<(usize, usize)> {
        arrivals.pop().map(|arrival| arrival.key())
    }

    #[test]
    fn short_ones_go_first_and_long_ones_take_turns() {
        let mut arrivals = Arrivals::default();
        for arrival in [
            received(0, b"a long one"),
            received(0, b"goes"),
            received(1, b"another"),
            received(0, b"on"),
            received(2, b"ack"),
            received(1, b"one"),
        ] {
            arrivals.push(arrival);
        }
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut arrivals)).collect();
        assert_eq!(order, [(2, 3), (1, 7), (0, 10), (1, 3), (0, 4), (0, 2)]);
        assert!(arrivals.is_empty() && arrivals.bytes() == 0);
        assert!(arrivals.lines.iter().all(|line| line.bytes == 0));
    }

    #[test]
    fn what_comes_during_a_round_is_in_the_next_one() {
        let mut arrivals = Arrivals::default();
        arrivals.push(received(0, b"aaaa"));
        arrivals.push(received(0, b"bbb"));
        arrivals.push(received(1, b"cc"));
        assert_eq!(popped(&mut arrivals), Some((1, 2)));
        arrivals.push(received(1, b"d"));
        assert_eq!(popped(&mut arrivals), Some((0, 4)), "the long one is not passed over");
        assert_eq!(popped(&mut arrivals), Some((1, 1)));
        assert_eq!(popped(&mut arrivals), Some((0, 3)));
        assert_eq!(popped(&mut arrivals), None);
    }

    #[test]
    fn the_end_of_a_connection_stays_behind_what_it_sent() {
        let mut arrivals = Arrivals::default();
        arrivals.push(received(0, b"aaaa"));
        arrivals.push(ended(0));
        arrivals.push(received(1, b"b"));
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut arrivals)).collect();
        assert_eq!(order, [(1, 1), (0, 4), (0, 0)]);
    }

    #[test]
    fn equally_long_ones_keep_their_order() {
        let mut arrivals = Arrivals::default();
        for slot in [3, 1, 2, 0] {
            arrivals.push(received(slot, b"same"));
        }
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut arrivals)).collect();
        assert_eq!(order, [(3, 4), (1, 4), (2, 4), (0, 4)]);
    }
}
