//! The differences from `RabbitMQ` 3.10 that are meant, each with its reason. Each has its line in
//! `docs/COMPATIBILITY.md`. After such a difference the two brokers are no longer in the same
//! state, so the rest of that sequence is not compared.

use crate::record::Difference;
use crate::step::{Action, Odd, Props, QueueName, Step};

/// A difference that is meant.
#[derive(Debug)]
pub(crate) struct Known {
    /// The reason, in a few words.
    pub(crate) reason: &'static str,
    /// Whether the last of these steps can show it, after those before it.
    comes_from: fn(&[Step], &Difference) -> bool,
    /// What the left broker, `RabbitMQ`, says then.
    left: &'static str,
    /// What the right broker says then; nothing where it just goes on.
    right: &'static str,
}

/// All of them.
pub(crate) const KNOWN: &[Known] = &[
    Known {
        reason: "an unknown exchange type closes the channel with 406, as in RabbitMQ 4; \
                 3.10 closes the connection with 503",
        comes_from: |steps, _| {
            any_part(steps, |part| matches!(part, Action::ExchangeDeclare { .. }))
        },
        left: "connection.close 503 'COMMAND_INVALID - unknown exchange type",
        right: "channel.close 406 'PRECONDITION_FAILED - unknown exchange type",
    },
    Known {
        reason: "the same for what cannot be a type; 3.10 has another text for it",
        comes_from: |steps, _| {
            any_part(steps, |part| matches!(part, Action::ExchangeDeclare { .. }))
        },
        left: "connection.close 503 'COMMAND_INVALID - invalid exchange type",
        right: "channel.close 406 'PRECONDITION_FAILED - unknown exchange type",
    },
    Known {
        reason: "any delivery mode but 2 is transient, as in RabbitMQ 4; 3.10 refuses all but 1 \
                 and 2 with 406",
        comes_from: |steps, _| {
            any_part(steps, |part| {
                matches!(part, Action::Publish(publish)
                    if matches!(publish.props, Props::DeliveryMode(_)))
            })
        },
        left: "channel.close 406 'PRECONDITION_FAILED - invalid message: {delivery_mode_unknown,",
        right: "",
    },
    Known {
        reason: "basic.cancel-ok of a client is ignored, as in RabbitMQ 4; 3.10 closes with 503",
        comes_from: |steps, _| any_part(steps, |part| *part == Action::Odd(Odd::CancelOkByClient)),
        left: "connection.close 503 'COMMAND_INVALID - unimplemented method' (60, 31)",
        right: "",
    },
    Known {
        reason: "a queue type that does not exist is refused with 406 also where the server names \
                 the queue; 3.10 crashes with 541",
        comes_from: |steps, _| {
            any_part(steps, |part| {
                matches!(part, Action::QueueDeclare { queue: QueueName::Empty, .. })
            })
        },
        left: "connection.close 541 'INTERNAL_ERROR' (0, 0)",
        right: "channel.close 406 'PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue",
    },
    Known {
        reason: "a method on a channel that is not open is refused with 504; 3.10 first looks for \
                 the queue declared last where no queue is named",
        comes_from: |steps, _| steps.last().is_some_and(|step| step.raw),
        left: "channel.close 404 'NOT_FOUND - no previously declared queue'",
        right: "connection.close 504 'CHANNEL_ERROR - expected 'channel.open''",
    },
    Known {
        reason: "a publish on a channel that is not open is refused with 504; 3.10 first looks at \
                 its content",
        comes_from: |steps, _| steps.last().is_some_and(|step| step.raw),
        left: "connection.close 505 'UNEXPECTED_FRAME - expected",
        right: "connection.close 504 'CHANNEL_ERROR - expected 'channel.open''",
    },
    Known {
        reason: ENDS_AT_ONCE,
        comes_from: has_several_consumers,
        left: "ConnectionCloseOk",
        right: "ConnectionCloseOk",
    },
    Known {
        reason: ENDS_AT_ONCE,
        comes_from: has_several_consumers,
        left: "reply: connection.close ",
        right: "reply: connection.close ",
    },
    Known {
        reason: "which queue gets the room under a limit of the whole channel is up to chance",
        comes_from: shares_a_limit,
        left: "delivery: ",
        right: "delivery: ",
    },
];

const ENDS_AT_ONCE: &str = "a connection ends as one; in 3.10 its channels end one after the \
                            other, and one may be given what another puts back, and lose it";

/// Whether the connection of the last step had more than one that takes messages.
fn has_several_consumers(steps: &[Step], _: &Difference) -> bool {
    let Some((last, before)) = steps.split_last() else {
        return false;
    };
    let takes = before.iter().filter(|step| {
        step.connection == last.connection
            && matches!(step.action, Action::Consume { .. } | Action::Get { .. })
    });
    takes.count() > 1
}

/// Whether two queues wait for the same limit, and as much was delivered on both sides.
fn shares_a_limit(steps: &[Step], difference: &Difference) -> bool {
    let Some(last) = steps.last() else {
        return false;
    };
    let same = |step: &&Step| (step.connection, step.channel) == (last.connection, last.channel);
    let here = || steps.iter().filter(same);
    let limited = here().any(|step| matches!(step.action, Action::Qos { global: true, .. }));
    let mut queues: Vec<QueueName> = here()
        .filter_map(|step| match step.action {
            Action::Consume { queue, .. } => Some(queue),
            _ => None,
        })
        .collect();
    queues.sort_unstable();
    queues.dedup();
    let count = |text: &str| text.matches("delivery: ").count();
    limited && queues.len() > 1 && count(&difference.left) == count(&difference.right)
}

/// Whether a part of the last step is like this.
fn any_part(steps: &[Step], is_like: fn(&Action) -> bool) -> bool {
    steps.last().is_some_and(|step| step.action.parts().iter().any(is_like))
}

/// The index in [`KNOWN`] of what explains a difference.
pub(crate) fn explanation(steps: &[Step], difference: &Difference) -> Option<usize> {
    let steps = steps.get(..=difference.step)?;
    KNOWN.iter().position(|known| {
        difference.left.contains(known.left)
            && difference.right.contains(known.right)
            && (known.comes_from)(steps, difference)
    })
}
