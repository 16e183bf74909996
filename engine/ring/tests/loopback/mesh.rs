//! The mesh between two rings that sleep whenever they have nothing to do.

use std::thread;
use std::time::{Duration, Instant};

use leveret_ring::{Completion, Endpoint, Lane, Mesh, Ring, Wait, WakeTarget};

use crate::world::small;

/// A sleep this long means that a call was lost.
const LOST: Duration = Duration::from_secs(10);

const MAILS: u64 = 200_000;

struct Participant {
    ring: Ring,
    endpoint: Endpoint<u64>,
    other: WakeTarget,
    completions: Vec<Completion>,
    /// Every other wake goes by the eventfd.
    wakes: u64,
}

impl Participant {
    fn to(&self) -> usize {
        1 - self.endpoint.id()
    }

    fn wake_other(&mut self) {
        if !self.endpoint.needs_wake(self.to()) {
            return;
        }
        self.wakes += 1;
        if self.wakes.is_multiple_of(2) {
            self.ring.wake(&self.other);
        } else {
            self.other.waker().wake();
        }
    }

    /// One turn, asleep when there is no mail.
    fn turn(&mut self) {
        let wait = if self.endpoint.prepare_sleep() { Wait::Until(LOST) } else { Wait::No };
        let before = Instant::now();
        self.ring.turn(wait, &mut self.completions).unwrap();
        assert!(before.elapsed() < LOST, "slept through a call");
        self.endpoint.awake();
        self.completions.clear();
    }
}

/// Starts both on threads of their own, where their rings must be made.
fn start(run: [fn(&mut Participant); 2]) -> [u64; 2] {
    let mut endpoints = Mesh::<u64>::new(2, 4).into_iter();
    let (target_to_0, target_of_1) = std::sync::mpsc::channel();
    let (target_to_1, target_of_0) = std::sync::mpsc::channel();
    let channels = [(target_to_1, target_of_1), (target_to_0, target_of_0)];
    let threads = channels.map(|(give, take)| {
        let endpoint = endpoints.next().unwrap();
        let run = run[endpoint.id()];
        thread::spawn(move || {
            let ring = Ring::new(&small()).unwrap();
            give.send(ring.wake_target()).unwrap();
            let other = take.recv().unwrap();
            let completions = Vec::new();
            let mut participant = Participant { ring, endpoint, other, completions, wakes: 0 };
            run(&mut participant);
            participant.wakes
        })
    });
    threads.map(|thread| thread.join().unwrap())
}

#[test]
fn a_stream_of_mail_through_a_small_lane_loses_no_call() {
    let sender = |me: &mut Participant| {
        let (mut next, mut answered) = (0, 0);
        while answered < MAILS {
            // Bursts of changing size, so that the other side falls asleep now and then.
            for _ in 0..=next % 7 {
                if next < MAILS && me.endpoint.try_send(1, Lane::Work, next).is_ok() {
                    next += 1;
                }
            }
            me.wake_other();
            while let Some(answer) = me.endpoint.receive(1, Lane::Reply) {
                assert_eq!(answer, answered);
                answered += 1;
            }
            // With room left it goes on sending; a full lane has a reader who will answer.
            if next < MAILS && me.endpoint.has_room(1, Lane::Work) {
                me.ring.turn(Wait::No, &mut me.completions).unwrap();
            } else if answered < MAILS {
                me.turn();
            }
        }
    };
    let receiver = |me: &mut Participant| {
        let mut expected = 0;
        while expected < MAILS {
            while me.endpoint.has_room(0, Lane::Reply)
                && let Some(mail) = me.endpoint.receive(0, Lane::Work)
            {
                assert_eq!(mail, expected, "mail out of order");
                expected += 1;
                me.endpoint.try_send(0, Lane::Reply, mail).unwrap();
            }
            me.wake_other();
            if expected < MAILS && me.endpoint.has_room(0, Lane::Reply) {
                me.turn();
            } else {
                me.ring.turn(Wait::No, &mut me.completions).unwrap();
            }
        }
    };
    let wakes = start([sender, receiver]);
    assert!(wakes[0] + wakes[1] > 0, "nobody ever slept");
}

#[test]
fn ping_and_pong_between_two_sleepers() {
    const ROUNDS: u64 = 20_000;
    let first = |me: &mut Participant| {
        for round in 0..ROUNDS {
            me.endpoint.try_send(1, Lane::Work, round).unwrap();
            me.wake_other();
            loop {
                if let Some(answer) = me.endpoint.receive(1, Lane::Reply) {
                    assert_eq!(answer, round);
                    break;
                }
                me.turn();
            }
        }
    };
    let second = |me: &mut Participant| {
        for round in 0..ROUNDS {
            loop {
                if let Some(mail) = me.endpoint.receive(0, Lane::Work) {
                    assert_eq!(mail, round);
                    break;
                }
                me.turn();
            }
            me.endpoint.try_send(0, Lane::Reply, round).unwrap();
            me.wake_other();
        }
        // The last answer's message still has to be submitted.
        me.ring.turn(Wait::No, &mut me.completions).unwrap();
    };
    let wakes = start([first, second]);
    assert!(wakes.iter().all(|wakes| *wakes > ROUNDS / 10), "{wakes:?}: hardly ever asleep");
}
