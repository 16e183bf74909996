//! Field values as Erlang terms: how `RabbitMQ` compares and prints them.
//!
//! Reply texts and the headers exchange show this to clients, so it is part of the protocol.

use std::fmt::Write;

use leveret_amqp::{ArrayRef, TableRef, Value};

/// Erlang's `==`: numbers by value whatever their letter, strings by octets.
pub(crate) fn equal(left: Value<'_>, right: Value<'_>) -> bool {
    match (number(left), number(right)) {
        (Some(left), Some(right)) => return left.equals(right),
        (None, None) => {}
        _ => return false,
    }
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Void, Value::Void) => true,
        (Value::Decimal { .. }, Value::Decimal { .. }) => left == right,
        (
            Value::LongStr(left) | Value::Bytes(left),
            Value::LongStr(right) | Value::Bytes(right),
        ) => left == right,
        (Value::Array(left), Value::Array(right)) => arrays_equal(left, right),
        (Value::Table(left), Value::Table(right)) => tables_equal(left, right),
        // Both are lists in Erlang, and there is only one empty list.
        (Value::Array(array), Value::Table(table)) | (Value::Table(table), Value::Array(array)) => {
            array.is_empty() && table.is_empty()
        }
        _ => false,
    }
}

/// Equality of redeclared arguments: as [`equal`], but an integer is never a float.
pub(crate) fn equivalent(left: Value<'_>, right: Value<'_>) -> bool {
    let class = |value| matches!(number(value), Some(Number::Float(_)));
    class(left) == class(right) && equal(left, right)
}

/// `~s` for strings, `~p` for everything else.
pub(crate) fn print(value: Value<'_>) -> String {
    match value {
        Value::LongStr(octets) | Value::Bytes(octets) => {
            String::from_utf8_lossy(octets).into_owned()
        }
        other => {
            let mut text = String::new();
            print_term(other, &mut text);
            text
        }
    }
}

/// A number without its letter.
#[derive(Clone, Copy)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    fn equals(self, other: Self) -> bool {
        match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => left == right,
            // Exact, as in Erlang: a float that is no whole number equals no integer.
            #[expect(clippy::float_cmp, reason = "equality of values is what is asked")]
            (Self::Float(left), Self::Float(right)) => left == right,
            (Self::Integer(integer), Self::Float(float))
            | (Self::Float(float), Self::Integer(integer)) => {
                // Beyond 2^100 the cast would saturate; no integer of a table is that large.
                float.fract() == 0.0 && float.abs() < 2f64.powi(100) && float as i128 == integer
            }
        }
    }
}

fn number(value: Value<'_>) -> Option<Number> {
    match value {
        Value::F32(float) => Some(Number::Float(f64::from(float))),
        Value::F64(float) => Some(Number::Float(float)),
        Value::Timestamp(seconds) => Some(Number::Integer(i128::from(seconds))),
        other => other.as_integer().map(|integer| Number::Integer(i128::from(integer))),
    }
}

/// Recursion is bounded by `leveret_amqp::table::DEPTH_MAX`.
fn arrays_equal(left: ArrayRef<'_>, right: ArrayRef<'_>) -> bool {
    left.iter().count() == right.iter().count()
        && left.iter().zip(right.iter()).all(|(left, right)| typed_equal(left, right))
}

fn tables_equal(left: TableRef<'_>, right: TableRef<'_>) -> bool {
    left.iter().count() == right.iter().count()
        && left.iter().zip(right.iter()).all(|((left_key, left), (right_key, right))| {
            left_key == right_key && typed_equal(left, right)
        })
}

/// Inside lists the type is a part of the term.
fn typed_equal(left: Value<'_>, right: Value<'_>) -> bool {
    left.rabbit_type_name() == right.rabbit_type_name() && equal(left, right)
}

fn print_term(value: Value<'_>, text: &mut String) {
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Bool(value) => write!(text, "{value}"),
        Value::Void => write!(text, "undefined"),
        Value::F32(value) => write!(text, "{:?}", f64::from(value)),
        Value::F64(value) => write!(text, "{value:?}"),
        Value::Timestamp(value) => write!(text, "{value}"),
        Value::Decimal { scale, digits } => write!(text, "{{{scale},{digits}}}"),
        Value::LongStr(octets) | Value::Bytes(octets) => {
            write!(text, "<<\"{}\">>", String::from_utf8_lossy(octets))
        }
        Value::Array(array) => {
            print_list(array.iter().map(|value| (None, value)), text);
            Ok(())
        }
        Value::Table(table) => {
            print_list(table.iter().map(|(key, value)| (Some(key), value)), text);
            Ok(())
        }
        other => write!(text, "{}", other.as_integer().unwrap_or_default()),
    };
}

/// `[{<<"key">>,type,value},…]`, without the key for arrays.
fn print_list<'a>(values: impl Iterator<Item = (Option<&'a [u8]>, Value<'a>)>, text: &mut String) {
    text.push('[');
    for (index, (key, value)) in values.enumerate() {
        text.push_str(if index == 0 { "{" } else { ",{" });
        if let Some(key) = key {
            print_term(Value::LongStr(key), text);
            text.push(',');
        }
        text.push_str(value.rabbit_type_name());
        text.push(',');
        print_term(value, text);
        text.push('}');
    }
    text.push(']');
}

#[cfg(test)]
mod tests {
    use leveret_amqp::{ArrayBuilder, TableBuilder};

    use super::*;

    #[test]
    fn numbers_are_equal_by_value() {
        let seven = [
            Value::I8(7),
            Value::U8(7),
            Value::I16(7),
            Value::U16(7),
            Value::I32(7),
            Value::U32(7),
            Value::I64(7),
            Value::Timestamp(7),
        ];
        for left in seven {
            for right in seven {
                assert!(equal(left, right) && equivalent(left, right));
            }
            assert!(equal(left, Value::F64(7.0)) && !equivalent(left, Value::F64(7.0)));
            assert!(!equal(left, Value::F64(7.5)));
            assert!(!equal(left, Value::LongStr(b"7")));
        }
        assert!(!equal(Value::F64(f64::NAN), Value::F64(f64::NAN)));
        assert!(!equal(Value::F64(f64::INFINITY), Value::I64(i64::MAX)));
    }

    #[test]
    fn other_types_are_equal_among_themselves() {
        assert!(equal(Value::LongStr(b"a"), Value::Bytes(b"a")));
        assert!(!equal(Value::Bool(true), Value::I8(1)));
        assert!(equal(Value::Void, Value::Void));
        let one = TableBuilder::new().int("a", 1).finish();
        let wide = TableBuilder::new().long("a", 1).finish();
        assert!(equal(Value::Table(one.as_ref()), Value::Table(one.as_ref())));
        assert!(!equal(Value::Table(one.as_ref()), Value::Table(wide.as_ref())));
        let empty = ArrayBuilder::new();
        assert!(equal(Value::Array(empty.as_ref()), Value::Table(TableRef::EMPTY)));
        assert!(!equal(Value::Array(empty.as_ref()), Value::Table(one.as_ref())));
    }

    #[test]
    fn prints_like_erlang() {
        let nested = TableBuilder::new().int("n", 1).long_str("s", "x").finish();
        let array = ArrayBuilder::new().long_str("y").table(&nested);
        let text = "[{longstr,<<\"y\">>},\
                    {table,[{<<\"n\">>,signedint,1},{<<\"s\">>,longstr,<<\"x\">>}]}]";
        assert_eq!(print(Value::Array(array.as_ref())), text);
        assert_eq!(print(Value::LongStr(b"plain")), "plain");
        assert_eq!(print(Value::F64(2.0)), "2.0");
        assert_eq!(print(Value::Decimal { scale: 2, digits: 314 }), "{2,314}");
        assert_eq!(print(Value::Bool(false)), "false");
    }
}
