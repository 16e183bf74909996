//! Rows are read back as they were written, and damage is reported and not believed.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use leveret_broker::catalog::name::Name;
use leveret_broker::catalog::object::{BindingTarget, ExchangeKind};
use leveret_broker::catalog::permission::Permissions;
use leveret_broker::catalog::user::{PasswordHash, User};
use leveret_broker::control::{
    BindingDefinition, Control, DurableChange, ExchangeDefinition, PermissionsDefinition,
    QueueDefinition, VhostDefinition,
};
use leveret_broker::id::VhostId;
use tempfile::TempDir;

use super::row::{
    self, BINDINGS, EXCHANGES, FORMAT, NEXT_VHOST_ID, PERMISSIONS, QUEUES, STORE, STORE_ID, USERS,
    VHOST_IDS, VHOSTS,
};
use super::*;

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(directory: &TempDir) -> (Metadata, Loaded) {
    Metadata::open(directory.path(), 2).unwrap()
}

fn refusal(directory: &Path) -> String {
    Metadata::open(directory, 2).err().expect("it is not opened").to_string()
}

fn queue(name: &str, log_id: u64) -> DurableChange {
    let queue = QueueDefinition {
        vhost: Name::from("/"),
        name: Name::from(name),
        log_id,
        home: 1,
        auto_delete: log_id.is_multiple_of(2),
        arguments: Bytes::from_static(b"\x01at\x01"),
    };
    DurableChange::PutQueue { queue, next_log_id: log_id + 1 }
}

fn exchange(name: &str, kind: ExchangeKind) -> ExchangeDefinition {
    ExchangeDefinition {
        vhost: Name::from("v"),
        name: Name::from(name),
        kind,
        auto_delete: kind == ExchangeKind::Topic,
        internal: kind == ExchangeKind::Fanout,
        arguments: Bytes::from_static(b"\x01at\x00"),
    }
}

fn binding(destination: &str, target: BindingTarget, key: &'static [u8]) -> BindingDefinition {
    BindingDefinition {
        vhost: Name::from("/"),
        source: Name::from("amq.topic"),
        destination: Name::from(destination),
        target,
        key: Bytes::from_static(key),
        arguments: Bytes::from_static(b"\x01bt\x01"),
    }
}

fn vhost(name: &str, id: u32) -> DurableChange {
    let vhost = VhostDefinition { name: Name::from(name), id: Some(VhostId(id)) };
    DurableChange::PutVhost { vhost, next_vhost_id: id + 1 }
}

fn user(name: &str) -> User {
    let has_password = name != "locked";
    User {
        name: Name::from(name),
        password: has_password.then(|| PasswordHash::new([1, 2, 3, 4], name.as_bytes())),
        tags: vec![Name::from("monitoring"), Name::from("ü")],
        loopback_only: name == "local",
    }
}

fn permissions(user: &str, vhost: &str, read: &str) -> PermissionsDefinition {
    let permissions = Permissions::new("^c", "", read).unwrap();
    PermissionsDefinition::of(&Name::from(user), &Name::from(vhost), &permissions)
}

/// A directory with one object of each kind and more.
fn filled() -> TempDir {
    let directory = directory();
    let (metadata, loaded) = open(&directory);
    assert!(loaded.fresh);
    let kinds = [
        ("d", ExchangeKind::Direct),
        ("f", ExchangeKind::Fanout),
        ("t", ExchangeKind::Topic),
        ("h", ExchangeKind::Headers),
    ];
    let mut changes = vec![vhost("/", 0), vhost("v", 1)];
    changes.extend(["local", "locked"].map(|name| DurableChange::PutUser(user(name).into())));
    let permitted = [("local", "/"), ("locked", "/"), ("local", "v")];
    changes.extend(
        permitted.map(|(user, vhost)| {
            DurableChange::PutPermissions(permissions(user, vhost, "^mine-.*$"))
        }),
    );
    changes.extend(kinds.map(|(name, kind)| DurableChange::PutExchange(exchange(name, kind))));
    changes.extend([queue("a", 1), queue("b", 2), queue("c", 3)]);
    for destination in ["a", "b"] {
        // Any octets may be a binding key, even if they would be another key with different part
        // boundaries.
        for key in [&b"\xff\x00#"[..], b""] {
            let to_queue = binding(destination, BindingTarget::Queue, key);
            let to_exchange = binding(destination, BindingTarget::Exchange, key);
            changes.extend([to_queue, to_exchange].map(DurableChange::PutBinding));
        }
    }
    metadata.commit(&changes).unwrap();
    directory
}

#[test]
fn what_was_put_is_there_and_what_was_dropped_is_not() {
    let directory = filled();
    let (metadata, loaded) = open(&directory);
    assert!(!loaded.fresh && loaded.damages.is_empty());
    assert_eq!(loaded.shards_before, 2);
    let found = &loaded.definitions;
    assert_eq!(found.next_log_id, 4);
    let vhosts = found.vhosts.iter().map(|vhost| (&*vhost.name, vhost.id.unwrap().0));
    assert_eq!(vhosts.collect::<Vec<_>>(), [("/", 0), ("v", 1)]);
    assert_eq!(found.next_vhost_id, 2);
    assert_eq!((found.exchanges.len(), found.queues.len(), found.bindings.len()), (4, 3, 8));
    assert!(found.exchanges.contains(&exchange("t", ExchangeKind::Topic)));
    assert!(found.exchanges.contains(&exchange("f", ExchangeKind::Fanout)));
    let DurableChange::PutQueue { queue: expected, .. } = queue("b", 2) else { unreachable!() };
    assert_eq!(found.queues[1], expected);
    let dropped = binding("a", BindingTarget::Exchange, b"");
    assert!(found.bindings.contains(&dropped));
    let (vhost, name) = (Name::from("/"), Name::from("c"));
    metadata
        .commit(&[
            DurableChange::DropBinding(dropped.clone()),
            DurableChange::DropQueue { vhost, name },
            DurableChange::DropExchange { vhost: Name::from("v"), name: Name::from("t") },
            // The later change in a commit wins.
            queue("d", 4),
            DurableChange::DropQueue { vhost: Name::from("/"), name: Name::from("d") },
        ])
        .unwrap();
    metadata.set_shards(7).unwrap();
    let store_id = loaded.store_id;
    drop(metadata);
    let (_metadata, loaded) = open(&directory);
    let found = &loaded.definitions;
    assert_eq!((found.exchanges.len(), found.queues.len(), found.bindings.len()), (3, 2, 7));
    assert!(!found.bindings.contains(&dropped));
    assert_eq!((found.next_log_id, loaded.shards_before), (5, 7), "log ids are not used twice");
    assert_eq!(loaded.store_id, store_id);
    assert_ne!(store_id, open(&self::directory()).1.store_id);
}

/// Overwrites the value of a key, or inserts it.
fn overwrite(
    metadata: &Metadata,
    table: redb::TableDefinition<&[u8], &[u8]>,
    key: &[u8],
    to: &[u8],
) {
    let transaction = metadata.database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(key, to).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_damaged_row_costs_itself_alone() {
    let directory = filled();
    let (metadata, _) = open(&directory);
    let queue_key = row::key(&[b"/", b"b"]);
    overwrite(&metadata, QUEUES, &queue_key, b"\x02\x01\x00\x00abcd");
    overwrite(&metadata, QUEUES, b"no key", b"short");
    overwrite(&metadata, EXCHANGES, &row::key(&[b"v", b"h"]), b"");
    let unknown_kind = row::key(&[b"v", b"d"]);
    let newer = row::seal(&unknown_kind, &(9_u8, 0_u8, Vec::<u8>::new())).unwrap();
    overwrite(&metadata, EXCHANGES, &unknown_kind, &newer);
    let binding_key = row::binding_key(&binding("a", BindingTarget::Queue, b""));
    // Valid on its own, but of another key.
    let foreign = row::seal(b"elsewhere", &()).unwrap();
    overwrite(&metadata, BINDINGS, &binding_key, &foreign);
    drop(metadata);
    let (_metadata, loaded) = open(&directory);
    let found = &loaded.definitions;
    assert_eq!((found.exchanges.len(), found.queues.len(), found.bindings.len()), (2, 2, 7));
    assert_eq!(found.quarantined, [(Name::from("/"), Name::from("b"))]);
    assert_eq!(loaded.damages.len(), 5, "{:?}", loaded.damages);
    let report = "the row of queue 'b' in vhost '/' in metadata.redb is not used: its checksum \
                  does not fit";
    assert!(loaded.damages.iter().any(|damage| damage == report), "{:?}", loaded.damages);
    assert!(loaded.damages.iter().any(|damage| damage.contains("perhaps of a newer broker")));
}

#[test]
fn users_and_virtual_hosts_come_and_go() {
    let directory = filled();
    let (metadata, loaded) = open(&directory);
    let found = loaded.definitions;
    let users: Vec<_> = found.users.iter().map(|user| User::clone(user)).collect();
    assert_eq!(users, [user("local"), user("locked")]);
    assert_eq!(found.permissions.len(), 3);
    assert!(found.permissions.contains(&permissions("local", "v", "^mine-.*$")));
    let (mut control, rejected) = Control::recover(found, 2, 1);
    // The other ends of its bindings are not there.
    assert!(rejected.iter().all(|lost| lost.what.starts_with("binding")), "{rejected:?}");
    assert!(control.poll_durable().is_none(), "a restart stores nothing");
    let topology = control.topology();
    assert!(topology.user("guest").is_none(), "presets are for a broker that has no users yet");
    assert!(topology.user("local").unwrap().authenticate(b"local"));
    assert!(!topology.user("locked").unwrap().authenticate(b"locked"));
    let name = Name::from;
    metadata
        .commit(&[
            DurableChange::PutUser(User { loopback_only: true, ..user("locked") }.into()),
            DurableChange::DropUser { name: name("local") },
            DurableChange::DropPermissions { user: name("local"), vhost: name("/") },
            DurableChange::DropPermissions { user: name("local"), vhost: name("v") },
            DurableChange::PutPermissions(permissions("locked", "/", "another")),
            DurableChange::DropVhost { name: name("v") },
            vhost("w", 2),
            DurableChange::DropVhost { name: name("w") },
        ])
        .unwrap();
    drop(metadata);
    let found = open(&directory).1.definitions;
    let users: Vec<_> = found.users.iter().map(|user| User::clone(user)).collect();
    assert_eq!(users, [User { loopback_only: true, ..user("locked") }]);
    assert_eq!(found.permissions, [permissions("locked", "/", "another")]);
    assert_eq!((found.vhosts.len(), found.next_vhost_id), (1, 3), "ids are not used twice");
}

/// A database as the broker wrote it before it stored users.
#[test]
fn a_database_of_format_1_0_is_read_and_becomes_one_of_1_1() {
    let directory = filled();
    let (metadata, _) = open(&directory);
    let transaction = metadata.database.begin_write().unwrap();
    for table in [VHOST_IDS, USERS, PERMISSIONS] {
        assert!(transaction.delete_table(table).unwrap());
    }
    let mut store = transaction.open_table(STORE).unwrap();
    store.remove(NEXT_VHOST_ID).unwrap();
    store.insert(FORMAT, &*row::seal(FORMAT, &(1_u16, 0_u16)).unwrap()).unwrap();
    drop(store);
    let mut vhosts = transaction.open_table(VHOSTS).unwrap();
    vhosts.remove(&*row::key(&[b"/"])).unwrap();
    drop(vhosts);
    transaction.commit().unwrap();
    drop(metadata);

    let peeked = Metadata::peek(directory.path()).unwrap();
    assert_eq!(peeked.format, (1, 0));
    let (metadata, loaded) = open(&directory);
    assert_eq!(loaded.damages, Vec::<String>::new());
    assert_eq!(peeked.definitions, loaded.definitions);
    let found = loaded.definitions;
    assert_eq!((found.next_vhost_id, found.users.len(), found.queues.len()), (0, 0, 3));
    assert_eq!(found.vhosts, [VhostDefinition { name: Name::from("v"), id: None }]);
    let (mut control, _) = Control::recover(found, 2, 1);
    let (_, changes) = control.poll_durable().unwrap();
    metadata.commit(&changes).unwrap();
    drop(metadata);
    let loaded = open(&directory).1;
    assert_eq!(loaded.format, (1, 1));
    let found = loaded.definitions;
    assert!(found.users.iter().any(|user| user.name == "guest" && user.authenticate(b"guest")));
    assert_eq!((found.vhosts.len(), found.permissions.len()), (2, 1));
    assert_eq!((found.next_vhost_id, found.vhosts[1].id), (2, Some(VhostId(1))));
}

#[test]
fn a_damaged_user_cannot_log_in_and_a_damaged_id_is_replaced() {
    let directory = filled();
    let (metadata, _) = open(&directory);
    let local = row::key(&[b"local"]);
    overwrite(&metadata, USERS, &local, b"\x01\x00\x00\x00abcd");
    let unknown = row::key(&[b"locked"]);
    let newer = row::seal(&unknown, &(9_u8, vec![0_u8; 64], 0_u8, Vec::<String>::new())).unwrap();
    overwrite(&metadata, USERS, &unknown, &newer);
    overwrite(&metadata, PERMISSIONS, &row::key(&[b"/", b"local"]), b"short");
    overwrite(&metadata, VHOST_IDS, &row::key(&[b"v"]), b"short");
    drop(metadata);
    let (_metadata, loaded) = open(&directory);
    let found = loaded.definitions;
    assert_eq!((found.users.len(), found.permissions.len()), (0, 2));
    let of = |what: &str, why: &str| format!("the row of {what} in {FILE_NAME} is not used: {why}");
    let checksum = "its checksum does not fit";
    let expected = [
        of("the id of virtual host 'v'", checksum),
        of("user 'local'", checksum),
        of("user 'locked'", "its content is unknown, perhaps of a newer broker"),
        of("the permissions of user 'local' in vhost '/'", checksum),
    ];
    assert_eq!(loaded.damages, expected);
    let (mut control, rejected) = Control::recover(found, 2, 1);
    let of_nobody = rejected.iter().filter(|lost| lost.what.starts_with("permissions of user"));
    assert_eq!(of_nobody.count(), 2, "{rejected:?}");
    assert_eq!(control.topology().vhost_id("v"), Some(VhostId(2)), "never one that was used");
    let (_, changes) = control.poll_durable().unwrap();
    assert_eq!(changes, [vhost("v", 2)]);
}

#[test]
fn another_format_is_refused_and_a_minor_one_is_not() {
    for (fact, value, expected) in [
        (FORMAT, row::seal(FORMAT, &(2_u16, 0_u16)).unwrap(), "it has format 2.0, and this"),
        (STORE_ID, b"sixteen octets and four".to_vec(), "of `store id`, its checksum does not fit"),
    ] {
        let directory = filled();
        let (metadata, _) = open(&directory);
        overwrite(&metadata, STORE, fact, &value);
        drop(metadata);
        let text = refusal(directory.path());
        assert!(text.contains(expected), "{text}");
    }
    let directory = filled();
    let (metadata, _) = open(&directory);
    let minor = row::seal(FORMAT, &(1_u16, 9_u16)).unwrap();
    overwrite(&metadata, STORE, FORMAT, &minor);
    drop(metadata);
    assert_eq!(open(&directory).1.definitions.queues.len(), 3);
}

#[test]
fn logs_without_metadata_are_no_empty_broker() {
    let directory = directory();
    let shard = directory.path().join("shard-0001");
    fs::create_dir(&shard).unwrap();
    fs::write(shard.join("notes.txt"), "").unwrap();
    drop(open(&directory));
    fs::remove_file(directory.path().join(FILE_NAME)).unwrap();
    fs::write(shard.join("0000000001.segment"), "").unwrap();
    let text = refusal(directory.path());
    for part in ["metadata.redb", "it is missing", "0000000001.segment", "Restore the file"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!directory.path().join(FILE_NAME).exists(), "refusing makes nothing");
}

#[test]
fn an_unfinished_database_is_made_anew() {
    let directory = directory();
    fs::write(directory.path().join("metadata.redb.new"), "half of a database").unwrap();
    assert!(open(&directory).1.fresh);
    assert!(!directory.path().join("metadata.redb.new").exists());
}

#[test]
fn a_second_process_gets_an_error() {
    let directory = directory();
    let (_metadata, _) = open(&directory);
    assert!(refusal(directory.path()).contains("another process has it open"));
}

/// Opens a damaged file: either the content is as before, or it is refused properly. `true` if
/// refused.
fn is_refused(octets: &[u8], expected: &Definitions) -> bool {
    let directory = directory();
    let path = directory.path().join(FILE_NAME);
    fs::write(&path, octets).unwrap();
    match Metadata::open(directory.path(), 2) {
        Ok((_, loaded)) => {
            assert_eq!(loaded.definitions, *expected);
            assert!(loaded.damages.is_empty());
            false
        }
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(text.contains(FILE_NAME) && text.contains("Nothing was deleted"), "{text}");
            assert!(path.exists());
            true
        }
    }
}

/// The pages of a database that are not all zeros.
fn pages_in_use(octets: &[u8]) -> Vec<usize> {
    let pages = octets.chunks(4096).enumerate();
    pages
        .filter(|(_, page)| page.iter().any(|octet| *octet != 0))
        .map(|(at, _)| at * 4096)
        .collect()
}

/// Many bits of the header, on which everything depends, and fewer of the rest.
fn places(octets: &[u8]) -> Vec<(usize, u8)> {
    let header = (0..HEADER_SIZE).step_by(3).map(|at| (at, 1 << (at % 8)));
    let samples = pages_in_use(octets).into_iter().flat_map(|page| {
        (page + HEADER_SIZE..page + 4096).step_by(499).map(|at| (at, 1 << (at % 8)))
    });
    header.chain(samples).collect()
}

/// The magic number of redb, flags and two commit slots.
const HEADER_SIZE: usize = 320;

#[test]
fn no_flipped_bit_is_believed() {
    let directory = filled();
    let (metadata, loaded) = open(&directory);
    // Once as a killed process leaves the file, once as a stopped one does.
    let killed = fs::read(directory.path().join(FILE_NAME)).unwrap();
    drop(metadata);
    let stopped = fs::read(directory.path().join(FILE_NAME)).unwrap();
    for sound in [killed, stopped] {
        assert!(!is_refused(&sound, &loaded.definitions));
        let places = places(&sound);
        let flipped = places.iter().map(|(at, bit)| {
            let mut octets = sound.clone();
            octets[*at] ^= bit;
            is_refused(&octets, &loaded.definitions)
        });
        let refused = flipped.filter(|refused| *refused).count();
        assert!(refused > 0);
    }
}

#[test]
fn no_truncated_file_is_believed() {
    let directory = filled();
    let expected = open(&directory).1.definitions;
    let sound = fs::read(directory.path().join(FILE_NAME)).unwrap();
    let mut refused = 0;
    let lengths = (0..sound.len()).step_by(sound.len() / 60).chain(0..8).chain([sound.len() - 1]);
    for length in lengths {
        refused += usize::from(is_refused(&sound[..length], &expected));
    }
    assert!(refused > 50, "{refused}");
}
