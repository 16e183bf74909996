//! Disks that fail, run full for a while, are slow and stand still, as the broker is told by
//! `LEVERET_FAIL_DISK` and `LEVERET_SLOW_DISK`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::home::{Home, SMALL_SEGMENTS};
use crate::ledger::Ledger;
use crate::process::Broker;
use crate::wire::{Cut, PATIENCE, Wire};

const QUEUE: &str = "disk";

/// Bounds a hang: after a failed write the broker ends within milliseconds.
const END_PATIENCE: Duration = Duration::from_mins(1);

/// A sweep that has not come to the end of its scenario by then injects nothing.
const SWEEP_MAX: usize = 400;

/// What became of a broker on a failing disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It ended by itself, and said so by its code.
    Ended,
    /// The scenario went through.
    Lived,
}

#[test]
fn a_failed_commit_ends_the_broker_and_loses_nothing() {
    for error in ["EIO", "ENOSPC", "short"] {
        let last = sweep("commit", error);
        assert!(last > 10, "only {last} commits of {error} were there to fail");
    }
}

#[test]
fn a_typing_mistake_does_not_pass_for_a_disk_that_never_fails() {
    let home = Home::new("");
    let mut broker = match launch(&home, "LEVERET_FAIL_DISK", "commit:one:EIO") {
        Ok(broker) | Err(broker) => broker,
    };
    expect_failure(&mut broker, "a mistake");
}

#[test]
fn a_failed_preparation_loses_nothing() {
    sweep_all("prepare", "ENOSPC", 12);
}

#[test]
fn a_failed_read_loses_nothing() {
    sweep_all("read", "EIO", 8);
}

#[test]
fn a_failed_rename_or_open_loses_nothing() {
    sweep_all("rename", "EIO", 6);
    sweep_all("open", "EIO", 6);
}

#[test]
fn while_no_segment_can_be_prepared_consumers_go_on_and_nothing_is_confirmed_falsely() {
    let home = Home::new(SMALL_SEGMENTS);
    let faults = (6..=12).fold(String::new(), |mut all, number| {
        write!(all, "{}prepare:{number}:ENOSPC", if all.is_empty() { "" } else { "," }).unwrap();
        all
    });
    let mut broker = home.start_with(1, &[("LEVERET_FAIL_DISK", faults.clone())]);
    let mut ledger = Ledger::new(QUEUE);
    let (mut publisher, mut consumer) = (home.connect(), home.connect());
    ledger.begin(&mut publisher).unwrap();
    let mut got = 0;
    let deadline = Instant::now() + PATIENCE;
    while ledger.published() < 2_000 || ledger.unconfirmed() > 0 {
        while !ledger.blocked && ledger.unconfirmed() < 200 && ledger.published() < 2_000 {
            ledger.publish(&mut publisher, 8_000);
        }
        ledger.poll(&mut publisher).expect("the broker lives");
        // So few are taken that no segment is worth emptying: each new one has to be prepared.
        if got < ledger.confirmed() / 4 && ledger.get(&mut consumer).expect("it lives") {
            got += 1;
        }
        assert!(Instant::now() < deadline, "stuck at {} confirmed", ledger.confirmed());
    }
    assert!(broker.ended().is_none() && got > 0);
    broker.kill();
    judge(&home, &mut ledger, &faults);
}

#[test]
fn a_slow_disk_only_takes_longer() {
    let home = Home::new(SMALL_SEGMENTS);
    let mut broker = home.start_with(1, &[("LEVERET_SLOW_DISK", "1..50".to_owned())]);
    let mut ledger = Ledger::new(QUEUE);
    let mut wire = home.connect();
    ledger.begin(&mut wire).unwrap();
    for _ in 0..300 {
        ledger.publish(&mut wire, 2_000);
        ledger.settle(&mut wire, 50).unwrap();
    }
    ledger.settle(&mut wire, 0).unwrap();
    assert_eq!(ledger.confirmed(), 300);
    broker.kill();
    judge(&home, &mut ledger, "a slow disk");
}

#[test]
fn heartbeats_and_other_clients_go_on_while_the_disk_stands_still() {
    let stall_s = crate::number("LEVERET_CRASH_STALL_S").unwrap_or(7);
    let heartbeat_s = if stall_s < 20 { 2 } else { 4 };
    let home = Home::new(SMALL_SEGMENTS);
    let stall = format!("{}@8", stall_s * 1_000);
    let mut broker = home.start_with(1, &[("LEVERET_SLOW_DISK", stall.clone())]);
    let mut ledger = Ledger::new(QUEUE);
    let mut wire = Wire::open(home.address, heartbeat_s).unwrap();
    let mut other = Wire::open(home.address, heartbeat_s).unwrap();
    ledger.begin(&mut wire).unwrap();
    let mut heartbeats_max = 0;
    for _ in 0..20 {
        ledger.publish(&mut wire, 500);
        let deadline = Instant::now() + PATIENCE;
        while ledger.unconfirmed() > 0 {
            let before = ledger.heartbeats;
            ledger.poll(&mut wire).expect("nobody is cut while the disk stands still");
            other.poll().expect("nobody is cut while the disk stands still");
            if ledger.heartbeats > before {
                heartbeats_max = heartbeats_max.max(ledger.heartbeats);
                // Questions that need no disk are answered meanwhile.
                other.declare_queue(QUEUE, true).unwrap();
            }
            assert!(Instant::now() < deadline, "no confirm after a stall of {stall_s} s");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(ledger.confirmed(), 20);
    assert!(heartbeats_max >= 2, "{heartbeats_max} heartbeats during a stall of {stall_s} s");
    broker.kill();
    judge(&home, &mut ledger, &stall);
}

/// The N-th operation fails, for N from 1 until the scenario does not reach it; the last N.
fn sweep(site: &str, error: &str) -> usize {
    for number in 1..SWEEP_MAX {
        if play(&format!("{site}:{number}:{error}")) == Fate::Lived {
            return number;
        }
    }
    panic!("{SWEEP_MAX} times {site} with {error} and no end");
}

/// The same for operations whose failure the broker may survive.
fn sweep_all(site: &str, error: &str, last: usize) {
    for number in 1..=last {
        let fate = play(&format!("{site}:{number}:{error}"));
        println!("{site}:{number}:{error}: {fate:?}");
    }
}

/// Messages that are confirmed and kept by a healthy broker, a broker whose disk fails once, and
/// a healthy one that must have everything.
fn play(fault: &str) -> Fate {
    let home = Home::new(SMALL_SEGMENTS);
    let mut ledger = Ledger::new(QUEUE);
    let mut broker = home.start(1);
    let mut wire = home.connect();
    ledger.begin(&mut wire).unwrap();
    for size in 0..40 {
        ledger.publish(&mut wire, size * 500);
    }
    ledger.settle(&mut wire, 0).unwrap();
    broker.kill();
    ledger.next_incarnation();

    let fate = match launch(&home, "LEVERET_FAIL_DISK", fault) {
        Ok(mut broker) => {
            let result = work(&home, &mut ledger);
            // A refused declaration says nothing. A refused publish says that the log has failed:
            // the client may be through before the broker has ended.
            let has_failed = ledger.is_refused() || broker.ended().is_some();
            let fate = match result {
                Ok(()) | Err(Cut::Closed(..)) if !has_failed => Fate::Lived,
                _ => expect_failure(&mut broker, fault),
            };
            broker.kill();
            fate
        }
        Err(mut broker) => expect_failure(&mut broker, fault),
    };
    judge(&home, &mut ledger, fault);
    fate
}

/// Publishes enough for several segments, and consumes half of it.
fn work(home: &Home, ledger: &mut Ledger) -> Result<(), Cut> {
    let mut publisher = Wire::open(home.address, 0)?;
    let mut consumer = Wire::open(home.address, 0)?;
    ledger.begin(&mut publisher)?;
    for batch in 0..12 {
        for size in 0..10 {
            ledger.publish(&mut publisher, batch * 300 + size * 1_000);
        }
        ledger.settle(&mut publisher, 0)?;
        for _ in 0..5 {
            ledger.get(&mut consumer)?;
        }
    }
    Ok(())
}

fn expect_failure(broker: &mut Broker, fault: &str) -> Fate {
    let status = broker.wait(END_PATIENCE);
    let failed = status.code().is_some_and(|code| code != 0);
    assert!(failed, "{status} after {fault}:\n{}", broker.drain_stderr());
    Fate::Ended
}

/// A healthy broker must have all that was confirmed.
fn judge(home: &Home, ledger: &mut Ledger, fault: &str) {
    ledger.next_incarnation();
    let _broker = home.start(1);
    let report = ledger.drain(&mut home.connect());
    assert!(report.violations.is_empty(), "{fault}: {report}");
}

fn launch(home: &Home, variable: &str, value: &str) -> Result<Broker, Broker> {
    home.launch(1, &[(variable, value.to_owned())])
}
