//! Class confirm (85), an extension of `RabbitMQ`: publisher confirms.

use super::methods;

methods! {
    /// Puts the channel in confirm mode: each publish is answered with an ack or a nack.
    (85, 10) "confirm.select" ConfirmSelect [] {
        /// Do not answer.
        nowait: bool = bit,
    } []
    /// Answers [`ConfirmSelect`].
    (85, 11) "confirm.select-ok" ConfirmSelectOk [] {} []
}
