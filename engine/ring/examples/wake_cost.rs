//! What waking a ring costs: a message between rings against a write to an eventfd.
//!
//! ```sh
//! cargo run --release -p leveret-ring --example wake_cost
//! ```
//!
//! Two threads on two cores (or on the one there is) wake each other in turn, once asleep in
//! `io_uring_enter` and once spinning. Half a round trip is the price of one wake, its latency
//! included.
#![cfg(not(loom))]
#![allow(unexpected_cfgs, reason = "loom builds only the model in src/sleep.rs")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use leveret_ring::{
    Completion, Ring, RingConfig, RingError, Wait, WakeTarget, allowed_cores, pin_current_thread,
};

const ROUNDS: u32 = 20_000;
const REPEATS: usize = 5;

#[derive(Debug, Clone, Copy)]
enum By {
    Message,
    Eventfd,
}

fn main() -> Result<(), RingError> {
    let cores = allowed_cores();
    println!("cores {cores:?}, {ROUNDS} round trips, the median of {REPEATS} runs");
    for spin in [false, true] {
        let mut results = [Vec::new(), Vec::new()];
        // Interleaved, so that a slow phase of the machine hits both.
        for _ in 0..REPEATS {
            for by in [By::Message, By::Eventfd] {
                results[by as usize].push(measure(&cores, by, spin)?);
            }
        }
        for by in [By::Message, By::Eventfd] {
            let times = &mut results[by as usize];
            times.sort_unstable();
            let state = if spin { "spinning" } else { "asleep" };
            println!("{by:?}, {state}: {:?} a wake", times[REPEATS / 2]);
        }
    }
    Ok(())
}

/// The time of one wake.
fn measure(cores: &[usize], by: By, spin: bool) -> Result<Duration, RingError> {
    let (first_core, last_core) = match cores {
        [] => (0, 0),
        [first, ..] => (*first, cores[cores.len() - 1]),
    };
    let (to_second, from_first) = channel();
    let (to_first, from_second) = channel();
    let second = thread::spawn(move || play(last_core, by, spin, false, &to_first, &from_first));
    let time = thread::spawn(move || play(first_core, by, spin, true, &to_second, &from_second));
    let time = time.join().expect("the first thread ends");
    second.join().expect("the second thread ends")?;
    time.map(|time| time / (2 * ROUNDS))
}

fn play(
    core: usize,
    by: By,
    spin: bool,
    first: bool,
    give: &Sender<WakeTarget>,
    take: &Receiver<WakeTarget>,
) -> Result<Duration, RingError> {
    pin_current_thread(core)?;
    let config = RingConfig { sockets_max: 1, buffer_count: 4, ..RingConfig::default() };
    let mut ring = Ring::new(&config)?;
    give.send(ring.wake_target()).expect("the other thread lives");
    let other = take.recv().expect("the other thread lives");
    let waker = other.waker();
    let wait = if spin { Wait::No } else { Wait::Forever };
    let mut completions = Vec::new();
    let start = Instant::now();
    for round in 0..ROUNDS {
        if first || round > 0 {
            match by {
                By::Message => ring.wake(&other),
                By::Eventfd => waker.wake(),
            }
        }
        // The message rides in the turn that waits for the answer.
        loop {
            ring.turn(wait, &mut completions)?;
            if completions.drain(..).any(|seen| matches!(seen, Completion::Woken)) {
                break;
            }
        }
    }
    // The second one's last answer.
    if !first {
        ring.wake(&other);
        ring.turn(Wait::No, &mut completions)?;
    }
    Ok(start.elapsed())
}
