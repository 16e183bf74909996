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
    /// Whether it can come from a part of the step that shows it.
    comes_from: fn(&Action) -> bool,
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
        comes_from: |part| matches!(part, Action::ExchangeDeclare { .. }),
        left: "connection.close 503 'COMMAND_INVALID - unknown exchange type",
        right: "channel.close 406 'PRECONDITION_FAILED - unknown exchange type",
    },
    Known {
        reason: "the same for what cannot be a type; 3.10 has another text for it",
        comes_from: |part| matches!(part, Action::ExchangeDeclare { .. }),
        left: "connection.close 503 'COMMAND_INVALID - invalid exchange type",
        right: "channel.close 406 'PRECONDITION_FAILED - unknown exchange type",
    },
    Known {
        reason: "any delivery mode but 2 is transient, as in RabbitMQ 4; 3.10 refuses all but 1 \
                 and 2 with 406",
        comes_from: |part| {
            let Action::Publish(publish) = part else {
                return false;
            };
            matches!(publish.props, Props::DeliveryMode(_))
        },
        left: "channel.close 406 'PRECONDITION_FAILED - invalid message: {delivery_mode_unknown,",
        right: "",
    },
    Known {
        reason: "basic.cancel-ok of a client is ignored, as in RabbitMQ 4; 3.10 closes with 503",
        comes_from: |part| *part == Action::Odd(Odd::CancelOkByClient),
        left: "connection.close 503 'COMMAND_INVALID - unimplemented method' (60, 31)",
        right: "",
    },
    Known {
        reason: "a queue type that does not exist is refused with 406 also where the server names \
                 the queue; 3.10 crashes with 541",
        comes_from: |part| {
            matches!(
                part,
                Action::QueueDeclare {
                    queue: QueueName::Empty,
                    ..
                }
            )
        },
        left: "connection.close 541 'INTERNAL_ERROR' (0, 0)",
        right: "channel.close 406 'PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue",
    },
];

/// The index in [`KNOWN`] of what explains a difference.
pub(crate) fn explanation(steps: &[Step], difference: &Difference) -> Option<usize> {
    let step = steps.get(difference.step)?;
    KNOWN.iter().position(|known| {
        step.action.parts().iter().any(known.comes_from)
            && difference.left.contains(known.left)
            && difference.right.contains(known.right)
    })
}
