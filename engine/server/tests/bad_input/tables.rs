//! Rows of field tables and names that are odd but allowed, and the tables they are made of.

use leveret_amqp::frame::FRAME_METHOD;
use leveret_amqp::method::QueueDeclareOk;

use crate::row::Outcome::{self, Close, Reply};
use crate::row::Row;
use crate::wire::{Wire, frame};

const DECLARED: Outcome = Reply(QueueDeclareOk::NAME, "");

/// Both brokers take all of them, nesting excepted.
pub(crate) const TABLE_ROWS: &[Row] = &[
    Row {
        name: "28: NUL and control octets in a name",
        script: |wire| declare_with_table(wire, "bad.28\0\x01\x7f", &raw_table(b"")),
        ours: Reply(QueueDeclareOk::NAME, r"bad.28\0\u{1}\u{7f}"),
        rabbit: None,
    },
    Row {
        name: "28: line ends in a name are taken out",
        script: |wire| declare_with_table(wire, "bad.28\r\n.lines", &raw_table(b"")),
        ours: Reply(QueueDeclareOk::NAME, "bad.28.lines"),
        rabbit: None,
    },
    Row {
        name: "31: nested 10,000 deep",
        script: |wire| declare_with_table(wire, "bad.31", &nested(10_000)),
        ours: Close(502, "SYNTAX_ERROR"),
        rabbit: Some(DECLARED),
    },
    Row {
        name: "31: nested 30 deep",
        script: |wire| declare_with_table(wire, "bad.31.few", &nested(30)),
        ours: DECLARED,
        rabbit: None,
    },
    Row {
        name: "32: the same field twice",
        script: |wire| {
            let fields = b"\x07unknownI\0\0\0\x01\x07unknownS\0\0\0\x01x";
            declare_with_table(wire, "bad.32", &raw_table(fields));
        },
        ours: DECLARED,
        rabbit: None,
    },
    Row {
        name: "33: every type letter",
        script: |wire| declare_with_table(wire, "bad.33", &raw_table(EVERY_LETTER)),
        ours: DECLARED,
        rabbit: None,
    },
    Row {
        name: "34: a truth value of 7",
        script: |wire| declare_with_table(wire, "bad.34", &raw_table(b"\x01kt\x07")),
        ours: DECLARED,
        rabbit: None,
    },
];

/// Each letter once, with the shortest value it can have.
const EVERY_LETTER: &[u8] = b"\x01at\x01\x01bb\xff\x01cB\xff\x01ds\xff\xff\x01eu\xff\xff\
    \x01fI\xff\xff\xff\xff\x01gi\xff\xff\xff\xff\x01hl\xff\xff\xff\xff\xff\xff\xff\xff\
    \x01iL\xff\xff\xff\xff\xff\xff\xff\xff\x01jf\x3f\x80\0\0\x01kd\x3f\xf0\0\0\0\0\0\0\
    \x01lD\x02\0\0\0\x07\x01mS\0\0\0\x01s\x01nx\0\0\0\x01x\x01oT\0\0\0\0\0\0\0\x01\
    \x01pF\0\0\0\0\x01qA\0\0\0\x01V\x01rV";

/// A table on the wire around fields that no encoder would write.
pub(crate) fn raw_table(fields: &[u8]) -> Vec<u8> {
    let mut table = (fields.len() as u32).to_be_bytes().to_vec();
    table.extend_from_slice(fields);
    table
}

/// Tables in tables.
fn nested(depth: usize) -> Vec<u8> {
    let mut fields = Vec::new();
    for _ in 0..depth {
        let mut outer = b"\x01kF".to_vec();
        outer.extend(raw_table(&fields));
        fields = outer;
    }
    raw_table(&fields)
}

/// Declares an auto-delete queue on channel 1 with a table of these octets.
pub(crate) fn declare_with_table(wire: &mut Wire, queue: &str, table: &[u8]) {
    const EXCLUSIVE: u8 = 0b100;
    let mut payload = vec![0, 50, 0, 10, 0, 0, queue.len() as u8];
    payload.extend_from_slice(queue.as_bytes());
    payload.push(EXCLUSIVE);
    payload.extend_from_slice(table);
    wire.channel();
    wire.send(frame(FRAME_METHOD, 1, &payload));
}
