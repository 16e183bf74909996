//! One value of a field table.

use super::{ArrayRef, TableRef};
use crate::wire::{Reader, Writer};

/// A value with its type letter. `s` is a 16 bit integer, as in `RabbitMQ`, not a short string.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `t`: any octet but 0 is true.
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l` and `L`; written as `l`.
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: `digits / 10^scale`.
    Decimal {
        /// Digits after the point.
        scale: u8,
        /// All digits.
        digits: u32,
    },
    /// `S`: text or octets; the sender decides.
    LongStr(&'a [u8]),
    /// `x`
    Bytes(&'a [u8]),
    /// `A`
    Array(ArrayRef<'a>),
    /// `F`
    Table(TableRef<'a>),
    /// `T`: seconds since 1970-01-01, UTC.
    Timestamp(u64),
    /// `V`
    Void,
}

impl<'a> Value<'a> {
    /// Reads a letter and a value, `None` at the end of checked bytes.
    pub(super) fn read(reader: &mut Reader<'a>) -> Option<Self> {
        Some(match reader.octet().ok()? {
            b't' => Self::Bool(reader.octet().ok()? != 0),
            b'b' => Self::I8(reader.octet().ok()?.cast_signed()),
            b'B' => Self::U8(reader.octet().ok()?),
            b's' => Self::I16(reader.short().ok()?.cast_signed()),
            b'u' => Self::U16(reader.short().ok()?),
            b'I' => Self::I32(reader.long().ok()?.cast_signed()),
            b'i' => Self::U32(reader.long().ok()?),
            b'l' | b'L' => Self::I64(reader.longlong().ok()?.cast_signed()),
            b'f' => Self::F32(f32::from_bits(reader.long().ok()?)),
            b'd' => Self::F64(f64::from_bits(reader.longlong().ok()?)),
            b'D' => Self::Decimal { scale: reader.octet().ok()?, digits: reader.long().ok()? },
            b'S' => Self::LongStr(reader.longstr().ok()?),
            b'x' => Self::Bytes(reader.longstr().ok()?),
            b'A' => Self::Array(ArrayRef::trusted(reader.longstr().ok()?)),
            b'F' => Self::Table(TableRef::trusted(reader.longstr().ok()?)),
            b'T' => Self::Timestamp(reader.timestamp().ok()?),
            b'V' => Self::Void,
            _ => return None,
        })
    }

    /// Appends the letter and the value.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.octet(self.letter());
        match *self {
            Self::Bool(value) => writer.octet(u8::from(value)),
            Self::I8(value) => writer.octet(value.cast_unsigned()),
            Self::U8(value) => writer.octet(value),
            Self::I16(value) => writer.short(value.cast_unsigned()),
            Self::U16(value) => writer.short(value),
            Self::I32(value) => writer.long(value.cast_unsigned()),
            Self::U32(value) => writer.long(value),
            Self::I64(value) => writer.longlong(value.cast_unsigned()),
            Self::F32(value) => writer.long(value.to_bits()),
            Self::F64(value) => writer.longlong(value.to_bits()),
            Self::Decimal { scale, digits } => {
                writer.octet(scale);
                writer.long(digits);
            }
            Self::LongStr(value) | Self::Bytes(value) => writer.longstr(value),
            Self::Array(value) => writer.longstr(value.as_bytes()),
            Self::Table(value) => writer.table(value),
            Self::Timestamp(value) => writer.timestamp(value),
            Self::Void => {}
        }
    }

    /// The type letter on the wire.
    pub const fn letter(&self) -> u8 {
        match self {
            Self::Bool(_) => b't',
            Self::I8(_) => b'b',
            Self::U8(_) => b'B',
            Self::I16(_) => b's',
            Self::U16(_) => b'u',
            Self::I32(_) => b'I',
            Self::U32(_) => b'i',
            Self::I64(_) => b'l',
            Self::F32(_) => b'f',
            Self::F64(_) => b'd',
            Self::Decimal { .. } => b'D',
            Self::LongStr(_) => b'S',
            Self::Bytes(_) => b'x',
            Self::Array(_) => b'A',
            Self::Table(_) => b'F',
            Self::Timestamp(_) => b'T',
            Self::Void => b'V',
        }
    }

    /// The name `RabbitMQ` prints in reply texts: `the value '1' of type 'signedint'`.
    pub const fn rabbit_type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::LongStr(_) => "longstr",
            Self::Bytes(_) => "binary",
            Self::Array(_) => "array",
            Self::Table(_) => "table",
            Self::Timestamp(_) => "timestamp",
            Self::Void => "void",
        }
    }

    /// The number of any integer letter: `RabbitMQ` treats them as one class
    /// (`?INTEGER_ARG_TYPES`). A timestamp is not one of them.
    pub const fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::I8(value) => Some(value as i64),
            Self::U8(value) => Some(value as i64),
            Self::I16(value) => Some(value as i64),
            Self::U16(value) => Some(value as i64),
            Self::I32(value) => Some(value as i64),
            Self::U32(value) => Some(value as i64),
            Self::I64(value) => Some(value),
            _ => None,
        }
    }

    /// The octets of a long string.
    pub const fn as_long_str(&self) -> Option<&'a [u8]> {
        if let Self::LongStr(value) = *self { Some(value) } else { None }
    }

    /// A boolean.
    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = *self { Some(value) } else { None }
    }

    /// A nested table.
    pub const fn as_table(&self) -> Option<TableRef<'a>> {
        if let Self::Table(value) = *self { Some(value) } else { None }
    }

    /// A nested array.
    pub const fn as_array(&self) -> Option<ArrayRef<'a>> {
        if let Self::Array(value) = *self { Some(value) } else { None }
    }
}
