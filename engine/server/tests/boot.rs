//! Starting the real binary: what it says, what it refuses, and with which exit code.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

mod process;

use std::net::TcpListener;
use std::process::{Command, Output};

use process::client::Client;
use process::{Broker, Directory, get, run, run_with};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn it_starts_with_defaults_and_carries_a_message() {
    let broker = Broker::start(&[]);
    let banner = broker.banner.join("\n");
    for part in [
        "Leveret ",
        "io_uring features",
        "shard",
        "durability: flush (",
        "leveret-data",
        "next: connect to amqp://guest:guest@127.0.0.1:",
    ] {
        assert!(banner.contains(part), "{part} is missing in\n{banner}");
    }
    assert!(broker.directory.0.join("leveret-data").is_dir());

    let mut client = Client::open(broker.address("amqp"));
    client.open_channel();
    client.declare("hello");
    client.publish("hello", b"Hello World!");
    assert_eq!(client.get("hello").unwrap(), b"Hello World!");
    assert_eq!(client.get("hello"), None);
    let (status, page) = get(broker.address("http"), "/");
    assert!(status.contains("200") && page.contains("Leveret"), "{status}\n{page}");
}

#[test]
fn arguments_without_effect_are_in_the_log_once_per_queue() {
    let mut broker = Broker::start(&["--shards", "2"]);
    let mut client = Client::open(broker.address("amqp"));
    client.open_channel();
    for _ in 0..2 {
        client.declare_with("limited", &[("x-max-length", 3), ("x-message-ttl", 60_000)]);
    }
    client.declare_with("urgent", &[("x-max-priority", 9)]);
    // In the order of the declarations, so what was said about the first is there too.
    broker.wait_for_log("queue \"urgent\" in vhost \"/\"");
    let log = broker.drain_stderr();
    let about: Vec<&str> = log.lines().filter(|line| line.contains("\"limited\"")).collect();
    assert_eq!(about.len(), 1, "{log}");
    assert!(about[0].contains(" WARN ") && about[0].contains("x-message-ttl, x-max-length"));
    assert!(log.contains("have no effect yet: x-max-priority"), "{log}");
}

#[test]
fn publisher_and_consumer_may_be_on_different_shards() {
    let broker = Broker::start(&["--shards", "4"]);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::open(broker.address("amqp"))).collect();
    clients.iter_mut().for_each(Client::open_channel);
    clients[0].declare("shared");
    let large = vec![7; 300_000];
    for number in 0..4_usize {
        clients[number].publish("shared", &large[number..]);
        // The queue lives on one shard; what one client has published there, another one finds
        // as soon as it has arrived.
        let body = (0..1_000).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            clients[(number + 1) % 4].get("shared")
        });
        assert_eq!(body.unwrap().len(), large.len() - number);
    }
    let (_, top) = get(broker.address("http"), "/api/top");
    let ones = top.matches("\"connections\":1").count();
    assert_eq!(ones, 4, "one connection on each shard: {top}");
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_happens() {
    let directory = Directory::new();
    let unknown = directory.file("unknown.toml", "shards = 1\nhartbeat_s = 3\n");
    let limit = directory.file("limit.toml", "frame_max_bytes = 12\n");
    let level = directory.file("level.toml", "log = 'warm'\n");
    let cases = [
        (vec!["--config", unknown.to_str().unwrap()], "hartbeat_s"),
        (vec!["--config", limit.to_str().unwrap()], "8192 to 16777216"),
        (vec!["--config", level.to_str().unwrap()], "`warm` is not a level"),
        (vec!["--config", "missing.toml"], "missing.toml"),
        (vec!["serve", "--shards", "0"], "1 to 1024"),
        (vec!["--listen", "localhost"], "ADDR:PORT"),
        (vec!["--log", "loud"], "off, error, warn, info, debug or trace"),
        (vec!["--no-such-option"], "--no-such-option"),
    ];
    for (arguments, reason) in cases {
        let output = run(&arguments, &directory);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(reason), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
    assert!(!directory.0.join("leveret-data").exists());
}

#[test]
fn the_configuration_file_is_used_and_the_command_line_wins() {
    let directory = Directory::new();
    let config = "shards = 1\ndata_dir = 'from-file'\nproduct = 'RabbitMQ'\n";
    let config = directory.file("leveret.toml", config);
    let broker = Broker::start(&["--config", config.to_str().unwrap(), "--data-dir", "mine"]);
    assert!(broker.directory.0.join("mine").is_dir());
    assert!(!broker.directory.0.join("from-file").exists());
    assert!(broker.banner.iter().any(|line| line.starts_with("shards: 1 shard on core ")));
}

#[test]
fn check_says_whether_it_could_run() {
    let directory = Directory::new();
    let good = run(&["check"], &directory);
    assert_eq!(good.status.code(), Some(0), "{}", stdout(&good));
    for part in ["kernel: Linux", "multishot receive", "cores:", "open files:", "can run here"] {
        assert!(stdout(&good).contains(part), "{part} is missing in\n{}", stdout(&good));
    }
    let printed = run(&["serve", "--print-config", "--shards", "3"], &directory);
    assert_eq!(printed.status.code(), Some(0));
    let file = directory.file("printed.toml", &stdout(&printed));
    let checked = run(&["check", "--config", file.to_str().unwrap()], &directory);
    assert_eq!(checked.status.code(), Some(0), "{}", stdout(&checked));
    assert!(stdout(&checked).contains("cores: 3 shards"), "{}", stdout(&checked));
    let bad = directory.file("bad.toml", "spin = 1");
    let refused = run(&["check", "--config", bad.to_str().unwrap()], &directory);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stdout(&refused).contains("spin_us"), "{}", stdout(&refused));
    assert!(!directory.0.join("leveret-data").exists(), "check leaves nothing behind");
}

#[test]
fn the_inherited_mask_is_respected() {
    let core = &*first_core();
    let mut broker = Broker::start_with(on_core(core), &[]);
    let expected = format!("shards: 1 shard on core {core}; ");
    assert!(broker.banner.iter().any(|line| line.starts_with(&expected)), "{:?}", broker.banner);
    assert!(!broker.drain_stderr().contains("WARN"));

    let mut crowded = Broker::start_with(on_core(core), &["--shards", "3"]);
    let expected = format!("shards: 3 shards on core {core}, shared; ");
    assert!(crowded.banner.iter().any(|line| line.starts_with(&expected)), "{:?}", crowded.banner);
    crowded.wait_for_log("more shards than cores");
    Client::open(crowded.address("amqp")).open_channel();
}

/// A core that this process may use.
fn first_core() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    allowed.unwrap().trim().split([',', '-']).next().unwrap().to_owned()
}

/// Starts the binary where it may use one core.
fn on_core(core: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, env!("CARGO_BIN_EXE_leveret")]);
    command
}

#[test]
fn levels_may_be_named_as_rabbitmq_does() {
    let core = first_core();
    for (level, is_said) in [("warning", true), ("critical", false), ("none", false)] {
        let arguments = ["--shards", "3", "--log", level];
        let mut broker = Broker::start_with(on_core(&core), &arguments);
        if is_said {
            broker.wait_for_log("more shards than cores");
        } else {
            let log = broker.drain_stderr();
            assert!(!log.contains("more shards than cores"), "{level}: {log}");
        }
    }
}

#[test]
fn a_taken_port_is_an_error_with_a_remedy() {
    let directory = Directory::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    for (option, others) in
        [("--listen", ["--http", "--metrics"]), ("--metrics", ["--listen", "--http"])]
    {
        let output = run(&[option, &address, others[0], free, others[1], free], &directory);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(text.contains(&address) && text.contains(option), "{text}");
        assert_eq!(stdout(&output), "", "no banner of a broker that does not run");
    }
}

#[test]
fn an_unusable_data_directory_is_an_error() {
    let directory = Directory::new();
    let file = directory.file("file", "");
    let output = run(
        &[
            "--listen",
            "127.0.0.1:0",
            "--http",
            "none",
            "--metrics",
            "none",
            "--data-dir",
            file.to_str().unwrap(),
        ],
        &directory,
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--data-dir"), "{}", stderr(&output));
}

/// Runs its arguments where `io_uring_setup` answers EPERM, as under a container's default
/// profile. Forbidden system calls stay forbidden over `exec`.
const FORBID_IO_URING: &str = "\
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
program = b''.join(struct.pack('HBBI', *line) for line in code)
buffer = ctypes.create_string_buffer(program, len(program))
class Filter(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('code', ctypes.c_void_p)]
filter = Filter(len(code), ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
";

/// Needs `python3`; required where `CI=true`.
#[test]
fn where_io_uring_is_forbidden_it_says_so_and_binds_nothing() {
    let python = Command::new("python3").arg("--version").output();
    if python.is_err() && std::env::var("CI").as_deref() != Ok("true") {
        eprintln!("not tested: python3 is not installed");
        return;
    }
    let directory = Directory::new();
    let forbidden = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.args(["-c", FORBID_IO_URING, env!("CARGO_BIN_EXE_leveret")]);
        run_with(command, arguments, &directory)
    };
    // A taken port would be told first if anything were bound.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = forbidden(&["--listen", &address, "--http", "none", "--metrics", "none"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{text}");
    for part in ["seccomp", "kernel.io_uring_disabled", "leveret check"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(!text.contains(&address), "{text}");
    assert_eq!(stdout(&output), "");
    assert!(!directory.0.join("leveret-data").exists());

    let checked = forbidden(&["check"]);
    assert_eq!(checked.status.code(), Some(78));
    assert!(stdout(&checked).contains("seccomp"), "{}", stdout(&checked));
}
