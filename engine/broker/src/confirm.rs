//! Publisher confirms of one channel: which publishes are done, and how to say so in few acks.

use std::collections::VecDeque;

use leveret_amqp::method::{BasicAck, BasicNack, Method, encode_frame};

use crate::id::ShardId;
use crate::outstanding::Outstanding;

/// The publishes of a channel in confirm mode, numbered from 1.
///
/// A publish is done when every home shard it went to has it. Homes answer in the order they
/// were sent to, so an answer is just a count.
#[derive(Debug, Default)]
pub struct Confirms {
    last: u64,
    /// Everything up to here has been acknowledged to the client.
    acknowledged: u64,
    /// Homes that a publish still waits for.
    waiting: Outstanding<u16>,
    /// Publishes each home has not answered, oldest first.
    sent: Vec<(ShardId, VecDeque<u64>)>,
    /// Done and not yet told, in no order.
    done: Vec<u64>,
    /// Refused by a home and not yet told.
    refused: Vec<u64>,
    /// Told one by one above `acknowledged`, ascending. No ack may name them again: clients take
    /// that for an error (lapin) or count it twice.
    singles: Vec<u64>,
}

impl Confirms {
    /// Counts a publish and returns its number.
    #[inline]
    pub fn publish(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The publish needs no other shard.
    #[inline]
    pub fn resolve(&mut self, sequence: u64) {
        // While nothing waits, `acknowledge` covers everything up to `last` by itself.
        if !self.waiting.is_empty() {
            self.done.push(sequence);
        }
    }

    /// The publish has been sent to these homes.
    pub fn wait_for(&mut self, sequence: u64, homes: &[ShardId]) {
        if self.waiting.is_empty() {
            // What was covered so far must stay covered once something waits.
            self.done.extend(self.acknowledged + 1..sequence);
        }
        self.waiting.push(sequence, homes.len() as u16);
        for home in homes {
            match self.sent.iter_mut().find(|(shard, _)| shard == home) {
                Some((_, sent)) => sent.push_back(sequence),
                None => self.sent.push((*home, VecDeque::from([sequence]))),
            }
        }
    }

    /// Whether a home still has publishes to answer.
    #[inline]
    pub fn awaits(&self, home: ShardId) -> bool {
        !self.waiting.is_empty()
            && self.sent.iter().any(|(shard, sent)| *shard == home && !sent.is_empty())
    }

    /// A home could not keep its next `count` publishes: they are refused, whatever other homes
    /// say.
    pub fn refuse(&mut self, home: ShardId, count: u32) {
        let Some((_, sent)) = self.sent.iter_mut().find(|(shard, _)| *shard == home) else {
            return;
        };
        for sequence in sent.drain(..sent.len().min(count as usize)) {
            if self.waiting.remove(sequence).is_some() {
                self.refused.push(sequence);
            }
        }
    }

    /// A home is done with its next `count` publishes.
    pub fn confirmed(&mut self, home: ShardId, count: u32) {
        let Some((_, sent)) = self.sent.iter_mut().find(|(shard, _)| *shard == home) else {
            return;
        };
        for _ in 0..count {
            let Some(sequence) = sent.pop_front() else {
                return;
            };
            let Some(homes) = self.waiting.find_mut(sequence) else {
                continue;
            };
            *homes -= 1;
            if *homes == 0 {
                self.waiting.remove(sequence);
                self.done.push(sequence);
            }
        }
    }

    /// Writes the acks that are due: one `multiple` for everything before the first publish
    /// that still waits, single ones behind it. RabbitMQ folds the same way.
    pub fn acknowledge(&mut self, channel: u16, out: &mut Vec<u8>) {
        if !self.refused.is_empty() {
            self.refuse_singly(channel, out);
        }
        let Some(first_waiting) = self.waiting.first_key() else {
            let mut through = self.last;
            while self.singles.pop_if(|single| *single == through).is_some() {
                through -= 1;
            }
            self.acknowledge_through(through, channel, out);
            self.acknowledged = self.last;
            self.done.clear();
            self.singles.clear();
            return;
        };
        self.done.sort_unstable();
        self.done.dedup();
        let singles = &self.singles;
        self.done.retain(|sequence| singles.binary_search(sequence).is_err());
        let covered = self.done.partition_point(|sequence| *sequence < first_waiting);
        if covered > 0 {
            self.acknowledge_through(self.done[covered - 1], channel, out);
        }
        for sequence in &self.done[covered..] {
            ack(*sequence, false, channel, out);
        }
        let acknowledged = self.acknowledged;
        self.singles.retain(|sequence| *sequence > acknowledged);
        self.singles.extend(self.done.drain(..).skip(covered));
        self.singles.sort_unstable();
    }

    /// A nack for each refused publish; from then on it counts as told, like a single ack.
    #[cold]
    fn refuse_singly(&mut self, channel: u16, out: &mut Vec<u8>) {
        self.refused.sort_unstable();
        for delivery_tag in &self.refused {
            let nack = BasicNack { delivery_tag: *delivery_tag, multiple: false, requeue: false };
            encode_frame(channel, &Method::BasicNack(nack), out);
        }
        self.singles.append(&mut self.refused);
        self.singles.sort_unstable();
    }

    fn acknowledge_through(&mut self, sequence: u64, channel: u16, out: &mut Vec<u8>) {
        if sequence > self.acknowledged {
            ack(sequence, sequence - self.acknowledged > 1, channel, out);
            self.acknowledged = sequence;
        }
    }
}

fn ack(delivery_tag: u64, multiple: bool, channel: u16, out: &mut Vec<u8>) {
    encode_frame(channel, &Method::BasicAck(BasicAck { delivery_tag, multiple }), out);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use leveret_amqp::decoder::{Decoder, Frame};
    use proptest::prelude::*;

    use super::*;

    /// Applies written acks to the set of publishes the client waits for.
    fn settle(wire: &[u8], open: &mut BTreeSet<u64>) -> Vec<(u64, bool)> {
        let mut decoder = Decoder::new(4096);
        let mut cursor = 0;
        let mut acks = Vec::new();
        while let Some(frame) = decoder.next(wire, &mut cursor).unwrap() {
            let Frame::Method { payload, .. } = frame else { panic!("{frame:?}") };
            let Method::BasicAck(ack) = Method::decode(payload).unwrap() else { panic!() };
            acks.push((ack.delivery_tag, ack.multiple));
            assert!(
                open.contains(&ack.delivery_tag),
                "{} was acknowledged before",
                ack.delivery_tag
            );
            if ack.multiple {
                open.retain(|sequence| *sequence > ack.delivery_tag);
            } else {
                open.remove(&ack.delivery_tag);
            }
        }
        acks
    }

    #[test]
    fn local_publishes_fold_into_one_ack() {
        let mut confirms = Confirms::default();
        for _ in 0..100 {
            let sequence = confirms.publish();
            confirms.resolve(sequence);
        }
        let mut out = Vec::new();
        confirms.acknowledge(1, &mut out);
        assert_eq!(settle(&out, &mut (1..=100).collect()), [(100, true)]);
        out.clear();
        confirms.acknowledge(1, &mut out);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn each_publish_is_confirmed_when_its_homes_are_done_and_not_before(
            steps in prop::collection::vec((0u8..6, 1u32..4), 1..200),
        ) {
            let mut confirms = Confirms::default();
            let mut open = BTreeSet::new();
            let mut waiting: Vec<(u64, BTreeSet<u16>)> = Vec::new();
            let mut queues = [VecDeque::new(), VecDeque::new()];
            for (step, count) in steps {
                let mut out = Vec::new();
                match step {
                    0 | 1 => {
                        let sequence = confirms.publish();
                        open.insert(sequence);
                        confirms.resolve(sequence);
                    }
                    2 | 3 => {
                        let sequence = confirms.publish();
                        open.insert(sequence);
                        let homes = if step == 2 { vec![0u16] } else { vec![0, 1] };
                        let ids: Vec<_> = homes.iter().map(|home| ShardId(*home)).collect();
                        confirms.wait_for(sequence, &ids);
                        for home in &homes {
                            queues[usize::from(*home)].push_back(sequence);
                        }
                        waiting.push((sequence, homes.into_iter().collect()));
                    }
                    home => {
                        let home = u16::from(home - 4);
                        confirms.confirmed(ShardId(home), count);
                        for _ in 0..count {
                            if let Some(done) = queues[usize::from(home)].pop_front() {
                                for (sequence, homes) in &mut waiting {
                                    if *sequence == done {
                                        homes.remove(&home);
                                    }
                                }
                            }
                        }
                        waiting.retain(|(_, homes)| !homes.is_empty());
                    }
                }
                confirms.acknowledge(1, &mut out);
                settle(&out, &mut open);
                let expected: BTreeSet<_> = waiting.iter().map(|(sequence, _)| *sequence).collect();
                prop_assert_eq!(&open, &expected);
            }
        }
    }
}
