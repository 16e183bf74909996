//! Methods: encoding and decoding are each other's inverse, and malformed ones get their code.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use leveret_amqp::method::{
    AccessRequest, AccessRequestOk, BasicAck, BasicCancel, BasicCancelOk, BasicConsume,
    BasicConsumeOk, BasicDeliver, BasicGet, BasicGetEmpty, BasicGetOk, BasicNack, BasicPublish,
    BasicQos, BasicQosOk, BasicRecover, BasicRecoverAsync, BasicRecoverOk, BasicReject,
    BasicReturn, ChannelClose, ChannelCloseOk, ChannelFlow, ChannelFlowOk, ChannelOpen,
    ChannelOpenOk, ConfirmSelect, ConfirmSelectOk, ConnectionBlocked, ConnectionClose,
    ConnectionCloseOk, ConnectionOpen, ConnectionOpenOk, ConnectionSecure, ConnectionSecureOk,
    ConnectionStart, ConnectionStartOk, ConnectionTune, ConnectionTuneOk, ConnectionUnblocked,
    ConnectionUpdateSecret, ConnectionUpdateSecretOk, ExchangeBind, ExchangeBindOk,
    ExchangeDeclare, ExchangeDeclareOk, ExchangeDelete, ExchangeDeleteOk, ExchangeUnbind,
    ExchangeUnbindOk, QueueBind, QueueBindOk, QueueDeclare, QueueDeclareOk, QueueDelete,
    QueueDeleteOk, QueuePurge, QueuePurgeOk, QueueUnbind, QueueUnbindOk, TxCommit, TxCommitOk,
    TxRollback, TxRollbackOk, TxSelect, TxSelectOk, split_ids,
};
use leveret_amqp::{
    Decoder, Frame, Method, MethodError, OwnedTable, ReplyCode, TableBuilder, TableError,
    encode_frame,
};
use proptest::prelude::*;

/// What the fields of all methods are filled with.
#[derive(Debug, Clone)]
struct Material {
    text: [String; 3],
    octets: [Vec<u8>; 3],
    table: OwnedTable,
    long: Vec<u8>,
    bits: [bool; 5],
    numbers: (u8, u16, u16, u32, u32, u64),
}

fn material() -> impl Strategy<Value = Material> {
    let text = prop::array::uniform3("\\PC{0,60}");
    let octets = prop::array::uniform3(prop::collection::vec(any::<u8>(), 0..=255));
    let table = prop::collection::vec(("\\PC{0,9}", any::<i32>()), 0..4).prop_map(|fields| {
        let append = |table: TableBuilder, (name, value): (String, i32)| table.int(name, value);
        fields.into_iter().fold(TableBuilder::new(), append).finish()
    });
    let long = prop::collection::vec(any::<u8>(), 0..600);
    (text, octets, table, long, any::<[bool; 5]>(), any::<(u8, u16, u16, u32, u32, u64)>())
        .prop_map(|(text, octets, table, long, bits, numbers)| Material {
            text,
            octets,
            table,
            long,
            bits,
            numbers,
        })
}

/// One of each method of class connection.
fn connection_methods(material: &Material) -> Vec<Method<'_>> {
    let [name, other, _] = material.text.each_ref().map(String::as_str);
    let (octet, short, short_2, long, _, _) = material.numbers;
    let table = material.table.as_ref();
    vec![
        ConnectionStart {
            version_major: octet,
            version_minor: !octet,
            server_properties: table,
            mechanisms: &material.long,
            locales: &material.octets[0],
        }
        .into(),
        ConnectionStartOk {
            client_properties: table,
            mechanism: name,
            response: &material.long,
            locale: other,
        }
        .into(),
        ConnectionSecure { challenge: &material.long }.into(),
        ConnectionSecureOk { response: &material.long }.into(),
        ConnectionTune { channel_max: short, frame_max: long, heartbeat: short_2 }.into(),
        ConnectionTuneOk { channel_max: short, frame_max: long, heartbeat: short_2 }.into(),
        ConnectionOpen { virtual_host: name }.into(),
        ConnectionOpenOk {}.into(),
        ConnectionClose { reply_code: short, reply_text: name, class_id: short_2, method_id: 1 }
            .into(),
        ConnectionCloseOk {}.into(),
        ConnectionBlocked { reason: name }.into(),
        ConnectionUnblocked {}.into(),
        ConnectionUpdateSecret { new_secret: &material.long, reason: other }.into(),
        ConnectionUpdateSecretOk {}.into(),
    ]
}

/// One of each method of classes channel and access.
fn channel_methods(material: &Material) -> Vec<Method<'_>> {
    let [name, other, _] = material.text.each_ref().map(String::as_str);
    let bits = material.bits;
    let (_, short, short_2, _, _, _) = material.numbers;
    vec![
        ChannelOpen {}.into(),
        ChannelOpenOk {}.into(),
        ChannelFlow { active: bits[0] }.into(),
        ChannelFlowOk { active: bits[1] }.into(),
        ChannelClose { reply_code: short, reply_text: other, class_id: 2, method_id: short_2 }
            .into(),
        ChannelCloseOk {}.into(),
        AccessRequest {
            realm: name,
            exclusive: bits[0],
            passive: bits[1],
            active: bits[2],
            write: bits[3],
            read: bits[4],
        }
        .into(),
        AccessRequestOk { ticket: short }.into(),
    ]
}

/// One of each method of class exchange.
fn exchange_methods(material: &Material) -> Vec<Method<'_>> {
    let [name, other, _] = material.text.each_ref().map(String::as_str);
    let bits = material.bits;
    let routing_key = material.octets[0].as_slice();
    let arguments = material.table.as_ref();
    vec![
        ExchangeDeclare {
            exchange: name,
            kind: other,
            passive: bits[0],
            durable: bits[1],
            auto_delete: bits[2],
            internal: bits[3],
            nowait: bits[4],
            arguments,
        }
        .into(),
        ExchangeDeclareOk {}.into(),
        ExchangeDelete { exchange: name, if_unused: bits[0], nowait: bits[1] }.into(),
        ExchangeDeleteOk {}.into(),
        ExchangeBind { destination: name, source: other, routing_key, nowait: bits[0], arguments }
            .into(),
        ExchangeBindOk {}.into(),
        ExchangeUnbind {
            destination: name,
            source: other,
            routing_key,
            nowait: bits[0],
            arguments,
        }
        .into(),
        ExchangeUnbindOk {}.into(),
    ]
}

/// One of each method of class queue.
fn queue_methods(material: &Material) -> Vec<Method<'_>> {
    let [name, other, _] = material.text.each_ref().map(String::as_str);
    let bits = material.bits;
    let (_, _, _, long, long_2, _) = material.numbers;
    let routing_key = material.octets[0].as_slice();
    let arguments = material.table.as_ref();
    vec![
        QueueDeclare {
            queue: name,
            passive: bits[0],
            durable: bits[1],
            exclusive: bits[2],
            auto_delete: bits[3],
            nowait: bits[4],
            arguments,
        }
        .into(),
        QueueDeclareOk { queue: name, message_count: long, consumer_count: long_2 }.into(),
        QueueBind { queue: name, exchange: other, routing_key, nowait: bits[0], arguments }.into(),
        QueueBindOk {}.into(),
        QueuePurge { queue: name, nowait: bits[0] }.into(),
        QueuePurgeOk { message_count: long }.into(),
        QueueDelete { queue: name, if_unused: bits[0], if_empty: bits[1], nowait: bits[2] }.into(),
        QueueDeleteOk { message_count: long }.into(),
        QueueUnbind { queue: name, exchange: other, routing_key, arguments }.into(),
        QueueUnbindOk {}.into(),
    ]
}

/// One of each method of class basic, from qos to cancel-ok.
fn consume_methods(material: &Material) -> Vec<Method<'_>> {
    let [name, other, _] = material.text.each_ref().map(String::as_str);
    let bits = material.bits;
    let (_, short, _, long, _, _) = material.numbers;
    vec![
        BasicQos { prefetch_size: long, prefetch_count: short, global: bits[0] }.into(),
        BasicQosOk {}.into(),
        BasicConsume {
            queue: name,
            consumer_tag: other,
            no_local: bits[0],
            no_ack: bits[1],
            exclusive: bits[2],
            nowait: bits[3],
            arguments: material.table.as_ref(),
        }
        .into(),
        BasicConsumeOk { consumer_tag: name }.into(),
        BasicCancel { consumer_tag: name, nowait: bits[0] }.into(),
        BasicCancelOk { consumer_tag: name }.into(),
    ]
}

/// One of each method of class basic, publish to get-empty.
fn content_methods(material: &Material) -> Vec<Method<'_>> {
    let [name, _, _] = material.text.each_ref().map(String::as_str);
    let bits = material.bits;
    let (_, _, short_2, _, _, tag) = material.numbers;
    let (exchange, routing_key) = (material.octets[0].as_slice(), material.octets[1].as_slice());
    vec![
        BasicPublish { exchange, routing_key, mandatory: bits[0], immediate: bits[1] }.into(),
        BasicReturn { reply_code: short_2, reply_text: name, exchange, routing_key }.into(),
        BasicDeliver {
            consumer_tag: name,
            delivery_tag: tag,
            redelivered: bits[0],
            exchange,
            routing_key,
        }
        .into(),
        BasicGet { queue: name, no_ack: bits[0] }.into(),
        BasicGetOk {
            delivery_tag: tag,
            redelivered: bits[0],
            exchange,
            routing_key,
            message_count: 9,
        }
        .into(),
        BasicGetEmpty {}.into(),
    ]
}

/// One of each method of class basic, ack to nack.
fn settle_methods(material: &Material) -> Vec<Method<'_>> {
    let bits = material.bits;
    let (_, _, _, _, _, tag) = material.numbers;
    vec![
        BasicAck { delivery_tag: tag, multiple: bits[0] }.into(),
        BasicReject { delivery_tag: tag, requeue: bits[0] }.into(),
        BasicRecoverAsync { requeue: bits[0] }.into(),
        BasicRecover { requeue: bits[0] }.into(),
        BasicRecoverOk {}.into(),
        BasicNack { delivery_tag: tag, multiple: bits[0], requeue: bits[1] }.into(),
    ]
}

/// One of each method of classes tx and confirm.
fn mode_methods(material: &Material) -> Vec<Method<'_>> {
    let bits = material.bits;
    vec![
        TxSelect {}.into(),
        TxSelectOk {}.into(),
        TxCommit {}.into(),
        TxCommitOk {}.into(),
        TxRollback {}.into(),
        TxRollbackOk {}.into(),
        ConfirmSelect { nowait: bits[0] }.into(),
        ConfirmSelectOk {}.into(),
    ]
}

fn all_methods(material: &Material) -> Vec<Method<'_>> {
    [
        connection_methods(material),
        channel_methods(material),
        exchange_methods(material),
        queue_methods(material),
        consume_methods(material),
        content_methods(material),
        settle_methods(material),
        mode_methods(material),
    ]
    .concat()
}

fn encoded(method: &Method<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    method.encode(&mut payload);
    payload
}

/// Class id, method id, name and whether content follows, as `rabbit_framing_amqp_0_9_1` of
/// `RabbitMQ` 3.10 lists them.
const RABBITMQ_METHODS: &str = include_str!("rabbitmq_methods.txt");

#[test]
fn methods_are_those_of_rabbitmq() {
    let material = Material {
        text: Default::default(),
        octets: Default::default(),
        table: OwnedTable::default(),
        long: Vec::new(),
        bits: [false; 5],
        numbers: (0, 0, 0, 0, 0, 0),
    };
    let ours = all_methods(&material).into_iter().map(|method| {
        let (class, id) = method.ids();
        let content = if method.has_content() { " content" } else { "" };
        format!("{class} {id} {}{content}", method.name())
    });
    let mut ours: Vec<_> = ours.collect();
    let mut theirs: Vec<_> = RABBITMQ_METHODS.lines().map(String::from).collect();
    ours.sort_unstable();
    theirs.sort_unstable();
    assert_eq!(ours, theirs);
    assert_eq!(Method::ALL_IDS.len(), theirs.len());
}

proptest! {
    #[test]
    fn decoding_inverts_encoding(material in material()) {
        for method in all_methods(&material) {
            let payload = encoded(&method);
            prop_assert_eq!(split_ids(&payload).unwrap().0, method.ids());
            prop_assert_eq!(Method::decode(&payload), Ok(method), "{}", method.name());
        }
    }

    #[test]
    fn every_cut_and_every_surplus_is_refused(material in material()) {
        for method in all_methods(&material) {
            let mut payload = encoded(&method);
            for size in 0..payload.len() {
                let error = Method::decode(&payload[..size]).unwrap_err();
                prop_assert!(matches!(error, MethodError::Truncated | MethodError::Table(_)));
            }
            payload.push(0);
            prop_assert_eq!(Method::decode(&payload), Err(MethodError::TrailingBytes(1)));
        }
    }

    #[test]
    fn hostile_arguments_never_panic(
        index in any::<prop::sample::Index>(),
        args in prop::collection::vec(prop_oneof![any::<u8>(), 0..4_u8], 0..80),
    ) {
        let (class, id) = *index.get(Method::ALL_IDS);
        let payload = [&class.to_be_bytes(), &id.to_be_bytes(), args.as_slice()].concat();
        if let Ok(method) = Method::decode(&payload) {
            let again = encoded(&method);
            prop_assert_eq!(Method::decode(&again), Ok(method));
        }
    }

    #[test]
    fn frames_carry_methods(material in material(), channel in any::<u16>()) {
        let mut stream = Vec::new();
        let methods = all_methods(&material);
        for method in &methods {
            encode_frame(channel, method, &mut stream);
        }
        let mut decoder = Decoder::new(0);
        let mut cursor = 0;
        for method in methods {
            let frame = decoder.next(&stream, &mut cursor).unwrap();
            let payload = encoded(&method);
            prop_assert_eq!(frame, Some(Frame::Method { channel, payload: &payload }));
        }
        prop_assert_eq!(cursor, stream.len());
    }
}

fn code_of(payload: &[u8]) -> (MethodError, u16) {
    let error = Method::decode(payload).unwrap_err();
    (error, error.reply_code().code())
}

#[test]
fn payloads_without_ids_are_frame_errors() {
    for payload in [&[][..], &[0], &[0, 60], &[0, 60, 0]] {
        assert_eq!(code_of(payload), (MethodError::Truncated, 501));
    }
}

#[test]
fn unknown_methods_are_invalid_commands() {
    let class = MethodError::UnknownClass { class: 99, method: 10 };
    assert_eq!(code_of(&[0, 99, 0, 10]), (class, 503));
    let method = MethodError::UnknownMethod { class: 50, method: 99 };
    assert_eq!(code_of(&[0, 50, 0, 99]), (method, 503));
}

#[test]
fn malformed_names_are_frame_errors_but_routing_keys_are_octets() {
    let declare = b"\0\x32\0\x0A\0\0\x02\xFF\xFE\0\0\0\0\0";
    assert_eq!(code_of(declare), (MethodError::MalformedUtf8, 501));
    let publish = b"\0\x3C\0\x28\0\0\x01\xC3\x02\xFF\xFE\x03";
    let expected = BasicPublish {
        exchange: b"\xC3",
        routing_key: b"\xFF\xFE",
        mandatory: true,
        immediate: true,
    };
    assert_eq!(Method::decode(publish), Ok(expected.into()));
}

#[test]
fn malformed_tables_are_syntax_errors() {
    let declare = |table: &[u8]| [&b"\0\x32\0\x0A\0\0\x01q\0"[..], table].concat();
    let unknown = MethodError::Table(TableError::UnknownType(b'?'));
    assert_eq!(code_of(&declare(b"\0\0\0\x03\x01a?")), (unknown, 502));
    let lie = MethodError::Table(TableError::Truncated);
    assert_eq!(code_of(&declare(b"\0\0\0\x09\x01aV")), (lie, 502));
    assert_eq!(code_of(&declare(b"\0\0\0")), (MethodError::Truncated, 501));
}

/// Bits fill an octet from the least significant one, and reserved fields are zeros.
#[test]
fn layout_of_known_methods() {
    let arguments = TableBuilder::new().bool("x", true).finish();
    let consume = BasicConsume {
        queue: "q",
        consumer_tag: "t",
        no_local: false,
        no_ack: true,
        exclusive: false,
        nowait: true,
        arguments: arguments.as_ref(),
    };
    let wire = b"\0\x3C\0\x14\0\0\x01q\x01t\x0A\0\0\0\x04\x01xt\x01";
    assert_eq!(encoded(&consume.into()), wire);

    let wire = b"\0\x1E\0\x0A\x01r\x15";
    let request = Method::decode(wire).unwrap();
    let expected = AccessRequest {
        realm: "r",
        exclusive: true,
        passive: false,
        active: true,
        write: false,
        read: true,
    };
    assert_eq!(request, expected.into());

    let open = ConnectionOpen { virtual_host: "/" };
    assert_eq!(encoded(&open.into()), b"\0\x0A\0\x28\x01/\0\0");
    // The reserved fields of a peer may hold anything.
    assert_eq!(Method::decode(b"\0\x0A\0\x28\x01/\x02cc\x01"), Ok(open.into()));
    assert_eq!(Method::decode(b"\0\x32\0\x1E\xFF\xFF\0\0").unwrap().name(), "queue.purge");
}

/// A wrong length octet would break the stream, so what is too long is cut.
#[test]
fn long_names_are_cut_on_a_character_boundary() {
    let reason = "é".repeat(200);
    let payload = encoded(&ConnectionBlocked { reason: &reason }.into());
    let cut = "é".repeat(127);
    assert_eq!(Method::decode(&payload), Ok(ConnectionBlocked { reason: &cut }.into()));
    assert_eq!(ReplyCode::from_code(501), Some(ReplyCode::FrameError));
}
