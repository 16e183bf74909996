//! Rows of well-formed methods that ask for what cannot be.

use leveret_amqp::method::{
    AccessRequest, BasicAck, BasicCancel, BasicConsume, BasicGet, BasicNack, BasicQos,
    BasicRecover, BasicReject, ChannelFlow, ConfirmSelect, ConnectionClose, ExchangeDeclare,
    ExchangeDelete, QueueBind, QueueDeclare, QueueDelete, QueuePurge, TxCommit, TxRollback,
    TxSelect,
};
use leveret_amqp::{OwnedTable, TableBuilder, TableRef};

use crate::frames::{content_header, publish};
use crate::row::Outcome::{self, ChannelClose, Close, Reply};
use crate::row::Row;
use crate::wire::Wire;

const fn same(name: &'static str, script: fn(&mut Wire), ours: Outcome) -> Row {
    Row { name, script, ours, rabbit: None }
}

const GOES_ON: Outcome = Reply("channel.flow-ok", "");
const MISSING: Outcome = ChannelClose(404, "NOT_FOUND - no queue 'bad.missing' in vhost '/'");
const UNKNOWN_TAG: Outcome = ChannelClose(406, "PRECONDITION_FAILED - unknown delivery tag ");

/// Declarations.
pub(crate) const DECLARATION_ROWS: &[Row] = &[
    same(
        "85: a reserved name",
        |wire| {
            wire.channel();
            wire.method(1, &queue("amq.bad"));
        },
        ChannelClose(403, "ACCESS_REFUSED - queue name 'amq.bad' contains reserved prefix 'amq.*'"),
    ),
    same(
        "86: declared otherwise before",
        |wire| {
            declared(wire, "bad.86");
            wire.method(1, &QueueDeclare { auto_delete: true, ..queue("bad.86") });
        },
        ChannelClose(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue 'bad.86' in vhost \
             '/': received 'true' but current is 'false'",
        ),
    ),
    same(
        "86: with other arguments",
        |wire| {
            declared(wire, "bad.86.args");
            let arguments = TableBuilder::new().int("x-max-length", 9).finish();
            wire.method(1, &with_arguments("bad.86.args", &arguments));
        },
        ChannelClose(
            406,
            "inequivalent arg 'x-max-length' for queue 'bad.86.args' in vhost '/': received the \
             value '9' of type 'signedint' but current is none",
        ),
    ),
    same(
        "88: passive declare",
        |wire| {
            wire.channel();
            wire.method(1, &QueueDeclare { passive: true, ..queue("bad.missing") });
        },
        MISSING,
    ),
    same(
        "88: consume",
        |wire| {
            wire.channel();
            wire.method(1, &consume("bad.missing", "t"));
        },
        MISSING,
    ),
    same(
        "88: purge",
        |wire| {
            wire.channel();
            wire.method(1, &QueuePurge { queue: "bad.missing", nowait: false });
        },
        MISSING,
    ),
    same(
        "88: bind",
        |wire| {
            wire.channel();
            wire.method(1, &bind("bad.missing", "amq.direct", TableRef::default()));
        },
        MISSING,
    ),
    same(
        "89: delete",
        |wire| {
            wire.channel();
            wire.method(1, &delete("bad.missing"));
        },
        Reply("queue.delete-ok", "message_count: 0"),
    ),
    same(
        "90: delete if unused, with a consumer",
        |wire| {
            declared(wire, "bad.90");
            wire.method(1, &consume("bad.90", "t"));
            wire.expect("basic.consume-ok");
            wire.method(1, &QueueDelete { if_unused: true, ..delete("bad.90") });
        },
        ChannelClose(406, "PRECONDITION_FAILED - queue 'bad.90' in vhost '/' in use"),
    ),
    same(
        "90: delete if empty, with a message",
        |wire| {
            declared(wire, "bad.90.full");
            wire.method(1, &publish(b"bad.90.full"));
            wire.send(content_header(0));
            wire.method(1, &QueueDelete { if_empty: true, ..delete("bad.90.full") });
        },
        ChannelClose(406, "PRECONDITION_FAILED - queue 'bad.90.full' in vhost '/' not empty"),
    ),
    same(
        "91: TTL of letters",
        |wire| {
            invalid(wire, &TableBuilder::new().long_str("x-message-ttl", "soon").finish());
        },
        INVALID,
    ),
    same(
        "91: negative TTL",
        |wire| {
            invalid(wire, &TableBuilder::new().int("x-message-ttl", -1).finish());
        },
        INVALID,
    ),
    same(
        "91: expires 0",
        |wire| {
            invalid(wire, &TableBuilder::new().int("x-expires", 0).finish());
        },
        INVALID,
    ),
    same(
        "91: 256 priorities",
        |wire| {
            invalid(wire, &TableBuilder::new().int("x-max-priority", 256).finish());
        },
        INVALID,
    ),
    same(
        "91: unknown overflow",
        |wire| {
            invalid(wire, &TableBuilder::new().long_str("x-overflow", "foo").finish());
        },
        INVALID,
    ),
    same(
        "91: dead letter key without exchange",
        |wire| {
            invalid(wire, &TableBuilder::new().long_str("x-dead-letter-routing-key", "k").finish());
        },
        INVALID,
    ),
    same(
        "92: an unknown argument",
        |wire| {
            wire.channel();
            let arguments = TableBuilder::new().long_str("x-nonsense", "yes").finish();
            wire.method(1, &with_arguments("bad.92", &arguments));
        },
        Reply("queue.declare-ok", "bad.92"),
    ),
];

const INVALID: Outcome = ChannelClose(406, "PRECONDITION_FAILED - invalid arg 'x-");

/// Exchanges and bindings.
pub(crate) const EXCHANGE_ROWS: &[Row] = &[
    Row {
        name: "93: an unknown type",
        script: |wire| {
            wire.channel();
            wire.method(1, &exchange("bad.93", "nonsense"));
        },
        ours: ChannelClose(406, "PRECONDITION_FAILED - unknown exchange type 'nonsense'"),
        rabbit: Some(Close(503, "COMMAND_INVALID - unknown exchange type 'nonsense'")),
    },
    same(
        "94: declaring the default exchange",
        |wire| {
            wire.channel();
            wire.method(1, &exchange("", "direct"));
        },
        DEFAULT_EXCHANGE,
    ),
    same(
        "94: deleting the default exchange",
        |wire| {
            wire.channel();
            wire.method(1, &ExchangeDelete { exchange: "", if_unused: false, nowait: false });
        },
        DEFAULT_EXCHANGE,
    ),
    same(
        "94: binding to the default exchange",
        |wire| {
            declared(wire, "bad.94");
            wire.method(1, &bind("bad.94", "", TableRef::default()));
        },
        DEFAULT_EXCHANGE,
    ),
    same(
        "94: deleting a predeclared exchange",
        |wire| {
            wire.channel();
            let delete = ExchangeDelete { exchange: "amq.direct", if_unused: false, nowait: false };
            wire.method(1, &delete);
        },
        ChannelClose(403, "ACCESS_REFUSED - "),
    ),
    same(
        "95: no queue declared before",
        |wire| {
            wire.channel();
            wire.method(1, &BasicGet { queue: "", no_ack: true });
        },
        ChannelClose(404, "NOT_FOUND - no previously declared queue"),
    ),
    same(
        "96: a pattern with many #",
        |wire| {
            declared(wire, "bad.96");
            let pattern = b"#.a.#.b.#.c.#.d.#";
            let bind = bind("bad.96", "amq.topic", TableRef::default());
            wire.method(1, &QueueBind { routing_key: pattern, ..bind });
        },
        Reply("queue.bind-ok", ""),
    ),
    same(
        "97: x-match of nonsense",
        |wire| {
            declared(wire, "bad.97");
            let arguments = TableBuilder::new().long_str("x-match", "foo").finish();
            wire.method(1, &bind("bad.97", "amq.headers", arguments.as_ref()));
        },
        ChannelClose(406, "PRECONDITION_FAILED - "),
    ),
];

const DEFAULT_EXCHANGE: Outcome =
    ChannelClose(403, "ACCESS_REFUSED - operation not permitted on the default exchange");

/// Consumers, acknowledgements and modes.
pub(crate) const DELIVERY_ROWS: &[Row] = &[
    same(
        "98: a consumer tag that is taken",
        |wire| {
            declared(wire, "bad.98");
            wire.method(1, &consume("bad.98", "t"));
            wire.expect("basic.consume-ok");
            wire.method(1, &consume("bad.98", "t"));
        },
        Close(530, "NOT_ALLOWED - attempt to reuse consumer tag 't'"),
    ),
    same(
        "99: exclusive where others consume",
        |wire| {
            declared(wire, "bad.99");
            wire.method(1, &consume("bad.99", "t"));
            wire.expect("basic.consume-ok");
            wire.method(1, &BasicConsume { exclusive: true, ..consume("bad.99", "u") });
        },
        ChannelClose(403, "ACCESS_REFUSED - queue 'bad.99' in vhost '/' in exclusive use"),
    ),
    same(
        "100: prefetch in octets",
        |wire| {
            wire.channel();
            wire.method(1, &BasicQos { prefetch_size: 1, prefetch_count: 0, global: false });
        },
        Close(540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)"),
    ),
    same(
        "101: prefetch of the channel",
        |wire| {
            wire.channel();
            wire.method(1, &BasicQos { prefetch_size: 0, prefetch_count: 1, global: true });
        },
        Reply("basic.qos-ok", ""),
    ),
    same(
        "102: ack of what was not delivered",
        |wire| {
            wire.channel();
            wire.method(1, &BasicAck { delivery_tag: 7, multiple: false });
        },
        ChannelClose(406, "PRECONDITION_FAILED - unknown delivery tag 7"),
    ),
    same(
        "102: ack twice",
        |wire| {
            got(wire, "bad.102");
            wire.method(1, &BasicAck { delivery_tag: 1, multiple: false });
            wire.method(1, &BasicAck { delivery_tag: 1, multiple: false });
        },
        UNKNOWN_TAG,
    ),
    same(
        "102: nack of what was not delivered",
        |wire| {
            wire.channel();
            wire.method(1, &BasicNack { delivery_tag: 7, multiple: false, requeue: true });
        },
        UNKNOWN_TAG,
    ),
    same(
        "102: reject of tag 0",
        |wire| {
            wire.channel();
            wire.method(1, &BasicReject { delivery_tag: 0, requeue: true });
        },
        UNKNOWN_TAG,
    ),
    same(
        "103: ack of all",
        |wire| {
            got(wire, "bad.103");
            wire.method(1, &BasicAck { delivery_tag: 0, multiple: true });
            wire.ask();
        },
        GOES_ON,
    ),
    same(
        "104: recover without requeue",
        |wire| {
            wire.channel();
            wire.method(1, &BasicRecover { requeue: false });
        },
        Close(540, "NOT_IMPLEMENTED - "),
    ),
    same(
        "104: stopping the flow",
        |wire| {
            wire.channel();
            wire.method(1, &ChannelFlow { active: false });
        },
        Close(540, "NOT_IMPLEMENTED - active=false"),
    ),
    same(
        "105: commit",
        |wire| {
            wire.channel();
            wire.method(1, &TxCommit {});
        },
        ChannelClose(406, "PRECONDITION_FAILED - channel is not transactional"),
    ),
    same(
        "105: rollback",
        |wire| {
            wire.channel();
            wire.method(1, &TxRollback {});
        },
        ChannelClose(406, "PRECONDITION_FAILED - channel is not transactional"),
    ),
    same(
        "105: confirms in a transaction",
        |wire| {
            wire.channel();
            wire.method(1, &TxSelect {});
            wire.method(1, &ConfirmSelect { nowait: false });
        },
        ChannelClose(406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode"),
    ),
    same(
        "105: a transaction with confirms",
        |wire| {
            wire.channel();
            wire.method(1, &ConfirmSelect { nowait: false });
            wire.method(1, &TxSelect {});
        },
        ChannelClose(406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode"),
    ),
    same(
        "106: a ticket",
        |wire| {
            wire.channel();
            wire.method(
                1,
                &AccessRequest {
                    realm: "/data",
                    exclusive: false,
                    passive: true,
                    active: true,
                    write: true,
                    read: true,
                },
            );
        },
        Reply("access.request-ok", "ticket: 1"),
    ),
    same(
        "107: cancel of nobody",
        |wire| {
            wire.channel();
            wire.method(1, &BasicCancel { consumer_tag: "nobody", nowait: false });
        },
        Reply("basic.cancel-ok", "nobody"),
    ),
    same(
        "108: frames after close",
        |wire| {
            wire.channel();
            wire.method(
                0,
                &ConnectionClose { reply_code: 9999, reply_text: "odd", class_id: 1, method_id: 2 },
            );
            wire.method(1, &delete("bad.missing"));
        },
        Reply("connection.close-ok", ""),
    ),
];

/// A queue that vanishes with the connection.
const fn queue(queue: &str) -> QueueDeclare<'_> {
    QueueDeclare { exclusive: true, ..QueueDeclare::named(queue) }
}

fn with_arguments<'a>(name: &'a str, arguments: &'a OwnedTable) -> QueueDeclare<'a> {
    QueueDeclare { arguments: arguments.as_ref(), ..queue(name) }
}

const fn exchange<'a>(exchange: &'a str, kind: &'a str) -> ExchangeDeclare<'a> {
    ExchangeDeclare {
        exchange,
        kind,
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: TableRef::trusted(b""),
    }
}

const fn bind<'a>(queue: &'a str, exchange: &'a str, arguments: TableRef<'a>) -> QueueBind<'a> {
    QueueBind { queue, exchange, routing_key: b"bad", nowait: false, arguments }
}

const fn delete(queue: &str) -> QueueDelete<'_> {
    QueueDelete { queue, if_unused: false, if_empty: false, nowait: false }
}

const fn consume<'a>(queue: &'a str, consumer_tag: &'a str) -> BasicConsume<'a> {
    BasicConsume {
        queue,
        consumer_tag,
        no_local: false,
        no_ack: false,
        exclusive: false,
        nowait: false,
        arguments: TableRef::trusted(b""),
    }
}

/// A channel and a queue.
fn declared(wire: &mut Wire, name: &str) {
    wire.channel();
    wire.method(1, &queue(name));
    wire.expect("queue.declare-ok");
}

/// A channel that got one message to acknowledge.
fn got(wire: &mut Wire, name: &str) {
    declared(wire, name);
    wire.method(1, &publish(name.as_bytes()));
    wire.send(content_header(0));
    wire.method(1, &BasicGet { queue: name, no_ack: false });
    wire.expect("basic.get-ok");
}

/// A declaration that must be refused.
fn invalid(wire: &mut Wire, arguments: &OwnedTable) {
    wire.channel();
    wire.method(1, &with_arguments("bad.91", arguments));
}
