//! Field tables and arrays (specification 4.2.5.5, with the type letters `RabbitMQ` uses).
//!
//! ```text
//! table: size u32 │ name shortstr │ letter u8 │ value │ name │ letter │ value …
//! array: size u32 │                 letter u8 │ value │        letter │ value …
//! ```
//!
//! A table is kept as the bytes it came in: they are checked once, read in place, and relayed
//! untouched. [`TableRef`] and [`ArrayRef`] exclude the size prefix.

mod build;
mod value;

use std::fmt;

use thiserror::Error;

pub use build::{ArrayBuilder, OwnedTable, TableBuilder};
pub use value::Value;

use crate::reply::ReplyCode;
use crate::wire::Reader;

/// How deep tables and arrays may nest, the outermost counted as 1. Deeper than any real client
/// goes, and shallow enough that reading one recursively is safe.
pub const DEPTH_MAX: usize = 32;

/// How many values a table may hold, those of nested tables and arrays included: as many as the
/// default frame of 131,072 octets can hold at two octets each.
pub const VALUE_COUNT_MAX: usize = 65_536;

/// Why bytes are not a field table: `502 SYNTAX_ERROR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TableError {
    /// A size or a value reaches beyond its table.
    #[error("field table is truncated")]
    Truncated,
    /// A type letter that `RabbitMQ` does not know.
    #[error("field table has a value of unknown type {0:#04x}")]
    UnknownType(u8),
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("field table is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// More values than [`VALUE_COUNT_MAX`].
    #[error("field table has more than {VALUE_COUNT_MAX} values")]
    TooManyValues,
}

impl TableError {
    /// The reply code of the connection exception: always `502 SYNTAX_ERROR`.
    pub const fn reply_code(self) -> ReplyCode {
        ReplyCode::SyntaxError
    }
}

/// A checked field table over the bytes it came in, without the size prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TableRef<'a> {
    bytes: &'a [u8],
}

impl<'a> TableRef<'a> {
    /// The table without fields.
    pub const EMPTY: TableRef<'static> = TableRef { bytes: &[] };

    /// Checks `bytes` (without the size prefix) to their end: depth, sizes and letters.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        validate(bytes)?;
        Ok(Self { bytes })
    }

    /// A table over bytes that were checked before. Unchecked bytes may end it early, nothing
    /// worse.
    pub const fn trusted(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes without the size prefix, as they came in.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there are no fields.
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The fields in wire order, duplicates included.
    pub const fn iter(self) -> Fields<'a> {
        Fields { reader: Reader::new(self.bytes) }
    }

    /// The first value of this name, as `RabbitMQ` looks it up.
    pub fn get(self, name: impl AsRef<[u8]>) -> Option<Value<'a>> {
        let name = name.as_ref();
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

impl<'a> IntoIterator for TableRef<'a> {
    type Item = (&'a [u8], Value<'a>);
    type IntoIter = Fields<'a>;

    fn into_iter(self) -> Fields<'a> {
        self.iter()
    }
}

impl fmt::Debug for TableRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(key, value)| (key.escape_ascii().to_string(), value)))
            .finish()
    }
}

/// The fields of a table. Names are octets: `RabbitMQ` does not check them for UTF-8.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.reader.opaque_shortstr().ok()?;
        Some((name, Value::read(&mut self.reader)?))
    }
}

/// A checked field array over the bytes it came in, without the size prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ArrayRef<'a> {
    bytes: &'a [u8],
}

impl<'a> ArrayRef<'a> {
    /// An array over bytes that were checked before. Unchecked bytes may end it early, nothing
    /// worse.
    pub const fn trusted(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes without the size prefix, as they came in.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there are no values.
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The values in wire order.
    pub const fn iter(self) -> Values<'a> {
        Values { reader: Reader::new(self.bytes) }
    }
}

impl<'a> IntoIterator for ArrayRef<'a> {
    type Item = Value<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

impl fmt::Debug for ArrayRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The values of an array.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        Value::read(&mut self.reader)
    }
}

/// A table or array that is being walked: where it ends, and whether its values have names.
#[derive(Clone, Copy)]
struct Level {
    end: usize,
    named: bool,
}

/// Walks a table without recursion, so that hostile nesting costs no stack.
fn validate(bytes: &[u8]) -> Result<(), TableError> {
    let mut levels = [Level { end: bytes.len(), named: true }; DEPTH_MAX];
    let mut depth = 1;
    let mut position = 0;
    let mut value_count = 0;
    while depth > 0 {
        let Level { end, named } = levels[depth - 1];
        if position == end {
            depth -= 1;
            continue;
        }
        value_count += 1;
        if value_count > VALUE_COUNT_MAX {
            return Err(TableError::TooManyValues);
        }
        let mut reader = Reader::new(&bytes[position..end]);
        let nested = check_value(&mut reader, named)?;
        position = end - reader.rest().len();
        if let Some((size, named)) = nested {
            if depth == DEPTH_MAX {
                return Err(TableError::TooDeep);
            }
            levels[depth] = Level { end: position + size, named };
            depth += 1;
        }
    }
    Ok(())
}

/// Skips a name, a letter and a plain value. Of a nested table or array it reads only the size, and
/// returns that size and whether its values have names.
fn check_value(reader: &mut Reader<'_>, named: bool) -> Result<Option<(usize, bool)>, TableError> {
    let truncated = |_| TableError::Truncated;
    if named {
        reader.opaque_shortstr().map_err(truncated)?;
    }
    let letter = reader.octet().map_err(truncated)?;
    if let b'F' | b'A' = letter {
        let size = reader.long().map_err(truncated)? as usize;
        if size > reader.rest().len() {
            return Err(TableError::Truncated);
        }
        return Ok(Some((size, letter == b'F')));
    }
    let size = match letter {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        b'S' | b'x' => reader.long().map_err(truncated)? as usize,
        unknown => return Err(TableError::UnknownType(unknown)),
    };
    reader.octets(size).map_err(truncated)?;
    Ok(None)
}
