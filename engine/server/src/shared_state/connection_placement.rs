//! Which shard serves a new connection: the one with the fewest. AMQP connections are few,
//! long-lived and heavy, and the kernel's distribution by address hash would be too uneven for
//! them.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

/// Connections that may wait for one shard: more than arrive between two of its turns. If the inbox
/// of the chosen shard is full, the connection is refused.
const INBOX_CAPACITY: usize = 1024;

/// The connections of all shards, shared by the acceptor and the shards.
pub(crate) struct ConnectionPlacement {
    inboxes: Vec<ShardInbox>,
    connections_max: u32,
    refused: AtomicU64,
}

/// The connections of one shard. On its own cache lines, because both the shard and the acceptor
/// write to it.
#[repr(align(128))]
struct ShardInbox {
    /// Connections that were placed here and are not closed yet.
    connections: AtomicU32,
    streams: ArrayQueue<TcpStream>,
}

/// Why a connection was refused; it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The limit of connections is reached.
    Full {
        /// The limit.
        connections_max: u32,
    },
    /// Connections come faster than the shards take them.
    Overrun,
}

impl ConnectionPlacement {
    /// For `shards` shards that together serve at most `connections_max` connections.
    pub(crate) fn new(shards: usize, connections_max: u32) -> Self {
        let inbox = || ShardInbox {
            connections: AtomicU32::new(0),
            streams: ArrayQueue::new(INBOX_CAPACITY),
        };
        let inboxes = (0..shards).map(|_| inbox()).collect();
        Self { inboxes, connections_max, refused: AtomicU64::new(0) }
    }

    /// Puts a connection into the inbox of the least loaded shard and returns that shard, which the
    /// caller has to wake. Among equals it chooses the first after `last`, the shard of the
    /// previous connection, so that short connections do not all go to shard 0.
    pub(crate) fn place(&self, stream: TcpStream, last: usize) -> Result<usize, Refusal> {
        let placed = self.try_place(stream, last);
        if placed.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        placed
    }

    fn try_place(&self, stream: TcpStream, last: usize) -> Result<usize, Refusal> {
        let counts = self.counts();
        if counts.iter().map(|count| u64::from(*count)).sum::<u64>()
            >= u64::from(self.connections_max)
        {
            return Err(Refusal::Full { connections_max: self.connections_max });
        }
        let order = (1..=counts.len()).map(|step| (last + step) % counts.len());
        // Only the least loaded shard is tried: the socket table of a shard has room for its share
        // and no more.
        let Some(shard) = order.min_by_key(|shard| counts[*shard]) else {
            return Err(Refusal::Overrun);
        };
        let inbox = &self.inboxes[shard];
        // Counted before the shard can see the connection, so that the shard's release cannot come
        // first.
        inbox.connections.fetch_add(1, Ordering::Relaxed);
        if inbox.streams.push(stream).is_err() {
            inbox.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Overrun);
        }
        Ok(shard)
    }

    /// Takes a connection that was placed on this shard. Called by the shard.
    pub(crate) fn take(&self, shard: usize) -> Option<TcpStream> {
        self.inboxes[shard].streams.pop()
    }

    /// Notes that a connection of this shard is closed. Called by the shard.
    pub(crate) fn release(&self, shard: usize) {
        self.inboxes[shard].connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections refused since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections of each shard.
    pub(crate) fn counts(&self) -> Vec<u32> {
        self.inboxes.iter().map(|inbox| inbox.connections.load(Ordering::Relaxed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Makes connections.
    struct Streams(TcpListener);

    impl Streams {
        fn new() -> Self {
            Self(TcpListener::bind("127.0.0.1:0").unwrap())
        }

        fn next(&self) -> TcpStream {
            let _client = TcpStream::connect(self.0.local_addr().unwrap()).unwrap();
            self.0.accept().unwrap().0
        }
    }

    #[test]
    fn connections_spread_and_return_to_the_emptiest() {
        let streams = Streams::new();
        let placement = ConnectionPlacement::new(3, 100);
        let mut last = 2;
        let mut seen = Vec::new();
        for _ in 0..6 {
            last = placement.place(streams.next(), last).unwrap();
            seen.push(last);
            assert!(placement.take(last).is_some());
        }
        assert_eq!(seen, [0, 1, 2, 0, 1, 2]);
        placement.release(1);
        placement.release(1);
        assert_eq!(placement.counts(), [2, 0, 2]);
        assert_eq!(placement.place(streams.next(), last).unwrap(), 1);
        assert_eq!(placement.place(streams.next(), 1).unwrap(), 1);
        assert_eq!(placement.place(streams.next(), 1).unwrap(), 2, "all equal again");
    }

    #[test]
    fn short_connections_visit_all_shards() {
        let streams = Streams::new();
        let placement = ConnectionPlacement::new(2, 100);
        let mut last = 1;
        for expected in [0, 1, 0, 1] {
            last = placement.place(streams.next(), last).unwrap();
            assert_eq!(last, expected);
            placement.release(last);
        }
    }

    #[test]
    fn the_limit_holds_and_is_given_back() {
        let streams = Streams::new();
        let placement = ConnectionPlacement::new(2, 3);
        let shards: Vec<_> = (0..3).map(|_| placement.place(streams.next(), 0).unwrap()).collect();
        let refused = placement.place(streams.next(), 0);
        assert_eq!(refused, Err(Refusal::Full { connections_max: 3 }));
        assert_eq!(placement.refused(), 1);
        placement.release(shards[0]);
        assert_eq!(placement.place(streams.next(), 0), Ok(shards[0]));
    }

    #[test]
    fn no_shard_gets_more_than_its_share_and_one() {
        let streams = Streams::new();
        let placement = ConnectionPlacement::new(3, 10);
        let mut last = 0;
        for connection in 0..100 {
            let Ok(shard) = placement.place(streams.next(), last) else {
                break;
            };
            assert!(connection < 99, "the limit was never reached");
            last = shard;
            // For a while connections to shard 0 close at once.
            if shard == 0 && connection < 20 {
                assert!(placement.take(0).is_some());
                placement.release(0);
            }
            assert!(placement.counts().iter().all(|count| *count <= 10u32.div_ceil(3) + 1));
        }
        assert_eq!(placement.counts().iter().sum::<u32>(), 10);
    }
}
