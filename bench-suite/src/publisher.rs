//! The two ways to publish as fast as the broker takes it.

use std::thread;
use std::time::{Duration, Instant};

use leveret_amqp::{Frame, Method};

use crate::batch::Batch;
use crate::client::{Connection, refusal};
use crate::confirm_window::ConfirmWindow;
use crate::fault::Fault;
use crate::flow::Progress;

/// Octets of a write without confirms: large enough that the calls do not count, small enough that
/// the buffer stays in the second cache.
pub(crate) const WRITE_SIZE: usize = 64 << 10;

/// How far an unconfirmed publisher may be ahead of the consumer, in messages. 1.4 MB of publishes
/// of 16 B: twenty receive buffers of a fast broker, which therefore never waits, and a queue of a
/// fifth of a second at the 100,000 messages/s of a slow one. Beyond that it would be a test of
/// deep queues.
pub(crate) const AHEAD_MAX: u64 = 20_000;

/// How long a publisher that is too far ahead waits: a twentieth of the 4 ms that a broker takes
/// for [`AHEAD_MAX`] at 5 million messages/s.
const PAUSE: Duration = Duration::from_micros(200);

/// Publishes without confirms until the run stops; how many.
pub(crate) fn publish_freely(
    connection: &mut Connection,
    batch: &mut Batch,
    progress: &Progress,
) -> Result<u64, Fault> {
    let (mut published, count) = (0_u64, batch.count());
    while !progress.is_stopped() {
        if published.saturating_sub(progress.delivered()) + count > AHEAD_MAX {
            thread::sleep(PAUSE);
            continue;
        }
        connection.write(batch.number(published, count))?;
        published += count;
    }
    Ok(published)
}

/// Publishes with at most `window` unconfirmed messages until the run stops and all are confirmed;
/// how many. `batch` has room for the window.
pub(crate) fn publish_confirmed(
    connection: &mut Connection,
    batch: &mut Batch,
    window: u64,
    progress: &Progress,
) -> Result<u64, Fault> {
    let (mut published, mut unconfirmed) = (0, ConfirmWindow::new());
    let mut heard = Instant::now();
    loop {
        let free = window - unconfirmed.unconfirmed();
        if free > 0 && !progress.is_stopped() {
            connection.write(batch.number(published, free))?;
            published += free;
            unconfirmed.publish(free);
        }
        if unconfirmed.unconfirmed() == 0 {
            return Ok(published);
        }
        if connection.receive(|_, frame| confirm(&mut unconfirmed, frame))? {
            heard = Instant::now();
        } else if heard.elapsed() > progress.silence_max {
            let seconds = progress.silence_max.as_secs();
            return Err(Fault::Silent { expected: "confirms", seconds });
        }
    }
}

fn confirm(window: &mut ConfirmWindow, frame: Frame<'_>) -> Result<(), Fault> {
    let Frame::Method { payload, .. } = frame else { return Ok(()) };
    match Method::decode(payload)? {
        Method::BasicAck(ack) => window.confirm(ack.delivery_tag, ack.multiple),
        Method::BasicNack(nack) => {
            Err(Fault::Messages(format!("publish {} was refused (nack)", nack.delivery_tag)))
        }
        other => Err(refusal("basic.ack", other)),
    }
}
