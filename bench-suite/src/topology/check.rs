//! Checks whether a flow can be run and is meaningful.

use super::{Exchange, bindings_needed};
use crate::fault::Fault;
use crate::scenario::Flow;

/// The stamp.
const BODY_SIZE_MIN: usize = 16;

/// The largest message that `RabbitMQ` 4 and Leveret accept by default.
const BODY_SIZE_MAX: usize = 16 << 20;

/// A consumer tag has four hexadecimal digits.
const QUEUES_MAX: u32 = 65_535;

/// Streams have 24-bit numbers that are unique in a measurement: 16 runs of the largest flow fit.
const STREAMS_MAX: u64 = 1 << 20;

/// A routing key has seven digits.
const BINDINGS_MAX: u32 = 9_999_999;

/// Refuses a flow that is contradictory or would not measure what its options say.
pub(crate) fn check(flow: &Flow) -> Result<(), Fault> {
    check_sizes(flow)?;
    check_exchange(flow)?;
    check_acknowledgements(flow)?;
    check_rates(flow)?;
    check_durability(flow)
}

fn check_sizes(flow: &Flow) -> Result<(), Fault> {
    if !(BODY_SIZE_MIN..=BODY_SIZE_MAX).contains(&flow.body_bytes) {
        return refuse(&format!(
            "`body_bytes` is {}; from {BODY_SIZE_MIN} (the stamp that every message carries) to \
             {BODY_SIZE_MAX} (the largest message that brokers take by default) can be sent",
            flow.body_bytes
        ));
    }
    for (name, count) in [
        ("publishers", u32::from(flow.publishers)),
        ("queues", flow.queues),
        ("consumers", u32::from(flow.consumers)),
        ("keys_per_queue", flow.keys_per_queue),
    ] {
        if count == 0 {
            return refuse(&format!("`{name}` is 0; at least 1 is needed"));
        }
    }
    if flow.queues > QUEUES_MAX {
        return refuse(&format!("`queues` is {}; at most {QUEUES_MAX}", flow.queues));
    }
    if u32::from(flow.consumers) > flow.queues && !flow.shared {
        return refuse(&format!(
            "{} consumers for {} queues leave some without a queue; a work queue has \
             `shared = true`",
            flow.consumers, flow.queues
        ));
    }
    let keys = if flow.exchange == Exchange::Fanout {
        1
    } else {
        u64::from(flow.queues) * u64::from(flow.keys_per_queue)
    };
    let streams = keys * u64::from(flow.publishers);
    if streams >= STREAMS_MAX {
        return refuse(&format!(
            "queues × keys_per_queue × publishers is {streams}; below {STREAMS_MAX} streams can \
             be told apart"
        ));
    }
    Ok(())
}

fn check_exchange(flow: &Flow) -> Result<(), Fault> {
    let needed = bindings_needed(flow);
    match flow.exchange {
        Exchange::Default if flow.keys_per_queue != 1 => {
            return refuse(
                "the default exchange has one key per queue, its name: leave \
                           `keys_per_queue` out, or choose `direct`",
            );
        }
        Exchange::Default if flow.bindings != 0 => {
            return refuse(
                "the default exchange has no bindings of its own: leave `bindings` out, \
                           or choose another exchange",
            );
        }
        Exchange::Fanout if ![0, needed].contains(&flow.bindings) => {
            return refuse(
                "a fan-out has one binding per queue, and each of them matches: leave \
                           `bindings` out",
            );
        }
        _ => {}
    }
    if flow.bindings != 0 && flow.bindings < needed {
        return refuse(&format!(
            "`bindings` is {}, but the published keys need {needed}: the others would reach no \
             queue",
            flow.bindings
        ));
    }
    if flow.bindings > BINDINGS_MAX {
        return refuse(&format!("`bindings` is {}; at most {BINDINGS_MAX}", flow.bindings));
    }
    Ok(())
}

fn check_acknowledgements(flow: &Flow) -> Result<(), Fault> {
    if flow.prefetch == 0 && flow.ack_every != 1 {
        return refuse("`ack_every` needs a `prefetch`: without one acks are automatic");
    }
    if flow.prefetch == 0 && flow.work_us != 0 {
        return refuse(
            "`work_us` needs a `prefetch`: without one the broker does not wait for the \
                       work of a consumer",
        );
    }
    if flow.ack_every == 0 || !flow.prefetch.is_multiple_of(flow.ack_every) {
        return refuse(&format!(
            "`ack_every` ({}) does not divide `prefetch` ({}): the last deliveries of a full \
             prefetch would never be acknowledged, and the flow would stand still",
            flow.ack_every, flow.prefetch
        ));
    }
    if flow.confirm_window != 0 && flow.under_way_max != 0 {
        return refuse(
            "`confirm_window` and `under_way_max` both bound what is under way; leave \
                       one of them out",
        );
    }
    Ok(())
}

fn check_rates(flow: &Flow) -> Result<(), Fault> {
    for (name, value) in [
        ("rate_per_s", flow.rate_per_s),
        ("rate_end_per_s", flow.rate_end_per_s),
        ("seconds", flow.seconds),
    ] {
        if !value.is_finite() || value < 0.0 {
            return refuse(&format!("`{name}` is {value}; a number from 0 up is needed"));
        }
    }
    if flow.rate_end_per_s > 0.0 && flow.rate_per_s == 0.0 {
        return refuse("`rate_end_per_s` needs a `rate_per_s` to begin with");
    }
    Ok(())
}

fn check_durability(flow: &Flow) -> Result<(), Fault> {
    if flow.persistent && !flow.durable {
        return refuse(
            "`persistent` messages in queues that are not `durable` are never kept by a \
                       broker: it would look like a test of durability and be none",
        );
    }
    let needs_durable = matches!(
        flow.queue_arguments.get("x-queue-type").map(String::as_str),
        Some("quorum" | "stream")
    );
    if needs_durable && !flow.durable {
        return refuse("quorum queues and streams are always durable: add `durable = true`");
    }
    Ok(())
}

fn refuse(why: &str) -> Result<(), Fault> {
    Err(Fault::Scenario(why.to_owned()))
}
