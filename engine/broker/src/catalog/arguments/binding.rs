//! The arguments of bindings.

use leveret_amqp::{TableRef, Value};

use crate::error::Exception;

/// The `x-match` argument of a binding from a headers exchange.
///
/// # Errors
/// 406 for anything but `all`, `any`, `all-with-x` and `any-with-x`.
pub fn check_headers_binding(arguments: TableRef<'_>) -> Result<(), Exception> {
    let text = match arguments.get("x-match") {
        None | Some(Value::LongStr(b"all" | b"any" | b"all-with-x" | b"any-with-x")) => {
            return Ok(());
        }
        Some(Value::LongStr(other)) => format!(
            "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
            erlang_binary(other)
        ),
        Some(other) => format!(
            "Invalid x-match field type {} (value {}); expected longstr",
            other.rabbit_type_name(),
            match other {
                Value::Bytes(octets) => erlang_binary(octets),
                other => crate::catalog::erlang_term::print(other),
            }
        ),
    };
    Err(Exception::precondition_failed(text))
}

fn erlang_binary(octets: &[u8]) -> String {
    format!("<<\"{}\">>", String::from_utf8_lossy(octets))
}
