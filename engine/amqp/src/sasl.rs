//! The responses of the SASL mechanisms `PLAIN` and `AMQPLAIN` in `connection.start-ok`.

use std::fmt;

use thiserror::Error;

use crate::table::{TableBuilder, TableError, TableRef, Value};

/// A login. User name and password are octets, not checked against any user.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// User name.
    pub username: &'a [u8],
    /// Password, in the clear.
    pub password: &'a [u8],
}

/// Without the password, so that it cannot reach a log.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

/// Why a response is not a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SaslError {
    /// Not `authzid NUL user NUL password`.
    #[error("PLAIN response is malformed")]
    MalformedPlain,
    /// An authorization identity other than the user, which is not supported.
    #[error("PLAIN response asks for another authorization identity")]
    AuthorizationIdentity,
    /// The `AMQPLAIN` response is not a field table.
    #[error("AMQPLAIN response is malformed: {0}")]
    MalformedAmqplain(#[from] TableError),
    /// `LOGIN` or `PASSWORD` is missing or not a string.
    #[error("AMQPLAIN auth info is missing LOGIN or PASSWORD field")]
    MissingField,
}

/// Reads a `PLAIN` response (RFC 4616): `[authzid] NUL user NUL password`.
///
/// `RabbitMQ` accepts only an empty authorization identity. One that equals the user has the same
/// meaning and is accepted too.
pub fn parse_plain(response: &[u8]) -> Result<Credentials<'_>, SaslError> {
    let mut parts = response.split(|octet| *octet == 0);
    let (Some(identity), Some(username), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::MalformedPlain);
    };
    if !identity.is_empty() && identity != username {
        return Err(SaslError::AuthorizationIdentity);
    }
    Ok(Credentials { username, password })
}

/// Builds a `PLAIN` response.
pub fn encode_plain(credentials: Credentials<'_>) -> Vec<u8> {
    [&[0], credentials.username, &[0], credentials.password].concat()
}

/// Reads an `AMQPLAIN` response: a field table without its size, with `LOGIN` and `PASSWORD`.
pub fn parse_amqplain(response: &[u8]) -> Result<Credentials<'_>, SaslError> {
    let table = TableRef::parse(response)?;
    let string = |name| match table.get(name) {
        Some(Value::LongStr(value) | Value::Bytes(value)) => Ok(value),
        _ => Err(SaslError::MissingField),
    };
    Ok(Credentials { username: string("LOGIN")?, password: string("PASSWORD")? })
}

/// Builds an `AMQPLAIN` response.
pub fn encode_amqplain(credentials: Credentials<'_>) -> Vec<u8> {
    TableBuilder::new()
        .long_str("LOGIN", credentials.username)
        .long_str("PASSWORD", credentials.password)
        .finish()
        .as_bytes()
        .to_vec()
}
