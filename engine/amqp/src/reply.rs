//! Reply codes (specification 1.2 and `RabbitMQ`'s `rabbit_framing`), one table.

/// Largest reply text in octets: it travels as a short string.
pub const REPLY_TEXT_SIZE_MAX: usize = 255;

macro_rules! reply_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal $text:literal $blame:ident,)*) => {
        /// A reply code of `connection.close`, `channel.close` or `basic.return`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ReplyCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl ReplyCode {
            /// All codes, ascending.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The upper-case name of the specification, for example `ACCESS_REFUSED`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Whether the code closes the connection, not only the channel.
            pub const fn is_hard(self) -> bool {
                match self {
                    $(Self::$name => reply_codes!(@$blame),)*
                }
            }

            /// The code of this number.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
    (@hard) => { true };
    (@soft) => { false };
}

reply_codes! {
    /// The method completed.
    Success = 200 "REPLY_SUCCESS" soft,
    /// The content is larger than the receiver takes.
    ContentTooLarge = 311 "CONTENT_TOO_LARGE" soft,
    /// No queue was found for a mandatory message. Only in `basic.return`.
    NoRoute = 312 "NO_ROUTE" soft,
    /// No consumer for an immediate message. Only in `basic.return`.
    NoConsumers = 313 "NO_CONSUMERS" soft,
    /// An operator closed the connection.
    ConnectionForced = 320 "CONNECTION_FORCED" hard,
    /// The virtual host is unknown.
    InvalidPath = 402 "INVALID_PATH" hard,
    /// The user may not do this.
    AccessRefused = 403 "ACCESS_REFUSED" soft,
    /// The named entity does not exist.
    NotFound = 404 "NOT_FOUND" soft,
    /// Another connection has exclusive use of the entity.
    ResourceLocked = 405 "RESOURCE_LOCKED" soft,
    /// The state or the arguments do not allow the method.
    PreconditionFailed = 406 "PRECONDITION_FAILED" soft,
    /// A malformed frame.
    FrameError = 501 "FRAME_ERROR" hard,
    /// An illegal value in a field.
    SyntaxError = 502 "SYNTAX_ERROR" hard,
    /// A method that does not exist or does not belong here.
    CommandInvalid = 503 "COMMAND_INVALID" hard,
    /// A frame for a channel that is not open, or opening one that is.
    ChannelError = 504 "CHANNEL_ERROR" hard,
    /// A frame that the content order does not allow.
    UnexpectedFrame = 505 "UNEXPECTED_FRAME" hard,
    /// Not enough resources.
    ResourceError = 506 "RESOURCE_ERROR" hard,
    /// The peer may not do this at all.
    NotAllowed = 530 "NOT_ALLOWED" hard,
    /// The method is not implemented.
    NotImplemented = 540 "NOT_IMPLEMENTED" hard,
    /// A fault of the broker.
    InternalError = 541 "INTERNAL_ERROR" hard,
}

impl ReplyCode {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }
}

/// `NAME - explanation`, the reply text of `RabbitMQ`, cut to 255 octets on a character boundary.
pub fn reply_text(code: ReplyCode, explanation: &str) -> String {
    let name = code.name();
    let mut text =
        String::with_capacity(REPLY_TEXT_SIZE_MAX.min(name.len() + explanation.len() + 3));
    text.push_str(name);
    text.push_str(" - ");
    let room = REPLY_TEXT_SIZE_MAX - text.len();
    text.push_str(&explanation[..explanation.floor_char_boundary(room)]);
    text
}
