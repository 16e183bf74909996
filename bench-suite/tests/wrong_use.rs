//! Wrong use of the real binary: an error that says who is to blame and what to do, and the exit
//! code that scripts rely on.

#![allow(clippy::unwrap_used, reason = "a test that cannot start the binary has failed")]

use std::net::TcpListener;
use std::process::{Command, Output};

/// Exit codes: not measured, wrong usage.
const FAILED: i32 = 1;
const WRONG_USAGE: i32 = 2;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leveret-bench")).args(arguments).output().unwrap()
}

/// Runs it and checks that it ends with `code` and that its error names each of `words`.
fn refuses(arguments: &[&str], code: i32, words: &[&str]) {
    let output = bench(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{arguments:?} does not name `{word}`: {error}");
    }
}

/// The arguments of a run against `broker`, with `more`.
fn run<'a>(broker: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["run", "throughput-16b", "--no-floor", "--broker", broker];
    arguments.extend(more);
    arguments
}

/// An address that nobody listens on: it was free a moment ago.
fn deaf_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let broker = format!("mine=amqp://{}", deaf_address());
    refuses(&run(&broker, &[]), FAILED, &["mine", "refused"]);
}

#[test]
fn a_process_that_is_not_there_is_named() {
    // Above the highest number that Linux gives.
    let broker = format!("mine=amqp://{},pid=4194305", deaf_address());
    refuses(&run(&broker, &[]), FAILED, &["mine", "4194305"]);
}

#[test]
fn only_loopback_is_put_under_load_unasked() {
    refuses(&run("far=amqp://192.0.2.1:5672", &[]), WRONG_USAGE, &["192.0.2.1", "--allow-remote"]);
}

#[test]
fn cores_that_are_not_there_are_refused() {
    let broker = format!("mine=amqp://{}", deaf_address());
    refuses(&run(&broker, &["--load-core", "4000"]), FAILED, &["4000"]);
}

#[test]
fn scenarios_that_are_not_there_are_refused() {
    let broker = format!("mine=amqp://{}", deaf_address());
    let arguments = ["run", "througput-*", "--broker", &broker];
    refuses(&arguments, WRONG_USAGE, &["througput-*", "leveret-bench list"]);
    let arguments = run(&broker, &["--scenario-file", "no-such.toml"]);
    refuses(&arguments, FAILED, &["no-such.toml"]);
}

#[test]
fn the_command_line_is_checked() {
    refuses(&["run"], WRONG_USAGE, &["--broker"]);
    refuses(&run("mine", &[]), WRONG_USAGE, &["mine"]);
    refuses(&run("mine=amqps://127.0.0.1", &[]), WRONG_USAGE, &["amqps"]);
    refuses(&["limit", "--listen", "0.0.0.0:0"], WRONG_USAGE, &["loopback"]);
    refuses(&["report", "no-such.json"], FAILED, &["no-such.json"]);
}

#[test]
fn the_list_names_every_scenario() {
    let output = bench(&["list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for name in ["throughput-16b", "rpc-reply-queue", "idle-connections"] {
        assert!(text.contains(name), "{text}");
    }
}
