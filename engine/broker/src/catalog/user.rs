//! Users and their passwords.

use std::fmt;

use sha2::{Digest, Sha256};

use super::base64;
use super::name::Name;

/// Octets of salt before the digest.
const SALT_SIZE: usize = 4;
/// Octets of a SHA-256 digest.
const DIGEST_SIZE: usize = 32;

/// A user that may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: Name,
    /// The hash of the password; `None` refuses every password.
    pub password: Option<PasswordHash>,
    /// Management tags such as `administrator`.
    pub tags: Vec<Name>,
    /// May connect from this host only.
    pub loopback_only: bool,
}

impl User {
    /// Whether `password` is this user's. Takes the same time wherever it differs.
    pub fn authenticate(&self, password: &[u8]) -> bool {
        // RabbitMQ refuses blank passwords, whatever hash is stored.
        !password.is_empty() && self.password.as_ref().is_some_and(|hash| hash.matches(password))
    }

    /// Whether the user carries the tag `administrator`.
    pub fn is_administrator(&self) -> bool {
        self.tags.iter().any(|tag| *tag == "administrator")
    }
}

/// A salted SHA-256 hash as `RabbitMQ` stores it (`rabbit_password_hashing_sha256`).
///
/// ```text
/// base64 of ┌─────────┬──────────────────────────────┐
///           │ salt: 4 │ SHA-256(salt ‖ password): 32 │
///           └─────────┴──────────────────────────────┘
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash([u8; PasswordHash::SIZE]);

impl PasswordHash {
    /// Octets of salt and digest.
    pub const SIZE: usize = SALT_SIZE + DIGEST_SIZE;

    /// Hashes `password` with `salt`.
    pub fn new(salt: [u8; SALT_SIZE], password: &[u8]) -> Self {
        let mut hash = [0; Self::SIZE];
        let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
        hash[..SALT_SIZE].copy_from_slice(&salt);
        hash[SALT_SIZE..].copy_from_slice(&digest);
        Self(hash)
    }

    /// Reads the base64 form of definition files; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        base64::decode(text)?.try_into().ok().map(Self)
    }

    /// Takes salt and digest as [`Self::octets`] gives them.
    pub fn from_octets(octets: [u8; Self::SIZE]) -> Self {
        Self(octets)
    }

    /// Salt and digest.
    pub fn octets(&self) -> &[u8; Self::SIZE] {
        &self.0
    }

    /// Whether `password` hashes to this. Takes the same time wherever it differs.
    pub fn matches(&self, password: &[u8]) -> bool {
        let mut salt = [0; SALT_SIZE];
        salt.copy_from_slice(&self.0[..SALT_SIZE]);
        let other = Self::new(salt, password);
        self.0.iter().zip(other.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64::encode(&self.0))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Logs are read by more people than password files.
        f.write_str("PasswordHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(password: Option<PasswordHash>) -> User {
        User { name: Name::from("u"), password, tags: Vec::new(), loopback_only: false }
    }

    /// The example of `RabbitMQ`'s documentation of its hashing ("test12", salt 908D C60A).
    #[test]
    fn hashes_like_rabbitmq() {
        let hash = PasswordHash::new([0x90, 0x8D, 0xC6, 0x0A], b"test12");
        assert_eq!(hash.to_string(), "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
        assert_eq!(PasswordHash::parse(&hash.to_string()), Some(hash));
    }

    #[test]
    fn only_the_right_password_passes() {
        let known = user(Some(PasswordHash::new([1, 2, 3, 4], b"secret")));
        assert!(known.authenticate(b"secret"));
        assert!(!known.authenticate(b"secres"));
        assert!(!known.authenticate(b""));
        assert!(!user(None).authenticate(b"secret"));
        assert!(!user(Some(PasswordHash::new([0; 4], b""))).authenticate(b""));
    }

    #[test]
    fn foreign_hashes_are_refused() {
        assert_eq!(PasswordHash::parse("AAAA"), None);
        assert_eq!(PasswordHash::parse("not base64!"), None);
    }
}
