//! An endpoint that publishes: as fast as possible (closed loop) or by a schedule (open loop).

use std::sync::Arc;
use std::time::{Duration, Instant};

use leveret_amqp::method::BasicAck;
use leveret_amqp::{Decoder, Frame, Method};

use crate::client::refusal;
use crate::fault::Fault;
use crate::load::batch::{Batch, Route};
use crate::load::confirm_window::ConfirmWindow;
use crate::load::endpoint::Endpoint;
use crate::load::latency::LatencyHistogram;
use crate::load::schedule::Schedule;
use crate::load::stamp::{elapsed_us, stamp_time_us};
use crate::load::tally::Tally;

/// The size of one send in octets, unless one message is larger: system calls hardly matter at this
/// size, and it stays in the level 2 cache.
const SEND_SIZE: usize = 128 << 10;

/// How long a publisher pauses when it is too far ahead of the consumers: a twentieth of the 4 ms
/// in which a broker handles 20,000 messages at 5 million per second.
const PAUSE: Duration = Duration::from_micros(200);

/// How long a publisher waits for the next message to become due before it checks whether the run
/// was stopped.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// Class and method id of `basic.ack`, at the start of its frame's payload.
const ACK_IDS: [u8; 4] = {
    let (class, method) = (BasicAck::IDS.0.to_be_bytes(), BasicAck::IDS.1.to_be_bytes());
    [class[0], class[1], method[0], method[1]]
};

/// The configuration of a publisher.
#[derive(Debug, Clone)]
pub(crate) struct PublisherPlan {
    pub(crate) channel: u16,
    /// It publishes to these routes in turn.
    pub(crate) routes: Vec<Route>,
    /// In octets, including the stamp.
    pub(crate) body_size: usize,
    /// The negotiated limit in octets; 0 is no limit.
    pub(crate) frame_size_max: u32,
    /// The limit on unconfirmed publishes; 0 on a channel without confirms.
    pub(crate) confirm_window: u32,
    /// Without confirms: the limit on messages in flight, over all publishers. [`u64::MAX`] for no
    /// limit.
    pub(crate) under_way_max: u64,
    /// `None` in a closed loop. It starts with the first turn, unless it has started already.
    pub(crate) schedule: Option<Schedule>,
    /// The number of messages after which it stops publishing. It keeps its connection until the
    /// tally is stopped, because a broker may drop unread publishes of a closed connection.
    pub(crate) limit: Option<u64>,
}

/// The result of a publisher.
#[derive(Debug)]
pub(crate) struct PublisherReport {
    /// Messages passed to the driver.
    pub(crate) published: u64,
    /// From the intended time to the confirm; empty without confirms.
    pub(crate) confirm: LatencyHistogram,
    /// From the intended time to the actual one; empty in a closed loop.
    pub(crate) send_lag: LatencyHistogram,
}

/// A connection that publishes on one channel.
#[derive(Debug)]
pub(crate) struct Publisher {
    tally: Arc<Tally>,
    decoder: Decoder,
    batch: Batch,
    /// The most messages of one send.
    send_count_max: u64,
    /// A publisher that is too far ahead waits until it may send this many: otherwise tiny sends
    /// would make system calls the load.
    resume_count: u64,
    under_way_max: u64,
    confirm_window: u64,
    window: ConfirmWindow,
    schedule: Option<Schedule>,
    limit: u64,
    published: u64,
    /// Its streams are closed and it does nothing any more.
    closed: bool,
    confirm: LatencyHistogram,
    send_lag: LatencyHistogram,
}

impl Publisher {
    /// Encodes the messages. The channel is open, in confirm mode if the plan has a window.
    pub(crate) fn new(plan: PublisherPlan, tally: Arc<Tally>) -> Result<Self, Fault> {
        if plan.confirm_window == 0 && plan.under_way_max == 0 {
            return Err(Fault::Scenario(
                "a publisher that may have no message under way never publishes: give a confirm \
                 window or a larger under_way_max"
                    .to_owned(),
            ));
        }
        let batch = Batch::new(plan.channel, &plan.routes, plan.body_size, plan.frame_size_max)?;
        let send_count_max = (SEND_SIZE / batch.stride()).max(1) as u64;
        Ok(Self {
            tally,
            decoder: Decoder::new(plan.frame_size_max),
            batch,
            send_count_max,
            resume_count: send_count_max.min(plan.under_way_max / 4).max(1),
            under_way_max: plan.under_way_max,
            confirm_window: u64::from(plan.confirm_window),
            window: ConfirmWindow::new(),
            schedule: plan.schedule,
            limit: plan.limit.unwrap_or(u64::MAX),
            published: 0,
            closed: false,
            confirm: LatencyHistogram::new(),
            send_lag: LatencyHistogram::new(),
        })
    }

    /// The result so far.
    pub(crate) fn finish(self) -> PublisherReport {
        PublisherReport {
            published: self.published,
            confirm: self.confirm,
            send_lag: self.send_lag,
        }
    }

    /// Whether nothing more will be published.
    fn is_over(&self) -> bool {
        self.tally.is_stopped()
    }

    /// How many messages the limits allow now; 0 if too few to start a send.
    fn room(&self) -> u64 {
        if self.confirm_window > 0 {
            return self.confirm_window - self.window.unconfirmed();
        }
        let room = self.under_way_max.saturating_sub(self.tally.under_way());
        if room < self.resume_count { 0 } else { room }
    }

    /// How many messages are due.
    fn due(&self, now: Instant) -> u64 {
        self.schedule
            .as_ref()
            .map_or(u64::MAX, |schedule| schedule.due(now).saturating_sub(self.published))
    }

    /// Closes its streams once everything is published and confirmed.
    fn close_if_over(&mut self) {
        if !self.closed && self.window.unconfirmed() == 0 && self.is_over() {
            for (stream, total) in self.batch.totals() {
                self.tally.close_stream(stream, total);
            }
            self.closed = true;
        }
    }

    fn publish_closed(&mut self, count: u64, now: Instant, out: &mut Vec<u8>) -> Result<(), Fault> {
        let now_us = stamp_time_us(self.tally.epoch, now);
        self.batch.append(count as usize, || now_us, out)?;
        if self.confirm_window > 0 {
            (0..count).for_each(|_| self.window.publish(now_us));
        }
        Ok(())
    }

    fn publish_open(&mut self, count: u64, now: Instant, out: &mut Vec<u8>) -> Result<(), Fault> {
        let Some(schedule) = &self.schedule else { return Ok(()) };
        let Some(began) = schedule.began() else { return Ok(()) };
        // Computed from the epoch, so that an intended time is rounded only once.
        let began_ns = began.saturating_duration_since(self.tally.epoch).as_nanos() as u64;
        let (now_us, measuring) = (stamp_time_us(self.tally.epoch, now), self.tally.is_measuring());
        let mut index = self.published;
        let (window, confirms) = (&mut self.window, self.confirm_window > 0);
        let send_lag = &mut self.send_lag;
        let intended = || {
            let intended_us = ((began_ns + schedule.offset_ns(index)) / 1000) as u32;
            index += 1;
            if measuring {
                send_lag.record_us(elapsed_us(intended_us, now_us));
            }
            if confirms {
                window.publish(intended_us);
            }
            intended_us
        };
        self.batch.append(count as usize, intended, out)
    }
}

impl Endpoint for Publisher {
    fn receive(&mut self, chunk: &[u8], now: Instant) -> Result<(), Fault> {
        let (now_us, measuring) = (stamp_time_us(self.tally.epoch, now), self.tally.is_measuring());
        let unconfirmed = self.window.unconfirmed();
        let mut cursor = 0;
        loop {
            match self.decoder.next(chunk, &mut cursor)? {
                Some(Frame::Method { payload, .. }) => {
                    let (delivery_tag, multiple) = read_ack(payload)?;
                    if self.confirm_window == 0 {
                        return Err(unasked());
                    }
                    let confirm = &mut self.confirm;
                    self.window.confirm(delivery_tag, multiple, |intended_us| {
                        if measuring {
                            confirm.record_us(elapsed_us(intended_us, now_us));
                        }
                    })?;
                }
                Some(Frame::Heartbeat { .. }) => {}
                Some(_) => return Err(content()),
                None => break,
            }
        }
        let confirmed = unconfirmed - self.window.unconfirmed();
        if confirmed > 0 {
            self.tally.note_confirmed(confirmed);
            self.close_if_over();
        }
        Ok(())
    }

    fn poll_send(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.closed {
            return Ok(());
        }
        if let Some(schedule) = &mut self.schedule {
            schedule.begin(now);
        }
        let count = if self.is_over() {
            0
        } else {
            let left = self.limit - self.published;
            self.room().min(self.due(now)).min(left).min(self.send_count_max)
        };
        if count > 0 {
            if self.schedule.is_some() {
                self.publish_open(count, now, out)?;
            } else {
                self.publish_closed(count, now, out)?;
            }
            self.published += count;
            self.tally.note_published(count);
        }
        self.close_if_over();
        Ok(())
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.closed {
            return None;
        }
        if self.is_over() {
            return (self.window.unconfirmed() == 0).then_some(now);
        }
        if self.published == self.limit {
            return Some(now + LOOK_AROUND);
        }
        if self.room() == 0 {
            return (self.confirm_window == 0).then(|| now + PAUSE);
        }
        let Some(schedule) = &self.schedule else { return Some(now) };
        match schedule.intended(self.published) {
            Some(intended) => Some(intended.min(now + LOOK_AROUND)),
            None => Some(now),
        }
    }

    fn is_done(&self) -> bool {
        self.closed
    }

    fn awaits(&self) -> &'static str {
        // Without confirms it waits only for a broker that does not read, or does not deliver.
        if self.confirm_window > 0 { "confirms" } else { "room for more messages" }
    }
}

/// Delivery tag and the flag `multiple`.
#[inline]
fn read_ack(payload: &[u8]) -> Result<(u64, bool), Fault> {
    if let Some((&ACK_IDS, rest)) = payload.split_first_chunk()
        && let Some((delivery_tag, &[flags])) = rest.split_first_chunk()
    {
        return Ok((u64::from_be_bytes(*delivery_tag), flags & 1 != 0));
    }
    Err(unwanted(payload)?)
}

/// The fault for a method other than `basic.ack`.
#[cold]
fn unwanted(payload: &[u8]) -> Result<Fault, Fault> {
    Ok(match Method::decode(payload)? {
        Method::BasicNack(nack) => Fault::Messages(format!(
            "the broker refused publish {} (basic.nack)",
            nack.delivery_tag
        )),
        other => refusal("basic.ack", other),
    })
}

#[cold]
fn unasked() -> Fault {
    Fault::Messages("the broker confirmed a publish on a channel without confirms".to_owned())
}

#[cold]
fn content() -> Fault {
    Fault::Unexpected { expected: "basic.ack", method: "content" }
}

#[cfg(test)]
mod tests;
