//! One restart of the broker under all clients at the same time.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::clients::{RECONNECTS, Reconnect};
use crate::program::PATIENCE;
use crate::stage::{OUTAGE, Stage};

/// Every client starts, all wait for the restart, and every one must come back by itself.
pub(crate) fn clients_survive_a_restart() {
    let broker = Arc::new(Broker::start(2));
    let meeting = Arc::new(Meeting::default());
    let client = |&(name, reconnect): &Reconnect| {
        let stage = Stage::new(name, &broker, broker.address());
        let meeting = Arc::clone(&meeting);
        std::thread::spawn(move || {
            let own = stage.broker_is_own();
            let play = || {
                if own {
                    reconnect(&stage, &|| meeting.wait_for_restart());
                } else {
                    // A running broker is not ours to stop: its connections break instead.
                    stage.with_relay(reconnect);
                }
            };
            std::panic::catch_unwind(AssertUnwindSafe(play)).is_ok()
        })
    };
    let clients: Vec<_> = RECONNECTS.iter().map(client).collect();
    if broker.is_own() {
        meeting.wait_for_clients(RECONNECTS.len());
        broker.restart(OUTAGE);
        meeting.announce_restart();
    }
    let ended = clients.into_iter().map(|thread| thread.join().expect("panics are caught"));
    let failed: Vec<_> =
        RECONNECTS.iter().zip(ended).filter(|(_, good)| !good).map(|((name, _), _)| name).collect();
    assert!(failed.is_empty(), "failed: {failed:?}; the broker:\n{}", broker.log());
}

/// Where clients say that they are ready, and learn that the restart is over.
#[derive(Default)]
struct Meeting {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Meeting {
    fn wait_for_restart(&self) {
        self.state.lock().unwrap().0 += 1;
        self.changed.notify_all();
        self.wait(PATIENCE * 2, |state| state.1);
    }

    /// Fails when a client has not become ready, most often because it failed.
    fn wait_for_clients(&self, count: usize) {
        self.wait(PATIENCE, |state| state.0 == count);
    }

    fn announce_restart(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn wait(&self, patience: Duration, done: impl Fn(&(usize, bool)) -> bool) {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock().unwrap();
        while !done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not in time: {} clients are ready", state.0);
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}
