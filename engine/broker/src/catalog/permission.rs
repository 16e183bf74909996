//! What a user may do, as three patterns per user and virtual host.

use regex::{Regex, RegexBuilder};

use crate::error::Exception;

/// Most bytes a compiled pattern may take. Real patterns are `.*` or a prefix and compile to a few
/// KiB; a shard holds one set per user and virtual host.
const PATTERN_SIZE_MAX: usize = 256 << 10;

/// Longest pattern in octets. Longer ones exceed [`PATTERN_SIZE_MAX`], unless they consist of parts
/// that match nothing; the text of those would be stored all the same.
const PATTERN_TEXT_SIZE_MAX: usize = 64 << 10;

/// What a method does to an object (`RabbitMQ`'s "Authorisation" table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Declare and delete.
    Configure,
    /// Publish to an exchange, bind a destination.
    Write,
    /// Consume, get and purge a queue, bind from an exchange.
    Read,
}

/// What kind of object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceKind {
    /// An exchange; the empty name is checked as `amq.default`.
    Exchange,
    /// A queue.
    Queue,
}

/// The permissions of one user in one virtual host. No permissions at all are expressed by
/// absence: such a user may not even open a connection to the virtual host.
#[derive(Clone, Debug)]
pub struct Permissions {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a usable regular expression: {reason}")]
pub struct PatternError {
    /// The pattern as given, its beginning where it is too long.
    pub pattern: String,
    /// Why it was refused.
    pub reason: String,
}

impl Permissions {
    /// Compiles three patterns. They match anywhere in a name; the empty pattern matches nothing.
    ///
    /// # Errors
    /// Syntax, and what the linear-time engine does not have: look-around and back-references.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Self, PatternError> {
        Ok(Self {
            configure: Pattern::new(configure)?,
            write: Pattern::new(write)?,
            read: Pattern::new(read)?,
        })
    }

    /// Permission for everything.
    pub fn full() -> Self {
        Self { configure: Pattern::Anything, write: Pattern::Anything, read: Pattern::Anything }
    }

    /// The pattern for `access` as given.
    pub fn pattern(&self, access: Access) -> &str {
        match self.of(access) {
            Pattern::Nothing => "",
            Pattern::Anything => ".*",
            Pattern::Matching(regex) => regex.as_str(),
        }
    }

    /// Whether the user may do this to an object of this name.
    pub fn permits(&self, access: Access, kind: ResourceKind, name: &str) -> bool {
        match self.of(access) {
            Pattern::Nothing => false,
            Pattern::Anything => true,
            Pattern::Matching(regex) => regex.is_match(shown_name(kind, name)),
        }
    }

    fn of(&self, access: Access) -> &Pattern {
        match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        }
    }
}

/// Refuses what `permissions` (`None` = none in this virtual host) do not permit.
///
/// # Errors
/// 403 in the words of `RabbitMQ` 3.10; from 3.11 on the text starts with the kind of access
/// (`configure access to …`), which no known client looks at.
pub fn check(
    permissions: Option<&Permissions>,
    access: Access,
    kind: ResourceKind,
    name: &str,
    vhost: &str,
    user: &str,
) -> Result<(), Exception> {
    if permissions.is_some_and(|permissions| permissions.permits(access, kind, name)) {
        return Ok(());
    }
    let kind_name = match kind {
        ResourceKind::Exchange => "exchange",
        ResourceKind::Queue => "queue",
    };
    Err(Exception::access_refused(format!(
        "access to {kind_name} '{}' in vhost '{vhost}' refused for user '{user}'",
        shown_name(kind, name),
    )))
}

impl PartialEq for Permissions {
    fn eq(&self, other: &Self) -> bool {
        let all = [Access::Configure, Access::Write, Access::Read];
        all.iter().all(|access| self.pattern(*access) == other.pattern(*access))
    }
}

impl Eq for Permissions {}

fn shown_name(kind: ResourceKind, name: &str) -> &str {
    if kind == ResourceKind::Exchange && name.is_empty() { "amq.default" } else { name }
}

#[derive(Clone, Debug)]
enum Pattern {
    Nothing,
    /// `.*`, which nearly every user has, without running a regular expression.
    Anything,
    Matching(Regex),
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, PatternError> {
        match pattern {
            "" | "^$" => Ok(Self::Nothing),
            ".*" => Ok(Self::Anything),
            long if long.len() > PATTERN_TEXT_SIZE_MAX => Err(PatternError {
                pattern: long.chars().take(80).collect(),
                reason: format!("it is longer than {PATTERN_TEXT_SIZE_MAX} octets"),
            }),
            other => RegexBuilder::new(other)
                .size_limit(PATTERN_SIZE_MAX)
                .dfa_size_limit(PATTERN_SIZE_MAX)
                .build()
                .map(Self::Matching)
                .map_err(|error| PatternError {
                    pattern: other.to_owned(),
                    reason: error.to_string(),
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_anywhere() {
        let permissions = Permissions::new("^own-", "log", "").unwrap();
        assert!(permissions.permits(Access::Configure, ResourceKind::Queue, "own-1"));
        assert!(!permissions.permits(Access::Configure, ResourceKind::Queue, "my-own-1"));
        assert!(permissions.permits(Access::Write, ResourceKind::Exchange, "a-log-b"));
        assert!(!permissions.permits(Access::Read, ResourceKind::Queue, "own-1"));
        assert!(!permissions.permits(Access::Read, ResourceKind::Queue, ""));
    }

    #[test]
    fn default_exchange_has_a_name() {
        let permissions = Permissions::new("", "^amq\\.default$", "").unwrap();
        assert!(permissions.permits(Access::Write, ResourceKind::Exchange, ""));
        assert!(!permissions.permits(Access::Write, ResourceKind::Queue, ""));
    }

    #[test]
    fn refusals_read_like_rabbitmq() {
        let none = Permissions::new("", "", "").unwrap();
        let refusal = |kind, name| {
            check(Some(&none), Access::Write, kind, name, "/", "u").unwrap_err().explanation
        };
        assert_eq!(
            refusal(ResourceKind::Queue, "q"),
            "access to queue 'q' in vhost '/' refused for user 'u'"
        );
        assert_eq!(
            refusal(ResourceKind::Exchange, ""),
            "access to exchange 'amq.default' in vhost '/' refused for user 'u'"
        );
        check(None, Access::Read, ResourceKind::Queue, "q", "/", "u").unwrap_err();
        let full = Permissions::full();
        check(Some(&full), Access::Read, ResourceKind::Queue, "q", "/", "u").unwrap();
    }

    #[test]
    fn unusable_patterns_are_errors() {
        let long = "a{0}".repeat(PATTERN_TEXT_SIZE_MAX);
        let refusal = Permissions::new("", "", &long).unwrap_err();
        assert_eq!(refusal.reason, "it is longer than 65536 octets");
        for pattern in ["(", "(?=look)ahead", "a{1000}{1000}"] {
            assert_eq!(Permissions::new(pattern, "", "").unwrap_err().pattern, pattern);
        }
    }
}
