//! The differences from `RabbitMQ` 3.10 that are meant, each with its reason. Each has its line in
//! `docs/COMPATIBILITY.md`. After such a difference the two brokers are no longer in the same
//! state, so the rest of that sequence is not compared.

use crate::record::Difference;
use crate::step::{Action, Step};

/// A difference that is meant.
#[derive(Debug)]
pub(crate) struct Known {
    /// The reason, in a few words.
    pub(crate) reason: &'static str,
    applies: fn(&Step, &Difference) -> bool,
}

/// All of them.
pub(crate) const KNOWN: &[Known] = &[Known {
    reason: "an unknown exchange type closes the channel (406, as in RabbitMQ 4), \
             not the connection (503)",
    applies: |step, difference| {
        let parts = step.action.parts().iter();
        let declares = parts.filter(|part| matches!(part, Action::ExchangeDeclare { .. }));
        declares.count() > 0
            && difference
                .left
                .contains("503 'COMMAND_INVALID - unknown exchange type")
            && difference
                .right
                .contains("406 'PRECONDITION_FAILED - unknown exchange type")
    },
}];

/// The index in [`KNOWN`] of what explains a difference.
pub(crate) fn explanation(steps: &[Step], difference: &Difference) -> Option<usize> {
    let step = steps.get(difference.step)?;
    KNOWN
        .iter()
        .position(|known| (known.applies)(step, difference))
}
