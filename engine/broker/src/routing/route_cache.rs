//! Recent results of routing by exchange and key, for publishers whose keys rotate.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::id::{ExchangeId, QueueId, ShardId};

use crate::catalog::object::Destination;

/// Entries of a set. One key can be in any of them.
const WAYS: usize = 4;

/// With [`WAYS`] entries of 256 octets each they take 1 MiB, about a level 2 cache. A larger cache
/// would be read from main memory, which costs as much as matching.
const SETS: usize = 1024;

/// Longest key that is kept, in octets. Longer keys are rare, and comparing one takes longer than
/// matching a common one.
const KEY_BYTES_MAX: usize = 86;

/// Most destinations of a result that is kept. To serve more costs far more than to find them.
const DESTINATIONS_MAX: usize = 12;

/// Results of routing. Where there is no room, a new one replaces an older one.
///
/// Bounded whatever clients send: memory by sets × ways, the time of a look-up by the ways, since
/// the hash is seeded. Sets are laid out when they are first needed.
#[derive(Debug, Default)]
pub(super) struct RouteCache {
    sets: Vec<Option<Box<[Entry; WAYS]>>>,
    /// Which entry of a full set is replaced next. It rotates, so that of many keys in one set none
    /// always loses.
    turn: usize,
}

/// The inputs that a result depends on.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    /// [`Topology::version`](super::topology::Topology::version).
    version: u64,
    exchange: ExchangeId,
    routing_key: &'a [u8],
    hash: u64,
}

/// One result; four cache lines.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Entry {
    /// 0 = vacant.
    version: u64,
    exchange: ExchangeId,
    hash: u64,
    key_length: u8,
    destination_count: u8,
    destinations: [Destination; DESTINATIONS_MAX],
    key: [u8; KEY_BYTES_MAX],
}

const _: () = assert!(size_of::<Entry>() == 256);

impl<'a> Question<'a> {
    /// Asks for the way of `routing_key` from `exchange`, in a topology of this seed and version.
    #[inline]
    pub(super) fn new(
        seed: u64,
        version: u64,
        exchange: ExchangeId,
        routing_key: &'a [u8],
    ) -> Self {
        let mut hasher = FixedState::with_seed(seed).build_hasher();
        hasher.write(routing_key);
        hasher.write_u32(exchange.slot);
        Self { version, exchange, routing_key, hash: hasher.finish() }
    }

    fn set(&self) -> usize {
        self.hash as usize % SETS
    }
}

impl RouteCache {
    /// The queues, if they are known.
    #[inline]
    pub(super) fn get(&self, question: &Question<'_>) -> Option<&[Destination]> {
        let set = self.sets.get(question.set())?.as_deref()?;
        set.iter().find(|entry| entry.answers(question)).map(Entry::destinations)
    }

    /// Keeps an answer to a question that had none.
    pub(super) fn put(&mut self, question: &Question<'_>, destinations: &[Destination]) {
        let key = question.routing_key;
        if key.len() > KEY_BYTES_MAX || destinations.len() > DESTINATIONS_MAX {
            return;
        }
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, || None);
        }
        let set = self.sets[question.set()]
            .get_or_insert_with(|| Box::new([const { Entry::VACANT }; WAYS]));
        let outdated = set.iter().position(|entry| entry.version != question.version);
        let way = outdated.unwrap_or_else(|| {
            self.turn = (self.turn + 1) % WAYS;
            self.turn
        });
        let entry = &mut set[way];
        entry.version = question.version;
        entry.exchange = question.exchange;
        entry.hash = question.hash;
        entry.key_length = key.len() as u8;
        entry.key[..key.len()].copy_from_slice(key);
        entry.destination_count = destinations.len() as u8;
        entry.destinations[..destinations.len()].copy_from_slice(destinations);
    }
}

const NOWHERE: Destination =
    Destination { queue: QueueId { slot: 0, generation: 0 }, home: ShardId(0) };

impl Entry {
    const VACANT: Self = Self {
        version: 0,
        exchange: ExchangeId { slot: 0, generation: 0 },
        hash: 0,
        key_length: 0,
        destination_count: 0,
        destinations: [NOWHERE; DESTINATIONS_MAX],
        key: [0; KEY_BYTES_MAX],
    };

    #[inline]
    fn answers(&self, question: &Question<'_>) -> bool {
        // The hash first: it differs between nearly all entries of a set.
        self.hash == question.hash
            && self.version == question.version
            && self.exchange == question.exchange
            && self.key[..usize::from(self.key_length)] == *question.routing_key
    }

    #[inline]
    fn destinations(&self) -> &[Destination] {
        &self.destinations[..usize::from(self.destination_count)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXCHANGE: ExchangeId = ExchangeId { slot: 3, generation: 1 };

    fn queue(slot: u32) -> Destination {
        Destination { queue: QueueId { slot, generation: 1 }, home: ShardId(0) }
    }

    fn question(version: u64, key: &[u8]) -> Question<'_> {
        Question::new(9, version, EXCHANGE, key)
    }

    #[test]
    fn one_hash_may_have_two_keys() {
        let mut cache = RouteCache::default();
        let first = question(1, b"first");
        cache.put(&first, &[queue(1)]);
        for (exchange, routing_key) in
            [(EXCHANGE, &b"other"[..]), (ExchangeId { slot: 3, generation: 2 }, b"first")]
        {
            let other = Question { exchange, routing_key, ..first };
            assert_eq!(cache.get(&other), None);
            cache.put(&other, &[queue(2)]);
            assert_eq!(cache.get(&other), Some(&[queue(2)][..]));
        }
        assert_eq!(cache.get(&first), Some(&[queue(1)][..]));
    }

    #[test]
    fn a_new_version_knows_nothing() {
        let mut cache = RouteCache::default();
        cache.put(&question(1, b"k"), &[queue(1)]);
        assert_eq!(cache.get(&question(2, b"k")), None);
        cache.put(&question(2, b"k"), &[]);
        assert_eq!(cache.get(&question(2, b"k")), Some(&[][..]));
    }

    #[test]
    fn what_does_not_fit_is_not_kept() {
        let mut cache = RouteCache::default();
        let key = [b'k'; KEY_BYTES_MAX + 1];
        let queues: Vec<_> = (0..=DESTINATIONS_MAX as u32).map(queue).collect();
        for (key, queues) in [(&key[..], &queues[1..]), (&key[1..], &queues[..])] {
            cache.put(&question(1, key), queues);
            assert_eq!(cache.get(&question(1, key)), None);
        }
        cache.put(&question(1, &key[1..]), &queues[1..]);
        assert_eq!(cache.get(&question(1, &key[1..])), Some(&queues[1..]));
    }

    /// A thousand keys in turn nearly all stay; a hundred thousand take no more than there is.
    #[test]
    fn keys_in_rotation() {
        for (keys, misses) in [(1_000, 0..100), (100_000, 90_000..100_001)] {
            let mut cache = RouteCache::default();
            let mut missed = 0;
            for turn in 0..3 {
                for key in 0..keys {
                    let name = format!("key {key}");
                    let question = question(1, name.as_bytes());
                    match cache.get(&question) {
                        Some(queues) => assert_eq!(queues, [queue(key)]),
                        None => {
                            missed += u32::from(turn == 2);
                            cache.put(&question, &[queue(key)]);
                        }
                    }
                }
            }
            assert!(misses.contains(&missed), "{missed} of {keys}");
            assert_eq!(cache.sets.len(), SETS);
        }
    }
}
