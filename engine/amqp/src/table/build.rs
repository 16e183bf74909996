//! Building field tables, and keeping them.

use std::fmt;

use bytes::Bytes;

use super::{ArrayRef, TableError, TableRef, Value};
use crate::wire::Writer;

/// A checked field table that owns its bytes. Cloning shares them; equality is that of the bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct OwnedTable {
    bytes: Bytes,
}

impl OwnedTable {
    /// Checks `bytes` (without the size prefix) and keeps them.
    pub fn parse(bytes: Bytes) -> Result<Self, TableError> {
        TableRef::parse(&bytes)?;
        Ok(Self { bytes })
    }

    /// The table to read.
    pub fn as_ref(&self) -> TableRef<'_> {
        TableRef::trusted(&self.bytes)
    }

    /// The bytes without the size prefix.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The first value of this name.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<Value<'_>> {
        self.as_ref().get(name)
    }
}

impl fmt::Debug for OwnedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl From<TableRef<'_>> for OwnedTable {
    fn from(table: TableRef<'_>) -> Self {
        Self { bytes: Bytes::copy_from_slice(table.as_bytes()) }
    }
}

impl TableRef<'_> {
    /// A copy that owns its bytes.
    pub fn to_owned_table(self) -> OwnedTable {
        self.into()
    }
}

/// Appends fields in order. Names longer than 255 octets are cut.
#[derive(Debug, Clone, Default)]
pub struct TableBuilder {
    bytes: Vec<u8>,
}

impl TableBuilder {
    /// A table without fields.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// A field of any type.
    #[must_use]
    pub fn value(mut self, name: impl AsRef<[u8]>, value: Value<'_>) -> Self {
        Writer::new(&mut self.bytes).opaque_shortstr(name.as_ref());
        value.write(&mut self.bytes);
        self
    }

    /// A long string.
    #[must_use]
    pub fn long_str(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.value(name, Value::LongStr(value.as_ref()))
    }

    /// A boolean.
    #[must_use]
    pub fn bool(self, name: impl AsRef<[u8]>, value: bool) -> Self {
        self.value(name, Value::Bool(value))
    }

    /// A 32 bit signed integer (`I`).
    #[must_use]
    pub fn int(self, name: impl AsRef<[u8]>, value: i32) -> Self {
        self.value(name, Value::I32(value))
    }

    /// A 64 bit signed integer (`l`).
    #[must_use]
    pub fn long(self, name: impl AsRef<[u8]>, value: i64) -> Self {
        self.value(name, Value::I64(value))
    }

    /// Seconds since 1970-01-01, UTC.
    #[must_use]
    pub fn timestamp(self, name: impl AsRef<[u8]>, value: u64) -> Self {
        self.value(name, Value::Timestamp(value))
    }

    /// A nested table.
    #[must_use]
    pub fn table(self, name: impl AsRef<[u8]>, value: &OwnedTable) -> Self {
        self.value(name, Value::Table(value.as_ref()))
    }

    /// A nested array.
    #[must_use]
    pub fn array(self, name: impl AsRef<[u8]>, value: &ArrayBuilder) -> Self {
        self.value(name, Value::Array(value.as_ref()))
    }

    /// All fields of another table, in its order.
    #[must_use]
    pub fn fields(mut self, table: TableRef<'_>) -> Self {
        self.bytes.extend_from_slice(table.as_bytes());
        self
    }

    /// The table. Its nesting is the caller's choice and is not checked.
    pub fn finish(self) -> OwnedTable {
        OwnedTable { bytes: self.bytes.into() }
    }
}

/// Appends values in order.
#[derive(Debug, Clone, Default)]
pub struct ArrayBuilder {
    bytes: Vec<u8>,
}

impl ArrayBuilder {
    /// An array without values.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// A value of any type.
    #[must_use]
    pub fn value(mut self, value: Value<'_>) -> Self {
        value.write(&mut self.bytes);
        self
    }

    /// A long string.
    #[must_use]
    pub fn long_str(self, value: impl AsRef<[u8]>) -> Self {
        self.value(Value::LongStr(value.as_ref()))
    }

    /// A nested table.
    #[must_use]
    pub fn table(self, value: &OwnedTable) -> Self {
        self.value(Value::Table(value.as_ref()))
    }

    /// The array to read or to nest.
    pub fn as_ref(&self) -> ArrayRef<'_> {
        ArrayRef::trusted(&self.bytes)
    }
}
