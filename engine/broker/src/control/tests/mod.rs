//! What the control state answers, when, and what a change costs.

mod admin;
mod durable;

use bytes::Bytes;
use leveret_amqp::TableBuilder;

use super::*;
use crate::catalog::name::Name;
use crate::catalog::object::{BindingTarget, ExchangeKind};
use crate::id::{ConnectionId, VhostId};

const VHOST: VhostId = VhostId(0);
const SHARDS: u16 = 3;

fn channel(shard: u16, slot: u32, channel: u16) -> ChannelKey {
    let connection = ConnectionId { slot, generation: 0 };
    ChannelKey { owner: Owner { shard: ShardId(shard), connection }, channel, incarnation: 0 }
}

fn new_control() -> Control {
    Control::new(Topology::with_presets(3, SHARDS), SHARDS, 3)
}

fn exchange(name: &str) -> ExchangeDeclaration {
    ExchangeDeclaration {
        vhost: VHOST,
        name: Name::from(name),
        kind: ExchangeKind::Topic,
        durable: false,
        auto_delete: false,
        internal: false,
        arguments: Bytes::new(),
    }
}

fn queue(name: &str) -> QueueDeclaration {
    QueueDeclaration {
        vhost: VHOST,
        name: Name::from(name),
        durable: false,
        exclusive: None,
        auto_delete: false,
        arguments: Bytes::new(),
        gone: None,
    }
}

fn binding(source: &str, queue: &str, key: &str) -> BindingChange {
    BindingChange {
        vhost: VHOST,
        source: Name::from(source),
        destination: Name::from(queue),
        target: BindingTarget::Queue,
        key: Bytes::copy_from_slice(key.as_bytes()),
        arguments: Bytes::new(),
        owner: channel(0, 0, 1).owner,
    }
}

fn exchange_binding(source: &str, destination: &str, key: &str) -> BindingChange {
    BindingChange { target: BindingTarget::Exchange, ..binding(source, destination, key) }
}

/// Ends the turn and reports everything as applied; returns what came of it.
fn settle(control: &mut Control) -> (Vec<Arc<Delta>>, Vec<Answer>) {
    control.finish_turn();
    let deltas: Vec<_> = std::iter::from_fn(|| control.poll_delta()).collect();
    let sequence = control.topology().sequence();
    for shard in 0..SHARDS {
        control.handle(Request::Applied { shard: ShardId(shard), sequence });
    }
    let answers = std::iter::from_fn(|| control.poll_answer()).map(|(_, answer)| answer);
    let answers = answers.collect();
    (deltas, answers)
}

/// Asks one thing and returns its outcome; refusals as `code text`.
fn ask(control: &mut Control, request: Request) -> Result<Outcome, String> {
    control.handle(request);
    let (_, mut answers) = settle(control);
    assert_eq!(answers.len(), 1);
    answers
        .remove(0)
        .outcome
        .map_err(|refusal| format!("{} {}", refusal.code.code(), refusal.explanation))
}

fn ask_declare(control: &mut Control, declaration: QueueDeclaration) -> (QueueId, Name, bool) {
    let outcome = ask(control, Request::DeclareQueue(channel(0, 0, 1), declaration));
    let Ok(Outcome::QueueDeclared { queue, name, created }) = outcome else {
        panic!("{outcome:?}");
    };
    (queue, name, created)
}

fn ask_bind(control: &mut Control, change: BindingChange) -> Result<Outcome, String> {
    ask(control, Request::Bind(channel(0, 0, 1), change))
}

fn ask_unbind(control: &mut Control, change: BindingChange) -> Result<Outcome, String> {
    ask(control, Request::Unbind(channel(0, 0, 1), change))
}

fn ask_exchange(control: &mut Control, to: ExchangeDeclaration) -> Result<Outcome, String> {
    ask(control, Request::DeclareExchange(channel(0, 0, 1), to))
}

fn ask_delete(control: &mut Control, name: &str, if_unused: bool) -> Result<Outcome, String> {
    let (asker, name) = (channel(0, 0, 1), Name::from(name));
    ask(control, Request::DeleteExchange { asker, vhost: VHOST, name, if_unused })
}

fn exists(control: &Control, exchange: &str) -> bool {
    control.topology().exchange(VHOST, exchange.as_bytes()).is_some()
}

#[test]
fn answers_wait_until_every_shard_has_applied() {
    let mut control = new_control();
    control.handle(Request::DeclareQueue(channel(1, 0, 1), queue("q")));
    assert!(control.poll_answer().is_none(), "the turn has not ended");
    control.finish_turn();
    let delta = control.poll_delta().unwrap();
    assert_eq!(delta.sequence, 1);
    for shard in 0..SHARDS {
        assert!(control.poll_answer().is_none(), "shard {shard} has not applied");
        control.handle(Request::Applied { shard: ShardId(shard), sequence: 1 });
    }
    let (to, answer) = control.poll_answer().unwrap();
    assert_eq!((to, answer.asker), (ShardId(1), channel(1, 0, 1)));
    assert!(control.poll_answer().is_none());
}

#[test]
fn answers_without_a_change_go_at_once_but_overtake_nothing() {
    let mut control = new_control();
    let missing = binding("amq.direct", "missing", "k");
    control.handle(Request::Bind(channel(0, 0, 1), missing.clone()));
    control.finish_turn();
    assert!(control.poll_answer().unwrap().1.outcome.is_err());

    control.handle(Request::DeclareQueue(channel(0, 0, 1), queue("q")));
    control.finish_turn();
    control.handle(Request::Bind(channel(0, 0, 1), missing));
    control.handle(Request::DeclareQueue(channel(2, 0, 1), queue("q")));
    control.finish_turn();
    assert!(control.poll_answer().is_none());
    let (_, answers) = settle(&mut control);
    let created = answers.iter().map(|answer| match &answer.outcome {
        Ok(Outcome::QueueDeclared { created, .. }) => Some(*created),
        _ => None,
    });
    assert_eq!(created.collect::<Vec<_>>(), [Some(true), None, Some(false)]);
}

#[test]
fn a_slow_shard_holds_only_what_it_has_not_seen() {
    let mut control = new_control();
    for name in ["a", "b"] {
        control.handle(Request::DeclareQueue(channel(0, 0, 1), queue(name)));
        control.finish_turn();
    }
    for (shard, sequence) in [(0, 2), (1, 1), (2, 2)] {
        control.handle(Request::Applied { shard: ShardId(shard), sequence });
    }
    assert!(control.poll_answer().is_some() && control.poll_answer().is_none());
    // An old report changes nothing.
    control.handle(Request::Applied { shard: ShardId(0), sequence: 1 });
    control.handle(Request::Applied { shard: ShardId(1), sequence: 2 });
    assert!(control.poll_answer().is_some());
}

/// The last holder frees a table, and that takes time no shard has.
#[test]
fn tables_stay_until_no_shard_has_them() {
    let mut control = new_control();
    ask_exchange(&mut control, exchange("x")).unwrap();
    ask(&mut control, Request::DeclareQueue(channel(0, 0, 1), queue("q"))).unwrap();
    ask_bind(&mut control, binding("x", "q", "a.*")).unwrap();
    let id = control.topology().exchange(VHOST, b"x").unwrap().id;
    let table = crate::routing::topic::TopicBuilder::new(1).snapshot();
    let compiled = Change::TopicCompiled { exchange: id, table };
    let mut tables = Vec::new();
    let asker = channel(0, 0, 1);
    for request in [
        Request::Bind(asker, binding("x", "q", "b.*")),
        Request::DeleteExchange { asker, vhost: VHOST, name: Name::from("x"), if_unused: false },
    ] {
        let table = Arc::downgrade(control.topology().table_that_goes(&compiled).unwrap());
        control.handle(request);
        control.finish_turn();
        while control.poll_delta().is_some() {}
        tables.push((table, control.topology().sequence()));
    }
    for (table, gone_with) in tables {
        for shard in 0..SHARDS {
            assert!(table.upgrade().is_some(), "shard {shard} may have it");
            let shard = ShardId(shard);
            control.handle(Request::Applied { shard, sequence: gone_with });
        }
        assert!(table.upgrade().is_none());
    }
}

#[test]
fn patterns_are_compiled_once_per_turn() {
    let mut control = new_control();
    ask_declare(&mut control, queue("q"));
    for number in 0..50 {
        let change = binding("amq.topic", "q", &format!("{number}.*"));
        control.handle(Request::Bind(channel(0, 0, 1), change));
    }
    control.handle(Request::Bind(channel(0, 0, 1), binding("amq.topic", "q", "literal")));
    let (deltas, answers) = settle(&mut control);
    assert_eq!(answers.len(), 51);
    let tables: Vec<_> = deltas
        .iter()
        .filter(|delta| matches!(delta.change, Change::TopicCompiled { .. }))
        .collect();
    assert_eq!((deltas.len(), tables.len()), (52, 1));
    assert_eq!(tables[0].sequence, deltas.last().unwrap().sequence, "answers wait for it too");
    assert!(control.idle() && !control.idle());
}

#[test]
fn queues_are_declared_once() {
    let mut control = new_control();
    let (id, _, created) = ask_declare(&mut control, queue("q"));
    assert!(created);
    assert_eq!(ask_declare(&mut control, queue("q")), (id, Name::from("q"), false));
    let durable = QueueDeclaration { durable: true, ..queue("q") };
    assert_eq!(
        ask(&mut control, Request::DeclareQueue(channel(0, 0, 1), durable)),
        Err("406 inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but \
             current is 'false'"
            .to_owned())
    );
}

/// Whoever relies on what is not there yet reads so in the log, once and not with each redeclare.
#[test]
fn arguments_without_effect_are_a_warning_once() {
    let mut control = new_control();
    let with = |name: &str, arguments: TableBuilder| {
        let arguments = arguments.finish().as_bytes().clone();
        QueueDeclaration { arguments, ..queue(name) }
    };
    let limited = TableBuilder::new()
        .int("x-max-length", 3)
        .int("x-message-ttl", 60_000)
        .long_str("x-queue-mode", "lazy");
    let limited = with("limited", limited);
    for created in [true, false] {
        assert_eq!(ask_declare(&mut control, limited.clone()).2, created);
    }
    let vhost = Name::from("/");
    let arguments = vec!["x-message-ttl", "x-max-length"];
    let queue_name = Name::from("limited");
    let expected = Warning { vhost, queue: queue_name, arguments, withheld: 0 };
    assert_eq!(control.poll_warning(), Some(expected));
    assert_eq!(control.poll_warning(), None);

    // Neither of these asks for anything.
    ask_declare(&mut control, queue("plain"));
    let unlimited =
        TableBuilder::new().long_str("x-queue-type", "quorum").int("x-delivery-limit", -1);
    let unlimited = QueueDeclaration { durable: true, ..with("unlimited", unlimited) };
    ask_declare(&mut control, unlimited);
    let shared = TableBuilder::new().bool("x-single-active-consumer", false);
    ask_declare(&mut control, with("shared", shared));
    assert_eq!(control.poll_warning(), None);

    // A refused declaration makes no queue.
    let refused = with("refused", TableBuilder::new().int("x-max-length", -1));
    ask(&mut control, Request::DeclareQueue(channel(0, 0, 1), refused)).unwrap_err();
    assert_eq!(control.poll_warning(), None);
}

#[test]
fn warnings_that_nobody_takes_are_counted() {
    let mut control = new_control();
    let declare = |control: &mut Control, name: &str| {
        let arguments = TableBuilder::new().int("x-expires", 60_000).finish().as_bytes().clone();
        ask_declare(control, QueueDeclaration { arguments, ..queue(name) });
    };
    for number in 0..70 {
        declare(&mut control, &format!("q{number}"));
    }
    let withheld: Vec<u64> =
        std::iter::from_fn(|| control.poll_warning()).map(|warning| warning.withheld).collect();
    assert_eq!((withheld.len(), withheld[0]), (64, 6));
    assert!(withheld[1..].iter().all(|count| *count == 0));
    declare(&mut control, "another");
    assert_eq!(control.poll_warning().unwrap().withheld, 0);
}

#[test]
fn a_queue_reported_gone_may_be_declared_again() {
    let mut control = new_control();
    let (old, ..) = ask_declare(&mut control, queue("q"));
    let other = QueueDeclaration { auto_delete: true, gone: Some(old), ..queue("q") };
    let (new, _, created) = ask_declare(&mut control, other);
    assert!(created && new != old);
    // The home's own notice comes late: its asker is answered, the new queue stays.
    let late = Request::QueueGone { queue: old, asker: Some((channel(2, 0, 1), 7)) };
    assert_eq!(ask(&mut control, late), Ok(Outcome::QueueDeleted(7)));
    assert!(control.topology().queue_by_id(new).is_some());
    control.handle(Request::QueueGone { queue: new, asker: None });
    assert!(settle(&mut control).1.is_empty());
    assert!(control.topology().queue(VHOST, b"q").is_none());
}

#[test]
fn private_queues_live_with_their_asker() {
    let mut control = new_control();
    let owner = channel(2, 5, 1).owner;
    let declarations = [
        QueueDeclaration { exclusive: Some(owner), ..queue("exclusive") },
        QueueDeclaration { auto_delete: true, ..queue("auto-delete") },
        queue(""),
    ];
    for declaration in declarations {
        control.handle(Request::DeclareQueue(channel(2, 5, 1), declaration));
    }
    settle(&mut control);
    assert_eq!(control.topology().queues().count(), 3);
    assert!(control.topology().queues().all(|queue| queue.home == ShardId(2)));
    assert!(control.topology().queues().any(|queue| queue.name.starts_with("amq.gen-")));
    for number in 0..30 {
        let shared = queue(&format!("shared-{number}"));
        control.handle(Request::DeclareQueue(channel(2, 5, 1), shared));
    }
    settle(&mut control);
    let homes: BTreeSet<_> = control.topology().queues().map(|queue| queue.home).collect();
    assert_eq!(homes.len(), usize::from(SHARDS));
}

#[test]
fn exclusive_queues_go_with_their_owner() {
    let mut control = new_control();
    let (asker, stranger) = (channel(1, 4, 1), channel(1, 5, 1));
    for (name, owner) in [("a", asker.owner), ("b", asker.owner), ("c", stranger.owner)] {
        let declaration = QueueDeclaration { exclusive: Some(owner), durable: true, ..queue(name) };
        control.handle(Request::DeclareQueue(asker, declaration));
    }
    settle(&mut control);
    assert!(control.topology().queues().all(|queue| !queue.durable));
    let locked = binding("amq.direct", "a", "k");
    let refusal = ask_bind(&mut control, locked.clone()).unwrap_err();
    assert!(refusal.starts_with("405 cannot obtain exclusive access to locked queue 'a'"));
    // Unbinding looks at the binding first: there is none.
    assert_eq!(ask_unbind(&mut control, locked.clone()), Ok(Outcome::Done));
    let own = BindingChange { owner: asker.owner, ..locked.clone() };
    assert_eq!(ask_bind(&mut control, own), Ok(Outcome::Done));
    assert!(ask_unbind(&mut control, locked).unwrap_err().starts_with("405 "));

    control.handle(Request::OwnerGone(asker.owner));
    let (deltas, answers) = settle(&mut control);
    assert_eq!(deltas.len(), 2);
    assert_eq!(answers[0].outcome, Ok(Outcome::OwnerReleased));
    assert_eq!((answers[0].asker.owner, answers[0].asker.channel), (asker.owner, 0));
    let left: Vec<_> = control.topology().queues().map(|queue| queue.name.to_string()).collect();
    assert_eq!((left, control.binding_count()), (vec!["c".to_owned()], 0));
    assert_eq!(ask(&mut control, Request::OwnerGone(asker.owner)), Ok(Outcome::OwnerReleased));
}

#[test]
fn refusals_of_bindings() {
    let mut control = new_control();
    ask_declare(&mut control, queue("q"));
    let default = "403 operation not permitted on the default exchange";
    let cases = [
        (binding("", "q", "k"), default),
        (exchange_binding("amq.direct", "", "k"), default),
        (binding("x", "missing", "k"), "404 no exchange 'x' in vhost '/'"),
        (binding("amq.direct", "missing", "k"), "404 no queue 'missing' in vhost '/'"),
        (exchange_binding("amq.direct", "x", "k"), "404 no exchange 'x' in vhost '/'"),
    ];
    for (change, expected) in cases {
        assert_eq!(ask_bind(&mut control, change.clone()).unwrap_err(), expected);
        if !expected.starts_with("403") {
            assert_eq!(ask_unbind(&mut control, change), Ok(Outcome::Done), "idempotent");
        }
    }
    let odd = TableBuilder::new().long_str("x-match", "foo").finish().as_bytes().clone();
    let odd =
        |source, queue| BindingChange { arguments: odd.clone(), ..binding(source, queue, "") };
    assert!(ask_bind(&mut control, odd("amq.headers", "missing")).unwrap_err().starts_with("404"));
    let refusal = ask_bind(&mut control, odd("amq.headers", "q")).unwrap_err();
    assert!(refusal.starts_with("406 Invalid x-match field value <<\"foo\">>"));
    assert_eq!(ask_bind(&mut control, odd("amq.direct", "q")), Ok(Outcome::Done));
}

#[test]
fn binding_again_and_unbinding_nothing_are_fine() {
    let mut control = new_control();
    ask_declare(&mut control, queue("q"));
    let change = binding("amq.topic", "q", "a.*");
    for _ in 0..2 {
        assert_eq!(ask_bind(&mut control, change.clone()), Ok(Outcome::Done));
        assert_eq!(control.binding_count(), 1);
    }
    let version = control.topology().version();
    ask_bind(&mut control, change.clone()).unwrap();
    assert_eq!(control.topology().version(), version, "no change, no delta");
    for _ in 0..2 {
        assert_eq!(ask_unbind(&mut control, change.clone()), Ok(Outcome::Done));
        assert_eq!(control.binding_count(), 0);
    }
}

#[test]
fn refusals_of_exchanges() {
    let mut control = new_control();
    let reserved = "403 exchange name 'amq.x' contains reserved prefix 'amq.*'";
    assert_eq!(ask_exchange(&mut control, exchange("amq.x")).unwrap_err(), reserved);
    let default = "403 operation not permitted on the default exchange";
    assert_eq!(ask_exchange(&mut control, exchange("")).unwrap_err(), default);
    assert_eq!(ask_delete(&mut control, "", false).unwrap_err(), default);
    assert_eq!(
        ask_delete(&mut control, "amq.direct", false).unwrap_err(),
        "403 deletion of system exchange 'amq.direct' in vhost '/' not allowed"
    );
    // An existing one of that prefix may be declared, if it is the same.
    let preset = ExchangeDeclaration { durable: true, ..exchange("amq.topic") };
    assert_eq!(ask_exchange(&mut control, preset), Ok(Outcome::Done));
    assert!(ask_exchange(&mut control, exchange("amq.topic")).unwrap_err().starts_with("406 "));
    let arguments = TableBuilder::new().bool("alternate-exchange", true).finish();
    let odd = ExchangeDeclaration { arguments: arguments.as_bytes().clone(), ..exchange("x") };
    assert_eq!(
        ask_exchange(&mut control, odd).unwrap_err(),
        "406 invalid type 'bool' for arg 'alternate-exchange' in exchange 'x' in vhost '/'"
    );
}

#[test]
fn deleting_exchanges() {
    let mut control = new_control();
    ask_declare(&mut control, queue("q"));
    ask_exchange(&mut control, exchange("x")).unwrap();
    assert_eq!(ask_delete(&mut control, "missing", true), Ok(Outcome::Done));
    // Being bound to is no use, binding is.
    ask_bind(&mut control, exchange_binding("amq.topic", "x", "#")).unwrap();
    ask_bind(&mut control, binding("x", "q", "k")).unwrap();
    assert_eq!(
        ask_delete(&mut control, "x", true).unwrap_err(),
        "406 exchange 'x' in vhost '/' in use"
    );
    assert_eq!(ask_delete(&mut control, "x", false), Ok(Outcome::Done));
    assert_eq!((exists(&control, "x"), control.binding_count()), (false, 0));
    ask_exchange(&mut control, exchange("x")).unwrap();
    ask_bind(&mut control, exchange_binding("amq.topic", "x", "#")).unwrap();
    assert_eq!(ask_delete(&mut control, "x", true), Ok(Outcome::Done));
}

#[test]
fn auto_delete_exchanges_go_with_their_last_binding_and_take_others_along() {
    let mut control = new_control();
    ask_declare(&mut control, queue("q"));
    for name in ["a", "b", "c"] {
        let auto_delete = ExchangeDeclaration { auto_delete: true, ..exchange(name) };
        ask_exchange(&mut control, auto_delete).unwrap();
    }
    assert!(exists(&control, "a"), "never bound, never gone");
    ask_bind(&mut control, exchange_binding("a", "b", "#")).unwrap();
    ask_bind(&mut control, exchange_binding("b", "c", "#")).unwrap();
    ask_bind(&mut control, binding("c", "q", "*")).unwrap();
    ask_bind(&mut control, binding("c", "q", "k")).unwrap();
    ask_unbind(&mut control, binding("c", "q", "k")).unwrap();
    assert!(exists(&control, "c"));
    let (queue, ..) = ask_declare(&mut control, queue("q"));
    control.handle(Request::QueueGone { queue, asker: None });
    settle(&mut control);
    for name in ["a", "b", "c"] {
        assert!(!exists(&control, name), "{name}");
    }
    assert_eq!(control.binding_count(), 0);
    assert!(!control.idle(), "patterns of deleted exchanges are forgotten");
}

/// What a delta names is what replicas touch, so it is the measure of a change's cost.
fn work(deltas: &[Arc<Delta>]) -> usize {
    let named = |delta: &Arc<Delta>| match &delta.change {
        Change::QueueDeleted { bindings, .. } | Change::ExchangeDeleted { bindings, .. } => {
            1 + bindings.len()
        }
        _ => 1,
    };
    deltas.iter().map(named).sum()
}

/// Among 20,000 queues with three bindings each, a queue that comes and goes costs what it costs
/// in an empty broker.
#[test]
fn a_change_costs_the_same_however_much_exists() {
    let mut empty = new_control();
    let mut full = new_control();
    for number in 0..20_000 {
        let name = format!("other-{number}");
        full.handle(Request::DeclareQueue(channel(0, 0, 1), queue(&name)));
        for (source, key) in [("amq.direct", "k"), ("amq.fanout", ""), ("amq.topic", "a.#")] {
            full.handle(Request::Bind(channel(0, 0, 1), binding(source, &name, key)));
        }
    }
    assert_eq!(settle(&mut full).1.len(), 80_000);
    assert_eq!(full.binding_count(), 60_000);
    let churn = |control: &mut Control| {
        let (id, ..) = ask_declare(control, queue("q"));
        let mut spent = Vec::new();
        for (source, key) in [("amq.direct", "k"), ("amq.fanout", ""), ("amq.topic", "a.#")] {
            control.handle(Request::Bind(channel(0, 0, 1), binding(source, "q", key)));
            spent.push(work(&settle(control).0));
        }
        control.handle(Request::Unbind(channel(0, 0, 1), binding("amq.fanout", "q", "")));
        spent.push(work(&settle(control).0));
        control.handle(Request::QueueGone { queue: id, asker: None });
        spent.push(work(&settle(control).0));
        spent
    };
    let spent = churn(&mut empty);
    assert_eq!(spent, [1, 1, 2, 1, 4]);
    assert_eq!(churn(&mut full), spent);
    assert_eq!(full.binding_count(), 60_000);
}

/// Everything that is taken must come back, or a broker of short-lived queues grows.
#[test]
fn nothing_is_left_of_what_came_and_went() {
    let mut control = new_control();
    for round in 0..100 {
        let owner = channel(0, round, 1).owner;
        let mut slots = Vec::new();
        for _ in 0..5 {
            let exclusive = QueueDeclaration { exclusive: Some(owner), ..queue("") };
            let (id, name, _) = ask_declare(&mut control, exclusive);
            slots.push(id.slot);
            for key in ["literal", "with.*", "#"] {
                let change = BindingChange { owner, ..binding("amq.topic", &name, key) };
                ask_bind(&mut control, change).unwrap();
            }
        }
        assert_eq!(slots, [0, 1, 2, 3, 4], "slots are used again");
        control.handle(Request::OwnerGone(owner));
        settle(&mut control);
    }
    assert_eq!(control.topology().queues().count(), 0);
    assert_eq!((control.binding_count(), control.exclusive_queues.len()), (0, 0));
}
