//! Steps one by one, and against a second state whose messages rest in other places.

use proptest::prelude::*;

use super::*;
use crate::id::WallTime;
use crate::storage::log::Place;

const NOW: WallTime = WallTime(7);

fn enqueue(state: &mut State, ids: std::ops::Range<u32>) {
    let ids: Vec<_> = ids.map(MessageId).collect();
    let (position, count) = (state.next_position(), ids.len() as u64);
    let step = Step::Enqueue { position, count, at: NOW, redelivered: false };
    state.apply(step, stored(&ids), |_| panic!("nothing leaves"));
}

/// Checks out `count` messages to a holder: their ids and the number of the first.
fn check_out(state: &mut State, holder: Option<u32>, count: u64) -> (Vec<u32>, Option<u64>) {
    let held_before = state.unacked_count();
    let from = state.front().unwrap().position;
    let mut ids = Vec::new();
    let step = Step::CheckOut { from, count, holder: holder.map(Holder) };
    let effect = state.apply(step, none(), |message| ids.push(id(message.location)));
    if let Some(holder) = holder {
        assert_eq!(state.unacked_count(), held_before + count as usize);
        let held: Vec<_> = state.held[holder as usize].iter().collect();
        ids.extend(held[held.len() - count as usize..].iter().map(|(_, out)| id(out.location)));
    }
    (ids, effect.first_delivery)
}

fn id(location: Where) -> u32 {
    match location {
        Where::Store(MessageId(id)) => id,
        Where::Log(place) => panic!("{place:?}"),
    }
}

fn deliveries(holder: u32, first: u64, count: u64) -> Deliveries {
    Deliveries { holder: Holder(holder), first, count }
}

fn settle(state: &mut State, holder: u32, first: u64, count: u64) -> Vec<(u64, u32)> {
    let mut settled = Vec::new();
    let step = Step::Settle(deliveries(holder, first, count));
    state.apply(step, none(), |message| settled.push((message.position, id(message.location))));
    settled
}

fn requeue(state: &mut State, holder: u32, first: u64, count: u64) -> u64 {
    let step = Step::Requeue { deliveries: deliveries(holder, first, count), at: NOW };
    state.apply(step, none(), |_| panic!("nothing leaves")).count
}

#[test]
fn what_leaves_together_is_numbered_in_a_row() {
    let mut state = State::default();
    enqueue(&mut state, 0..10);
    assert_eq!(check_out(&mut state, Some(0), 4), (vec![0, 1, 2, 3], Some(0)));
    assert_eq!(requeue(&mut state, 0, 1, 1), 1);
    // The one that came back is before the rest: both runs leave by one step.
    assert_eq!(check_out(&mut state, Some(0), 3), (vec![1, 4, 5], Some(4)));
    assert_eq!((state.delivered_through(), state.next_delivery(Holder(0))), (6, 7));
    let expected = [(0, 0), (2, 2), (3, 3), (1, 1), (4, 4), (5, 5)];
    assert_eq!(settle(&mut state, 0, 0, 7), expected);
}

#[test]
fn a_requeued_message_returns_to_its_place_and_is_flagged() {
    let mut state = State::default();
    enqueue(&mut state, 0..4);
    check_out(&mut state, Some(0), 2);
    assert_eq!(check_out(&mut state, None, 1), (vec![2], None));
    assert_eq!(requeue(&mut state, 0, 0, 2), 2);
    assert_eq!((state.ready_count(), state.unacked_count()), (3, 0));
    assert!(state.front().unwrap().redelivered);
    assert_eq!(check_out(&mut state, Some(0), 2), (vec![0, 1], Some(2)));
    assert!(!state.front().unwrap().redelivered);
    assert!(state.held_by(Holder(0)).eq([2, 3]));
}

#[test]
fn settling_twice_does_nothing() {
    let mut state = State::default();
    enqueue(&mut state, 9..10);
    check_out(&mut state, Some(3), 1);
    assert_eq!(settle(&mut state, 2, 0, 1), []);
    assert_eq!(settle(&mut state, 3, 0, 1), [(0, 9)]);
    assert_eq!(settle(&mut state, 3, 0, 1), []);
    assert_eq!(requeue(&mut state, 3, 0, 1), 0);
}

#[test]
fn each_holder_numbers_its_own_deliveries() {
    let mut state = State::default();
    let mut hand_over = |holder, id| {
        let step = Step::HandOver { holder: Holder(holder), count: 1 };
        state.apply(step, stored(&[MessageId(id)]), |_| {}).first_delivery
    };
    assert_eq!([hand_over(1, 0), hand_over(0, 1), hand_over(1, 2)], [Some(0), Some(0), Some(1)]);
    assert_eq!((state.unacked_count(), state.delivered_through()), (3, 3));
    assert!(state.held_by(Holder(1)).eq([0, 1]));
    requeue(&mut state, 1, 1, 1);
    assert_eq!(settle(&mut state, 1, 0, 1), [(0, 0)]);
    assert_eq!(check_out(&mut state, Some(1), 1), (vec![2], Some(2)));
    assert!(state.held_by(Holder(0)).eq([0]));
}

#[test]
fn positions_that_left_before_a_restart_are_gaps() {
    let mut state = State::default();
    for (position, redelivered) in [(3, true), (4, true), (9, false)] {
        let step = Step::Enqueue { position, count: 1, at: NOW, redelivered };
        state.apply(step, stored(&[MessageId(position as u32)]), |_| {});
    }
    assert_eq!((state.next_position(), state.delivered_through()), (10, 5));
    assert_eq!(check_out(&mut state, None, 3), (vec![3, 4, 9], None));
}

/// A replica: a state, and where its shard has the messages.
struct Replica {
    state: State,
    /// Added to the number of a message to get its id in this store.
    first_id: u32,
    /// Messages at multiples of this position are on disk only; none if it is 0.
    absent: u64,
}

impl Replica {
    fn new(first_id: u32, absent: u64, capacity: usize) -> Self {
        let mut state = State::default();
        // Room that an earlier load left, with its start in the middle: the memory wraps elsewhere.
        let ids: Vec<_> = (0..capacity as u32).map(MessageId).collect();
        let count = ids.len() as u64;
        state.apply(
            Step::Enqueue { position: 0, count, at: NOW, redelivered: false },
            stored(&ids),
            |_| {},
        );
        if count > 0 {
            state.apply(Step::Drop { from: 0, count }, none(), |_| {});
        }
        state.next_position = 0;
        Self { state, first_id, absent }
    }

    fn location(&self, position: u64) -> Where {
        if self.absent > 0 && position.is_multiple_of(self.absent) {
            Where::Log(Place { segment: 1, offset: position as u32 * 64, length: 60 })
        } else {
            Where::Store(MessageId(self.first_id + position as u32))
        }
    }

    /// Applies a step as it came over a wire; returns the positions that left.
    fn apply(&mut self, octets: &[u8]) -> (Effect, Vec<u64>) {
        let (step, rest) = Step::decode(octets).unwrap();
        assert!(rest.is_empty());
        let brings = match step {
            Step::Enqueue { position, count, .. } => position..position + count,
            Step::HandOver { count, .. } => {
                self.state.next_position()..self.state.next_position() + count
            }
            _ => 0..0,
        };
        let locations: Vec<_> = brings.map(|position| self.location(position)).collect();
        let mut left = Vec::new();
        let effect =
            self.state.apply(step, locations.into_iter(), |message| left.push(message.position));
        (effect, left)
    }

    /// Moves a waiting message out of memory or into it. That is not a step.
    fn relocate(&mut self, index: usize) {
        let fifo = self.state.ready().fifo();
        let Some(entry) = fifo.get(index % fifo.len().max(1)) else { return };
        let location = match entry.rests {
            Where::Store(_) => {
                Where::Log(Place { segment: 2, offset: entry.position as u32 * 64, length: 60 })
            }
            Where::Log(_) => Where::Store(MessageId(self.first_id + entry.position as u32)),
        };
        self.state.relocate_at(entry.position, location);
    }

    /// All that steps decide, and nothing of where messages are.
    #[allow(clippy::type_complexity, reason = "it is compared, and never named")]
    fn contents(&self) -> (Vec<(u64, bool, WallTime)>, Vec<Vec<(u64, u64)>>, [u64; 2]) {
        let ready = self.state.ready();
        let mut waiting: Vec<_> = ready.fifo().iter().chain(ready.returned()).collect();
        waiting.sort_by_key(|entry| entry.position);
        let waiting =
            waiting.iter().map(|entry| (entry.position, entry.redelivered, entry.ready_at));
        let held = self.state.held.iter();
        let held =
            held.map(|held| held.iter().map(|(number, out)| (number, out.position)).collect());
        let numbers = [self.state.next_position, self.state.delivered_through];
        (waiting.collect(), held.collect(), numbers)
    }
}

/// A step that fits the queue, as its home would decide on it.
fn decide(state: &State, choice: u8, amount: u64, holder: u32, now: u64) -> Step {
    let (waiting, at) = (state.ready_count() as u64, WallTime(now));
    let from = state.front().map_or(0, |front| front.position);
    let holder = Holder(holder);
    let count = amount.min(waiting);
    let first = state.next_delivery(holder).saturating_sub(amount * 2);
    let deliveries = Deliveries { holder, first, count: amount };
    let position = state.next_position();
    match choice {
        0 if waiting > 0 => Step::CheckOut { from, count, holder: None },
        1 | 2 if waiting > 0 => Step::CheckOut { from, count, holder: Some(holder) },
        3 if waiting > 0 => Step::Drop { from, count },
        4 => Step::PassThrough { count: amount },
        5 => Step::HandOver { holder, count: amount },
        6 => Step::Settle(deliveries),
        7 => Step::Requeue { deliveries, at },
        8 if amount == 1 => Step::Clear,
        9 => {
            let position = position + amount;
            Step::Enqueue { position, count: 1, at, redelivered: amount.is_multiple_of(2) }
        }
        _ => Step::Enqueue { position, count: amount, at, redelivered: false },
    }
}

proptest! {
    /// The same steps give the same queue, wherever two shards have its messages and whatever they
    /// did before: with other ids, other room, other messages on disk only and moved at other
    /// times.
    #[test]
    fn the_same_steps_give_the_same_queue(
        steps in proptest::collection::vec((0..16_u8, 1..9_u64, 0..3_u32, 0..40_usize), 1..200),
        capacities in (0..100_usize, 0..100_usize),
        absent in (0..5_u64, 0..5_u64),
    ) {
        let mut leader = Replica::new(1_000, absent.0, capacities.0);
        let mut follower = Replica::new(9_000_000, absent.1, capacities.1);
        for (nth, (choice, amount, holder, index)) in steps.into_iter().enumerate() {
            let step = decide(&leader.state, choice, amount, holder, nth as u64 / 3);
            let mut octets = Vec::new();
            step.encode(&mut octets);
            prop_assert_eq!(leader.apply(&octets), follower.apply(&octets), "{:?}", step);
            if index % 3 == 0 {
                leader.relocate(index);
            } else if index % 3 == 1 {
                follower.relocate(index / 2);
            }
            prop_assert_eq!(leader.contents(), follower.contents(), "{:?}", step);
        }
    }

    #[test]
    fn octets_that_are_no_step_are_refused(
        octets in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        if let Some((step, rest)) = Step::decode(&octets) {
            let mut again = Vec::new();
            step.encode(&mut again);
            prop_assert_eq!(&again[..], &octets[..octets.len() - rest.len()]);
        }
    }
}

#[test]
fn a_step_that_is_cut_off_is_none() {
    let deliveries = deliveries(3, 1 << 40, 5);
    let at = WallTime(u64::MAX);
    for step in [
        Step::Enqueue { position: 1 << 50, count: 3, at, redelivered: true },
        Step::PassThrough { count: 1 },
        Step::HandOver { holder: Holder(u32::MAX), count: 2 },
        Step::CheckOut { from: 9, count: 4, holder: Some(Holder(1)) },
        Step::CheckOut { from: 9, count: 4, holder: None },
        Step::Settle(deliveries),
        Step::Requeue { deliveries, at },
        Step::Drop { from: 0, count: 1 },
        Step::Clear,
    ] {
        let mut octets = Vec::new();
        step.encode(&mut octets);
        assert_eq!(Step::decode(&octets), Some((step, &[][..])));
        for end in 0..octets.len() {
            assert_eq!(Step::decode(&octets[..end]), None, "{step:?} cut to {end}");
        }
    }
}
