//! The content header and the properties of class basic (specification 2.3.5.2).
//!
//! ```text
//! payload of a content header frame:
//! class id u16 │ weight u16 │ body size u64 │ flags u16 … │ values of the flags set …
//!
//! flags: bit 15 is content-type … bit 2 is cluster-id, bit 1 stands for nothing,
//!        bit 0 says that another word of flags follows
//! ```
//!
//! Flags and values are relayed as received, and read only on demand.

mod build;

use std::borrow::Cow;

use thiserror::Error;

pub use build::PropertiesBuilder;

use crate::reply::ReplyCode;
use crate::table::{TableError, TableRef};
use crate::wire::{Reader, WireError};

/// Flags and values of a message without properties.
pub const NO_PROPERTIES: &[u8] = &[0, 0];

/// Octets of a content header payload before the flags.
pub const CONTENT_HEADER_FIXED_SIZE: usize = 12;

/// Why a content header or its properties cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PropertiesError {
    /// A field reaches beyond the frame.
    #[error("content header is truncated")]
    Truncated,
    /// A flag is set in a continuation word: the type of its value is unknown.
    #[error("content header has an unknown property flag")]
    UnknownFlag,
    /// Octets follow the last property.
    #[error("{0} octets after the last property")]
    TrailingBytes(usize),
    /// The headers are not a field table.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl PropertiesError {
    /// The reply code of the connection exception: 501, or 502 for the headers table.
    pub const fn reply_code(self) -> ReplyCode {
        match self {
            Self::Truncated | Self::UnknownFlag | Self::TrailingBytes(_) => ReplyCode::FrameError,
            Self::Table(error) => error.reply_code(),
        }
    }
}

impl From<WireError> for PropertiesError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Truncated | WireError::MalformedUtf8 => Self::Truncated,
            WireError::Table(error) => Self::Table(error),
        }
    }
}

/// A content header. Its properties are not checked yet: see [`validate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// Class of the method before: 60.
    pub class_id: u16,
    /// Must be 0; the caller checks it.
    pub weight: u16,
    /// Size of the whole body in octets, over all its frames.
    pub body_size: u64,
    /// Flags and values, to be relayed as they are.
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Reads the payload of a content header frame, without checking the properties.
    #[inline(always)]
    pub fn decode(payload: &'a [u8]) -> Result<Self, PropertiesError> {
        let Some((fixed, properties)) = payload.split_first_chunk::<CONTENT_HEADER_FIXED_SIZE>()
        else {
            return Err(PropertiesError::Truncated);
        };
        let [c0, c1, w0, w1, size @ ..] = *fixed;
        Ok(Self {
            class_id: u16::from_be_bytes([c0, c1]),
            weight: u16::from_be_bytes([w0, w1]),
            body_size: u64::from_be_bytes(size),
            properties,
        })
    }
}

/// Checks flags and values to their end.
#[inline(always)]
pub fn validate(properties: &[u8]) -> Result<(), PropertiesError> {
    if properties == NO_PROPERTIES { Ok(()) } else { validate_values(properties) }
}

#[inline(never)]
fn validate_values(properties: &[u8]) -> Result<(), PropertiesError> {
    let mut reader = Reader::new(properties);
    for property in Property::set_in(read_flags(&mut reader)?) {
        property.check(&mut reader)?;
    }
    match reader.rest() {
        [] => Ok(()),
        rest => Err(PropertiesError::TrailingBytes(rest.len())),
    }
}

/// Reads the first word of flags and skips continuation words, which have no meaning yet.
fn read_flags(reader: &mut Reader<'_>) -> Result<u16, PropertiesError> {
    let flags = reader.short()?;
    let mut word = flags;
    while word & FLAG_CONTINUED != 0 {
        word = reader.short()?;
        if word & !FLAG_CONTINUED != 0 {
            return Err(PropertiesError::UnknownFlag);
        }
    }
    Ok(flags & FLAGS_KNOWN)
}

/// The properties to relay: checked properties as received, without flags that stand for nothing.
/// Many clients cannot read continuation words, and `RabbitMQ` sends none.
#[inline]
pub fn relayable(properties: &[u8]) -> Cow<'_, [u8]> {
    match properties {
        [_, low, ..] if u16::from(*low) & !FLAGS_KNOWN == 0 => Cow::Borrowed(properties),
        _ => {
            let mut reader = Reader::new(properties);
            match read_flags(&mut reader) {
                Ok(flags) => Cow::Owned([&flags.to_be_bytes(), reader.rest()].concat()),
                Err(_) => Cow::Borrowed(NO_PROPERTIES),
            }
        }
    }
}

/// Bit 0: another word of flags follows.
const FLAG_CONTINUED: u16 = 1;

/// Bits 15 to 2. Bit 1 stands for no property; `RabbitMQ` does not look at it.
const FLAGS_KNOWN: u16 = 0xFFFC;

/// The properties of class basic in wire order, each with the bit of its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
enum Property {
    ContentType = 15,
    ContentEncoding = 14,
    Headers = 13,
    DeliveryMode = 12,
    Priority = 11,
    CorrelationId = 10,
    ReplyTo = 9,
    Expiration = 8,
    MessageId = 7,
    Timestamp = 6,
    Kind = 5,
    UserId = 4,
    AppId = 3,
    ClusterId = 2,
}

impl Property {
    /// In wire order: the index is 15 less the bit of the flag.
    const ALL: [Self; 14] = [
        Self::ContentType,
        Self::ContentEncoding,
        Self::Headers,
        Self::DeliveryMode,
        Self::Priority,
        Self::CorrelationId,
        Self::ReplyTo,
        Self::Expiration,
        Self::MessageId,
        Self::Timestamp,
        Self::Kind,
        Self::UserId,
        Self::AppId,
        Self::ClusterId,
    ];

    const fn flag(self) -> u16 {
        1 << self as u16
    }

    /// The properties whose flags are set, in wire order. Most messages set one or two.
    #[inline]
    fn set_in(mut flags: u16) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let property = *Self::ALL.get(flags.leading_zeros() as usize)?;
            flags &= !property.flag();
            Some(property)
        })
    }

    /// Reads the value and returns it without its length prefix.
    #[inline]
    fn read<'a>(self, reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
        match self {
            Self::Headers => reader.longstr(),
            Self::DeliveryMode | Self::Priority => reader.octets(1),
            Self::Timestamp => reader.octets(8),
            _ => reader.opaque_shortstr(),
        }
    }

    fn check(self, reader: &mut Reader<'_>) -> Result<(), PropertiesError> {
        if self == Self::Headers {
            reader.table()?;
        } else {
            self.read(reader)?;
        }
        Ok(())
    }
}

/// The properties of a message, each located on demand. Strings are octets: `RabbitMQ` does not
/// check them for UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Properties<'a> {
    bytes: &'a [u8],
}

impl<'a> Properties<'a> {
    /// Checks flags and values.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PropertiesError> {
        validate(bytes)?;
        Ok(Self { bytes })
    }

    /// Over bytes that were checked before. In unchecked bytes, properties may be missing.
    pub const fn trusted(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Flags and values as they came in.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// MIME type of the body.
    pub fn content_type(self) -> Option<&'a [u8]> {
        self.find(Property::ContentType)
    }

    /// Encoding of the body, for example `utf-8` or `gzip`.
    pub fn content_encoding(self) -> Option<&'a [u8]> {
        self.find(Property::ContentEncoding)
    }

    /// The headers table.
    pub fn headers(self) -> Option<TableRef<'a>> {
        self.find(Property::Headers).map(TableRef::trusted)
    }

    /// 2 is persistent; anything else is transient.
    pub fn delivery_mode(self) -> Option<u8> {
        self.find(Property::DeliveryMode)?.first().copied()
    }

    /// Whether the publisher wants the message to survive a restart (delivery mode 2).
    pub fn is_persistent(self) -> bool {
        self.delivery_mode() == Some(2)
    }

    /// For priority queues.
    #[inline]
    pub fn priority(self) -> Option<u8> {
        // Few messages have one, and the first word of the flags tells that.
        let flags = self.bytes.first_chunk().copied().map_or(0, u16::from_be_bytes);
        if flags & Property::Priority.flag() == 0 {
            return None;
        }
        self.find(Property::Priority)?.first().copied()
    }

    /// The id by which the client matches a reply to its request.
    pub fn correlation_id(self) -> Option<&'a [u8]> {
        self.find(Property::CorrelationId)
    }

    /// The queue for replies.
    pub fn reply_to(self) -> Option<&'a [u8]> {
        self.find(Property::ReplyTo)
    }

    /// Time to live in milliseconds, in decimal digits.
    pub fn expiration(self) -> Option<&'a [u8]> {
        self.find(Property::Expiration)
    }

    /// The application's id of the message.
    pub fn message_id(self) -> Option<&'a [u8]> {
        self.find(Property::MessageId)
    }

    /// Seconds since 1970-01-01, UTC, set by the application.
    pub fn timestamp(self) -> Option<u64> {
        Some(u64::from_be_bytes(self.find(Property::Timestamp)?.try_into().ok()?))
    }

    /// The application's name of the kind of message (`type`).
    pub fn kind(self) -> Option<&'a [u8]> {
        self.find(Property::Kind)
    }

    /// The user who published; the broker checks it.
    pub fn user_id(self) -> Option<&'a [u8]> {
        self.find(Property::UserId)
    }

    /// The application's own name.
    pub fn app_id(self) -> Option<&'a [u8]> {
        self.find(Property::AppId)
    }

    /// Deprecated by the specification, relayed nonetheless.
    pub fn cluster_id(self) -> Option<&'a [u8]> {
        self.find(Property::ClusterId)
    }

    /// Walks over the values before the wanted one.
    fn find(self, wanted: Property) -> Option<&'a [u8]> {
        let mut reader = Reader::new(self.bytes);
        let flags = read_flags(&mut reader).ok()?;
        if flags & wanted.flag() == 0 {
            return None;
        }
        for property in Property::set_in(flags) {
            let value = property.read(&mut reader).ok()?;
            if property == wanted {
                return Some(value);
            }
        }
        None
    }
}
