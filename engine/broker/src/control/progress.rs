//! Which answers may go out: those whose deltas every shard has applied.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::Exception;
use crate::id::{ChannelKey, ShardId};
use crate::routing::topic::TopicTable;

use super::{AdminAnswer, Answer, Outcome};

/// The answers under way and how far the shards are.
#[derive(Debug)]
pub(super) struct Progress {
    /// The newest delta each shard has applied.
    applied: Vec<u64>,
    /// The newest delta that all have applied.
    applied_by_all: u64,
    answers: Answers<Answer>,
    admin_answers: Answers<AdminAnswer>,
    /// Tables with the delta that takes them out of use, ascending. A table may own hundreds of
    /// megabytes: held here until no shard has it, it is freed here, where no message waits.
    retired: VecDeque<(u64, Arc<TopicTable>)>,
}

/// Answers in the order of their requests.
#[derive(Debug)]
struct Answers<T> {
    /// Those of the turn that has not ended.
    turn: Vec<T>,
    /// Those of earlier turns with the delta they wait for, both ascending.
    waiting: VecDeque<(u64, T)>,
}

impl Progress {
    /// All shards have applied `sequence`.
    pub(super) fn new(shards: u16, sequence: u64) -> Self {
        Self {
            applied: vec![sequence; usize::from(shards)],
            applied_by_all: sequence,
            answers: Answers::new(),
            admin_answers: Answers::new(),
            retired: VecDeque::new(),
        }
    }

    /// Adds an answer to the turn.
    pub(super) fn answer(&mut self, asker: ChannelKey, outcome: Result<Outcome, Exception>) {
        self.answers.turn.push(Answer { asker, outcome });
    }

    /// Adds an answer to an operator to the turn.
    pub(super) fn answer_operator(&mut self, answer: AdminAnswer) {
        self.admin_answers.turn.push(answer);
    }

    /// Lets the turn's answers wait for all deltas up to `sequence`.
    pub(super) fn finish_turn(&mut self, sequence: u64) {
        self.answers.finish_turn(sequence);
        self.admin_answers.finish_turn(sequence);
    }

    /// A shard has come this far.
    pub(super) fn applied(&mut self, shard: ShardId, sequence: u64) {
        if let Some(applied) = self.applied.get_mut(usize::from(shard.0)) {
            *applied = sequence.max(*applied);
        }
        self.applied_by_all = self.applied.iter().copied().min().unwrap_or(sequence);
        let unused = self.retired.partition_point(|(last, _)| *last <= self.applied_by_all);
        self.retired.drain(..unused);
    }

    /// Keeps a table until all shards have applied the delta `sequence`.
    pub(super) fn retire(&mut self, sequence: u64, table: Arc<TopicTable>) {
        self.retired.push_back((sequence, table));
    }

    /// The next answer that may go out.
    pub(super) fn poll_answer(&mut self) -> Option<(ShardId, Answer)> {
        let answer = self.answers.poll(self.applied_by_all)?;
        Some((answer.asker.owner.shard, answer))
    }

    /// The next answer to an operator that may go out.
    pub(super) fn poll_admin_answer(&mut self) -> Option<AdminAnswer> {
        self.admin_answers.poll(self.applied_by_all)
    }
}

impl<T> Answers<T> {
    const fn new() -> Self {
        Self { turn: Vec::new(), waiting: VecDeque::new() }
    }

    fn finish_turn(&mut self, sequence: u64) {
        self.waiting.extend(self.turn.drain(..).map(|answer| (sequence, answer)));
    }

    fn poll(&mut self, applied_by_all: u64) -> Option<T> {
        if self.waiting.front()?.0 > applied_by_all {
            return None;
        }
        self.waiting.pop_front().map(|(_, answer)| answer)
    }
}
