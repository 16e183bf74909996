//! A listener that runs out of descriptors. Alone in its process, for the limit is the process's.
#![cfg(not(loom))]
#![allow(unexpected_cfgs, reason = "loom builds only the model in src/sleep.rs")]

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use leveret_ring::{Completion, Ring, RingConfig, Wait};

fn set_open_files_limit(files: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get one rlimit that lives over them.
    let result = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = files.min(limit.rlim_max);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_listener_out_of_descriptors_says_so_and_tries_again() {
    let config = RingConfig { sockets_max: 8, buffer_count: 4, ..RingConfig::default() };
    let mut ring = Ring::new(&config).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let id = ring.listen(listener).unwrap();
    let mut completions = Vec::new();
    let _client = TcpStream::connect(address).unwrap();
    // Before the first turn: the kernel keeps the limit it saw when the accept was submitted.
    set_open_files_limit(3);
    let start = Instant::now();
    while completions.is_empty() && start.elapsed() < Duration::from_secs(10) {
        ring.turn(Wait::Until(Duration::from_secs(1)), &mut completions).unwrap();
    }
    let first = completions.pop();
    let Some(Completion::ListenFailed { listener, error, retrying: true }) = first else {
        panic!("the accept did not fail: {first:?}");
    };
    assert_eq!((listener, error.raw_os_error()), (id, Some(libc::EMFILE)));
    // It pauses between its attempts instead of spinning on them.
    let failed = Instant::now();
    let enters = ring.counters().enters;
    while failed.elapsed() < Duration::from_millis(350) {
        ring.turn(Wait::Until(Duration::from_millis(50)), &mut completions).unwrap();
    }
    assert!((2..=5).contains(&completions.len()), "{} attempts", completions.len());
    assert!(ring.counters().enters - enters < 40);
    completions.clear();
    set_open_files_limit(u64::MAX);
    let start = Instant::now();
    while completions.is_empty() && start.elapsed() < Duration::from_secs(10) {
        ring.turn(Wait::Until(Duration::from_secs(1)), &mut completions).unwrap();
    }
    assert!(
        matches!(completions[..], [Completion::Accepted { listener, .. }] if listener == id),
        "{completions:?}"
    );
}
