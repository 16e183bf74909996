//! Names the server makes for queues.

use sha2::{Digest, Sha256};

use crate::catalog::base64::encode_url_safe;
use crate::catalog::name::Name;

/// Octets of randomness in a name; 22 characters of base64.
const RANDOM_SIZE: usize = 16;

/// An endless supply of names such as `amq.gen-JzTY20BRgKO-HjmUJj0wLg`.
///
/// They need not be secret, an exclusive queue refuses strangers whatever they know; they must
/// not repeat while their queues live. Within a run they do not (see `next_number`); the caller
/// checks for the names of earlier runs.
#[derive(Debug)]
pub(super) struct ServerNames {
    state: u64,
}

impl ServerNames {
    /// The same seed makes the same names. The names do not reveal the seed, which also guards the
    /// hash tables.
    pub(super) fn new(seed: u64) -> Self {
        let digest = Sha256::digest(seed.to_be_bytes());
        let state = digest.iter().take(8).fold(0, |state, octet| state << 8 | u64::from(*octet));
        Self { state }
    }

    /// The next name.
    pub(super) fn next(&mut self) -> Name {
        let mut random = [0; RANDOM_SIZE];
        for half in random.chunks_exact_mut(8) {
            half.copy_from_slice(&self.next_number().to_be_bytes());
        }
        Name::from(format!("amq.gen-{}", encode_url_safe(&random)))
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014): a walk through all 2^64 states, mixed one to one, so
    /// no number comes twice within 2^64 and no name within 2^63.
    fn next_number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_have_the_usual_form_and_do_not_repeat() {
        let mut names = ServerNames::new(1);
        let made: BTreeSet<_> = (0..10_000).map(|_| names.next()).collect();
        assert_eq!(made.len(), 10_000);
        for name in made {
            let random = name.strip_prefix("amq.gen-").unwrap();
            assert_eq!(random.len(), 22);
            assert!(random.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        }
        assert_eq!(ServerNames::new(1).next(), ServerNames::new(1).next());
    }
}
