//! What is valid, and the exact words for what is not.

use bytes::Bytes;
use leveret_amqp::{ArrayBuilder, OwnedTable, TableBuilder};

use super::*;

fn table() -> TableBuilder {
    TableBuilder::new()
}

fn check(arguments: &OwnedTable) -> Result<QueueArguments, String> {
    check_queue(QueueProperties {
        vhost: "/",
        name: "q",
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: arguments.as_ref(),
    })
    .map_err(|exception| format!("{} {}", exception.code.code(), exception.explanation))
}

fn int(name: &str, value: i32) -> TableBuilder {
    table().int(name, value)
}

fn text(name: &str, value: &str) -> TableBuilder {
    table().long_str(name, value)
}

fn quorum() -> TableBuilder {
    text("x-queue-type", "quorum")
}

/// Each case: the arguments, the one to blame, and the end of the text.
fn assert_refused(cases: Vec<(TableBuilder, &str, &str)>) {
    for (arguments, name, end) in cases {
        let expected = format!("406 invalid arg '{name}' for queue 'q' in vhost '/'{end}");
        assert_eq!(check(&arguments.finish()), Err(expected));
    }
}

/// Observed on `RabbitMQ` 3.10.8.
#[test]
fn invalid_numbers_read_like_rabbitmq() {
    let ttl_max = 315_360_000_000;
    assert_refused(vec![
        (text("x-message-ttl", "1"), "x-message-ttl", ": \"expected integer, got longstr\""),
        (int("x-message-ttl", -1), "x-message-ttl", ": {value_negative,-1}"),
        (
            table().long("x-message-ttl", ttl_max + 1),
            "x-message-ttl",
            ": {value_too_large,315360000001}",
        ),
        (int("x-expires", 0), "x-expires", ": {value_zero,0}"),
        (int("x-expires", -5), "x-expires", ": {value_negative,-5}"),
        (table().bool("x-max-length", true), "x-max-length", ": \"expected integer, got bool\""),
        (
            table().timestamp("x-max-length", 5),
            "x-max-length",
            ": \"expected integer, got timestamp\"",
        ),
        (int("x-max-length-bytes", -1), "x-max-length-bytes", ": {value_negative,-1}"),
        (int("x-max-priority", 256), "x-max-priority", ": {max_value_exceeded,256}"),
        (int("x-max-priority", -1), "x-max-priority", ": {value_negative,-1}"),
    ]);
}

/// Observed on `RabbitMQ` 3.10.8.
#[test]
fn invalid_texts_read_like_rabbitmq() {
    let dlx_and_int_key = text("x-dead-letter-exchange", "").int("x-dead-letter-routing-key", 1);
    assert_refused(vec![
        (text("x-overflow", "foo"), "x-overflow", ": invalid_overflow"),
        (int("x-overflow", 1), "x-overflow", ": {unacceptable_type,signedint}"),
        (
            text("x-dead-letter-routing-key", "k"),
            "x-dead-letter-routing-key",
            ": routing_key_but_no_dlx_defined",
        ),
        (dlx_and_int_key, "x-dead-letter-routing-key", ": {unacceptable_type,signedint}"),
        (text("x-queue-mode", "odd"), "x-queue-mode", ": \"unsupported queue mode 'odd'\""),
        (int("x-queue-version", 3), "x-queue-version", ": \"unsupported queue version '3'\""),
        (
            int("x-single-active-consumer", 1),
            "x-single-active-consumer",
            ": {unacceptable_type,signedint}",
        ),
        (text("x-queue-type", "odd"), "x-queue-type", ": \"unsupported queue type 'odd'\""),
        (table().bool("x-queue-type", true), "x-queue-type", ": {unacceptable_type,bool}"),
        (
            quorum().int("x-quorum-initial-group-size", 0),
            "x-quorum-initial-group-size",
            ": {value_zero,0}",
        ),
        (
            quorum().long_str("x-dead-letter-strategy", "odd"),
            "x-dead-letter-strategy",
            ": invalid_dlx_strategy",
        ),
    ]);
}

/// Observed on `RabbitMQ` 3.10.8.
#[test]
fn arguments_of_other_queue_types_are_refused() {
    let (classic, quorum_queue) =
        (" of queue type rabbit_classic_queue", " of queue type rabbit_quorum_queue");
    assert_refused(vec![
        (int("x-delivery-limit", 3), "x-delivery-limit", classic),
        (text("x-max-age", "1h"), "x-max-age", classic),
        (quorum().int("x-max-priority", 3), "x-max-priority", quorum_queue),
    ]);
}

#[test]
fn streams_are_not_implemented() {
    let stream = text("x-queue-type", "stream").finish();
    assert_eq!(check(&stream).unwrap_err(), "540 queue type 'stream' is not implemented");
}

#[test]
fn valid_arguments_are_understood() {
    let arguments = table()
        .int("x-message-ttl", 0)
        .long("x-expires", 1)
        .value("x-max-length", Value::U8(9))
        .long("x-max-length-bytes", 1 << 40)
        .long_str("x-overflow", "reject-publish-dlx")
        .long_str("x-dead-letter-exchange", "dlx")
        .long_str("x-dead-letter-routing-key", [0xFF, 0])
        .int("x-max-priority", 255)
        .bool("x-single-active-consumer", true)
        .long_str("x-queue-mode", "lazy")
        .int("x-queue-version", 2)
        .long_str("x-queue-type", "classic")
        .long_str("x-queue-master-locator", "anything")
        .array("x-unknown", &ArrayBuilder::new())
        .int("celery", 1)
        .finish();
    let expected = QueueArguments {
        kind: QueueKind::Classic,
        message_ttl_ms: Some(0),
        expires_ms: Some(1),
        length_max: Some(9),
        length_bytes_max: Some(1 << 40),
        overflow: Overflow::RejectPublishDlx,
        dead_letter_exchange: Some(Name::from("dlx")),
        dead_letter_routing_key: Some(Bytes::from_static(&[0xFF, 0])),
        priority_max: Some(255),
        single_active_consumer: true,
        delivery_limit: None,
    };
    assert_eq!(check(&arguments), Ok(expected));
    assert_eq!(check(&OwnedTable::default()), Ok(QueueArguments::default()));
}

#[test]
fn quorum_queues_are_durable_and_shared() {
    let arguments = table().long_str("x-queue-type", "quorum").int("x-delivery-limit", 3).finish();
    let queue = QueueProperties {
        vhost: "/",
        name: "q",
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: arguments.as_ref(),
    };
    let settings = check_queue(queue).unwrap();
    assert_eq!((settings.kind, settings.delivery_limit), (QueueKind::Quorum, Some(3)));
    let cases = [
        (QueueProperties { auto_delete: true, ..queue }, "auto-delete"),
        (QueueProperties { exclusive: true, ..queue }, "exclusive-owner"),
        (QueueProperties { durable: false, ..queue }, "non-durable"),
    ];
    for (queue, property) in cases {
        assert_eq!(
            check_queue(queue).unwrap_err().explanation,
            format!("invalid property '{property}' for queue 'q' in vhost '/'")
        );
    }
}

#[test]
fn names_are_checked_where_rabbitmq_checks_them() {
    let refusal = |result: Result<(), Exception>| {
        let exception = result.unwrap_err();
        (exception.code.code(), exception.explanation)
    };
    let quorum = table().long_str("x-queue-type", "quorum").finish();
    check_queue_name("", TableRef::EMPTY).unwrap();
    check_queue_name("q", quorum.as_ref()).unwrap();
    assert_eq!(
        refusal(check_queue_name("", quorum.as_ref())),
        (406, "Cannot declare a server-named queue for type rabbit_quorum_queue".to_owned())
    );
    assert_eq!(
        refusal(check_queue_name("amq.q", TableRef::EMPTY)),
        (403, "queue name 'amq.q' contains reserved prefix 'amq.*'".to_owned())
    );
    assert_eq!(
        refusal(check_exchange_name("amq.x")),
        (403, "exchange name 'amq.x' contains reserved prefix 'amq.*'".to_owned())
    );
    assert_eq!(
        refusal(check_exchange_deletion("/", "amq.direct")),
        (403, "deletion of system exchange 'amq.direct' in vhost '/' not allowed".to_owned())
    );
    assert_eq!(
        refusal(check_not_default_exchange("")),
        (403, "operation not permitted on the default exchange".to_owned())
    );
    assert_eq!(strip_cr_lf("a\r\nb\n"), Name::from("ab"));
    assert_eq!(strip_cr_lf("ab"), Name::from("ab"));
}

#[test]
fn exchange_arguments() {
    let check = |arguments: TableBuilder| check_exchange("/", "x", arguments.finish().as_ref());
    assert_eq!(check(table()), Ok(None));
    let alternate = check(table().long_str("alternate-exchange", "ae"));
    assert_eq!(alternate, Ok(Some(Name::from("ae"))));
    assert_eq!(
        check(table().int("alternate-exchange", 1)).unwrap_err().explanation,
        "invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'"
    );
    let queue = table().int("x-dead-letter-exchange", 1).finish();
    let queue = QueueProperties {
        vhost: "/",
        name: "q",
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: queue.as_ref(),
    };
    assert_eq!(
        check_dead_letter_exchange(queue).unwrap_err().explanation,
        "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'"
    );
    assert_eq!(parse_exchange_kind("odd").unwrap_err().explanation, "unknown exchange type 'odd'");
    for kind in ["direct", "fanout", "topic", "headers"] {
        assert_eq!(parse_exchange_kind(kind).unwrap().as_str(), kind);
    }
}

#[test]
fn match_modes() {
    let check = |arguments: TableBuilder| {
        check_headers_binding(arguments.finish().as_ref()).map_err(|error| error.explanation)
    };
    check(table().int("a", 1)).unwrap();
    for mode in ["all", "any", "all-with-x", "any-with-x"] {
        check(table().long_str("x-match", mode)).unwrap();
    }
    assert_eq!(
        check(table().long_str("x-match", "foo")).unwrap_err(),
        "Invalid x-match field value <<\"foo\">>; expected all, any, all-with-x, or any-with-x"
    );
    assert_eq!(
        check(table().int("x-match", 1)).unwrap_err(),
        "Invalid x-match field type signedint (value 1); expected longstr"
    );
}
