//! What the handshake needs besides methods: logins, reply codes, negotiation.

use leveret_amqp::limits::{Tune, TuneError, negotiate};
use leveret_amqp::reply::{REPLY_TEXT_SIZE_MAX, reply_text};
use leveret_amqp::sasl::{
    Credentials, SaslError, encode_amqplain, encode_plain, parse_amqplain, parse_plain,
};
use leveret_amqp::{ReplyCode, TableBuilder, TableError};
use proptest::prelude::*;

proptest! {
    #[test]
    fn logins_are_read_as_written(
        username in prop::collection::vec(1..=255_u8, 0..40),
        password in prop::collection::vec(1..=255_u8, 0..40),
    ) {
        let credentials = Credentials { username: &username, password: &password };
        let (plain, amqplain) = (encode_plain(credentials), encode_amqplain(credentials));
        prop_assert_eq!(parse_plain(&plain), Ok(credentials));
        prop_assert_eq!(parse_amqplain(&amqplain), Ok(credentials));
    }

    #[test]
    fn hostile_logins_never_panic(
        response in prop::collection::vec(prop_oneof![any::<u8>(), Just(0)], 0..60),
    ) {
        if let Ok(credentials) = parse_plain(&response) {
            prop_assert!(!credentials.username.contains(&0) && !credentials.password.contains(&0));
        }
        let _ = parse_amqplain(&response);
    }

    #[test]
    fn reply_texts_fit_a_short_string(explanation in "\\PC{0,300}", index in 0..19_usize) {
        let code = ReplyCode::ALL[index];
        let text = reply_text(code, &explanation);
        prop_assert!(text.len() <= REPLY_TEXT_SIZE_MAX);
        let whole = format!("{} - {explanation}", code.name());
        prop_assert!(whole.starts_with(&text));
        prop_assert!(text == whole || text.len() > REPLY_TEXT_SIZE_MAX - 4, "not cut too early");
    }

    #[test]
    fn negotiation_never_exceeds_the_offer(channel_max: u16, frame_max: u32, heartbeat: u16) {
        let offer = Tune::SERVER_DEFAULT;
        let answer = Tune { channel_max, frame_max, heartbeat };
        let accepted = negotiate(offer, answer);
        let within = (1..=2047).contains(&channel_max) && (4096..=131_072).contains(&frame_max);
        prop_assert_eq!(accepted.is_ok(), within);
        if let Ok(tune) = accepted {
            prop_assert_eq!(tune, answer);
        }
    }
}

#[test]
fn plain_identity_is_empty_or_the_user() {
    let guest = Ok(Credentials { username: b"guest", password: b"secret" });
    assert_eq!(parse_plain(b"\0guest\0secret"), guest);
    assert_eq!(parse_plain(b"guest\0guest\0secret"), guest);
    assert_eq!(parse_plain(b"root\0guest\0secret"), Err(SaslError::AuthorizationIdentity));
    for malformed in [&b""[..], b"guest", b"guest\0secret", b"\0guest\0sec\0ret"] {
        assert_eq!(parse_plain(malformed), Err(SaslError::MalformedPlain));
    }
}

#[test]
fn amqplain_needs_both_strings() {
    let table = TableBuilder::new().long_str("LOGIN", "guest").finish();
    assert_eq!(parse_amqplain(table.as_bytes()), Err(SaslError::MissingField));
    let table = TableBuilder::new().int("LOGIN", 1).long_str("PASSWORD", "x").finish();
    assert_eq!(parse_amqplain(table.as_bytes()), Err(SaslError::MissingField));
    let malformed = SaslError::MalformedAmqplain(TableError::Truncated);
    assert_eq!(parse_amqplain(b"\x05LOGIN"), Err(malformed));
}

#[test]
fn passwords_are_not_printed() {
    let credentials = Credentials { username: b"guest", password: b"secret" };
    let printed = format!("{credentials:?}");
    assert!(printed.contains("guest") && !printed.contains("secret"));
}

/// As `rabbit_framing_amqp_0_9_1:lookup_amqp_exception` of `RabbitMQ` 3.10 lists them.
#[test]
fn reply_codes_are_those_of_rabbitmq() {
    let soft = [311, 312, 313, 403, 404, 405, 406];
    let hard = [320, 402, 501, 502, 503, 504, 505, 506, 530, 540, 541];
    for code in soft.iter().chain(&hard) {
        let reply = ReplyCode::from_code(*code).unwrap();
        assert_eq!((reply.code(), reply.is_hard()), (*code, hard.contains(code)));
    }
    assert_eq!(ReplyCode::ALL.len(), soft.len() + hard.len() + 1, "and 200");
    assert_eq!(ReplyCode::from_code(999), None);
    let text = reply_text(ReplyCode::NotFound, "no queue 'q' in vhost '/'");
    assert_eq!(text, "NOT_FOUND - no queue 'q' in vhost '/'");
}

#[test]
fn refused_negotiations_have_the_words_of_rabbitmq() {
    let offer = Tune::SERVER_DEFAULT;
    let refuse = |answer: Tune| negotiate(offer, answer).unwrap_err().to_string();
    assert_eq!(
        refuse(Tune { channel_max: 0, ..offer }),
        "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"
    );
    assert_eq!(
        refuse(Tune { channel_max: 2048, ..offer }),
        "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"
    );
    assert_eq!(
        refuse(Tune { frame_max: 0, ..offer }),
        "negotiated frame_max = 0 is higher than the maximum allowed value (131072)"
    );
    assert_eq!(
        refuse(Tune { frame_max: 4095, ..offer }),
        "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"
    );
    assert_eq!(TuneError::FrameMaxTooLow { value: 1, min: 2 }.reply_code().code(), 530);
}

#[test]
fn no_limit_is_accepted_where_none_was_offered() {
    let none = Tune { channel_max: 0, frame_max: 0, heartbeat: 0 };
    assert_eq!(negotiate(none, none), Ok(none));
    let some = Tune { channel_max: 10, frame_max: 4096, heartbeat: 65_535 };
    assert_eq!(negotiate(none, some), Ok(some));
}
