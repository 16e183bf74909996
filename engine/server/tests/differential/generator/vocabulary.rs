//! What sequences are made of, and how often.

use super::{Subject, Theme};
use crate::step::{Argument, Body, ExchangeName, Odd};

pub(super) const THEMES: &[(usize, Theme)] = &[
    (18, Theme::Routing),
    (8, Theme::Headers),
    (26, Theme::Delivery),
    (10, Theme::Confirms),
    (8, Theme::Transactions),
    (12, Theme::Ownership),
    (12, Theme::Declarations),
    (6, Theme::Mistakes),
];

/// How often a step of a theme is about what.
pub(super) const fn weights(theme: Theme) -> &'static [(usize, Subject)] {
    match theme {
        Theme::Routing | Theme::Headers => ROUTING,
        Theme::Delivery => DELIVERY,
        Theme::Confirms => CONFIRMS,
        Theme::Transactions => TRANSACTIONS,
        Theme::Ownership => OWNERSHIP,
        Theme::Declarations => DECLARATIONS,
        Theme::Mistakes => MISTAKES,
    }
}

const ROUTING: &[(usize, Subject)] = &[
    (30, Subject::Publish),
    (4, Subject::Burst),
    (6, Subject::Get),
    (3, Subject::Consume),
    (14, Subject::BindQueue),
    (6, Subject::UnbindQueue),
    (4, Subject::DeclareExchange),
    (2, Subject::DeleteExchange),
    (10, Subject::BindExchange),
    (5, Subject::UnbindExchange),
    (2, Subject::DeleteQueue),
    (3, Subject::Purge),
    (2, Subject::DeclareQueue),
];

const DELIVERY: &[(usize, Subject)] = &[
    (22, Subject::Publish),
    (8, Subject::Burst),
    (10, Subject::Get),
    (14, Subject::Consume),
    (6, Subject::Cancel),
    (26, Subject::Answer),
    (6, Subject::Recover),
    (8, Subject::Qos),
    (3, Subject::Purge),
    (2, Subject::DeleteQueue),
    (3, Subject::Channel),
    (2, Subject::Connection),
];

const CONFIRMS: &[(usize, Subject)] = &[
    (14, Subject::Confirm),
    (30, Subject::Publish),
    (10, Subject::Burst),
    (6, Subject::Consume),
    (8, Subject::Answer),
    (5, Subject::BindQueue),
    (4, Subject::DeleteQueue),
    (2, Subject::Transaction),
    (2, Subject::Channel),
];

const TRANSACTIONS: &[(usize, Subject)] = &[
    (30, Subject::Transaction),
    (22, Subject::Publish),
    (6, Subject::Burst),
    (8, Subject::Get),
    (6, Subject::Consume),
    (14, Subject::Answer),
    (2, Subject::Confirm),
    (2, Subject::DeleteQueue),
    (2, Subject::Channel),
    (1, Subject::Recover),
];

const OWNERSHIP: &[(usize, Subject)] = &[
    (16, Subject::DeclareQueue),
    (6, Subject::DeleteQueue),
    (12, Subject::Consume),
    (8, Subject::Cancel),
    (12, Subject::Publish),
    (6, Subject::Get),
    (5, Subject::Answer),
    (5, Subject::BindQueue),
    (3, Subject::UnbindQueue),
    (3, Subject::Purge),
    (3, Subject::Channel),
    (6, Subject::Connection),
    (3, Subject::DeclareExchange),
    (2, Subject::DeleteExchange),
];

const DECLARATIONS: &[(usize, Subject)] = &[
    (30, Subject::DeclareQueue),
    (24, Subject::DeclareExchange),
    (8, Subject::DeleteQueue),
    (8, Subject::DeleteExchange),
    (8, Subject::BindQueue),
    (4, Subject::UnbindQueue),
    (5, Subject::BindExchange),
    (4, Subject::UnbindExchange),
    (3, Subject::Purge),
    (3, Subject::Publish),
    (2, Subject::Channel),
];

const MISTAKES: &[(usize, Subject)] = &[
    (20, Subject::Odd),
    (8, Subject::Publish),
    (8, Subject::Get),
    (8, Subject::Answer),
    (6, Subject::Recover),
    (6, Subject::Qos),
    (6, Subject::Channel),
    (4, Subject::Consume),
    (4, Subject::Confirm),
    (4, Subject::Transaction),
    (4, Subject::DeclareQueue),
    (4, Subject::DeclareExchange),
    (3, Subject::Burst),
];

/// Keys and patterns in one: what binds is also published.
pub(super) const KEYS: &[&str] = &[
    "", "a", "b", "a.b", "a.b.c", "b.b", ".", "a.", ".b", "a..b", "*", "#", "a.*", "*.b", "#.b",
    "a.#", "*.*", "#.#", "*.#", "a.#.b", "#.*.b", "*.#.*", ".#", "#.", "a.#.#.c", "**", "a.b*",
];

pub(super) const EXCHANGE_KINDS: &[(usize, &str)] =
    &[(30, "direct"), (20, "fanout"), (35, "topic"), (15, "headers")];

pub(super) const CONSUMER_TAGS: &[(usize, &str)] = &[(40, "t0"), (30, "t1"), (10, "t2"), (20, "")];

pub(super) const BODIES: &[(usize, Body)] = &[
    (85, Body::Small),
    (8, Body::Empty),
    (5, Body::InPieces),
    (1, Body::FrameSized),
    (1, Body::Large),
];

pub(super) const HEADER_VALUES: &[Argument] = &[
    Argument::Int(1),
    Argument::Int(1),
    Argument::Text("1"),
    Argument::Text("1"),
    Argument::Long(1),
    Argument::Short(1),
    Argument::Byte(1),
    Argument::Unsigned(1),
    Argument::Double(1.0),
    Argument::Bool(true),
    Argument::Void,
    Argument::Empty,
    Argument::Int(2),
    Argument::Text(""),
];

pub(super) const MATCHES: &[(usize, Argument)] = &[
    (35, Argument::Text("all")),
    (40, Argument::Text("any")),
    (6, Argument::Text("all-with-x")),
    (6, Argument::Text("any-with-x")),
    (2, Argument::Text("none")),
    (1, Argument::Int(1)),
    (1, Argument::Void),
];

/// An hour, or a thousand messages: nothing of this happens while the test runs. What the
/// arguments do has its own tests; here they are checked, stored and compared.
pub(super) const QUEUE_ARGUMENTS: &[(&str, Argument)] = &[
    ("x-message-ttl", Argument::Int(3_600_000)),
    ("x-message-ttl", Argument::Long(3_600_000)),
    ("x-message-ttl", Argument::Text("3600000")),
    ("x-message-ttl", Argument::Int(-1)),
    ("x-message-ttl", Argument::Double(1.5)),
    ("x-message-ttl", Argument::Long(i64::MAX)),
    ("x-expires", Argument::Int(3_600_000)),
    ("x-expires", Argument::Int(0)),
    ("x-expires", Argument::Bool(true)),
    ("x-expires", Argument::Int(-5)),
    ("x-max-length", Argument::Int(1000)),
    ("x-max-length", Argument::Int(1001)),
    ("x-max-length", Argument::Int(-1)),
    ("x-max-length", Argument::Text("many")),
    ("x-max-length-bytes", Argument::Long(1_000_000_000)),
    ("x-max-length-bytes", Argument::Int(-1)),
    ("x-max-priority", Argument::Int(256)),
    ("x-max-priority", Argument::Int(-1)),
    ("x-max-priority", Argument::Text("5")),
    ("x-overflow", Argument::Text("drop-head")),
    ("x-overflow", Argument::Text("reject-publish")),
    ("x-overflow", Argument::Text("foo")),
    ("x-overflow", Argument::Int(1)),
    ("x-dead-letter-exchange", Argument::Exchange(ExchangeName::Missing)),
    ("x-dead-letter-exchange", Argument::Int(1)),
    ("x-dead-letter-routing-key", Argument::Text("key")),
    ("x-dead-letter-routing-key", Argument::Int(1)),
    ("x-dead-letter-strategy", Argument::Text("at-most-once")),
    ("x-single-active-consumer", Argument::Bool(false)),
    ("x-single-active-consumer", Argument::Text("yes")),
    ("x-queue-type", Argument::Text("classic")),
    ("x-queue-type", Argument::Text("bogus")),
    ("x-queue-type", Argument::Int(1)),
    ("x-queue-mode", Argument::Text("lazy")),
    ("x-queue-mode", Argument::Text("default")),
    ("x-queue-mode", Argument::Text("hectic")),
    ("x-queue-master-locator", Argument::Text("min-masters")),
    ("x-queue-version", Argument::Int(1)),
    ("x-queue-version", Argument::Text("two")),
    ("x-delivery-limit", Argument::Int(3)),
    ("x-unknown", Argument::Int(1)),
    ("x-unknown", Argument::Text("other")),
    ("unknown", Argument::Void),
];

pub(super) const EXCHANGE_ARGUMENTS: &[(&str, Argument)] = &[
    ("alternate-exchange", Argument::Exchange(ExchangeName::Numbered(0))),
    ("alternate-exchange", Argument::Exchange(ExchangeName::Numbered(1))),
    ("alternate-exchange", Argument::Exchange(ExchangeName::Numbered(2))),
    ("alternate-exchange", Argument::Exchange(ExchangeName::Missing)),
    ("alternate-exchange", Argument::Int(1)),
    ("x-unknown", Argument::Int(1)),
];

pub(super) const ODDS: &[Odd] = &[
    Odd::DeclareOkByClient,
    Odd::CloseOkUnasked,
    Odd::PublishWithoutHeader,
    Odd::HeaderAlone,
    Odd::BodyAlone,
    Odd::BodyAfterEmpty,
    Odd::HeaderOfOtherClass,
    Odd::HeartbeatOnChannel,
    Odd::ChannelMethodOnZero,
    Odd::ConnectionMethodOnChannel,
    Odd::OpenTwice,
    Odd::TuneAgain,
    Odd::CancelOkByClient,
];
