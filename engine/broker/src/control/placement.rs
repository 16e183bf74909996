//! Which shard a queue lives on.

use crate::id::ShardId;

/// The home of a queue by name: the shard with the highest hash of shard and name (rendezvous
/// hashing), so that with another number of shards most queues stay where they are.
///
/// Not seeded: a durable queue must find its log again after a restart.
pub fn home_of(vhost: &str, name: &str, shards: u16) -> ShardId {
    let vhost_hash = fnv_1a(0xCBF2_9CE4_8422_2325, vhost.as_bytes());
    // 0xFF is in no UTF-8 text: it keeps ("a", "bc") and ("ab", "c") apart.
    let hash = fnv_1a(fnv_1a(vhost_hash, &[0xFF]), name.as_bytes());
    let highest = (0..shards).max_by_key(|shard| mix(hash ^ mix(u64::from(*shard) + 1)));
    ShardId(highest.unwrap_or(0))
}

fn fnv_1a(start: u64, octets: &[u8]) -> u64 {
    octets
        .iter()
        .fold(start, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// The finalizer of `MurmurHash3`: every input bit moves every output bit.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_spread_evenly() {
        for shards in [1, 2, 3, 8] {
            let mut counts = vec![0; usize::from(shards)];
            for number in 0..8_000 {
                counts[usize::from(home_of("/", &format!("queue-{number}"), shards).0)] += 1;
            }
            let fair = 8_000 / i32::from(shards);
            for count in counts {
                assert!((count - fair).abs() < fair / 5, "{count} of {fair}");
            }
        }
    }

    #[test]
    fn one_more_shard_moves_few_queues() {
        let names = (0..8_000).map(|number| format!("queue-{number}"));
        let moved = names.filter(|name| home_of("/", name, 3) != home_of("/", name, 4)).count();
        assert!((1_600..2_400).contains(&moved), "{moved} of 8000 moved");
    }

    #[test]
    fn homes_outlive_the_process() {
        let homes: Vec<_> = (0..8).map(|n| home_of("/", &format!("q{n}"), 4).0).collect();
        assert_eq!(homes, HOMES_OF_Q0_TO_Q7);
    }

    /// Written down once: changing them moves every durable queue.
    const HOMES_OF_Q0_TO_Q7: [u16; 8] = [0, 2, 0, 0, 3, 2, 1, 2];
}
