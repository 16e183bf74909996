//! Routing against a naive model, and what replicas owe each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use leveret_amqp::{ArrayBuilder, PropertiesBuilder, TableBuilder, Value};
use proptest::prelude::*;

use super::*;
use crate::catalog::arguments::QueueArguments;
use crate::catalog::object::BindingTarget;
use crate::control::{BindingChange, Control, ExchangeDeclaration, QueueDeclaration, Request};
use crate::id::{ChannelKey, Owner, ShardId};
use crate::routing::route::{EXTRA_KEYS_MAX, RouteScratch, Routed, has_extra_keys};

const VHOST: VhostId = VhostId(0);
const KINDS: [ExchangeKind; 4] =
    [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers];

/// A control state and one replica that follows it.
struct World {
    control: Control,
    replica: Topology,
    scratch: RouteScratch,
}

impl World {
    fn new() -> Self {
        let topology = Topology::with_presets(5, 1);
        Self {
            replica: topology.clone(),
            control: Control::new(topology, 1, 5),
            scratch: RouteScratch::new(),
        }
    }

    fn ask(&mut self, request: Request) {
        self.control.handle(request);
        self.control.finish_turn();
        while let Some(delta) = self.control.poll_delta() {
            self.replica.apply(&delta);
        }
    }

    fn exchange(&mut self, name: &str, kind: ExchangeKind, alternate: Option<&str>) {
        let arguments = alternate.map_or_else(TableBuilder::new, |alternate| {
            TableBuilder::new().long_str("alternate-exchange", alternate)
        });
        let declaration = ExchangeDeclaration {
            vhost: VHOST,
            name: Name::from(name),
            kind,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: arguments.finish().as_bytes().clone(),
        };
        self.ask(Request::DeclareExchange(ChannelKey::default(), declaration));
    }

    fn queue(&mut self, name: &str) {
        let declaration = QueueDeclaration {
            vhost: VHOST,
            name: Name::from(name),
            durable: false,
            exclusive: None,
            auto_delete: false,
            arguments: Bytes::new(),
            gone: None,
        };
        self.ask(Request::DeclareQueue(ChannelKey::default(), declaration));
    }

    fn bind(&mut self, source: &str, target: (BindingTarget, &str), key: &str, arguments: &Bytes) {
        self.ask(Request::Bind(ChannelKey::default(), change(source, target, key, arguments)));
    }

    fn unbind(&mut self, source: &str, target: (BindingTarget, &str), key: &str, args: &Bytes) {
        self.ask(Request::Unbind(ChannelKey::default(), change(source, target, key, args)));
    }

    fn delete_exchange(&mut self, name: &str) {
        let asker = ChannelKey::default();
        let name = Name::from(name);
        self.ask(Request::DeleteExchange { asker, vhost: VHOST, name, if_unused: false });
    }

    fn delete_queue(&mut self, name: &str) {
        if let Some(queue) = self.replica.queue(VHOST, name.as_bytes()) {
            let queue = queue.id;
            self.ask(Request::QueueGone { queue, asker: None });
        }
    }

    fn compact(&mut self) {
        while self.control.idle() {}
        while let Some(delta) = self.control.poll_delta() {
            self.replica.apply(&delta);
        }
    }

    /// The names of the queues reached, each once.
    fn route(&mut self, exchange: &str, key: &str, properties: &[u8]) -> (Vec<String>, Routed) {
        let exchange = self.replica.exchange(VHOST, exchange.as_bytes()).unwrap().id;
        let mut out = vec![Destination::default()];
        let scratch = &mut self.scratch;
        let routed = self.replica.route(scratch, exchange, key.as_bytes(), properties, &mut out);
        let names = out.iter().map(|destination| {
            let queue = self.replica.queue_by_id(destination.queue).unwrap();
            assert_eq!(queue.destination(), *destination);
            queue.name.to_string()
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        (names, routed.unwrap())
    }
}

fn change(
    source: &str,
    (target, destination): (BindingTarget, &str),
    key: &str,
    arguments: &Bytes,
) -> BindingChange {
    BindingChange {
        vhost: VHOST,
        source: Name::from(source),
        destination: Name::from(destination),
        target,
        key: Bytes::copy_from_slice(key.as_bytes()),
        arguments: arguments.clone(),
        owner: Owner::default(),
    }
}

fn queue(name: &str) -> (BindingTarget, &str) {
    (BindingTarget::Queue, name)
}

fn exchange(name: &str) -> (BindingTarget, &str) {
    (BindingTarget::Exchange, name)
}

fn no_properties() -> Vec<u8> {
    PropertiesBuilder::default().finish()
}

fn with_headers(headers: TableBuilder) -> Vec<u8> {
    let headers = headers.finish();
    PropertiesBuilder { headers: Some(headers.as_ref()), ..PropertiesBuilder::default() }.finish()
}

#[test]
fn the_default_exchange_routes_by_queue_name() {
    let mut world = World::new();
    world.queue("q");
    let (names, routed) = world.route("", "q", &no_properties());
    assert_eq!((names, routed.cacheable, routed.strip_bcc), (vec!["q".to_owned()], true, false));
    assert!(world.route("", "other", &no_properties()).0.is_empty());
    world.delete_queue("q");
    assert!(world.route("", "q", &no_properties()).0.is_empty());
}

#[test]
fn alternate_exchanges_take_what_nothing_matches() {
    let mut world = World::new();
    world.queue("direct");
    world.queue("lost");
    world.exchange("first", ExchangeKind::Direct, Some("second"));
    world.exchange("second", ExchangeKind::Topic, Some("third"));
    world.bind("first", queue("direct"), "a", &Bytes::new());
    // The third does not exist yet: ignored.
    assert!(world.route("first", "b", &no_properties()).0.is_empty());
    world.exchange("third", ExchangeKind::Fanout, Some("first"));
    // Now the alternates form a loop.
    assert!(world.route("first", "b", &no_properties()).0.is_empty());
    world.bind("third", queue("lost"), "", &Bytes::new());
    assert_eq!(world.route("first", "b", &no_properties()).0, ["lost"]);
    assert_eq!(world.route("first", "a", &no_properties()).0, ["direct"]);
    let id = world.replica.exchange(VHOST, b"first").unwrap().id;
    assert!(world.replica.depends_on_headers(id));
    assert!(world.route("first", "b", &no_properties()).1.cacheable);
}

#[test]
fn a_binding_to_an_exchange_counts_as_a_match() {
    let mut world = World::new();
    world.queue("lost");
    world.exchange("dead-end", ExchangeKind::Direct, None);
    world.exchange("alternate", ExchangeKind::Fanout, None);
    world.exchange("first", ExchangeKind::Fanout, Some("alternate"));
    world.bind("alternate", queue("lost"), "", &Bytes::new());
    world.bind("first", exchange("dead-end"), "", &Bytes::new());
    assert!(world.route("first", "k", &no_properties()).0.is_empty());
    world.delete_exchange("dead-end");
    assert_eq!(world.route("first", "k", &no_properties()).0, ["lost"]);
}

#[test]
fn extra_keys_come_from_cc_and_bcc() {
    let mut world = World::new();
    for name in ["main", "copy", "blind"] {
        world.queue(name);
    }
    let array = |name: &str| ArrayBuilder::new().long_str(name).value(Value::I32(7));
    let cc = with_headers(TableBuilder::new().array("CC", &array("copy")));
    let (names, routed) = world.route("", "main", &cc);
    assert_eq!((names.len(), routed.cacheable, routed.strip_bcc), (2, false, false));
    let bcc = TableBuilder::new().array("CC", &array("copy")).array("BCC", &array("blind"));
    let (names, routed) = world.route("", "main", &with_headers(bcc));
    assert_eq!((names.len(), routed.cacheable, routed.strip_bcc), (3, false, true));
    assert!(has_extra_keys(&cc) && !has_extra_keys(&no_properties()));
    assert!(!has_extra_keys(&with_headers(TableBuilder::new().int("cc", 1))));
    // The same key twice is one delivery.
    let twice = with_headers(TableBuilder::new().array("CC", &array("main")));
    assert_eq!(world.route("", "main", &twice).0, ["main"]);
}

#[test]
fn extra_keys_must_be_an_array_and_few() {
    let world = World::new();
    let exchange = world.replica.exchange(VHOST, b"").unwrap().id;
    let refusal = |headers: TableBuilder| {
        let (properties, mut out) = (with_headers(headers), Vec::new());
        let mut scratch = RouteScratch::new();
        let routed = world.replica.route(&mut scratch, exchange, b"k", &properties, &mut out);
        routed.map_err(|exception| (exception.code.code(), exception.explanation))
    };
    // Observed on RabbitMQ 3.10.8.
    let text = "invalid message: {unacceptable_type_in_header,\"CC\",longstr}";
    assert_eq!(refusal(TableBuilder::new().long_str("CC", "x")), Err((406, text.to_owned())));
    let text = "invalid message: {unacceptable_type_in_header,\"BCC\",signedint}";
    assert_eq!(refusal(TableBuilder::new().int("BCC", 1)), Err((406, text.to_owned())));
    let many = |count| {
        let array = (0..count).fold(ArrayBuilder::new(), |array, _| array.long_str("k"));
        TableBuilder::new().array("CC", &array)
    };
    refusal(many(EXTRA_KEYS_MAX)).unwrap();
    assert_eq!(refusal(many(EXTRA_KEYS_MAX + 1)).unwrap_err().0, 406);
}

#[test]
fn bindings_that_differ_in_arguments_count_separately() {
    let one = TableBuilder::new().int("a", 1).int("b", 2).finish().as_bytes().clone();
    let reordered = TableBuilder::new().int("b", 2).int("a", 1).finish().as_bytes().clone();
    for (kind, key) in [
        (ExchangeKind::Direct, "k"),
        (ExchangeKind::Fanout, "k"),
        (ExchangeKind::Topic, "k"),
        (ExchangeKind::Topic, "*"),
    ] {
        let mut world = World::new();
        world.queue("q");
        world.exchange("x", kind, None);
        world.bind("x", queue("q"), key, &Bytes::new());
        world.bind("x", queue("q"), key, &one);
        world.bind("x", queue("q"), key, &reordered);
        assert_eq!(world.control.binding_count(), 2, "order of arguments does not matter");
        world.unbind("x", queue("q"), key, &Bytes::new());
        assert_eq!(world.route("x", "k", &no_properties()).0, ["q"]);
        world.unbind("x", queue("q"), key, &reordered);
        assert!(world.route("x", "k", &no_properties()).0.is_empty());
    }
}

/// Routing by headers and by many keys reuses the memory of the message before.
#[test]
fn a_warm_scratch_does_not_allocate() {
    let mut world = World::new();
    world.queue("q");
    let any = TableBuilder::new().int("h", 1).finish().as_bytes().clone();
    world.bind("amq.headers", queue("q"), "", &any);
    let copies = ArrayBuilder::new().long_str("a").long_str("b");
    let properties = with_headers(TableBuilder::new().int("h", 1).array("CC", &copies));
    world.route("amq.headers", "k", &properties);
    let before = world.scratch.memory();
    for _ in 0..3 {
        assert_eq!(world.route("amq.headers", "k", &properties).0, ["q"]);
        assert_eq!(world.scratch.memory(), before);
    }
    assert!(before.iter().all(|(_, capacity)| *capacity > 0));
}

/// A token must not lead to another queue while shards still hold the table that knows it.
#[test]
fn tokens_of_old_tables_are_not_reused() {
    let mut world = World::new();
    world.queue("old");
    world.queue("new");
    world.exchange("x", ExchangeKind::Topic, None);
    world.bind("x", queue("old"), "old.*", &Bytes::new());
    let asker = ChannelKey::default();
    let mut turn = Vec::new();
    world.control.handle(Request::Unbind(asker, change("x", queue("old"), "old.*", &Bytes::new())));
    world.control.handle(Request::Bind(asker, change("x", queue("new"), "new.*", &Bytes::new())));
    world.control.finish_turn();
    turn.extend(std::iter::from_fn(|| world.control.poll_delta()));
    for delta in &turn {
        world.replica.apply(delta);
        assert_ne!(world.route("x", "old.a", &no_properties()).0, ["new"]);
    }
    assert_eq!(world.route("x", "new.a", &no_properties()).0, ["new"]);
    // Freed by the table, the token serves again.
    world.unbind("x", queue("new"), "new.*", &Bytes::new());
    world.bind("x", queue("old"), "#", &Bytes::new());
    assert_eq!(world.route("x", "new.a", &no_properties()).0, ["old"]);
}

#[test]
fn versions_tell_routing_from_permissions() {
    let mut topology = Topology::with_presets(1, 1);
    let (version, permissions) = (topology.version(), topology.permission_version());
    let user = User { name: Name::from("u"), password: None, tags: vec![], loopback_only: false };
    topology.apply(&Delta { sequence: 1, change: Change::UserPut(Arc::new(user)) });
    assert_eq!((topology.version(), topology.permission_version()), (version, permissions + 1));
    let queue = QueueMeta {
        id: QueueId::default(),
        vhost: VHOST,
        name: Name::from("q"),
        home: ShardId(0),
        durable: false,
        log_id: None,
        exclusive: None,
        auto_delete: false,
        arguments: Bytes::new(),
        settings: QueueArguments::default(),
    };
    topology.apply(&Delta { sequence: 2, change: Change::QueueDeclared(Arc::new(queue)) });
    assert_eq!((topology.version(), topology.permission_version()), (version + 1, permissions + 1));
    topology.apply(&Delta { sequence: 3, change: Change::UserRemoved(Name::from("u")) });
    assert!(topology.user("u").is_none());
}

/// A step of a random history. Numbers choose among few names, so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    DeclareExchange { name: u8, kind: usize, alternate: Option<u8> },
    DeleteExchange(u8),
    DeclareQueue(u8),
    DeleteQueue(u8),
    Bind { source: u8, target: ModelTarget, key: String, arguments: Vec<(u8, u8)>, any: bool },
    Unbind(usize),
    Compact,
    Publish { exchange: u8, keys: Vec<String>, headers: Vec<(u8, u8)> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ModelTarget {
    Queue(u8),
    Exchange(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..5_u8;
    let key = || "[ab*#.]{0,4}";
    let pairs = || proptest::collection::btree_map(0..3_u8, 0..2_u8, 0..3);
    let target = prop_oneof![
        (0..5_u8).prop_map(ModelTarget::Queue),
        (0..5_u8).prop_map(ModelTarget::Exchange)
    ];
    let step = prop_oneof![
        2 => (name.clone(), 0..4_usize, proptest::option::of(0..5_u8)).prop_map(
            |(name, kind, alternate)| Step::DeclareExchange { name, kind, alternate }
        ),
        1 => name.clone().prop_map(Step::DeleteExchange),
        2 => name.clone().prop_map(Step::DeclareQueue),
        1 => name.clone().prop_map(Step::DeleteQueue),
        8 => (name.clone(), target, key(), pairs(), any::<bool>()).prop_map(
            |(source, target, key, arguments, any)| {
                let arguments = arguments.into_iter().collect();
                Step::Bind { source, target, key, arguments, any }
            }
        ),
        3 => (0..100_usize).prop_map(Step::Unbind),
        1 => Just(Step::Compact),
        6 => (name, proptest::collection::vec("[ab.]{0,4}", 1..3), pairs()).prop_map(
            |(exchange, keys, headers)| {
                Step::Publish { exchange, keys, headers: headers.into_iter().collect() }
            }
        ),
    ];
    proptest::collection::vec(step, 1..80)
}

/// The same broker, written down as plainly as possible.
#[derive(Default)]
struct Model {
    exchanges: BTreeMap<u8, (ExchangeKind, Option<u8>)>,
    queues: BTreeSet<u8>,
    bindings: Vec<ModelBinding>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelBinding {
    source: u8,
    target: ModelTarget,
    key: String,
    arguments: Vec<(u8, u8)>,
    any: bool,
}

impl Model {
    fn exists(&self, target: ModelTarget) -> bool {
        match target {
            ModelTarget::Queue(name) => self.queues.contains(&name),
            ModelTarget::Exchange(name) => self.exchanges.contains_key(&name),
        }
    }

    fn forget(&mut self, gone: ModelTarget) {
        self.bindings.retain(|binding| {
            binding.target != gone && ModelTarget::Exchange(binding.source) != gone
        });
    }

    fn route(&self, exchange: u8, keys: &[String], headers: &[(u8, u8)]) -> BTreeSet<u8> {
        let mut queues = BTreeSet::new();
        let (mut seen, mut work) = (BTreeSet::from([exchange]), vec![exchange]);
        while let Some(exchange) = work.pop() {
            let Some((kind, alternate)) = self.exchanges.get(&exchange) else {
                continue;
            };
            let matching = self.bindings.iter().filter(|binding| {
                binding.source == exchange && binding.matches(*kind, keys, headers)
            });
            let mut targets: Vec<_> = matching.map(|binding| binding.target).collect();
            if targets.is_empty() {
                targets.extend(alternate.map(ModelTarget::Exchange));
            }
            for target in targets {
                match target {
                    ModelTarget::Queue(queue) => {
                        queues.insert(queue);
                    }
                    ModelTarget::Exchange(next) => {
                        if seen.insert(next) {
                            work.push(next);
                        }
                    }
                }
            }
        }
        queues
    }
}

impl ModelBinding {
    fn matches(&self, kind: ExchangeKind, keys: &[String], headers: &[(u8, u8)]) -> bool {
        match kind {
            ExchangeKind::Direct => keys.contains(&self.key),
            ExchangeKind::Fanout => true,
            ExchangeKind::Topic => keys.iter().any(|key| topic_matches(&self.key, key)),
            ExchangeKind::Headers if self.any => {
                self.arguments.iter().any(|pair| headers.contains(pair))
            }
            ExchangeKind::Headers => self.arguments.iter().all(|pair| headers.contains(pair)),
        }
    }

    fn arguments(&self) -> Bytes {
        let mode = if self.any { "any" } else { "all" };
        let mode = TableBuilder::new().long_str("x-match", mode);
        pairs_table(mode, &self.arguments).finish().as_bytes().clone()
    }
}

fn topic_matches(pattern: &str, key: &str) -> bool {
    fn words(text: &str) -> Vec<&str> {
        if text.is_empty() { Vec::new() } else { text.split('.').collect() }
    }
    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], key) => key.is_empty(),
            (["#", rest @ ..], key) => (0..=key.len()).any(|from| matches(rest, &key[from..])),
            ([word, rest @ ..], [first, others @ ..]) => {
                (*word == "*" || word == first) && matches(rest, others)
            }
            (_, []) => false,
        }
    }
    matches(&words(pattern), &words(key))
}

fn pairs_table(table: TableBuilder, pairs: &[(u8, u8)]) -> TableBuilder {
    pairs
        .iter()
        .fold(table, |table, (name, value)| table.int(format!("h{name}"), i32::from(*value)))
}

fn queue_name(name: u8) -> String {
    format!("q{name}")
}

fn exchange_name(name: u8) -> String {
    format!("x{name}")
}

/// Runs one step in both worlds, and compares where it publishes.
fn run(step: &Step, model: &mut Model, world: &mut World) {
    match step {
        Step::DeclareExchange { name, kind, alternate } => {
            let kind = KINDS[*kind];
            model.exchanges.entry(*name).or_insert((kind, *alternate));
            let alternate = alternate.map(exchange_name);
            world.exchange(&exchange_name(*name), kind, alternate.as_deref());
        }
        Step::DeleteExchange(name) => {
            model.exchanges.remove(name);
            model.forget(ModelTarget::Exchange(*name));
            world.delete_exchange(&exchange_name(*name));
        }
        Step::DeclareQueue(name) => {
            model.queues.insert(*name);
            world.queue(&queue_name(*name));
        }
        Step::DeleteQueue(name) => {
            model.queues.remove(name);
            model.forget(ModelTarget::Queue(*name));
            world.delete_queue(&queue_name(*name));
        }
        Step::Bind { source, target, key, arguments, any } => {
            let (source, target, any) = (*source, *target, *any);
            let (key, arguments) = (key.clone(), arguments.clone());
            let binding = ModelBinding { source, target, key, arguments, any };
            change_both(world, &binding, true);
            let possible = model.exchanges.contains_key(&source) && model.exists(target);
            if possible && !model.bindings.contains(&binding) {
                model.bindings.push(binding);
            }
        }
        Step::Unbind(number) => {
            if !model.bindings.is_empty() {
                let binding = model.bindings.swap_remove(number % model.bindings.len());
                change_both(world, &binding, false);
            }
        }
        Step::Compact => world.compact(),
        Step::Publish { exchange, keys, headers } => {
            if model.exchanges.contains_key(exchange) {
                publish_both(model, world, *exchange, keys, headers);
            }
        }
    }
    assert_eq!(world.control.binding_count(), model.bindings.len());
}

fn change_both(world: &mut World, binding: &ModelBinding, bind: bool) {
    let name = match binding.target {
        ModelTarget::Queue(name) => (BindingTarget::Queue, queue_name(name)),
        ModelTarget::Exchange(name) => (BindingTarget::Exchange, exchange_name(name)),
    };
    let (source, target) = (exchange_name(binding.source), (name.0, name.1.as_str()));
    if bind {
        world.bind(&source, target, &binding.key, &binding.arguments());
    } else {
        world.unbind(&source, target, &binding.key, &binding.arguments());
    }
}

fn publish_both(
    model: &Model,
    world: &mut World,
    exchange: u8,
    keys: &[String],
    headers: &[(u8, u8)],
) {
    let expected: Vec<_> =
        model.route(exchange, keys, headers).into_iter().map(queue_name).collect();
    let mut table = pairs_table(TableBuilder::new(), headers);
    if let [_, copies @ ..] = keys
        && !copies.is_empty()
    {
        let copies = copies.iter().fold(ArrayBuilder::new(), ArrayBuilder::long_str);
        table = table.array("CC", &copies);
    }
    let name = exchange_name(exchange);
    let (names, routed) = world.route(&name, &keys[0], &with_headers(table));
    assert_eq!(names, expected);
    let id = world.replica.exchange(VHOST, name.as_bytes()).unwrap().id;
    if routed.cacheable {
        assert_eq!(world.route(&name, &keys[0], &no_properties()).0, expected);
    } else if keys.len() == 1 {
        assert!(world.replica.depends_on_headers(id));
    }
}

proptest! {
    /// Random graphs of exchanges with cycles, alternates and all kinds of bindings.
    #[test]
    fn routes_like_the_naive_model(steps in steps()) {
        let (mut model, mut world) = (Model::default(), World::new());
        for step in &steps {
            run(step, &mut model, &mut world);
        }
        for exchange in model.exchanges.keys() {
            publish_both(&model, &mut world, *exchange, &["a.b".to_owned()], &[(0, 1)]);
        }
    }
}

#[test]
fn a_new_broker_has_what_rabbitmq_has() {
    let topology = Topology::with_presets(7, 2);
    let vhost = topology.vhost_id("/").unwrap();
    assert_eq!(topology.vhost_id("other"), None);
    for (name, kind, internal) in presets::EXCHANGES {
        let exchange = topology.exchange(vhost, name.as_bytes()).unwrap();
        assert_eq!((exchange.kind, exchange.internal), (kind, internal));
        assert!(exchange.durable && !exchange.auto_delete);
    }
    let guest = topology.user("guest").unwrap();
    assert!(guest.authenticate(b"guest") && !guest.authenticate(b"Guest"));
    assert!(guest.loopback_only && guest.is_administrator());
    assert!(topology.permissions("guest", vhost).is_some());
    assert!(topology.permissions("nobody", vhost).is_none());
    assert_eq!(topology.sequence(), 0, "replicas start from here");
}
