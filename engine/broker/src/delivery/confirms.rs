//! Publisher confirms of one channel: which publishes are done, and how few acks cover them.

use std::collections::VecDeque;

use leveret_amqp::method::{BasicAck, BasicNack, Method, encode_frame};

use crate::delivery::outputs::Outputs;
use crate::id::{ChannelKey, ShardId};
use crate::mesh::mail::{Lane, Mail};

/// The publishes of a channel in confirm mode, numbered from 1.
///
/// A publish is done when every home it went to has kept it. A home answers in the order of the
/// publishes that it got, so its answer is only a count.
#[derive(Debug, Default)]
pub struct Confirms {
    last: u64,
    /// The client has got an ack or nack for every publish up to here.
    acknowledged: u64,
    /// The publishes that each home has not answered.
    sent: Vec<(ShardId, Rows)>,
    /// Done while an earlier one waited, and not written yet; first and last number, in no order.
    done: Vec<(u64, u64)>,
    /// Refused by a home, and not written yet.
    refused: Vec<u64>,
    /// Above `acknowledged`: publishes that got an ack or nack of their own. No later ack may name
    /// them: a client takes that for an error (lapin) or counts it twice.
    singles: Rows,
}

/// Numbers in ascending order, as first and last number of each row without a gap.
#[derive(Debug, Default)]
struct Rows(VecDeque<(u64, u64)>);

/// Consecutive publishes of one channel that are confirmed without waiting, gathered to be counted
/// in its [`Confirms`] once.
#[derive(Debug, Default)]
pub(super) struct ConfirmRun {
    channel: ChannelKey,
    count: u64,
}

impl Outputs {
    /// Confirms `count` publishes that no home has to keep.
    #[inline]
    pub fn confirm_at_once(&mut self, channel: ChannelKey, count: u32) {
        if self.confirm_run.channel != channel {
            self.flush_confirms();
            self.confirm_run.channel = channel;
        }
        self.confirm_run.count += u64::from(count);
    }

    /// Confirms `count` publishes when these homes have answered.
    #[inline]
    pub fn confirm_later(&mut self, channel: ChannelKey, homes: &[ShardId], count: u32) {
        // The gathered ones were published before these, and numbers go by the order of publishing.
        self.flush_confirms();
        self.published_confirm += u64::from(count);
        if let Some((writer, index)) = self.writers.channel(channel)
            && let Some(confirms) = &mut writer.channel_at(index).confirms
        {
            confirms.wait_for(homes, count.into());
        }
    }

    /// Counts the gathered confirms in their channel: before it counts others, before it ends, and
    /// at the end of a turn.
    #[inline]
    pub fn flush_confirms(&mut self) {
        if self.confirm_run.count > 0 {
            self.resolve_confirm_run();
        }
    }

    fn resolve_confirm_run(&mut self) {
        let ConfirmRun { channel, count } = std::mem::take(&mut self.confirm_run);
        self.published_confirm += count;
        if let Some(confirms) = self.confirms_due(channel) {
            confirms.resolve(count);
        }
    }

    /// The home `home` has kept the next `done` publishes of a channel on `shard`.
    pub fn confirm(&mut self, shard: ShardId, channel: ChannelKey, home: ShardId, done: u32) {
        if shard == home {
            return self.confirmed(home, channel, done);
        }
        // Consecutive answers to one channel make one mail.
        let batch = self.mesh.open(shard, Lane::Reply);
        if let Some(Mail::Confirmed { channel: last, count }) = batch.mails.last_mut()
            && *last == channel
        {
            *count += done;
            return;
        }
        batch.push(Mail::Confirmed { channel, count: done });
    }

    /// A home has kept the next `count` publishes of a channel here.
    pub fn confirmed(&mut self, home: ShardId, channel: ChannelKey, count: u32) {
        if let Some(confirms) = self.confirms_due(channel) {
            confirms.confirmed(home, count);
        }
    }

    /// The home `home` could not keep the next `count` publishes of a channel on `shard`.
    pub fn refuse(&mut self, shard: ShardId, channel: ChannelKey, home: ShardId, count: u32) {
        if shard == home {
            self.refused(home, channel, count);
        } else {
            self.reply(shard, Mail::Refused { channel, count });
        }
    }

    /// A home could not keep the next `count` publishes of a channel here.
    pub fn refused(&mut self, home: ShardId, channel: ChannelKey, count: u32) {
        if let Some(confirms) = self.confirms_due(channel) {
            confirms.refuse(home, count);
        }
    }

    /// The confirms of a channel here; its acks are written before the turn ends.
    fn confirms_due(&mut self, channel: ChannelKey) -> Option<&mut Confirms> {
        let (writer, index) = self.writers.channel(channel)?;
        let outbound = writer.channel_at(index);
        outbound.confirms_due = true;
        outbound.confirms.as_mut()
    }
}

impl Confirms {
    /// The next `count` publishes are done at once: no home has to answer.
    pub fn resolve(&mut self, count: u64) {
        let first = self.last + 1;
        self.last += count;
        // If no publish waits, `acknowledge` covers everything up to `last` anyway.
        if self.first_waiting().is_some() {
            self.done.push((first, self.last));
        }
    }

    /// The next `count` publishes have been sent to these homes.
    #[inline]
    pub fn wait_for(&mut self, homes: &[ShardId], count: u64) {
        let row = (self.last + 1, self.last + count);
        self.last += count;
        for home in homes {
            match self.sent.iter_mut().find(|(shard, _)| shard == home) {
                Some((_, sent)) => sent.push(row),
                None => self.sent.push((*home, Rows(VecDeque::from([row])))),
            }
        }
    }

    /// Whether a home still has publishes to answer.
    #[inline]
    pub fn awaits(&self, home: ShardId) -> bool {
        self.sent.iter().any(|(shard, sent)| *shard == home && sent.first().is_some())
    }

    /// A home could not keep its next `count` publishes: they are refused even if other homes kept
    /// them.
    pub fn refuse(&mut self, home: ShardId, count: u32) {
        for (first, last) in self.answered(home, count) {
            for sequence in first..=last {
                // A second home may refuse it too, in this turn or after the nack was written.
                if !self.refused.contains(&sequence) && !self.singles.contains(sequence) {
                    self.refused.push(sequence);
                }
            }
        }
    }

    /// A home has kept its next `count` publishes.
    pub fn confirmed(&mut self, home: ShardId, count: u32) {
        for (first, last) in self.answered(home, count) {
            // `acknowledge` covers everything before the first that waits.
            if self.first_waiting().is_none_or(|waiting| last < waiting) {
                continue;
            }
            // Behind it, those are done that wait for no other home.
            for sequence in first..=last {
                if !self.sent.iter().any(|(_, sent)| sent.contains(sequence)) {
                    self.done.push((sequence, sequence));
                }
            }
        }
    }

    /// Writes the acks that are due: one with `multiple` for everything before the first publish
    /// that waits, single ones behind it. RabbitMQ folds the same way.
    pub fn acknowledge(&mut self, channel: u16, out: &mut Vec<u8>) {
        // First: a refused publish then counts as a single, and no ack below names it.
        if !self.refused.is_empty() {
            self.refuse_singly(channel, out);
        }
        let before = self.first_waiting().map_or(self.last, |waiting| waiting - 1);
        if before > self.acknowledged {
            // The ack must name a publish that has none yet. Those behind it up to `before` are
            // singles; singles in front of it are covered again, but not named.
            let through = self.singles.last_without(before);
            if through > self.acknowledged {
                ack(through, through - self.acknowledged > 1, channel, out);
            }
            self.acknowledged = before;
            self.singles.remove_through(before);
        }
        // These were done while an earlier one waited. Some may be covered by `before` now, and
        // some may have got a nack.
        for (first, last) in self.done.drain(..) {
            for sequence in first.max(before + 1)..=last {
                if self.singles.insert(sequence) {
                    ack(sequence, false, channel, out);
                }
            }
        }
    }

    /// Writes a nack for each refused publish, which is then a single like one with its own ack.
    #[cold]
    fn refuse_singly(&mut self, channel: u16, out: &mut Vec<u8>) {
        self.refused.sort_unstable();
        for delivery_tag in self.refused.drain(..) {
            let nack = BasicNack { delivery_tag, multiple: false, requeue: false };
            encode_frame(channel, &Method::BasicNack(nack), out);
            self.singles.insert(delivery_tag);
        }
    }

    /// The first publish that some home has not answered.
    fn first_waiting(&self) -> Option<u64> {
        self.sent.iter().filter_map(|(_, sent)| sent.first()).min()
    }

    /// Takes the oldest `count` publishes that a home has not answered.
    fn answered(&mut self, home: ShardId, count: u32) -> Vec<(u64, u64)> {
        let sent = self.sent.iter_mut().find(|(shard, _)| *shard == home);
        sent.map_or(Vec::new(), |(_, sent)| sent.take(u64::from(count)))
    }
}

impl Rows {
    fn first(&self) -> Option<u64> {
        self.0.front().map(|(first, _)| *first)
    }

    /// Adds a row above all others.
    #[inline]
    fn push(&mut self, (first, last): (u64, u64)) {
        match self.0.back_mut() {
            Some((_, before)) if *before + 1 == first => *before = last,
            _ => self.0.push_back((first, last)),
        }
    }

    /// The index of the row with the number, or else the index at which to insert one.
    fn find(&self, number: u64) -> Result<usize, usize> {
        let index = self.0.partition_point(|(_, last)| *last < number);
        match self.0.get(index) {
            Some((first, _)) if *first <= number => Ok(index),
            _ => Err(index),
        }
    }

    fn contains(&self, number: u64) -> bool {
        self.find(number).is_ok()
    }

    /// Adds a number; false if it is there already.
    fn insert(&mut self, number: u64) -> bool {
        let Err(index) = self.find(number) else { return false };
        // It may close the gap between two rows.
        let joins_before = index > 0 && self.0[index - 1].1 + 1 == number;
        let joins_behind = self.0.get(index).is_some_and(|(first, _)| *first == number + 1);
        match (joins_before, joins_behind) {
            (true, true) => {
                self.0[index - 1].1 = self.0[index].1;
                self.0.remove(index);
            }
            (true, false) => self.0[index - 1].1 = number,
            (false, true) => self.0[index].0 = number,
            (false, false) => self.0.insert(index, (number, number)),
        }
        true
    }

    /// Takes the lowest `count` numbers, or as many as there are.
    fn take(&mut self, mut count: u64) -> Vec<(u64, u64)> {
        let mut taken = Vec::new();
        while count > 0
            && let Some((first, last)) = self.0.front_mut()
        {
            let end = (*first + (count - 1)).min(*last);
            taken.push((*first, end));
            count -= end - *first + 1;
            if end == *last {
                self.0.pop_front();
            } else {
                *first = end + 1;
            }
        }
        taken
    }

    /// The highest number up to `number` that is in no row.
    fn last_without(&self, number: u64) -> u64 {
        self.find(number).map_or(number, |index| self.0[index].0 - 1)
    }

    fn remove_through(&mut self, number: u64) {
        while let Some((first, last)) = self.0.front_mut()
            && *first <= number
        {
            if *last > number {
                *first = number + 1;
                return;
            }
            self.0.pop_front();
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
        confirms.resolve(100);
        let mut out = Vec::new();
        confirms.acknowledge(1, &mut out);
        assert_eq!(settle(&out, &mut (1..=100).collect()), [(100, true)]);
        out.clear();
        confirms.acknowledge(1, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn what_one_home_refuses_another_cannot_confirm() {
        let mut confirms = Confirms::default();
        confirms.wait_for(&[ShardId(0), ShardId(1)], 1);
        confirms.wait_for(&[ShardId(0)], 1);
        confirms.refuse(ShardId(0), 1);
        confirms.confirmed(ShardId(0), 1);
        let mut out = Vec::new();
        confirms.acknowledge(1, &mut out);
        let mut decoder = Decoder::new(4096);
        let mut cursor = 0;
        let mut told = Vec::new();
        while let Some(frame) = decoder.next(&out, &mut cursor).unwrap() {
            let Frame::Method { payload, .. } = frame else { panic!("{frame:?}") };
            told.push(format!("{:?}", Method::decode(payload).unwrap()));
        }
        let nack = BasicNack { delivery_tag: 1, multiple: false, requeue: false };
        let ack = BasicAck { delivery_tag: 2, multiple: false };
        let expected = [Method::BasicNack(nack), Method::BasicAck(ack)];
        assert_eq!(told, expected.map(|method| format!("{method:?}")));
        out.clear();
        confirms.confirmed(ShardId(1), 1);
        confirms.acknowledge(1, &mut out);
        assert!(out.is_empty());
        confirms.resolve(1);
        confirms.acknowledge(1, &mut out);
        assert_eq!(settle(&out, &mut [3].into()), [(3, false)]);
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
            let mut last = 0;
            for (step, count) in steps {
                let mut out = Vec::new();
                match step {
                    0 | 1 => {
                        confirms.resolve(u64::from(count));
                        open.extend(last + 1..=last + u64::from(count));
                        last += u64::from(count);
                    }
                    2 | 3 => {
                        let first = last + 1;
                        last += u64::from(count);
                        open.extend(first..=last);
                        let homes = if step == 2 { vec![0u16] } else { vec![0, 1] };
                        let ids: Vec<_> = homes.iter().map(|home| ShardId(*home)).collect();
                        confirms.wait_for(&ids, count.into());
                        for home in &homes {
                            queues[usize::from(*home)].extend(first..=last);
                        }
                        let homes: BTreeSet<_> = homes.into_iter().collect();
                        waiting.extend((first..=last).map(|sequence| (sequence, homes.clone())));
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
