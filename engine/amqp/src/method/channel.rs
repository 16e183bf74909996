//! Class channel (20).

use super::methods;

methods! {
    /// Opens the channel of the frame.
    (20, 10) "channel.open" ChannelOpen [reserved_shortstr] {} []

    /// Answers [`ChannelOpen`].
    (20, 11) "channel.open-ok" ChannelOpenOk [reserved_longstr] {} []

    /// Stops or restarts the flow of content. `RabbitMQ` refuses to stop with 540.
    (20, 20) "channel.flow" ChannelFlow [] {
        /// Whether content may flow.
        active: bool = bit,
    } []

    /// Answers [`ChannelFlow`].
    (20, 21) "channel.flow-ok" ChannelFlowOk [] {
        /// Whether content flows now.
        active: bool = bit,
    } []

    /// Closes the channel, because of an error or not.
    (20, 40) "channel.close" ChannelClose<'a> [] {
        /// A reply code, see [`crate::ReplyCode`].
        reply_code: u16 = short,
        /// `NAME - explanation`.
        reply_text: &'a str = shortstr,
        /// Class of the method at fault, or 0.
        class_id: u16 = short,
        /// The method at fault, or 0.
        method_id: u16 = short,
    } []

    /// Answers [`ChannelClose`].
    (20, 41) "channel.close-ok" ChannelCloseOk [] {} []
}
