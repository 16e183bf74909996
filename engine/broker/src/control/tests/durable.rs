//! What is stored, what waits for it, and that it comes back.

use leveret_amqp::PropertiesBuilder;

use super::*;
use crate::catalog::object::{Destination, Exchange, QueueMeta};
use crate::routing::route::RouteScratch;

/// A new broker, and its store with the presets in it.
pub(super) fn persistent() -> (Control, Rows) {
    let mut rows = Rows::default();
    let (mut control, rejected) = rows.recovered();
    assert_eq!(rejected, []);
    rows.settle(&mut control);
    (control, rows)
}

fn durable_queue(name: &str) -> QueueDeclaration {
    QueueDeclaration { durable: true, ..queue(name) }
}

fn durable_exchange(name: &str, kind: ExchangeKind) -> ExchangeDeclaration {
    ExchangeDeclaration { durable: true, kind, ..exchange(name) }
}

fn declare(control: &mut Control, asker: u16, declaration: QueueDeclaration) {
    control.handle(Request::DeclareQueue(channel(0, 0, asker), declaration));
}

fn deltas(control: &mut Control) -> Vec<u64> {
    std::iter::from_fn(|| control.poll_delta()).map(|delta| delta.sequence).collect()
}

/// Reports everything that was sent as applied; the channels that are answered by that.
fn answered(control: &mut Control, sequence: u64) -> Vec<u16> {
    for shard in 0..SHARDS {
        control.handle(Request::Applied { shard: ShardId(shard), sequence });
    }
    std::iter::from_fn(|| control.poll_answer()).map(|(_, answer)| answer.asker.channel).collect()
}

/// A store as an executor keeps it: rows by what they are about.
#[derive(Debug, Default)]
pub(super) struct Rows(pub(super) Definitions);

impl Rows {
    pub(super) fn apply(&mut self, change: DurableChange) {
        let rows = &mut self.0;
        match change {
            DurableChange::PutVhost { vhost, next_vhost_id } => {
                rows.vhosts.retain(|row| row.name != vhost.name);
                rows.vhosts.push(vhost);
                rows.next_vhost_id = next_vhost_id;
            }
            DurableChange::DropVhost { name } => remove(&mut rows.vhosts, |row| row.name == name),
            DurableChange::PutUser(user) => {
                rows.users.retain(|row| row.name != user.name);
                rows.users.push(user);
            }
            DurableChange::DropUser { name } => remove(&mut rows.users, |row| row.name == name),
            DurableChange::PutPermissions(put) => {
                rows.permissions.retain(|row| (&row.user, &row.vhost) != (&put.user, &put.vhost));
                rows.permissions.push(put);
            }
            DurableChange::DropPermissions { user, vhost } => {
                remove(&mut rows.permissions, |row| row.user == user && row.vhost == vhost);
            }
            DurableChange::PutExchange(row) => rows.exchanges.push(row),
            DurableChange::DropExchange { vhost, name } => {
                remove(&mut rows.exchanges, |row| row.vhost == vhost && row.name == name);
            }
            DurableChange::PutQueue { queue, next_log_id } => {
                rows.queues.push(queue);
                rows.next_log_id = next_log_id;
            }
            DurableChange::DropQueue { vhost, name } => {
                remove(&mut rows.queues, |row| row.vhost == vhost && row.name == name);
            }
            DurableChange::PutBinding(row) => rows.bindings.push(row),
            DurableChange::DropBinding(row) => remove(&mut rows.bindings, |other| *other == row),
        }
    }

    /// Stores and answers everything that waits.
    pub(super) fn settle(&mut self, control: &mut Control) -> Vec<Answer> {
        control.finish_turn();
        while let Some((through, changes)) = control.poll_durable() {
            for change in changes {
                self.apply(change);
            }
            control.made_durable(through);
        }
        settle(control).1
    }

    pub(super) fn recovered(&self) -> (Control, Vec<Rejected>) {
        Control::recover(self.0.clone(), SHARDS, 3)
    }
}

fn remove<T>(rows: &mut Vec<T>, is_meant: impl Fn(&T) -> bool) {
    let before = rows.len();
    rows.retain(|row| !is_meant(row));
    assert_eq!(rows.len(), before - 1, "what is dropped was put, and once");
}

/// The queues that a message with a header `colour` reaches.
fn route(control: &Control, vhost: &str, exchange: &str, key: &str) -> Vec<Name> {
    let topology = control.topology();
    let vhost = topology.vhost_id(vhost).unwrap();
    let exchange = topology.exchange(vhost, exchange.as_bytes()).unwrap().id;
    let headers = TableBuilder::new().long_str("colour", "red").finish();
    let headers = Some(headers.as_ref());
    let properties = PropertiesBuilder { headers, ..PropertiesBuilder::default() }.finish();
    let (mut scratch, mut found) = (RouteScratch::new(), Vec::new());
    topology.route(&mut scratch, exchange, key.as_bytes(), &properties, &mut found).unwrap();
    let queue = |to: &Destination| topology.queue_by_id(to.queue).unwrap().name.clone();
    let mut names: Vec<_> = found.iter().map(queue).collect();
    names.sort();
    names
}

#[test]
fn no_shard_hears_of_a_durable_queue_before_it_is_stored() {
    let (mut control, _) = persistent();
    declare(&mut control, 1, durable_queue("q"));
    control.finish_turn();
    assert_eq!(deltas(&mut control), []);
    let (through, changes) = control.poll_durable().unwrap();
    let [DurableChange::PutQueue { queue, next_log_id: 2 }] = &changes[..] else {
        panic!("{changes:?}");
    };
    assert_eq!((&*queue.vhost, &*queue.name, queue.log_id), ("/", "q", 1));
    assert_eq!(queue.home, home_of("/", "q", SHARDS).0);
    assert_eq!(deltas(&mut control), [], "a commit under way is no promise");
    assert_eq!(answered(&mut control, 0), []);
    control.made_durable(through);
    assert_eq!(deltas(&mut control), [1]);
    assert_eq!(answered(&mut control, 1), [1]);
    let stored = control.topology().queue(VHOST, b"q").unwrap();
    assert_eq!((stored.durable, stored.log_id), (true, Some(1)));
}

#[test]
fn what_is_not_stored_goes_out_at_once_unless_it_comes_later() {
    let (mut control, _) = persistent();
    declare(&mut control, 1, queue("before"));
    declare(&mut control, 2, durable_queue("durable"));
    declare(&mut control, 3, queue("behind"));
    // Found, not changed: it waits for what it found.
    declare(&mut control, 4, durable_queue("durable"));
    control.finish_turn();
    assert_eq!(deltas(&mut control), [1]);
    assert_eq!(answered(&mut control, 1), [], "all answers of a turn wait for its end");
    let (through, changes) = control.poll_durable().unwrap();
    assert_eq!(changes.len(), 1);
    control.made_durable(through);
    assert_eq!(deltas(&mut control), [2, 3]);
    assert_eq!(answered(&mut control, 3), [1, 2, 3, 4]);
    // Durable and exclusive is not durable, as in RabbitMQ.
    let owner = Some(channel(0, 0, 1).owner);
    declare(&mut control, 5, QueueDeclaration { exclusive: owner, ..durable_queue("mine") });
    control.finish_turn();
    assert!(control.poll_durable().is_none());
    assert_eq!(deltas(&mut control), [4]);
    assert_eq!(control.topology().queue(VHOST, b"mine").unwrap().log_id, None);
}

#[test]
fn changes_gather_while_a_commit_is_under_way() {
    let (mut control, _) = persistent();
    declare(&mut control, 1, durable_queue("a"));
    control.finish_turn();
    let (first, _) = control.poll_durable().unwrap();
    for asker in 2..=9 {
        declare(&mut control, asker, durable_queue(&format!("q{asker}")));
        control.finish_turn();
        assert!(control.poll_durable().is_none(), "one commit at a time");
    }
    assert_eq!(deltas(&mut control), []);
    control.made_durable(first);
    assert_eq!(deltas(&mut control), [1], "the others are not stored yet");
    assert_eq!(answered(&mut control, 1), [1]);
    let (second, changes) = control.poll_durable().unwrap();
    assert_eq!(changes.len(), 8, "one flush for all");
    control.made_durable(second);
    assert!(control.poll_durable().is_none());
    assert_eq!(deltas(&mut control), (2..=9).collect::<Vec<_>>());
    assert_eq!(answered(&mut control, 9), (2..=9).collect::<Vec<_>>());
}

#[test]
fn delete_ok_waits_until_the_deletion_is_stored() {
    let (mut control, mut rows) = persistent();
    declare(&mut control, 1, durable_queue("q"));
    control.handle(Request::Bind(channel(0, 0, 2), binding("amq.topic", "q", "a.*")));
    assert_eq!(rows.settle(&mut control).len(), 2);
    let queue = control.topology().queue(VHOST, b"q").unwrap().id;
    let asker = Some((channel(0, 0, 3), 0));
    control.handle(Request::QueueGone { queue, asker });
    control.finish_turn();
    let sent = control.topology().sequence();
    assert_eq!((deltas(&mut control), answered(&mut control, sent - 2)), (vec![], vec![]));
    let (through, changes) = control.poll_durable().unwrap();
    assert!(
        matches!(&changes[..], [DurableChange::DropBinding(_), DurableChange::DropQueue { .. }]),
        "{changes:?}"
    );
    for change in changes {
        rows.apply(change);
    }
    control.made_durable(through);
    assert_eq!(deltas(&mut control), [sent - 1, sent]);
    assert_eq!(answered(&mut control, sent), [3]);
    let (mut again, rejected) = rows.recovered();
    assert_eq!((again.topology().queues().count(), again.binding_count()), (0, 0));
    assert!(rejected.is_empty());
    // Its number does not come back with it.
    declare(&mut again, 1, durable_queue("q"));
    assert_eq!(again.topology().queue(VHOST, b"q").unwrap().log_id, Some(2));
}

#[test]
fn everything_durable_comes_back_and_nothing_else() {
    let (mut control, mut rows) = persistent();
    let second = Name::from("second");
    control.add_vhost(&second).unwrap();
    let vhost = control.topology().vhost_id(&second).unwrap();
    for (name, kind) in [("t", ExchangeKind::Topic), ("h", ExchangeKind::Headers)] {
        ask_exchange_of(&mut control, durable_exchange(name, kind));
    }
    ask_exchange_of(&mut control, exchange("fleeting"));
    for name in ["a", "b", "c"] {
        let arguments = TableBuilder::new().long("x-max-length", 7).finish();
        let arguments = arguments.as_bytes().clone();
        declare(&mut control, 1, QueueDeclaration { arguments, ..durable_queue(name) });
    }
    declare(&mut control, 1, QueueDeclaration { vhost, ..durable_queue("elsewhere") });
    declare(&mut control, 1, queue("transient"));
    let conditions = TableBuilder::new().long_str("x-match", "any").long_str("colour", "red");
    let headers = BindingChange {
        arguments: conditions.finish().as_bytes().clone(),
        ..binding("h", "c", "")
    };
    let kept = [
        binding("amq.direct", "a", "k"),
        binding("t", "a", "x.#"),
        binding("t", "b", "*.y"),
        headers,
        exchange_binding("amq.fanout", "t", ""),
        BindingChange { vhost, ..binding("amq.fanout", "elsewhere", "") },
    ];
    let lost = [
        binding("t", "transient", "#"),
        binding("fleeting", "a", "#"),
        exchange_binding("t", "fleeting", "#"),
        exchange_binding("fleeting", "t", "#"),
    ];
    for change in kept.iter().chain(&lost) {
        control.handle(Request::Bind(channel(0, 0, 1), change.clone()));
    }
    for answer in rows.settle(&mut control) {
        assert!(answer.outcome.is_ok(), "{answer:?}");
    }
    let (recovered, rejected) = rows.recovered();
    assert_eq!(rejected, []);
    assert_eq!(recovered.binding_count(), kept.len());
    assert_eq!(recovered.topology().queues().count(), 4);
    assert!(!exists(&recovered, "fleeting") && exists(&recovered, "t"));
    for (exchange, key, queues) in [
        ("", "b", vec!["b"]),
        ("", "transient", vec![]),
        ("amq.direct", "k", vec!["a"]),
        ("t", "x.y", vec!["a", "b"]),
        ("amq.fanout", "z.y", vec!["b"]),
        ("h", "", vec!["c"]),
    ] {
        assert_eq!(route(&recovered, "/", exchange, key), queues, "{exchange} {key}");
    }
    assert_eq!(route(&recovered, "second", "amq.fanout", ""), ["elsewhere"]);
    for queue in recovered.topology().queues() {
        let before = control.topology().queue(queue.vhost, queue.name.as_bytes()).unwrap();
        let identity = before.id;
        assert_eq!(QueueMeta { id: identity, ..(**queue).clone() }, **before);
    }
    for exchange in recovered.topology().exchanges() {
        let before = control.topology().exchange(exchange.vhost, exchange.name.as_bytes()).unwrap();
        let identity = before.id;
        assert_eq!(Exchange { id: identity, ..exchange.clone() }, *before);
    }
}

fn ask_exchange_of(control: &mut Control, declaration: ExchangeDeclaration) {
    control.handle(Request::DeclareExchange(channel(0, 0, 1), declaration));
}

#[test]
fn shards_go_on_from_what_was_recovered() {
    let (mut control, mut rows) = persistent();
    declare(&mut control, 1, durable_queue("q"));
    control.handle(Request::Bind(channel(0, 0, 1), binding("amq.topic", "q", "*")));
    rows.settle(&mut control);
    let (mut recovered, _) = rows.recovered();
    let mut replica = recovered.topology().clone();
    assert!(recovered.poll_delta().is_none() && recovered.poll_durable().is_none());
    assert!(!recovered.idle(), "patterns are compiled already");
    declare(&mut recovered, 1, queue("new"));
    recovered.handle(Request::Bind(channel(0, 0, 2), binding("amq.topic", "new", "#")));
    recovered.finish_turn();
    while let Some(delta) = recovered.poll_delta() {
        replica.apply(&delta);
    }
    assert_eq!(replica.sequence(), recovered.topology().sequence());
    assert_eq!(answered(&mut recovered, replica.sequence()), [1, 2]);
    assert_eq!(route(&recovered, "/", "amq.topic", "word"), ["new", "q"]);
}

#[test]
fn what_goes_by_itself_is_forgotten_too() {
    let (mut control, mut rows) = persistent();
    for name in ["a", "b"] {
        let kind = ExchangeKind::Fanout;
        let auto_delete = ExchangeDeclaration { auto_delete: true, ..durable_exchange(name, kind) };
        ask_exchange_of(&mut control, auto_delete);
    }
    declare(&mut control, 1, durable_queue("q"));
    for change in [exchange_binding("a", "b", ""), binding("b", "q", "")] {
        control.handle(Request::Bind(channel(0, 0, 1), change));
    }
    rows.settle(&mut control);
    assert_eq!((rows.0.exchanges.len(), rows.0.bindings.len()), (2, 2));
    // Never bound since the restart is no reason to go.
    let (mut control, _) = rows.recovered();
    assert!(exists(&control, "a") && exists(&control, "b"));
    control.handle(Request::Unbind(channel(0, 0, 1), binding("b", "q", "")));
    rows.settle(&mut control);
    assert!(rows.0.exchanges.is_empty() && rows.0.bindings.is_empty(), "{rows:?}");
    // With an exchange go the bindings from it and to it.
    ask_exchange_of(&mut control, durable_exchange("x", ExchangeKind::Topic));
    for change in [exchange_binding("amq.topic", "x", "#"), binding("x", "q", "#")] {
        control.handle(Request::Bind(channel(0, 0, 1), change));
    }
    rows.settle(&mut control);
    assert_eq!(rows.0.bindings.len(), 2);
    ask_delete_of(&mut control, "x");
    rows.settle(&mut control);
    assert!(rows.0.exchanges.is_empty() && rows.0.bindings.is_empty(), "{rows:?}");
}

fn ask_delete_of(control: &mut Control, name: &str) {
    let (asker, name) = (channel(0, 0, 1), Name::from(name));
    control.handle(Request::DeleteExchange { asker, vhost: VHOST, name, if_unused: false });
}

#[test]
fn what_does_not_fit_is_reported_and_kept_out_of_the_way() {
    let (mut control, mut rows) = persistent();
    for name in ["far", "sound", "damaged"] {
        declare(&mut control, 1, durable_queue(name));
        control.handle(Request::Bind(channel(0, 0, 1), binding("amq.fanout", name, "")));
    }
    rows.settle(&mut control);
    rows.0.queues[0].home = SHARDS;
    rows.0.queues.pop();
    rows.0.quarantined.push((Name::from("/"), Name::from("damaged")));
    rows.0.exchanges.push(ExchangeDefinition {
        vhost: Name::from("nowhere"),
        name: Name::from("x"),
        kind: ExchangeKind::Direct,
        auto_delete: false,
        internal: false,
        arguments: Bytes::new(),
    });
    rows.0.bindings[1].arguments = Bytes::from_static(b"\x05no table");
    let (mut recovered, rejected) = rows.recovered();
    let reports: Vec<_> = rejected.iter().map(ToString::to_string).collect();
    assert_eq!(rejected.len(), 5, "{reports:?}");
    assert_eq!(reports[0], "exchange 'x' in vhost 'nowhere': there is no such virtual host");
    assert_eq!(reports[1], "queue 'far' in vhost '/': it lives on shard 3, and there are 3");
    assert_eq!(rejected[1].log_id, Some(1));
    assert!(reports[3].starts_with("binding from 'amq.fanout' to 'sound' in vhost '/': its arg"));
    assert!(reports[4].ends_with("queue 'damaged' is in quarantine"), "{reports:?}");
    let names: Vec<_> = recovered.topology().queues().map(|queue| queue.name.clone()).collect();
    assert_eq!(names, ["sound"]);
    for name in ["far", "damaged"] {
        let expected = format!(
            "406 queue '{name}' in vhost '/' is in quarantine: its definition on disk is damaged"
        );
        let asked = Request::DeclareQueue(channel(0, 0, 1), queue(name));
        assert_eq!(ask(&mut recovered, asked), Err(expected.clone()));
        let bound = ask_bind(&mut recovered, binding("amq.direct", name, "k"));
        assert_eq!(bound, Err(expected));
        assert!(route(&recovered, "/", "", name).is_empty());
    }
    assert!(recovered.poll_durable().is_none(), "nothing of it is overwritten");
    assert_eq!(recovered.next_log_id(), 4, "beyond what was stored and what was used");
}

#[test]
fn log_ids_go_on_behind_the_highest_one() {
    let mut definitions = Definitions { next_log_id: 5, ..Definitions::default() };
    let (control, _) = Control::recover(definitions.clone(), SHARDS, 3);
    assert_eq!(control.next_log_id(), 5);
    definitions.queues.push(QueueDefinition {
        vhost: Name::from("/"),
        name: Name::from("q"),
        log_id: 40,
        home: 1,
        auto_delete: true,
        arguments: Bytes::new(),
    });
    let (control, rejected) = Control::recover(definitions, SHARDS, 3);
    assert_eq!(rejected, []);
    assert_eq!(control.next_log_id(), 41);
    let queue = control.topology().queue(VHOST, b"q").unwrap();
    assert_eq!((queue.home, queue.auto_delete), (ShardId(1), true), "as stored");
}
