//! The identity of a message, written into its body, so that a receiver can recognise it.
//!
//! ```text
//! ┌─────────────┬────────────┬─────────┬──────────────┬─────────┐
//! │ publisher 4 │ sequence 8 │ size 4  │ checksum 4   │ filler  │   whole body: size octets
//! └─────────────┴────────────┴─────────┴──────────────┴─────────┘
//! ```

/// The smallest body with an identity, in octets.
pub const IDENTITY_SIZE: usize = 20;

/// The identity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The publishing channel, as a number that is unique in a run.
    pub publisher: u32,
    /// The number of the publish on that channel, from 1.
    pub sequence: u64,
}

impl Identity {
    /// A body with `size` octets, but at least [`IDENTITY_SIZE`].
    pub fn body(self, size: usize) -> Vec<u8> {
        let size = size.max(IDENTITY_SIZE);
        let mut body = Vec::with_capacity(size);
        body.extend_from_slice(&self.publisher.to_be_bytes());
        body.extend_from_slice(&self.sequence.to_be_bytes());
        body.extend_from_slice(&(size as u32).to_be_bytes());
        body.extend_from_slice(&[0; 4]);
        let seed = self.publisher as usize + self.sequence as usize;
        body.extend((body.len()..size).map(|at| (at.wrapping_mul(31) + seed) as u8));
        let sum = checksum(&body);
        body[16..20].copy_from_slice(&sum.to_be_bytes());
        body
    }

    /// Reads the identity from a body.
    ///
    /// # Errors
    /// If the body is damaged.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let Some((head, _)) = body.split_first_chunk::<IDENTITY_SIZE>() else {
            return Err(format!("a body of {} octets that nobody published", body.len()));
        };
        let [p0, p1, p2, p3, sequence @ .., s0, s1, s2, s3, c0, c1, c2, c3] = *head;
        let size = u32::from_be_bytes([s0, s1, s2, s3]);
        let mut zeroed = body.to_vec();
        zeroed[16..20].fill(0);
        if size as usize != body.len() || checksum(&zeroed) != u32::from_be_bytes([c0, c1, c2, c3])
        {
            return Err(format!("a damaged body of {} octets, once {size}", body.len()));
        }
        let publisher = u32::from_be_bytes([p0, p1, p2, p3]);
        Ok(Self { publisher, sequence: u64::from_be_bytes(sequence) })
    }
}

/// FNV-1a over the octets.
fn checksum(octets: &[u8]) -> u32 {
    octets
        .iter()
        .fold(0x811C_9DC5, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_body_is_noticed() {
        let identity = Identity { publisher: 3, sequence: 1 << 40 };
        for size in [0, 20, 21, 5000] {
            let mut body = identity.body(size);
            assert_eq!(Identity::read(&body), Ok(identity));
            let last = body.len() - 1;
            body[last] ^= 1;
            assert!(Identity::read(&body).is_err());
            assert!(Identity::read(&body[..last]).is_err());
        }
    }
}
