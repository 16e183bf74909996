//! An endpoint that consumes: it checks deliveries, simulates work on them, and acknowledges them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leveret_amqp::method::{BasicAck, encode_frame};

use crate::fault::Fault;
use crate::load::deliveries::{Arrival, Deliveries, Lane};
use crate::load::endpoint::Endpoint;
use crate::load::latency::LatencyHistogram;
use crate::load::stamp::stamp_time_us;
use crate::load::tally::Tally;
use crate::results::Messages;

/// The limit on acks in one send, in octets: 6,000 acks.
const SEND_SIZE: usize = 128 << 10;

/// The configuration of a consumer. Its `basic.consume` methods have been sent already, with tags
/// as in [`Lane`].
#[derive(Debug, Clone)]
pub(crate) struct ConsumerPlan {
    pub(crate) channel: u16,
    pub(crate) lanes: Vec<Lane>,
    /// In octets, including the stamp.
    pub(crate) body_size: usize,
    /// The negotiated limit in octets; 0 is no limit.
    pub(crate) frame_size_max: u32,
    /// Unacknowledged deliveries per lane; 0 for automatic acks.
    pub(crate) prefetch: u16,
    /// Deliveries per ack, at most `prefetch`.
    pub(crate) ack_every: u16,
    /// How long it works on each message before it is acknowledged.
    pub(crate) work: Duration,
}

/// The time between two updates of the shown latencies. A quantile takes about 30 µs of the load
/// thread.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// The result of a consumer.
#[derive(Debug)]
pub(crate) struct ConsumerReport {
    /// Without published messages. For a shared queue, the consumer that finishes last reports
    /// loss, duplication and expected messages, so all reports have to be added up.
    pub(crate) messages: Messages,
    /// From the intended time of the send to the delivery.
    pub(crate) delivery: LatencyHistogram,
}

/// A connection that consumes on one channel.
#[derive(Debug)]
pub(crate) struct Consumer {
    tally: Arc<Tally>,
    deliveries: Deliveries,
    channel: u16,
    /// Deliveries per ack; 0 for automatic acks.
    ack_every: u64,
    work: Duration,
    /// When the shown latencies are updated next.
    show_at: Option<Instant>,
    /// When the work on the current message ends; `None` if there is none.
    worked_at: Option<Instant>,
    /// Deliveries whose work is done, and how many of them have been acknowledged.
    worked: u64,
    acknowledged: u64,
}

impl Consumer {
    /// A consumer before its first delivery.
    pub(crate) fn new(plan: ConsumerPlan, tally: Arc<Tally>) -> Result<Self, Fault> {
        let automatic = plan.prefetch == 0;
        if !automatic && !(1..=plan.prefetch).contains(&plan.ack_every) {
            return Err(Fault::Scenario(format!(
                "a consumer with a prefetch count of {} that acknowledges every {} messages would \
                 come to a stop: give ack_every from 1 to the prefetch count",
                plan.prefetch, plan.ack_every
            )));
        }
        if automatic && !plan.work.is_zero() {
            return Err(Fault::Scenario(
                "a consumer with automatic acks cannot be slow, as nothing waits for its work: \
                 give a prefetch count"
                    .to_owned(),
            ));
        }
        let ConsumerPlan { channel, lanes, body_size, frame_size_max, .. } = plan;
        Ok(Self {
            deliveries: Deliveries::new(channel, lanes, body_size, frame_size_max)?,
            tally,
            channel,
            ack_every: if automatic { 0 } else { u64::from(plan.ack_every) },
            work: plan.work,
            show_at: None,
            worked_at: None,
            worked: 0,
            acknowledged: 0,
        })
    }

    /// The result so far, even after the broker fell silent.
    pub(crate) fn finish(self) -> ConsumerReport {
        let (messages, delivery) = self.deliveries.finish(&self.tally);
        ConsumerReport { messages, delivery }
    }

    const fn is_automatic(&self) -> bool {
        self.ack_every == 0
    }

    /// Whether it works on messages: at the end of a run, the remaining ones are only drained.
    fn is_slow(&self) -> bool {
        !self.work.is_zero() && !self.tally.is_stopped()
    }

    /// Finishes messages one after the other; work on each begins when the previous one ends.
    fn work_until(&mut self, now: Instant) {
        let count = self.deliveries.count();
        if !self.is_slow() {
            (self.worked, self.worked_at) = (count, None);
        }
        while self.worked < count {
            let ends = *self.worked_at.get_or_insert(now + self.work);
            if ends > now {
                return;
            }
            self.worked += 1;
            self.worked_at = (self.worked < count).then(|| ends + self.work);
        }
    }

    /// The last delivery of the next ack, once enough messages are worked on.
    fn ack_due(&self, worked: u64) -> Option<u64> {
        let next = self.acknowledged + self.ack_every;
        if worked >= next {
            return Some(next);
        }
        let rest = worked > self.acknowledged
            && worked == self.deliveries.count()
            && self.deliveries.is_complete(&self.tally);
        rest.then_some(worked)
    }
}

impl Endpoint for Consumer {
    fn receive(&mut self, chunk: &[u8], now: Instant) -> Result<(), Fault> {
        let arrival = Arrival {
            now_us: stamp_time_us(self.tally.epoch, now),
            measuring: self.tally.is_measuring(),
        };
        let before = self.deliveries.count();
        let result = self.deliveries.receive(chunk, arrival);
        let taken = self.deliveries.count() - before;
        if taken > 0 {
            self.tally.note_consumed(taken);
        }
        result?;
        if !self.is_automatic() {
            if self.deliveries.tag_jumped() {
                return Err(Fault::Messages(
                    "the broker's delivery tags do not count up by one: acks would mean others"
                        .to_owned(),
                ));
            }
            self.work_until(now);
        }
        if self.tally.is_watched() && self.show_at.is_none_or(|at| at <= now) {
            self.show_at = Some(now + SHOW_EVERY);
            if let Some(quantiles_us) = self.deliveries.quantiles_us() {
                self.tally.show_delivery(quantiles_us);
            }
        }
        Ok(())
    }

    fn poll_send(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.is_automatic() {
            return Ok(());
        }
        self.work_until(now);
        // An incomplete message already has a tag but is not counted.
        let first_tag = self.deliveries.first_tag();
        while out.len() < SEND_SIZE
            && let Some(count) = self.ack_due(self.worked)
        {
            let delivery_tag = first_tag + count - 1;
            let ack = BasicAck { delivery_tag, multiple: self.ack_every > 1 };
            encode_frame(self.channel, &ack, out);
            self.acknowledged = count;
        }
        Ok(())
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.is_automatic() {
            return None;
        }
        let worked = if self.is_slow() { self.worked } else { self.deliveries.count() };
        if self.ack_due(worked).is_some() { Some(now) } else { self.worked_at }
    }

    fn is_done(&self) -> bool {
        let rest =
            if self.is_automatic() { 0 } else { self.deliveries.count() - self.acknowledged };
        rest == 0 && self.deliveries.is_complete(&self.tally)
    }

    fn awaits(&self) -> &'static str {
        "deliveries"
    }
}

#[cfg(test)]
mod tests;
