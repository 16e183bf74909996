//! How `RabbitMQ` quotes a frame in a reply text.
//!
//! It prints the first octets as an Erlang binary, `io:format("~p")`. Reply texts are part of the
//! protocol, down to the line break that `~p` makes where a line would pass 80 columns.

use std::fmt::Write;

use leveret_amqp::ReplyCode;

use crate::error::Exception;

/// Most octets of a payload that are shown (`rabbit_reader:payload_snippet`).
const SNIPPET_SIZE_MAX: usize = 16;

/// Columns up to which a binary is printed in one piece, including the text before it.
const WHOLE_COLUMNS_MAX: usize = 81;

/// Columns after which a binary printed in pieces continues on the next line.
const PIECE_COLUMNS_MAX: usize = 79;

/// 505 for a frame that the state of its connection or channel does not allow
/// (`rabbit_reader:unexpected_frame`): `type 1, all octets = <<0,20,0,10,0>>`.
pub fn unexpected_frame(kind: u8, payload: &[u8]) -> Exception {
    Exception::new(ReplyCode::UnexpectedFrame, describe(kind, payload))
}

/// Kind and first octets of a frame, in `RabbitMQ`'s words.
pub fn describe(kind: u8, payload: &[u8]) -> String {
    let extent = if payload.len() <= SNIPPET_SIZE_MAX { "all" } else { "first 16" };
    let snippet = &payload[..payload.len().min(SNIPPET_SIZE_MAX)];
    let mut text = format!("type {kind}, {extent} octets = ");
    if snippet.is_empty() {
        text.push_str("<<>>");
    } else if snippet.iter().all(|octet| is_printable(*octet)) {
        push_string(&mut text, snippet);
    } else {
        push_integers(&mut text, snippet);
    }
    text
}

/// `io_lib:printable_latin1_list`.
fn is_printable(octet: u8) -> bool {
    matches!(octet, 0x20..=0x7E | 0xA0..=0xFF | 0x08..=0x0D | 0x1B)
}

fn push_string(text: &mut String, octets: &[u8]) {
    text.push_str("<<\"");
    for octet in octets {
        match octet {
            0x08 => text.push_str("\\b"),
            0x09 => text.push_str("\\t"),
            0x0A => text.push_str("\\n"),
            0x0B => text.push_str("\\v"),
            0x0C => text.push_str("\\f"),
            0x0D => text.push_str("\\r"),
            0x1B => text.push_str("\\e"),
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            octet => text.push(char::from(*octet)),
        }
    }
    text.push_str("\">>");
}

fn push_integers(text: &mut String, octets: &[u8]) {
    text.push_str("<<");
    let indent = text.len();
    let mut items = String::new();
    let mut line_from = 0;
    let is_whole = whole_size(octets) + indent <= WHOLE_COLUMNS_MAX;
    for (number, octet) in octets.iter().enumerate() {
        let start = items.len();
        let comma = if number + 1 == octets.len() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(items, "{octet}{comma}");
        if !is_whole && indent + items.len() - line_from > PIECE_COLUMNS_MAX {
            let line_break = format!("\n{:indent$}", "");
            items.insert_str(start, &line_break);
            line_from = start + line_break.len();
        }
    }
    text.push_str(&items);
    text.push_str(">>");
}

/// Columns of the integers, their commas and the closing brackets.
fn whole_size(octets: &[u8]) -> usize {
    let digits: usize = octets.iter().map(|octet| octet.to_string().len()).sum();
    digits + octets.len() - 1 + ">>".len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every text was printed by `RabbitMQ` 3.10.8 or by `io:format` of the OTP 25 it runs on.
    #[test]
    fn quotes_like_erlang() {
        let high: Vec<u8> = (200..=214).chain([0]).collect();
        let fits = [[0; 1].as_slice(), &[200; 7], &[20; 6], &[3; 2]].concat();
        let breaks = [[0; 1].as_slice(), &[200; 7], &[20; 8]].concat();
        let cases: [(u8, &[u8], &str); 14] = [
            (8, b"", "type 8, all octets = <<>>"),
            (1, &[0, 20, 0, 10, 0], "type 1, all octets = <<0,20,0,10,0>>"),
            (3, b"abc", "type 3, all octets = <<\"abc\">>"),
            (3, &[127], "type 3, all octets = <<127>>"),
            (3, b"a\x07", "type 3, all octets = <<97,7>>"),
            (
                3,
                b"a\"b\\c\n\r\t\x0b\x08\x0c\x1b",
                "type 3, all octets = <<\"a\\\"b\\\\c\\n\\r\\t\\v\\b\\f\\e\">>",
            ),
            (3, b"\xe4\xf6 \xa0\xff", "type 3, all octets = <<\"äö \u{a0}ÿ\">>"),
            (3, b"abcdefghijklmnop", "type 3, all octets = <<\"abcdefghijklmnop\">>"),
            (3, b"abcdefghijklmnopq", "type 3, first 16 octets = <<\"abcdefghijklmnop\">>"),
            (3, &[0; 40], "type 3, first 16 octets = <<0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0>>"),
            (
                3,
                &high,
                "type 3, all octets = <<200,201,202,203,204,205,206,207,208,209,210,211,212,213,\n\
                 \x20                      214,0>>",
            ),
            (
                3,
                &fits,
                "type 3, all octets = <<0,200,200,200,200,200,200,200,20,20,20,20,20,20,3,3>>",
            ),
            (
                3,
                &[breaks.as_slice(), &[3]].concat(),
                "type 3, first 16 octets = <<0,200,200,200,200,200,200,200,20,20,20,20,20,20,20,\n\
                 \x20                           20>>",
            ),
            (255, &[0], "type 255, all octets = <<0>>"),
        ];
        for (kind, payload, expected) in cases {
            assert_eq!(describe(kind, payload), expected);
        }
    }

    /// The longest binary `~p` leaves whole, and the shortest it breaks, after each length of
    /// text: measured with OTP 25.
    #[test]
    fn breaks_where_erlang_breaks() {
        for (kind, whole_max) in [(3, 60), (25, 59), (255, 58)] {
            for (long, short) in (0..=16).flat_map(|long| (0..=16 - long).map(move |s| (long, s))) {
                let payload = [vec![200; long], vec![0; short]].concat();
                if short == 0 {
                    continue;
                }
                let text = describe(kind, &payload);
                let (_, printed) = text.split_once("= ").unwrap();
                let size = printed.chars().filter(|c| !c.is_whitespace()).count();
                assert_eq!(printed.contains('\n'), size > whole_max, "{text}");
                assert!(text.lines().all(|line| line.len() <= WHOLE_COLUMNS_MAX));
            }
        }
    }
}
