//! Identifiers that cross module and shard borders. All are small, `Copy` and free of pointers.

use std::collections::{HashMap, HashSet};
use std::fmt;

use foldhash::fast::FixedState;

/// Nanoseconds on the driver's monotonic clock. Only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The moment `nanoseconds` later.
    pub fn after(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// The next moment, or this one, that is a multiple of `step_ns`.
    pub fn rounded_up(self, step_ns: u64) -> Self {
        Self(self.0.checked_next_multiple_of(step_ns).unwrap_or(u64::MAX))
    }

    /// Nanoseconds since `earlier`; 0 where that lies in the future.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Nanoseconds since 1970-01-01, UTC: the time that is written down for a later process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub u64);

impl WallTime {
    /// The moment `nanoseconds` later.
    pub fn after(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// The moment `nanoseconds` earlier.
    pub fn before(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_sub(nanoseconds))
    }

    /// Nanoseconds since `earlier`; 0 where that lies in the future.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Milliseconds since 1970-01-01, UTC.
    pub fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// One moment on both clocks.
///
/// A driver reads the wall clock once, at its start, and moves it with the monotonic clock: all
/// through a run the distance between the two is the same, and a step of the machine's clock moves
/// nothing. The next run takes the wall clock as it is then, which may be earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// On the monotonic clock.
    pub now: Instant,
    /// On the wall clock.
    pub wall: WallTime,
}

/// What [`Time::at`] takes for the wall time of instant 0: 2023-11-14 22:13:20 UTC.
const MADE_UP_START: WallTime = WallTime(1_700_000_000 * SECOND_NS);

impl Time {
    /// A moment with a wall time that is made up, for tests and benches.
    pub fn at(now: Instant) -> Self {
        Self { now, wall: MADE_UP_START.after(now.0) }
    }

    /// The wall time of a moment before this one.
    #[inline]
    pub fn wall_of(self, earlier: Instant) -> WallTime {
        self.wall.before(self.now.since(earlier))
    }

    /// The instant of a wall time before this one, which another run may have written down.
    pub fn instant_of(self, earlier: WallTime) -> Instant {
        Instant(self.now.0.saturating_sub(self.wall.since(earlier)))
    }
}

/// One second in the unit of [`Instant`].
pub const SECOND_NS: u64 = 1_000_000_000;

/// A member of the mesh. Shards are numbered from 0; the control state is the last member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A connection of one shard. The slot is reused, the generation tells its users apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Index in the shard's connection table.
    pub slot: u32,
    /// Counts the users of the slot.
    pub generation: u32,
}

/// A connection anywhere in the broker: what owns an exclusive queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The shard that serves the connection.
    pub shard: ShardId,
    /// The connection there.
    pub connection: ConnectionId,
}

/// A channel anywhere in the broker: who consumes, gets and acknowledges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey {
    /// The connection and its shard.
    pub owner: Owner,
    /// The channel number on that connection.
    pub channel: u16,
    /// Counts the uses of the number on that connection, so that mail to a closed channel
    /// cannot reach its successor.
    pub incarnation: u32,
}

/// A consumer anywhere in the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerKey {
    /// The channel that subscribed.
    pub channel: ChannelKey,
    /// Chosen by the channel, never reused on it.
    pub number: u32,
}

/// A queue. Slots are reused, generations are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// Index in every shard's queue table.
    pub slot: u32,
    /// Counts the users of the slot.
    pub generation: u32,
}

/// An exchange. Slots are reused, generations are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId {
    /// Index in every shard's exchange table.
    pub slot: u32,
    /// Counts the users of the slot.
    pub generation: u32,
}

/// A virtual host. Ids are given in ascending order and never used again, so that a connection to a
/// removed virtual host finds nothing instead of another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VhostId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A hash map whose order and cost do not depend on the process: a run repeats exactly.
///
/// The hash is seeded per broker (see [`seeded_map`]), so that a client cannot aim its names
/// at one bucket.
pub type Map<K, V> = HashMap<K, V, FixedState>;

/// A hash set with the same properties as [`Map`].
pub type Set<K> = HashSet<K, FixedState>;

/// An empty [`Map`] that hashes with `seed`.
pub fn seeded_map<K, V>(seed: u64) -> Map<K, V> {
    Map::with_hasher(FixedState::with_seed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_name_the_same_moment() {
        let time = Time { now: Instant(500), wall: WallTime(90_000_500) };
        assert_eq!(time.wall_of(Instant(200)), WallTime(90_000_200));
        assert_eq!(time.instant_of(WallTime(90_000_200)), Instant(200));
        // Before the run, before 1970, and in a future that the machine's clock came back from.
        assert_eq!(time.instant_of(WallTime(1)), Instant(0));
        assert_eq!(Time { wall: WallTime(5), ..time }.wall_of(Instant(200)), WallTime(0));
        assert_eq!(time.instant_of(WallTime(u64::MAX)), time.now);
        assert_eq!((WallTime(7).since(WallTime(9)), WallTime(7_999_999).as_ms()), (0, 7));
        assert_eq!(Time::at(Instant(3)).wall, Time::at(Instant(1)).wall.after(2));
    }
}
