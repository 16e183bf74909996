//! Style that a program can check: layers, sizes, determinism, banned words. See docs/STYLE.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its sources has failed")]

mod rooms;

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Which workspace crates a crate may depend on, outside of tests.
const LAYERS: [(&str, &[&str]); 6] = [
    ("engine/amqp", &[]),
    ("engine/broker", &["leveret-amqp"]),
    ("engine/ring", &[]),
    ("engine/server", &["leveret-amqp", "leveret-broker", "leveret-ring"]),
    ("engine/simulator", &["leveret-amqp", "leveret-broker"]),
    ("bench-suite", &["leveret-amqp", "leveret-ring"]),
];

/// Crates whose runs must repeat exactly, and what they must not name.
const PURE: [&str; 3] = ["engine/amqp/src", "engine/broker/src", "engine/simulator/src"];
const IMPURE: [&str; 10] = [
    "Instant::now",
    "SystemTime",
    "std::thread",
    "std::net",
    "std::fs",
    "std::env",
    "thread_rng",
    "RandomState",
    "HashMap::new",
    "HashSet::new",
];

/// Words that say nothing about what a file or type is.
const EMPTY_NAMES: [&str; 6] = ["manager", "helper", "util", "processor", "handler", "common"];

#[test]
fn dependencies_point_one_way() {
    for (folder, allowed) in LAYERS {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let (_, rest) = manifest.split_once("[dependencies]").unwrap();
        let dependencies = rest.split("\n[").next().unwrap();
        for line in dependencies.lines().filter(|line| line.starts_with("leveret-")) {
            let name = line.split(['.', ' ', '=']).next().unwrap();
            assert!(allowed.contains(&name), "{folder} must not depend on {name}");
        }
    }
}

#[test]
fn only_ring_is_unsafe() {
    for (path, text) in sources() {
        let in_ring = path.starts_with("engine/ring");
        let uses = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|form| code.contains(form))
        });
        assert!(
            in_ring || !uses || path.starts_with("engine/server/tests/tidy"),
            "unsafe in {}",
            path.display()
        );
    }
    for folder in LAYERS.map(|(folder, _)| folder).iter().filter(|f| **f != "engine/ring") {
        for file in ["lib.rs", "main.rs"] {
            let path = root().join(folder).join("src").join(file);
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            // The binary installs its allocator; everything it calls is in the library.
            let forbids = text.contains("#![forbid(unsafe_code)]");
            assert!(forbids, "{} does not forbid unsafe code", path.display());
        }
    }
}

#[test]
fn pure_crates_are_deterministic() {
    for (path, text) in sources() {
        if !PURE.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in IMPURE {
                // The simulator's command line reads its arguments.
                let command = path.ends_with("simulator/src/main.rs") && word == "std::env";
                assert!(
                    command || !code.contains(word),
                    "{}:{}: {word}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{}: {lines} lines", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                long.push(format!("{}:{}: over {COLUMNS_MAX} columns", path.display(), number + 1));
            }
        }
        for (name, start, lines) in functions(&text) {
            if lines > FUNCTION_LINES_MAX {
                long.push(format!("{}:{start}: fn {name} has {lines} lines", path.display()));
            }
        }
    }
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

#[test]
fn names_say_something() {
    for (path, _) in sources() {
        let name = path.file_stem().unwrap().to_string_lossy().to_lowercase();
        for word in EMPTY_NAMES {
            assert!(!name.split('_').any(|part| part == word), "{}", path.display());
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    for (path, text) in sources() {
        if path.starts_with("engine/server/tests/tidy") {
            continue;
        }
        for mark in ["todo!(", "unimplemented!(", "FIXME", "XXX", "#[ignore"] {
            assert!(!text.contains(mark), "{} has {mark}", path.display());
        }
    }
}

/// Name, first line and length in lines of each function, found by indentation: rustfmt puts the
/// closing brace under the line that begins the item.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(at) = code.find("fn ") else { continue };
        let before_is_qualifier = code[..at].split_whitespace().all(|word| {
            word.starts_with("pub") || ["const", "async", "unsafe", "extern"].contains(&word)
        });
        if !before_is_qualifier || code.ends_with(';') {
            continue;
        }
        let name = code[at + 3..].split(['(', '<']).next().unwrap_or_default().to_owned();
        let indent = line.len() - code.len();
        let end = format!("{}}}", " ".repeat(indent));
        let rest = lines[index..].iter();
        let Some(length) = rest.clone().position(|line| *line == end) else {
            continue;
        };
        found.push((name, index + 1, length + 1));
    }
    found
}

/// Every Rust file of the project with its path from the root.
fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for folder in ["engine", "bench-suite"] {
        collect(&root().join(folder), &mut files);
    }
    assert!(files.len() > 100, "the source tree was not found");
    files
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push((path.strip_prefix(root()).unwrap().to_owned(), text));
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}
