//! Negotiation of `connection.tune` and `connection.tune-ok`, by the rules of `RabbitMQ`'s
//! `rabbit_reader:validate_negotiated_integer_value`.

use thiserror::Error;

use crate::frame::FRAME_MIN_SIZE;
use crate::reply::ReplyCode;

/// The three values of `connection.tune` and `connection.tune-ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tune {
    /// Highest channel number, 0 is no limit.
    pub channel_max: u16,
    /// Largest frame in octets, its eight octets of overhead included, 0 is no limit.
    pub frame_max: u32,
    /// Heartbeat interval in seconds, 0 is none.
    pub heartbeat: u16,
}

impl Tune {
    /// What `RabbitMQ` proposes by default.
    pub const SERVER_DEFAULT: Self = Self { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
}

/// A `tune-ok` that asks for more than was offered or less than the minimum: `530 NOT_ALLOWED`,
/// with the words of `RabbitMQ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TuneError {
    /// More channels than offered. 0 is no limit, so it is more than any limit.
    #[error(
        "negotiated channel_max = {value}{} is higher than the maximum allowed value ({max})",
        if *value == 0 { " (no limit)" } else { "" }
    )]
    ChannelMaxTooHigh {
        /// What the client asked for.
        value: u16,
        /// What the server offered.
        max: u16,
    },
    /// Larger frames than offered. 0 is no limit, so it is more than any limit.
    #[error("negotiated frame_max = {value} is higher than the maximum allowed value ({max})")]
    FrameMaxTooHigh {
        /// What the client asked for, in octets.
        value: u32,
        /// What the server offered, in octets.
        max: u32,
    },
    /// Smaller frames than the specification allows.
    #[error("negotiated frame_max = {value} is lower than the minimum allowed value ({min})")]
    FrameMaxTooLow {
        /// What the client asked for, in octets.
        value: u32,
        /// The least, in octets.
        min: u32,
    },
}

impl TuneError {
    /// The reply code of the connection exception: always `530 NOT_ALLOWED`.
    pub const fn reply_code(self) -> ReplyCode {
        ReplyCode::NotAllowed
    }
}

/// The values in force after the client answered `offer` with `answer`.
///
/// The client may only lower channel and frame limits; its heartbeat is taken as it is. A frame
/// limit down to 4096 is accepted, as the specification says: `RabbitMQ` refuses less than 8192
/// since 4.1 and thereby shuts out older clients.
pub const fn negotiate(offer: Tune, answer: Tune) -> Result<Tune, TuneError> {
    let (value, max) = (answer.channel_max, offer.channel_max);
    if max != 0 && (value == 0 || value > max) {
        return Err(TuneError::ChannelMaxTooHigh { value, max });
    }
    let (value, max) = (answer.frame_max, offer.frame_max);
    if value != 0 && value < FRAME_MIN_SIZE {
        return Err(TuneError::FrameMaxTooLow { value, min: FRAME_MIN_SIZE });
    }
    if max != 0 && (value == 0 || value > max) {
        return Err(TuneError::FrameMaxTooHigh { value, max });
    }
    Ok(answer)
}
