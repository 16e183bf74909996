//! Rows are read back as they were written, and damage is reported and not believed.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use leveret_broker::catalog::name::Name;
use leveret_broker::catalog::object::{BindingTarget, ExchangeKind};
use leveret_broker::control::{
    BindingDefinition, DurableChange, ExchangeDefinition, QueueDefinition, VhostDefinition,
};
use tempfile::TempDir;

use super::row::{self, BINDINGS, EXCHANGES, FORMAT, QUEUES, STORE, STORE_ID};
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

/// A directory with one object of each kind and more.
fn filled() -> TempDir {
    let directory = directory();
    let (metadata, loaded) = open(&directory);
    assert!(loaded.fresh);
    let second = VhostDefinition { name: Name::from("v") };
    let kinds = [
        ("d", ExchangeKind::Direct),
        ("f", ExchangeKind::Fanout),
        ("t", ExchangeKind::Topic),
        ("h", ExchangeKind::Headers),
    ];
    let mut changes = vec![DurableChange::PutVhost(second)];
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
    assert_eq!(found.vhosts, [VhostDefinition { name: Name::from("v") }]);
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
