//! Field tables: what is built is read again, and hostile ones are refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use leveret_amqp::table::{DEPTH_MAX, VALUE_COUNT_MAX};
use leveret_amqp::{
    ArrayBuilder, ArrayRef, OwnedTable, ReplyCode, TableBuilder, TableError, TableRef, Value,
};
use proptest::prelude::*;

/// A value that owns what it holds, to build tables from.
#[derive(Debug, Clone)]
enum Model {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    Decimal(u8, u32),
    LongStr(Vec<u8>),
    Bytes(Vec<u8>),
    Timestamp(u64),
    Void,
    Array(Vec<Model>),
    Table(Vec<(Vec<u8>, Model)>),
}

impl Model {
    fn append(&self, name: &[u8], table: TableBuilder) -> TableBuilder {
        match self {
            Self::Array(values) => table.array(name, &build_array(values)),
            Self::Table(fields) => table.table(name, &build(fields)),
            plain => table.value(name, plain.plain()),
        }
    }

    /// The value, arrays and tables excepted.
    fn plain(&self) -> Value<'_> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::I8(value) => Value::I8(*value),
            Self::U8(value) => Value::U8(*value),
            Self::I16(value) => Value::I16(*value),
            Self::U16(value) => Value::U16(*value),
            Self::I32(value) => Value::I32(*value),
            Self::U32(value) => Value::U32(*value),
            Self::I64(value) => Value::I64(*value),
            Self::F32(value) => Value::F32(*value),
            Self::F64(value) => Value::F64(*value),
            Self::Decimal(scale, digits) => Value::Decimal { scale: *scale, digits: *digits },
            Self::LongStr(value) => Value::LongStr(value),
            Self::Bytes(value) => Value::Bytes(value),
            Self::Timestamp(value) => Value::Timestamp(*value),
            Self::Void | Self::Array(_) | Self::Table(_) => Value::Void,
        }
    }

    fn is(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Array(values), Value::Array(array)) => is_array(values, *array),
            (Self::Table(fields), Value::Table(table)) => is_table(fields, *table),
            (plain, value) => plain.plain() == *value,
        }
    }
}

fn build(fields: &[(Vec<u8>, Model)]) -> OwnedTable {
    let append = |table, (name, value): &(Vec<u8>, Model)| value.append(name, table);
    fields.iter().fold(TableBuilder::new(), append).finish()
}

fn build_array(values: &[Model]) -> ArrayBuilder {
    values.iter().fold(ArrayBuilder::new(), |array, value| match value {
        Model::Array(values) => array.value(Value::Array(build_array(values).as_ref())),
        Model::Table(fields) => array.table(&build(fields)),
        plain => array.value(plain.plain()),
    })
}

fn is_table(fields: &[(Vec<u8>, Model)], table: TableRef<'_>) -> bool {
    fields.len() == table.iter().count()
        && fields
            .iter()
            .zip(table)
            .all(|((name, value), (key, read))| name == key && value.is(&read))
}

fn is_array(values: &[Model], array: ArrayRef<'_>) -> bool {
    values.len() == array.iter().count() && values.iter().zip(array).all(|(m, v)| m.is(&v))
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..20)
}

fn model() -> impl Strategy<Value = Model> {
    let plain = prop_oneof![
        any::<bool>().prop_map(Model::Bool),
        any::<i8>().prop_map(Model::I8),
        any::<u8>().prop_map(Model::U8),
        any::<i16>().prop_map(Model::I16),
        any::<u16>().prop_map(Model::U16),
        any::<i32>().prop_map(Model::I32),
        any::<u32>().prop_map(Model::U32),
        any::<i64>().prop_map(Model::I64),
        any::<f32>().prop_map(Model::F32),
        any::<f64>().prop_map(Model::F64),
        any::<(u8, u32)>().prop_map(|(scale, digits)| Model::Decimal(scale, digits)),
        octets().prop_map(Model::LongStr),
        octets().prop_map(Model::Bytes),
        any::<u64>().prop_map(Model::Timestamp),
        Just(Model::Void),
    ];
    plain.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Model::Array),
            prop::collection::vec((octets(), inner), 0..5).prop_map(Model::Table),
        ]
    })
}

fn fields() -> impl Strategy<Value = Vec<(Vec<u8>, Model)>> {
    prop::collection::vec((octets(), model()), 0..8)
}

proptest! {
    #[test]
    fn what_is_built_is_read(fields in fields()) {
        let table = build(&fields);
        let parsed = TableRef::parse(table.as_bytes()).unwrap();
        prop_assert!(is_table(&fields, parsed), "{parsed:?}");
        prop_assert_eq!(parsed, table.as_ref());
        for (name, _) in &fields {
            let first = fields.iter().find(|(key, _)| key == name).unwrap();
            prop_assert!(first.1.is(&table.get(name).unwrap()), "first match wins");
        }
    }

    #[test]
    fn every_cut_of_a_table_is_refused_or_shorter(fields in fields()) {
        let table = build(&fields);
        for size in 0..table.as_bytes().len() {
            match TableRef::parse(&table.as_bytes()[..size]) {
                Ok(shorter) => prop_assert!(shorter.iter().count() < fields.len()),
                Err(error) => prop_assert_eq!(error, TableError::Truncated),
            }
        }
    }

    #[test]
    fn damaged_tables_never_panic(
        fields in fields(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = build(&fields).as_bytes().to_vec();
        for (index, octet) in damage {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = octet;
            }
        }
        read_unchecked(TableRef::trusted(&bytes));
        if let Ok(table) = TableRef::parse(&bytes) {
            prop_assert_eq!(size_read(table), bytes.len(), "a checked table is read to its end");
        }
    }
}

/// Reads all of a table that nobody checked: it may end early, and may not panic.
fn read_unchecked(table: TableRef<'_>) {
    for (_, value) in table.iter().take(100) {
        if let Value::Table(inner) = value {
            read_unchecked(inner);
        }
    }
    let _ = table.get("x");
}

/// Octets that iterating covers; nested ones count by being skipped over whole.
fn size_read(table: TableRef<'_>) -> usize {
    table.iter().map(|(name, value)| 1 + name.len() + value_size(&value)).sum()
}

fn value_size(value: &Value<'_>) -> usize {
    1 + match value {
        Value::Void => 0,
        Value::Bool(_) | Value::I8(_) | Value::U8(_) => 1,
        Value::I16(_) | Value::U16(_) => 2,
        Value::I32(_) | Value::U32(_) | Value::F32(_) => 4,
        Value::Decimal { .. } => 5,
        Value::I64(_) | Value::F64(_) | Value::Timestamp(_) => 8,
        Value::LongStr(octets) | Value::Bytes(octets) => 4 + octets.len(),
        Value::Table(table) => 4 + size_read(*table),
        Value::Array(array) => 4 + array.iter().map(|value| value_size(&value)).sum::<usize>(),
    }
}

/// `depth` tables in each other, `letter` F, or arrays in a table, `letter` A.
fn nested(depth: usize, letter: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for level in (1..depth).rev() {
        let name: &[u8] = if letter == b'F' || level == 1 { &[1, b'n'] } else { &[] };
        let size = (bytes.len() as u32).to_be_bytes();
        bytes = [name, &[letter], &size, &bytes].concat();
    }
    bytes
}

#[test]
fn nesting_is_limited() {
    for letter in [b'F', b'A'] {
        let table = nested(DEPTH_MAX, letter);
        assert!(TableRef::parse(&table).is_ok());
        assert!(!format!("{:?}", TableRef::parse(&table)).is_empty());
        assert_eq!(TableRef::parse(&nested(DEPTH_MAX + 1, letter)), Err(TableError::TooDeep));
        assert_eq!(TableRef::parse(&nested(10_000, letter)), Err(TableError::TooDeep));
    }
}

#[test]
fn value_count_is_limited() {
    let field = [0, b'V'];
    assert!(TableRef::parse(&field.repeat(VALUE_COUNT_MAX)).is_ok());
    let error = TableRef::parse(&field.repeat(VALUE_COUNT_MAX + 1)).unwrap_err();
    assert_eq!(error, TableError::TooManyValues);
}

#[test]
fn lies_about_sizes_are_refused() {
    let lies: [&[u8]; 7] = [
        b"\x05name",
        b"\x01n",
        b"\x01nS\0\0\0\x05abcd",
        b"\x01nx\xFF\xFF\xFF\xFFabcd",
        b"\x01nF\0\0\0\x05\x01aV",
        b"\x01nA\0\0\0\x02V",
        // The nested table ends inside its own value, though bytes follow.
        b"\x01nF\0\0\0\x04\x01aI\0\0\0\0\0\0\0\0\0",
    ];
    for lie in lies {
        assert_eq!(TableRef::parse(lie), Err(TableError::Truncated), "{}", lie.escape_ascii());
    }
}

#[test]
fn unknown_letters_are_refused() {
    let known = b"tbBsuIilLfdDSxAFTV";
    for letter in 0..=255 {
        let bytes = [&[1, b'n', letter][..], &[0; 8]].concat();
        let unknown = TableRef::parse(&bytes) == Err(TableError::UnknownType(letter));
        assert_eq!(unknown, !known.contains(&letter), "{}", letter.escape_ascii());
    }
    assert_eq!(TableError::UnknownType(0).reply_code(), ReplyCode::SyntaxError);
}

/// Letters, names and values as `rabbit_binary_parser:parse_table` of `RabbitMQ` 3.10 read them.
#[test]
fn letters_have_the_meaning_of_rabbitmq() {
    let cases: [(&[u8], Value<'_>, &str); 18] = [
        (b"t\x07", Value::Bool(true), "bool"),
        (b"b\xFF", Value::I8(-1), "byte"),
        (b"B\xFF", Value::U8(255), "unsignedbyte"),
        (b"s\xFF\xFF", Value::I16(-1), "short"),
        (b"u\xFF\xFF", Value::U16(65_535), "unsignedshort"),
        (b"I\xFF\xFF\xFF\xFF", Value::I32(-1), "signedint"),
        (b"i\xFF\xFF\xFF\xFF", Value::U32(u32::MAX), "unsignedint"),
        (b"l\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", Value::I64(-1), "long"),
        (b"L\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", Value::I64(-1), "long"),
        (b"f\x3F\xC0\0\0", Value::F32(1.5), "float"),
        (b"d\x3F\xF8\0\0\0\0\0\0", Value::F64(1.5), "double"),
        (b"D\x02\xFF\xFF\xFF\xFF", Value::Decimal { scale: 2, digits: u32::MAX }, "decimal"),
        (b"S\0\0\0\x01x", Value::LongStr(b"x"), "longstr"),
        (b"x\0\0\0\x01x", Value::Bytes(b"x"), "binary"),
        (b"A\0\0\0\0", Value::Array(ArrayRef::default()), "array"),
        (b"F\0\0\0\0", Value::Table(TableRef::EMPTY), "table"),
        (b"T\0\0\0\0\0\0\0\x01", Value::Timestamp(1), "timestamp"),
        (b"V", Value::Void, "void"),
    ];
    for (bytes, value, name) in cases {
        let bytes = [b"\x01n", bytes].concat();
        let table = TableRef::parse(&bytes).unwrap();
        assert_eq!(table.get("n"), Some(value));
        assert_eq!(value.rabbit_type_name(), name);
        assert_eq!(table.get("m"), None);
    }
}

#[test]
fn all_integer_letters_are_one_class() {
    let values = [
        Value::I8(60),
        Value::U8(60),
        Value::I16(60),
        Value::U16(60),
        Value::I32(60),
        Value::U32(60),
        Value::I64(60),
    ];
    assert!(values.iter().all(|value| value.as_integer() == Some(60)));
    assert_eq!(Value::Timestamp(60).as_integer(), None);
    assert_eq!(Value::LongStr(b"60").as_integer(), None);
}

#[test]
fn owned_tables_share_bytes_and_compare_by_them() {
    let table = TableBuilder::new().long_str("k", "v").bool("b", true).int("i", 1).long("l", 2);
    let table = table.timestamp("t", 3).finish();
    assert_eq!(OwnedTable::parse(table.as_bytes().clone()).unwrap(), table);
    assert_eq!(table.as_ref().to_owned_table(), table);
    let twice = TableBuilder::new().fields(table.as_ref()).fields(table.as_ref()).finish();
    assert_eq!(twice.as_ref().iter().count(), 10);
    assert_eq!(twice.get("b").unwrap().as_bool(), Some(true));
    assert_eq!(format!("{:?}", table.as_ref()).matches("I32(1)").count(), 1);
}
