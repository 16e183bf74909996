//! Declaring again: what passes, and the exact words where it does not.

use leveret_amqp::{OwnedTable, TableBuilder};

use super::*;
use crate::catalog::arguments::QueueArguments;
use crate::catalog::name::Name;
use crate::id::{ConnectionId, ExchangeId, QueueId, ShardId, VhostId};

fn table() -> TableBuilder {
    TableBuilder::new()
}

fn owner(slot: u32) -> Owner {
    Owner { shard: ShardId(0), connection: ConnectionId { slot, generation: 0 } }
}

fn queue(arguments: &OwnedTable) -> QueueMeta {
    QueueMeta {
        id: QueueId::default(),
        vhost: VhostId(0),
        name: Name::from("q"),
        home: ShardId(0),
        durable: true,
        log_id: Some(1),
        exclusive: None,
        auto_delete: false,
        arguments: arguments.as_bytes().clone(),
        settings: QueueArguments::parse(arguments.as_ref()),
    }
}

fn same(arguments: TableRef<'_>) -> QueueRedeclaration<'_> {
    QueueRedeclaration { durable: true, exclusive: None, auto_delete: false, arguments }
}

fn check_arguments(current: TableBuilder, received: TableBuilder) -> Result<(), String> {
    let (current, received) = (current.finish(), received.finish());
    check_queue(&queue(&current), "/", same(received.as_ref())).map_err(|error| {
        let text = error.explanation;
        let prefix = "inequivalent arg '";
        text.strip_prefix(prefix).unwrap().replace(" for queue 'q' in vhost '/': received", " ←")
    })
}

/// Current, received and the text, the common parts of which are left out: `arg' ← received but
/// current is …`. Observed on `RabbitMQ` 3.10.8.
#[test]
fn different_arguments() {
    let cases = [
        (
            table().int("x-expires", 1_000),
            table(),
            "x-expires' ← none but current is the value '1000' of type 'signedint'",
        ),
        (
            table(),
            table().int("x-message-ttl", 1),
            "x-message-ttl' ← the value '1' of type 'signedint' but current is none",
        ),
        (
            table().long("x-max-length", 9),
            table().int("x-max-length", 10),
            "x-max-length' ← '10' but current is '9'",
        ),
        (
            table().int("x-max-length", 9),
            table().long_str("x-max-length", "9"),
            "x-max-length' ← '9' but current is '9'",
        ),
        (
            table().long_str("x-overflow", "drop-head"),
            table().long_str("x-overflow", "reject-publish"),
            "x-overflow' ← 'reject-publish' but current is 'drop-head'",
        ),
        (
            table().bool("x-single-active-consumer", true),
            table().bool("x-single-active-consumer", false),
            "x-single-active-consumer' ← 'false' but current is 'true'",
        ),
        (
            table(),
            table().long_str("x-queue-type", "quorum"),
            "x-queue-type' ← the value 'quorum' of type 'longstr' but current is none",
        ),
        (
            table().long_str("x-queue-type", "classic"),
            table().long_str("x-queue-type", "quorum"),
            "x-queue-type' ← 'quorum' but current is 'classic'",
        ),
        (
            table().long_str("x-queue-type", "quorum"),
            table(),
            "x-queue-type' ← none but current is the value 'quorum' of type 'longstr'",
        ),
        (
            table().int("x-max-priority", 1).int("x-expires", 1),
            table().int("x-max-priority", 2).int("x-expires", 2),
            "x-expires' ← '2' but current is '1'",
        ),
    ];
    for (current, received, expected) in cases {
        assert_eq!(check_arguments(current, received).unwrap_err(), expected);
    }
}

#[test]
fn equivalent_arguments() {
    let cases = [
        (table(), table()),
        (table().int("x-expires", 60_000), table().long("x-expires", 60_000)),
        (table().value("x-max-priority", Value::U8(5)), table().int("x-max-priority", 5)),
        (table(), table().long_str("x-queue-type", "classic")),
        (table().long_str("x-queue-type", "classic"), table()),
        (table().int("x-unknown", 1), table().int("x-unknown", 2)),
        (table().int("x-unknown", 1), table()),
        // Known to quorum queues only, so a classic queue does not compare it.
        (table(), table().int("x-delivery-limit", 3)),
        (table().int("a", 1).int("x-expires", 5), table().int("x-expires", 5)),
    ];
    for (current, received) in cases {
        check_arguments(current, received).unwrap();
    }
}

#[test]
fn different_properties() {
    let none = OwnedTable::default();
    let current = queue(&none);
    let declared = same(TableRef::EMPTY);
    check_queue(&current, "/", declared).unwrap();
    let text = |declared| check_queue(&current, "/", declared).unwrap_err().explanation;
    assert_eq!(
        text(QueueRedeclaration { durable: false, ..declared }),
        "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is \
         'true'"
    );
    assert_eq!(
        text(QueueRedeclaration { auto_delete: true, ..declared }),
        "inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'true' but current \
         is 'false'"
    );
    // The first difference counts.
    let both = QueueRedeclaration { durable: false, auto_delete: true, ..declared };
    assert!(text(both).starts_with("inequivalent arg 'durable'"));
}

#[test]
fn exclusive_queues_belong_to_one_connection() {
    let none = OwnedTable::default();
    let exclusive = QueueMeta { exclusive: Some(owner(1)), durable: false, ..queue(&none) };
    let declared = |exclusive| QueueRedeclaration { exclusive, ..same(TableRef::EMPTY) };
    // Durable and exclusive is stored as not durable, and so is equivalent to itself.
    check_queue(&exclusive, "/", declared(Some(owner(1)))).unwrap();
    let refusals = [
        check_queue(&exclusive, "/", declared(Some(owner(2)))),
        check_queue(&exclusive, "/", declared(None)),
        check_queue(&queue(&none), "/", declared(Some(owner(1)))),
        check_exclusive_access(&exclusive, "/", owner(2)),
    ];
    for refusal in refusals {
        let exception = refusal.unwrap_err();
        assert_eq!(exception.code.code(), 405);
        assert_eq!(
            exception.explanation,
            "cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be \
             originally declared on another connection or the exclusive property value does not \
             match that of the original declaration."
        );
    }
    check_exclusive_access(&exclusive, "/", owner(1)).unwrap();
    check_exclusive_access(&queue(&none), "/", owner(2)).unwrap();
}

fn exchange(arguments: &OwnedTable) -> Exchange {
    Exchange {
        id: ExchangeId::default(),
        vhost: VhostId(0),
        name: Name::from("x"),
        kind: ExchangeKind::Topic,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: arguments.as_bytes().clone(),
        alternate: None,
    }
}

fn same_exchange(arguments: TableRef<'_>) -> ExchangeRedeclaration<'_> {
    ExchangeRedeclaration {
        kind: ExchangeKind::Topic,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments,
    }
}

#[test]
fn equivalent_exchanges() {
    let alternate = table().long_str("alternate-exchange", "ae");
    let current = exchange(&alternate.clone().int("other", 1).finish());
    let received = alternate.finish();
    check_exchange(&current, "/", same_exchange(received.as_ref())).unwrap();
    let plain = exchange(&OwnedTable::default());
    check_exchange(&plain, "/", same_exchange(TableRef::EMPTY)).unwrap();
}

/// Observed on `RabbitMQ` 3.10.8.
#[test]
fn different_exchanges() {
    let alternate = table().long_str("alternate-exchange", "ae").finish();
    let other = table().long_str("alternate-exchange", "other").finish();
    let same = same_exchange(alternate.as_ref());
    let direct = ExchangeKind::Direct;
    let cases = [
        (
            ExchangeRedeclaration { kind: direct, durable: false, ..same },
            "'type' ← 'direct' but current is 'topic'",
        ),
        (
            ExchangeRedeclaration { durable: false, internal: true, ..same },
            "'durable' ← 'false' but current is 'true'",
        ),
        (
            ExchangeRedeclaration { auto_delete: true, ..same },
            "'auto_delete' ← 'true' but current is 'false'",
        ),
        (
            ExchangeRedeclaration { internal: true, ..same },
            "'internal' ← 'true' but current is 'false'",
        ),
        (
            same_exchange(TableRef::EMPTY),
            "'alternate-exchange' ← none but current is the value 'ae' of type 'longstr'",
        ),
        (same_exchange(other.as_ref()), "'alternate-exchange' ← 'other' but current is 'ae'"),
    ];
    for (declared, expected) in cases {
        let exception = check_exchange(&exchange(&alternate), "/", declared).unwrap_err();
        assert_eq!(exception.code.code(), 406);
        let expected = expected.replace('←', "for exchange 'x' in vhost '/': received");
        assert_eq!(exception.explanation, format!("inequivalent arg {expected}"));
    }
}
