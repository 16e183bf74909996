//! What operators change: that it lasts, who hears of it when, and what is refused.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::durable::{Rows, persistent};
use super::*;
use crate::catalog::object::Exchange;
use crate::catalog::permission::{Access, Permissions, ResourceKind};
use crate::catalog::presets;
use crate::catalog::user::{PasswordHash, User};

fn user(name: &str) -> User {
    let password = Some(PasswordHash::new([1, 2, 3, 4], name.as_bytes()));
    User {
        name: Name::from(name),
        password,
        tags: vec![Name::from("monitoring")],
        loopback_only: false,
    }
}

fn reader(prefix: &str) -> Permissions {
    Permissions::new("", "", &format!("^{prefix}")).unwrap()
}

fn add_vhost(name: &str) -> AdminRequest {
    AdminRequest::AddVhost(Name::from(name))
}

fn remove_vhost(name: &str) -> AdminRequest {
    AdminRequest::RemoveVhost(Name::from(name))
}

fn remove_user(name: &str) -> AdminRequest {
    AdminRequest::RemoveUser(Name::from(name))
}

fn permit(user: &str, vhost: &str, permissions: Permissions) -> AdminRequest {
    let (user, vhost) = (Name::from(user), Name::from(vhost));
    AdminRequest::PutPermissions { user, vhost, permissions }
}

fn forbid(user: &str, vhost: &str) -> AdminRequest {
    AdminRequest::ClearPermissions { user: Name::from(user), vhost: Name::from(vhost) }
}

fn request(change: AdminRequest) -> Request {
    Request::Admin(AdminRequestId(7), change)
}

/// Asks for one change, has it stored and applied, and returns what came of it.
fn operate(
    control: &mut Control,
    rows: &mut Rows,
    change: AdminRequest,
) -> Result<(), AdminRefusal> {
    control.handle(request(change));
    rows.settle(control);
    let answer = control.poll_admin_answer().unwrap();
    assert_eq!(answer.request, AdminRequestId(7));
    assert_eq!(control.poll_admin_answer(), None);
    answer.outcome
}

fn do_all(control: &mut Control, rows: &mut Rows, changes: impl IntoIterator<Item = AdminRequest>) {
    for change in changes {
        let shown = format!("{change:?}");
        assert_eq!(operate(control, rows, change), Ok(()), "{shown}");
    }
}

/// The names of virtual hosts with their ids.
fn vhosts(control: &Control) -> Vec<(u32, String)> {
    control.topology().vhosts().map(|(id, name)| (id.0, name.to_string())).collect()
}

fn may_read(topology: &Topology, user: &str, vhost: &str, queue: &str) -> bool {
    let vhost = topology.vhost_id(vhost).unwrap();
    let permissions = topology.permissions(user, vhost);
    permissions.is_some_and(|to| to.permits(Access::Read, ResourceKind::Queue, queue))
}

#[test]
fn users_and_permissions_survive_a_restart() {
    let (mut control, mut rows) = persistent();
    let changes = [
        AdminRequest::PutUser(user("u")),
        AdminRequest::PutUser(user("gone")),
        add_vhost("v"),
        permit("u", "v", reader("first")),
        permit("u", "v", reader("mine")),
        permit("u", "/", Permissions::full()),
        permit("gone", "v", Permissions::full()),
        forbid("u", "/"),
        remove_user("gone"),
        AdminRequest::PutUser(User { loopback_only: true, tags: Vec::new(), ..user("u") }),
    ];
    do_all(&mut control, &mut rows, changes);
    for _ in 0..2 {
        let (recovered, rejected) = rows.recovered();
        assert_eq!(rejected, []);
        let topology = recovered.topology();
        let found = topology.user("u").unwrap();
        assert!(found.authenticate(b"u") && !found.authenticate(b"guest"));
        assert!(found.loopback_only && found.tags.is_empty(), "as it was put last");
        assert!(may_read(topology, "u", "v", "mine-1") && !may_read(topology, "u", "v", "first-1"));
        assert!(topology.permissions("u", VHOST).is_none());
        assert!(topology.user("gone").is_none());
        assert_eq!(topology.permissions_of(topology.vhost_id("v").unwrap()).count(), 1);
        assert_eq!(recovered.permission_count, 2, "that of guest is the other one");
        control = recovered;
    }
    assert!(control.poll_durable().is_none(), "nothing is stored twice");
}

#[test]
fn an_operator_is_answered_when_the_change_is_durable_and_applied() {
    let (mut control, _) = persistent();
    control.handle(request(AdminRequest::PutUser(user("u"))));
    control.finish_turn();
    assert!(control.poll_delta().is_none() && control.poll_admin_answer().is_none());
    let (through, changes) = control.poll_durable().unwrap();
    assert_eq!(changes, [DurableChange::PutUser(Arc::new(user("u")))]);
    assert!(control.poll_delta().is_none(), "a commit under way is no promise");
    control.made_durable(through);
    let sequence = control.poll_delta().unwrap().sequence;
    for shard in 0..SHARDS {
        assert!(control.poll_admin_answer().is_none(), "shard {shard} does not know the user");
        control.handle(Request::Applied { shard: ShardId(shard), sequence });
    }
    assert_eq!(control.poll_admin_answer().unwrap().outcome, Ok(()));
    assert!(control.poll_answer().is_none());
}

#[test]
fn what_is_there_already_changes_nothing() {
    let (mut control, mut rows) = persistent();
    let changes = || {
        [
            add_vhost("v"),
            AdminRequest::PutUser(user("u")),
            permit("u", "v", reader("a")),
            forbid("u", "/"),
        ]
    };
    do_all(&mut control, &mut rows, changes());
    let sequence = control.topology().sequence();
    do_all(&mut control, &mut rows, changes());
    assert_eq!(control.topology().sequence(), sequence);
}

#[test]
fn ids_of_virtual_hosts_are_never_used_again() {
    let (mut control, mut rows) = persistent();
    do_all(&mut control, &mut rows, [add_vhost("a"), add_vhost("b"), add_vhost("c")]);
    do_all(&mut control, &mut rows, [remove_vhost("c"), remove_vhost("a"), add_vhost("a")]);
    let expected = [(0, "/".to_owned()), (2, "b".to_owned()), (4, "a".to_owned())];
    assert_eq!(vhosts(&control), expected);
    let stale = QueueDeclaration { vhost: VhostId(1), ..queue("q") };
    let refusal = ask(&mut control, Request::DeclareQueue(channel(0, 0, 1), stale));
    assert_eq!(refusal, Err("530 vhost not found".to_owned()));
    // The newest one goes, and the process with it.
    do_all(&mut control, &mut rows, [add_vhost("d"), remove_vhost("d")]);
    let (mut control, _) = rows.recovered();
    assert_eq!(vhosts(&control), expected, "an id outlives the process");
    do_all(&mut control, &mut rows, [add_vhost("e")]);
    assert_eq!(vhosts(&control).last(), Some(&(6, "e".to_owned())));
    // The last id is left alone, for there is none after it.
    rows.0.next_vhost_id = u32::MAX;
    let (mut control, _) = rows.recovered();
    let refusal = operate(&mut control, &mut rows, add_vhost("f")).unwrap_err();
    assert_eq!(refusal.to_string(), "the limit of 4294967295 ids of virtual hosts is reached");
}

#[test]
fn presets_that_an_operator_removed_stay_removed() {
    let (mut control, mut rows) = persistent();
    do_all(&mut control, &mut rows, [remove_user("guest")]);
    let (mut control, rejected) = rows.recovered();
    assert_eq!(rejected, []);
    assert!(control.topology().user("guest").is_none());
    assert_eq!(control.topology().permissions_of(VHOST).count(), 0);
    // A user of the same name is another one.
    do_all(&mut control, &mut rows, [AdminRequest::PutUser(user("guest"))]);
    let (mut control, _) = rows.recovered();
    assert!(!control.topology().user("guest").unwrap().authenticate(b"wrong"));
    assert!(control.topology().permissions("guest", VHOST).is_none());
    do_all(&mut control, &mut rows, [remove_vhost("/"), remove_user("guest")]);
    let (control, rejected) = rows.recovered();
    assert_eq!((vhosts(&control), rejected), (vec![], vec![]));
    assert_eq!(control.topology().users().count(), 0);
}

/// Of a store from before users and ids were stored; there is always `/`, and no row of it.
#[test]
fn an_old_store_gets_what_a_new_broker_has() {
    let (mut control, mut rows) = persistent();
    do_all(&mut control, &mut rows, [add_vhost("v")]);
    let vhost = control.topology().vhost_id("v").unwrap();
    let durable = QueueDeclaration { vhost, durable: true, ..queue("q") };
    control.handle(Request::DeclareQueue(channel(0, 0, 1), durable));
    rows.settle(&mut control);
    let stored = rows.0.clone();
    rows.0.next_vhost_id = 0;
    rows.0.users.clear();
    rows.0.permissions.clear();
    rows.0.vhosts.retain(|row| row.name != "/");
    rows.0.vhosts[0].id = None;
    let (mut control, rejected) = rows.recovered();
    assert_eq!(rejected, []);
    assert_eq!(vhosts(&control), [(0, "/".to_owned()), (1, "v".to_owned())]);
    assert!(control.topology().user("guest").unwrap().authenticate(b"guest"));
    assert!(control.topology().queue(vhost, b"q").is_some());
    rows.settle(&mut control);
    assert_eq!(rows.0, stored, "from now on all of it is stored");
    let (mut control, _) = rows.recovered();
    assert!(control.poll_durable().is_none());
}

#[test]
fn presets_are_stored_before_any_shard_applies_a_change() {
    let (mut control, _) = Rows::default().recovered();
    control.handle(request(add_vhost("v")));
    control.finish_turn();
    assert!(control.poll_delta().is_none());
    let (through, changes) = control.poll_durable().unwrap();
    assert!(matches!(&changes[0], DurableChange::PutVhost { next_vhost_id: 1, .. }));
    let kinds = changes.iter().map(|change| match change {
        DurableChange::PutVhost { vhost, .. } => vhost.name.to_string(),
        DurableChange::PutUser(user) => user.name.to_string(),
        DurableChange::PutPermissions(to) => format!("{} in {}", to.user, to.vhost),
        other => format!("{other:?}"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["/", "guest", "guest in /", "v"]);
    control.made_durable(through);
    assert!(control.poll_delta().is_some());
}

/// A virtual host with one of everything that can be in it.
fn filled() -> (Control, Rows) {
    let (mut control, mut rows) = persistent();
    let changes = [add_vhost("v"), AdminRequest::PutUser(user("u"))];
    do_all(&mut control, &mut rows, changes);
    do_all(&mut control, &mut rows, [permit("u", "v", reader("a")), permit("u", "/", reader("a"))]);
    let vhost = control.topology().vhost_id("v").unwrap();
    let owner = channel(1, 4, 1).owner;
    let declared = [
        QueueDeclaration { vhost, durable: true, ..queue("durable") },
        QueueDeclaration { vhost, ..queue("transient") },
        QueueDeclaration { vhost, exclusive: Some(owner), ..queue("exclusive") },
        QueueDeclaration { durable: true, ..queue("elsewhere") },
    ];
    for declaration in declared {
        control.handle(Request::DeclareQueue(channel(0, 0, 1), declaration));
    }
    for name in ["x", "y"] {
        let (durable, auto_delete) = (name == "x", name == "y");
        let declaration = ExchangeDeclaration { vhost, durable, auto_delete, ..exchange(name) };
        control.handle(Request::DeclareExchange(channel(0, 0, 1), declaration));
    }
    let bound = [
        binding("amq.topic", "durable", "a.*"),
        binding("x", "durable", "b.#"),
        binding("y", "transient", "#"),
        BindingChange { owner, ..binding("amq.fanout", "exclusive", "") },
        exchange_binding("x", "y", "c.*"),
        exchange_binding("y", "x", "d.*"),
    ];
    for change in bound {
        control.handle(Request::Bind(channel(0, 0, 1), BindingChange { vhost, ..change }));
    }
    control.handle(Request::Bind(channel(0, 0, 1), binding("amq.topic", "elsewhere", "a.*")));
    let answers = rows.settle(&mut control);
    assert!(answers.iter().all(|answer| answer.outcome.is_ok()), "{answers:?}");
    (control, rows)
}

#[test]
fn a_removed_virtual_host_takes_everything_in_it() {
    let (mut control, mut rows) = filled();
    let mut replica = control.topology().clone();
    let vhost = replica.vhost_id("v").unwrap();
    let queues: BTreeSet<_> = replica.queues_of(vhost).collect();
    assert_eq!((queues.len(), control.exclusive_queues.len()), (3, 1));

    control.handle(request(remove_vhost("v")));
    control.finish_turn();
    assert!(control.poll_delta().is_none(), "not even of what is transient before it is stored");
    let (through, changes) = control.poll_durable().unwrap();
    assert!(control.poll_durable().is_none(), "one commit, so all of it or nothing");
    for change in changes {
        rows.apply(change);
    }
    control.made_durable(through);
    let mut deleted = BTreeSet::new();
    while let Some(delta) = control.poll_delta() {
        if let Change::QueueDeleted { queue, .. } = delta.change {
            deleted.insert(queue);
        }
        replica.apply(&delta);
    }
    assert_eq!(deleted, queues, "the home of each queue hears of it");

    for topology in [control.topology(), &replica] {
        assert_eq!((topology.vhost_id("v"), topology.vhost_name(vhost)), (None, None));
        assert_eq!(topology.exchanges_of(vhost).count(), 0);
        assert!(topology.permissions("u", vhost).is_none());
        assert!(topology.permissions("u", VHOST).is_some());
        let left: Vec<_> = topology.queues().map(|queue| queue.name.to_string()).collect();
        assert_eq!(left, ["elsewhere"]);
        assert_eq!(topology.exchanges().count(), presets::EXCHANGES.len());
    }
    assert_eq!((control.binding_count(), control.exclusive_queues.len()), (1, 0));
    assert_eq!(control.permission_count, 2);
    assert_eq!(rows.0.vhosts.len(), 1);
    assert_eq!((rows.0.queues.len(), rows.0.bindings.len(), rows.0.exchanges.len()), (1, 1, 0));
    assert_eq!(rows.0.permissions.len(), 2);
    settle(&mut control);
    assert_eq!(control.poll_admin_answer().unwrap().outcome, Ok(()));
    // Its slots are free again: what comes next fits between.
    do_all(&mut control, &mut rows, [add_vhost("w")]);
    let slots: Vec<_> = control.topology().exchanges().map(|exchange| exchange.id.slot).collect();
    assert_eq!(slots, (0..14).collect::<Vec<_>>());
    let (recovered, rejected) = rows.recovered();
    assert_eq!(rejected, []);
    assert_eq!(vhosts(&recovered), [(0, "/".to_owned()), (2, "w".to_owned())]);
}

#[test]
fn a_crash_before_the_commit_leaves_a_virtual_host_as_it_was() {
    let (mut control, rows) = filled();
    control.handle(request(remove_vhost("v")));
    control.finish_turn();
    assert!(control.poll_durable().is_some());
    let (recovered, rejected) = rows.recovered();
    assert_eq!(rejected, []);
    let vhost = recovered.topology().vhost_id("v").unwrap();
    let queues: Vec<_> = recovered.topology().queues_of(vhost).collect();
    assert_eq!((queues.len(), recovered.binding_count()), (1, 3), "what is durable");
    assert!(recovered.topology().permissions("u", vhost).is_some());
    let x: Option<&Exchange> = recovered.topology().exchange(vhost, b"x");
    assert!(x.is_some());
}

#[test]
fn refusals_name_what_is_wrong() {
    let (mut control, mut rows) = persistent();
    let long = "n".repeat(256);
    let tagged = |tags| AdminRequest::PutUser(User { tags, ..user("u") });
    let cases = [
        (add_vhost(""), "the name of a virtual host must not be empty"),
        (add_vhost(&long), "the name of a virtual host must not be longer than 255 octets"),
        (remove_vhost("v"), "there is no virtual host 'v'"),
        (remove_vhost(""), "there is no virtual host ''"),
        (AdminRequest::PutUser(user("")), "the name of a user must not be empty"),
        (
            AdminRequest::PutUser(user(&long)),
            "the name of a user must not be longer than 255 octets",
        ),
        (tagged(vec![Name::from("")]), "the name of a tag must not be empty"),
        (tagged(vec![Name::from("t"); 65]), "the limit of 64 tags of a user is reached"),
        (remove_user("u"), "there is no user 'u'"),
        (permit("u", "/", Permissions::full()), "there is no user 'u'"),
        (permit("guest", "v", Permissions::full()), "there is no virtual host 'v'"),
        (forbid("u", "/"), "there is no user 'u'"),
        (forbid("guest", "v"), "there is no virtual host 'v'"),
    ];
    let sequence = control.topology().sequence();
    for (change, expected) in cases {
        let refusal = operate(&mut control, &mut rows, change).unwrap_err();
        assert_eq!(refusal.to_string(), expected);
    }
    assert_eq!(control.topology().sequence(), sequence);
    do_all(&mut control, &mut rows, [add_vhost(&long[..255])]);
}

#[test]
fn what_does_not_fit_is_not_recovered_and_stays_stored() {
    let (mut control, mut rows) = persistent();
    let changes = [add_vhost("a"), add_vhost("b"), AdminRequest::PutUser(user("u"))];
    do_all(&mut control, &mut rows, changes);
    do_all(&mut control, &mut rows, [permit("u", "a", reader("a")), permit("u", "/", reader("a"))]);
    let PermissionsDefinition { read, .. } = &mut rows.0.permissions[1];
    read.replace_range(.., "(");
    rows.0.vhosts[2].id = Some(VhostId(1));
    rows.0.users.push(Arc::new(user("")));
    rows.0.permissions.push(PermissionsDefinition::of(
        &Name::from("stranger"),
        &Name::from("/"),
        &Permissions::full(),
    ));
    let (mut recovered, rejected) = rows.recovered();
    let texts: Vec<_> = rejected.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "virtual host 'b': another one has its id 1");
    assert_eq!(texts[1], "user '': the name of a user must not be empty");
    assert!(texts[2].starts_with("permissions of user 'u' in vhost 'a': \"(\" is not a usable"));
    assert_eq!(texts[3], "permissions of user 'stranger' in vhost '/': there is no such user");
    assert_eq!(texts.len(), 4, "{texts:?}");
    assert!(recovered.poll_durable().is_none(), "nothing of it is overwritten");
}

#[derive(Clone, Debug)]
enum Deed {
    Ask(AdminRequest),
    /// The process dies with what is not stored.
    Crash,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let both = (name.clone(), name.clone());
    let deed = prop_oneof![
        name.clone().prop_map(|name| Deed::Ask(add_vhost(name))),
        name.clone().prop_map(|name| Deed::Ask(remove_vhost(name))),
        (name.clone(), any::<bool>()).prop_map(|(name, loopback_only)| {
            Deed::Ask(AdminRequest::PutUser(User { loopback_only, ..user(name) }))
        }),
        name.prop_map(|name| Deed::Ask(remove_user(name))),
        (both.clone(), 0..3_u8).prop_map(|((user, vhost), prefix)| {
            Deed::Ask(permit(user, vhost, reader(&prefix.to_string())))
        }),
        both.prop_map(|(user, vhost)| Deed::Ask(forbid(user, vhost))),
        Just(Deed::Crash),
    ];
    prop::collection::vec(deed, 1..60)
}

/// What operators have made, in maps.
#[derive(Debug, Default, PartialEq)]
struct Model {
    vhosts: BTreeMap<String, u32>,
    users: BTreeMap<String, User>,
    permissions: BTreeMap<(String, String), Permissions>,
}

impl Model {
    /// Whether the change is refused.
    fn apply(&mut self, change: AdminRequest, next_vhost_id: &mut u32) -> bool {
        match change {
            AdminRequest::AddVhost(name) => {
                self.vhosts.entry(name.to_string()).or_insert_with(|| {
                    *next_vhost_id += 1;
                    *next_vhost_id - 1
                });
                false
            }
            AdminRequest::RemoveVhost(name) => {
                self.permissions.retain(|(_, vhost), _| name != vhost.as_str());
                self.vhosts.remove(name.as_str()).is_none()
            }
            AdminRequest::PutUser(user) => {
                self.users.insert(user.name.to_string(), user);
                false
            }
            AdminRequest::RemoveUser(name) => {
                self.permissions.retain(|(user, _), _| name != user.as_str());
                self.users.remove(name.as_str()).is_none()
            }
            AdminRequest::PutPermissions { user, vhost, permissions } => {
                let refused = self.refuses(&user, &vhost);
                if !refused {
                    self.permissions.insert((user.to_string(), vhost.to_string()), permissions);
                }
                refused
            }
            AdminRequest::ClearPermissions { user, vhost } => {
                let refused = self.refuses(&user, &vhost);
                self.permissions.remove(&(user.to_string(), vhost.to_string()));
                refused
            }
        }
    }

    fn refuses(&self, user: &Name, vhost: &Name) -> bool {
        !self.users.contains_key(user.as_str()) || !self.vhosts.contains_key(vhost.as_str())
    }

    fn of(topology: &Topology) -> Self {
        let mut model = Self::default();
        for (id, vhost) in topology.vhosts() {
            model.vhosts.insert(vhost.to_string(), id.0);
            for (user, permissions) in topology.permissions_of(id) {
                let key = (user.to_string(), vhost.to_string());
                model.permissions.insert(key, Permissions::clone(permissions));
            }
        }
        let users = topology.users().map(|user| (user.name.to_string(), User::clone(user)));
        model.users.extend(users);
        model
    }
}

proptest! {
    #[test]
    fn operators_get_what_a_naive_model_has(deeds in deeds()) {
        let (mut control, mut rows) = persistent();
        let mut model = Model::of(control.topology());
        let (mut replica, mut next_vhost_id) = (control.topology().clone(), 1);
        for deed in deeds {
            match deed {
                Deed::Ask(change) => {
                    let refused = model.apply(change.clone(), &mut next_vhost_id);
                    control.handle(request(change));
                    control.finish_turn();
                    while let Some((through, changes)) = control.poll_durable() {
                        for change in changes {
                            rows.apply(change);
                        }
                        control.made_durable(through);
                    }
                    let (deltas, _) = settle(&mut control);
                    for delta in &deltas {
                        replica.apply(delta);
                    }
                    let answer = control.poll_admin_answer().unwrap();
                    prop_assert_eq!(answer.outcome.is_err(), refused, "{:?}", answer);
                }
                Deed::Crash => {
                    // What is asked last is not stored.
                    control.handle(request(add_vhost("lost")));
                    control.finish_turn();
                    let (recovered, rejected) = rows.recovered();
                    prop_assert_eq!(rejected, vec![]);
                    control = recovered;
                    replica = control.topology().clone();
                }
            }
            prop_assert_eq!(&Model::of(control.topology()), &model);
            prop_assert_eq!(&Model::of(&replica), &model);
            prop_assert_eq!(control.permission_count, model.permissions.len());
        }
    }
}
