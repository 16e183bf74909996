//! Reading and writing the data types of AMQP (specification 4.2.5), all big-endian.

use thiserror::Error;

use crate::table::{TableError, TableRef};

/// Largest length of a short string in octets: its length prefix is one octet.
pub const SHORTSTR_SIZE_MAX: usize = 255;

/// Why a field could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The field reaches beyond the input.
    #[error("field reaches beyond its frame")]
    Truncated,
    /// A short string that must be text is not UTF-8.
    #[error("Malformed UTF-8 in shortstr")]
    MalformedUtf8,
    /// A field table is malformed.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Reads fields one after the other. Adjacent bits share an octet, least significant bit first.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The bits not yet read of the current bit octet, and how many.
    bits: u8,
    bit_count: u8,
}

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`.
    #[inline(always)]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, bits: 0, bit_count: 0 }
    }

    /// The octets not read yet.
    #[inline(always)]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// An octet.
    #[inline(always)]
    pub fn octet(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[octet]| octet)
    }

    /// A 16 bit integer.
    #[inline(always)]
    pub fn short(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    /// A 32 bit integer.
    #[inline(always)]
    pub fn long(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A 64 bit integer.
    #[inline(always)]
    pub fn longlong(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Seconds since 1970-01-01, UTC.
    #[inline(always)]
    pub fn timestamp(&mut self) -> Result<u64, WireError> {
        self.longlong()
    }

    /// One bit of a bit octet.
    #[inline(always)]
    pub fn bit(&mut self) -> Result<bool, WireError> {
        if self.bit_count == 0 {
            self.bits = self.octet()?;
            self.bit_count = 8;
        }
        let bit = self.bits & 1 == 1;
        self.bits >>= 1;
        self.bit_count -= 1;
        Ok(bit)
    }

    /// A short string as text.
    #[inline(always)]
    pub fn shortstr(&mut self) -> Result<&'a str, WireError> {
        str::from_utf8(self.opaque_shortstr()?).map_err(|_| WireError::MalformedUtf8)
    }

    /// A short string as octets.
    #[inline(always)]
    pub fn opaque_shortstr(&mut self) -> Result<&'a [u8], WireError> {
        let size = self.octet()?;
        self.octets(size as usize)
    }

    /// A long string.
    #[inline(always)]
    pub fn longstr(&mut self) -> Result<&'a [u8], WireError> {
        let size = self.long()?;
        self.octets(size as usize)
    }

    /// A field table, validated to its end. A length beyond the input is the table's fault.
    pub fn table(&mut self) -> Result<TableRef<'a>, WireError> {
        let size = self.long()?;
        let bytes = self.octets(size as usize).map_err(|_| TableError::Truncated)?;
        Ok(TableRef::parse(bytes)?)
    }

    /// The next `size` octets.
    #[inline(always)]
    pub fn octets(&mut self, size: usize) -> Result<&'a [u8], WireError> {
        let Some((octets, rest)) = self.rest.split_at_checked(size) else {
            return Err(WireError::Truncated);
        };
        self.rest = rest;
        self.bit_count = 0;
        Ok(octets)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((array, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(WireError::Truncated);
        };
        self.rest = rest;
        self.bit_count = 0;
        Ok(*array)
    }
}

/// Skips the fields that the specification reserves.
impl Reader<'_> {
    pub(crate) fn reserved_bit(&mut self) -> Result<(), WireError> {
        self.bit().map(drop)
    }

    #[inline(always)]
    pub(crate) fn reserved_short(&mut self) -> Result<(), WireError> {
        self.short().map(drop)
    }

    pub(crate) fn reserved_shortstr(&mut self) -> Result<(), WireError> {
        self.opaque_shortstr().map(drop)
    }

    pub(crate) fn reserved_longstr(&mut self) -> Result<(), WireError> {
        self.longstr().map(drop)
    }
}

/// Appends fields to a buffer. Adjacent bits share an octet, least significant bit first.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// Bits already used of the last octet of `out`, 0 when it is no bit octet.
    bit_count: u8,
}

impl<'o> Writer<'o> {
    /// A writer at the end of `out`.
    #[inline(always)]
    pub const fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, bit_count: 0 }
    }

    /// An octet.
    #[inline(always)]
    pub fn octet(&mut self, value: u8) {
        self.octets(&[value]);
    }

    /// A 16 bit integer.
    #[inline(always)]
    pub fn short(&mut self, value: u16) {
        self.octets(&value.to_be_bytes());
    }

    /// A 32 bit integer.
    #[inline(always)]
    pub fn long(&mut self, value: u32) {
        self.octets(&value.to_be_bytes());
    }

    /// A 64 bit integer.
    #[inline(always)]
    pub fn longlong(&mut self, value: u64) {
        self.octets(&value.to_be_bytes());
    }

    /// Seconds since 1970-01-01, UTC.
    #[inline(always)]
    pub fn timestamp(&mut self, value: u64) {
        self.longlong(value);
    }

    /// One bit.
    #[inline(always)]
    pub fn bit(&mut self, value: bool) {
        let bit_index = self.bit_count % 8;
        if bit_index == 0 {
            self.out.push(u8::from(value));
        } else if let Some(octet) = self.out.last_mut() {
            *octet |= u8::from(value) << bit_index;
        }
        self.bit_count = bit_index + 1;
    }

    /// A short string, cut at 255 octets on a character boundary: a wrong length would break the
    /// stream for the peer.
    pub fn shortstr(&mut self, value: &str) {
        let value = &value[..value.floor_char_boundary(SHORTSTR_SIZE_MAX)];
        self.opaque_shortstr(value.as_bytes());
    }

    /// A short string of octets, cut at 255.
    #[inline]
    pub fn opaque_shortstr(&mut self, value: &[u8]) {
        let value = &value[..value.len().min(SHORTSTR_SIZE_MAX)];
        self.octet(value.len() as u8);
        self.octets(value);
    }

    /// A long string, cut at 4 GiB: the wire has no larger length.
    pub fn longstr(&mut self, value: &[u8]) {
        let value = &value[..value.len().min(u32::MAX as usize)];
        self.long(value.len() as u32);
        self.octets(value);
    }

    /// A field table.
    pub fn table(&mut self, value: TableRef<'_>) {
        self.longstr(value.as_bytes());
    }

    /// Octets without a length.
    #[inline(always)]
    pub fn octets(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
        self.bit_count = 0;
    }
}

/// Writes the reserved fields as zeros.
impl Writer<'_> {
    pub(crate) fn reserved_bit(&mut self) {
        self.bit(false);
    }

    pub(crate) fn reserved_short(&mut self) {
        self.short(0);
    }

    pub(crate) fn reserved_shortstr(&mut self) {
        self.octet(0);
    }

    pub(crate) fn reserved_longstr(&mut self) {
        self.long(0);
    }
}
