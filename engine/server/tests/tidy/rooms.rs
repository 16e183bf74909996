//! The rooms of a crate: which there are, what each is for, and that each uses only those above it.
//!
//! A room is a folder of `src`. The files beside the folders are ground nouns, which every room
//! may use and which use no room. `cargo rooms` prints the tables below.

use std::fs;
use std::path::Path;

use crate::{root, sources};

/// The rooms of one crate, from the ground up.
struct Crate {
    folder: &'static str,
    /// Name and job; the job is also the first line of the room's `mod.rs`.
    rooms: &'static [(&'static str, &'static str)],
}

const CRATES: [Crate; 3] = [BROKER, SERVER, SIMULATOR];

const BROKER: Crate = Crate {
    folder: "engine/broker/src",
    rooms: &[
        ("storage", "Messages in memory and on disk, without an idea of the order of queues."),
        ("catalog", "What can exist, as values: names, exchanges, queues, users, permissions."),
        ("routing", "Which queues a message reaches."),
        ("queue", "One queue as a value: its messages, and who has which of them."),
        ("control", "The one writer of the catalog."),
        ("mesh", "What shards say to each other."),
        ("delivery", "From a delivery to bytes in an outbox: the writing halves of connections."),
        ("home", "The queues that live on this shard."),
        ("client", "The reading halves: handshake, connection, channel."),
        ("shard", "The engine of one core, as a value that the driver holds."),
    ],
};

const SERVER: Crate = Crate {
    folder: "engine/server/src",
    rooms: &[
        ("config", "The options of the broker: name, default, limit and meaning of each."),
        ("data", "The data directory: shards' logs, metadata, and reading both at the start."),
        ("shared_state", "What all threads of one broker share, none of it touched per message."),
        ("watch", "Memory and disk space: limits, and the alarms that block publishers."),
        ("shard", "The threads that drive the shards and the control state."),
        ("http", "The HTTP thread: status, metrics, and `leveret top`, which asks it."),
        ("boot", "The command line, and a broker from its configuration to its end."),
    ],
};

const SIMULATOR: Crate = Crate {
    folder: "engine/simulator/src",
    rooms: &[
        ("disk", "A made-up disk for the log of one shard."),
        ("power", "What a loss of power does to a log: every image it could leave is judged."),
        ("world", "N shards, the control state, and everything around them, driven by one seed."),
        ("client", "A client: real AMQP over a socket of the world."),
        ("workload", "Random clients of a broker, and the oracle that accounts for every message."),
    ],
};

#[test]
fn each_room_uses_only_those_above_it() {
    let mut wrong = Vec::new();
    for Crate { folder, rooms } in &CRATES {
        let level_of = |name: &str| rooms.iter().position(|(room, _)| *room == name);
        for (path, text) in sources() {
            let Ok(inside) = path.strip_prefix(folder) else { continue };
            let file = inside.to_string_lossy().into_owned();
            let room = file.split('/').next().unwrap_or_default();
            if file == "lib.rs" || is_test(&file) {
                continue;
            }
            let level = level_of(room);
            for (number, used) in uses(&file, &text) {
                // A ground noun is on no level: nothing may be above it, and it uses no room.
                let Some(above) = level_of(&used).filter(|other| level.is_none_or(|l| *other > l))
                else {
                    continue;
                };
                wrong.push(format!("{folder}/{file}:{number} uses {}", rooms[above].0));
            }
        }
    }
    assert!(wrong.is_empty(), "rooms are used against their order:\n{}", wrong.join("\n"));
}

#[test]
fn each_room_says_its_job() {
    for Crate { folder, rooms } in &CRATES {
        println!("{folder}");
        for (room, job) in *rooms {
            println!("  {room:10} {job}");
            let file = format!("{folder}/{room}/mod.rs");
            let text = fs::read_to_string(root().join(&file)).unwrap();
            let first = text.lines().next().unwrap_or_default();
            assert_eq!(first, format!("//! {job}"), "the first line of {file}");
        }
        let mut folders: Vec<String> = fs::read_dir(root().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        folders.sort_unstable();
        let mut named: Vec<&str> = rooms.iter().map(|(room, _)| *room).collect();
        named.sort_unstable();
        assert_eq!(folders, named, "the folders of {folder}");
    }
}

/// A module with children is a folder with a `mod.rs` (a target: a `main.rs`), never a file next
/// to a folder: then `ls` shows each thing once.
#[test]
fn modules_have_one_style() {
    let files = sources();
    let is_folder = |folder: &Path| files.iter().any(|(path, _)| path.parent() == Some(folder));
    for (path, _) in &files {
        let beside = path.with_extension("");
        assert!(!is_folder(&beside), "{} stands beside {}/", path.display(), beside.display());
    }
}

/// Whether a file holds tests only: those may look at everything.
fn is_test(file: &str) -> bool {
    file.split(['/', '.']).any(|part| part == "tests" || part.ends_with("_tests"))
}

/// Rooms and files of its own crate that a file names outside of its tests, with the line.
fn uses(file: &str, text: &str) -> Vec<(usize, String)> {
    // The modules that contain what the file defines: so many `super::` lead to the crate's root.
    let depth = file.split('/').count() - usize::from(file.ends_with("/mod.rs"));
    let to_root = "super::".repeat(depth);
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let next = lines.get(index + 1).unwrap_or(&"");
        if *line == "#[cfg(test)]" && next.ends_with('{') {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        for root in ["crate::", to_root.as_str()] {
            for (at, _) in code.match_indices(root) {
                let rest = &code[at + root.len()..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                found.push((index + 1, rest[..end.unwrap_or(rest.len())].to_owned()));
            }
        }
    }
    found
}
