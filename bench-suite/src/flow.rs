//! Throughput: one publisher and one consumer on threads of their own, and a window of time in
//! which deliveries and the broker's processor time are counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leveret_amqp::method::{BasicAck, encode_frame};

use crate::batch::Batch;
use crate::broker::Broker;
use crate::client::{CHANNEL, Connection};
use crate::deliveries::Deliveries;
use crate::fault::Fault;
use crate::procfs;
use crate::publisher::{WRITE_SIZE, publish_confirmed, publish_freely};
use crate::scenario::Reading;
use crate::sequence::STAMP_SIZE;

/// Before the window: connections settle, caches and the broker's memory warm up.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long a broker may be silent while messages or confirms are missing.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What is published and how it is acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    /// With confirms and manual acks, or with neither.
    pub(crate) acknowledged: Option<Acknowledged>,
    /// The measured time.
    pub(crate) window: Duration,
    /// How long the broker may be silent.
    pub(crate) silence_max: Duration,
}

/// Acknowledgement in both directions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    /// Publishes that may wait for their confirm.
    pub(crate) window: u64,
    /// Deliveries that may wait for their ack.
    pub(crate) prefetch: u16,
    /// Deliveries per ack. A divisor of `prefetch`, or the last ones would never be acknowledged.
    pub(crate) ack_every: u64,
}

impl Acknowledged {
    /// The usual settings of a client that must not lose a message and has to be fast.
    pub(crate) const USUAL: Self = Self { window: 1000, prefetch: 1000, ack_every: 100 };
}

/// What the threads of a run know of each other.
#[derive(Debug)]
pub(crate) struct Progress {
    delivered: AtomicU64,
    stopped: AtomicBool,
    /// How many messages were published; [`u64::MAX`] while the publisher is at it.
    published: AtomicU64,
    pub(crate) silence_max: Duration,
}

impl Progress {
    const fn new(silence_max: Duration) -> Self {
        Self {
            delivered: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            published: AtomicU64::new(u64::MAX),
            silence_max,
        }
    }

    /// Messages that the consumer has.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Whether nothing more is to be published.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// One run. `run` tells its messages from those of any other.
pub(crate) fn measure(
    broker: &Broker,
    flow: &Flow,
    run: u64,
    cores: &[usize],
) -> Result<Reading, Fault> {
    let queue = format!("leveret-bench-{}", broker.pid);
    let mut consumer = Connection::open(broker.address)?;
    consumer.open_channel()?;
    consumer.make_queue(&queue)?;
    consumer.consume(&queue, flow.acknowledged.map(|acks| acks.prefetch))?;
    let mut publisher = Connection::open(broker.address)?;
    publisher.open_channel()?;
    let progress = &Progress::new(flow.silence_max);
    let (window, published, deliveries) = thread::scope(|scope| {
        let consuming = scope.spawn(|| {
            let result = procfs::pin(cores.last())
                .and_then(|()| consume(&mut consumer, flow, run, progress));
            // Without a consumer the publisher would wait for its progress for ever.
            progress.stop();
            result
        });
        let publishing = scope.spawn(|| {
            let result = procfs::pin(cores.first())
                .and_then(|()| publish(&mut publisher, &queue, flow, run, progress));
            let published = *result.as_ref().unwrap_or(&0);
            progress.published.store(published, Ordering::Relaxed);
            result
        });
        let window = count(broker, flow.window, progress);
        progress.stop();
        (window, join(publishing), join(consuming))
    });
    let (published, deliveries, window) = (published?, deliveries?, window?);
    let verdict = deliveries.check.verdict(published);
    if !verdict.is_clean() {
        return Err(Fault::Messages(verdict.to_string()));
    }
    consumer.close()?;
    publisher.close()?;
    Ok(Reading { values: window.values(), messages: published })
}

/// The result of a thread, whose panic is a panic here too.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What was counted between two looks.
#[derive(Debug, PartialEq)]
struct Window {
    elapsed_s: f64,
    messages: u64,
    cpu_s: f64,
}

impl Window {
    /// As [`crate::scenario::Scenario::metrics`] says.
    fn values(&self) -> Vec<f64> {
        let messages = self.messages as f64;
        vec![messages / self.elapsed_s, messages / self.cpu_s, self.cpu_s / self.elapsed_s]
    }
}

fn count(broker: &Broker, length: Duration, progress: &Progress) -> Result<Window, Fault> {
    thread::sleep(WARM_UP);
    let (cpu_before, before) = (procfs::cpu_s(broker.pid)?, progress.delivered());
    let start = Instant::now();
    thread::sleep(length);
    let (cpu_after, after) = (procfs::cpu_s(broker.pid)?, progress.delivered());
    let window = Window {
        elapsed_s: start.elapsed().as_secs_f64(),
        messages: after - before,
        cpu_s: cpu_after - cpu_before,
    };
    if window.messages > 0 && window.cpu_s <= 0.0 {
        return Err(Fault::Process(format!(
            "process {} moved {} messages without any processor time: is it {}?",
            broker.pid, window.messages, broker.name
        )));
    }
    if window.messages == 0 {
        return Err(Fault::Messages("none was delivered while it was measured".to_owned()));
    }
    Ok(window)
}

fn publish(
    connection: &mut Connection,
    queue: &str,
    flow: &Flow,
    run: u64,
    progress: &Progress,
) -> Result<u64, Fault> {
    let published = if let Some(acknowledged) = flow.acknowledged {
        connection.select_confirms()?;
        let mut batch = window_batch(queue, run, acknowledged.window);
        publish_confirmed(connection, &mut batch, acknowledged.window, progress)?
    } else {
        let mut batch = Batch::new(queue, STAMP_SIZE, run, WRITE_SIZE);
        publish_freely(connection, &mut batch, progress)?
    };
    // An exception would answer this question: a run ends only where no publish was refused.
    connection.message_count(queue)?;
    Ok(published)
}

/// A batch with room for a whole window.
fn window_batch(queue: &str, run: u64, window: u64) -> Batch {
    let one = Batch::new(queue, STAMP_SIZE, run, 1).number(0, 1).len();
    Batch::new(queue, STAMP_SIZE, run, one * window as usize)
}

/// Receives until everything published has come and the broker is silent, or it is silent for too
/// long: late duplicates are heard, and losses end the run as well.
fn consume(
    connection: &mut Connection,
    flow: &Flow,
    run: u64,
    progress: &Progress,
) -> Result<Deliveries, Fault> {
    let mut deliveries = Deliveries::new(run);
    let (mut acks, mut acked) = (Vec::new(), 0);
    let mut heard = Instant::now();
    loop {
        if connection.receive(|chunk, frame| deliveries.take(chunk, frame))? {
            heard = Instant::now();
            progress.delivered.store(deliveries.count(), Ordering::Relaxed);
            if let Some(acknowledged) = flow.acknowledged {
                while acked + acknowledged.ack_every <= deliveries.count() {
                    acked += acknowledged.ack_every;
                    let ack = BasicAck { delivery_tag: acked, multiple: true };
                    encode_frame(CHANNEL, &ack, &mut acks);
                }
                if !acks.is_empty() {
                    connection.write(&acks)?;
                    acks.clear();
                }
            }
            continue;
        }
        let published = progress.published.load(Ordering::Relaxed);
        let complete = published != u64::MAX && deliveries.check.is_complete(published);
        if complete || heard.elapsed() > progress.silence_max {
            return Ok(deliveries);
        }
    }
}

#[cfg(test)]
mod tests;
