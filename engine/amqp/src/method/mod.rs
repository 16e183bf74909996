//! Every method of AMQP 0-9-1 and of `RabbitMQ`'s extensions.
//!
//! ```text
//! payload of a method frame: class id u16 │ method id u16 │ arguments …
//! ```
//!
//! One file per class holds the table of its methods. The macros here turn each row into a struct
//! that borrows from the frame, its decoder and its encoder, and all rows into [`Method`]. Reserved
//! fields, such as tickets, are skipped when read and written as zeros.

mod access;
mod basic;
mod channel;
mod confirm;
mod connection;
mod exchange;
mod queue;
mod tx;

use thiserror::Error;

pub use access::*;
pub use basic::*;
pub use channel::*;
pub use confirm::*;
pub use connection::*;
pub use exchange::*;
pub use queue::*;
pub use tx::*;

use crate::frame::{FRAME_END, FRAME_HEADER_SIZE, FRAME_METHOD, frame_header};
use crate::reply::ReplyCode;
use crate::table::TableError;
use crate::wire::{Reader, WireError};

/// Why a method frame cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MethodError {
    /// No class of this id.
    #[error("unknown class {class}, method {method}")]
    UnknownClass {
        /// Class id.
        class: u16,
        /// Method id.
        method: u16,
    },
    /// A known class has no method of this id.
    #[error("unknown method {method} of class {class}")]
    UnknownMethod {
        /// Class id.
        class: u16,
        /// Method id.
        method: u16,
    },
    /// A field reaches beyond the frame.
    #[error("cannot decode: method is truncated")]
    Truncated,
    /// Octets follow the last field.
    #[error("cannot decode: {0} octets after the last field")]
    TrailingBytes(usize),
    /// A name is not UTF-8.
    #[error("Malformed UTF-8 in shortstr")]
    MalformedUtf8,
    /// A field table is malformed.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl MethodError {
    /// The reply code of the connection exception: 501, 502 or 503.
    pub const fn reply_code(self) -> ReplyCode {
        match self {
            Self::UnknownClass { .. } | Self::UnknownMethod { .. } => ReplyCode::CommandInvalid,
            Self::Truncated | Self::TrailingBytes(_) | Self::MalformedUtf8 => ReplyCode::FrameError,
            Self::Table(error) => error.reply_code(),
        }
    }
}

impl From<WireError> for MethodError {
    #[inline]
    fn from(error: WireError) -> Self {
        match error {
            WireError::Truncated => Self::Truncated,
            WireError::MalformedUtf8 => Self::MalformedUtf8,
            WireError::Table(error) => Self::Table(error),
        }
    }
}

/// A payload of a method frame: [`Method`] and each single method.
pub trait Encode {
    /// Appends class id, method id and arguments.
    fn encode(&self, out: &mut Vec<u8>);
}

/// Appends a whole method frame.
pub fn encode_frame(channel: u16, method: &impl Encode, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_SIZE]);
    method.encode(out);
    let payload_size = (out.len() - start - FRAME_HEADER_SIZE) as u32;
    out[start..start + FRAME_HEADER_SIZE].copy_from_slice(&frame_header(
        FRAME_METHOD,
        channel,
        payload_size,
    ));
    out.push(FRAME_END);
}

/// The rows of one class. A row is: documentation, class and method id, name, struct, the reserved
/// fields before, the fields as `name: type = wire type`, the reserved fields behind.
macro_rules! methods {
    ($(
        $(#[$doc:meta])*
        ($class:literal, $method:literal) $name:literal $type:ident $(<$life:lifetime>)?
        [$($before:ident),*]
        { $( $(#[$field_doc:meta])* $field:ident: $field_type:ty = $wire:ident, )* }
        [$($after:ident),*]
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $type $(<$life>)? {
            $( $(#[$field_doc])* pub $field: $field_type, )*
        }

        impl $(<$life>)? $type $(<$life>)? {
            /// Class id and method id.
            pub const IDS: (u16, u16) = ($class, $method);

            /// The name of the specification.
            pub const NAME: &'static str = $name;

            /// Reads the arguments: what follows the method id.
            #[inline(always)]
            pub fn decode(args: & $($life)? [u8]) -> Result<Self, $crate::method::MethodError> {
                #[allow(unused_mut, reason = "some methods have no fields")]
                let mut reader = $crate::wire::Reader::new(args);
                $( reader.$before()?; )*
                $( let $field = reader.$wire()?; )*
                $( reader.$after()?; )*
                match reader.rest() {
                    [] => Ok(Self { $($field),* }),
                    rest => Err($crate::method::MethodError::TrailingBytes(rest.len())),
                }
            }
        }

        impl $(<$life>)? $crate::method::Encode for $type $(<$life>)? {
            fn encode(&self, out: &mut Vec<u8>) {
                let mut writer = $crate::wire::Writer::new(out);
                writer.short($class);
                writer.short($method);
                $( writer.$before(); )*
                $( writer.$wire(self.$field); )*
                $( writer.$after(); )*
            }
        }
    )*};
}
use methods;

/// The enum of all methods.
macro_rules! any_method {
    ($life:lifetime; $($type:ident $(<$has:lifetime>)?,)*) => {
        /// Any method, borrowing from its frame.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is described at its struct")]
        pub enum Method<$life> {
            $($type($type $(<$has>)?),)*
        }

        impl<$life> Method<$life> {
            /// The ids of all methods, in the order of the specification.
            pub const ALL_IDS: &'static [(u16, u16)] = &[$($type::IDS),*];

            /// Class id and method id.
            pub const fn ids(&self) -> (u16, u16) {
                match self {
                    $(Self::$type(_) => $type::IDS,)*
                }
            }

            /// The name of the specification, for example `queue.declare`.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$type(_) => $type::NAME,)*
                }
            }

            fn decode_arguments(ids: (u16, u16), args: &$life [u8]) -> Result<Self, MethodError> {
                match ids {
                    $($type::IDS => $type::decode(args).map(Self::$type),)*
                    (class, method) => Err(unknown(class, method)),
                }
            }
        }

        impl Encode for Method<'_> {
            fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$type(method) => method.encode(out),)*
                }
            }
        }

        $(
            impl<$life> From<$type $(<$has>)?> for Method<$life> {
                #[inline(always)]
                fn from(method: $type $(<$has>)?) -> Self {
                    Self::$type(method)
                }
            }
        )*
    };
}

any_method! {
    'a;
    ConnectionStart<'a>, ConnectionStartOk<'a>, ConnectionSecure<'a>, ConnectionSecureOk<'a>,
    ConnectionTune, ConnectionTuneOk, ConnectionOpen<'a>, ConnectionOpenOk,
    ConnectionClose<'a>, ConnectionCloseOk, ConnectionBlocked<'a>, ConnectionUnblocked,
    ConnectionUpdateSecret<'a>, ConnectionUpdateSecretOk,
    ChannelOpen, ChannelOpenOk, ChannelFlow, ChannelFlowOk, ChannelClose<'a>, ChannelCloseOk,
    AccessRequest<'a>, AccessRequestOk,
    ExchangeDeclare<'a>, ExchangeDeclareOk, ExchangeDelete<'a>, ExchangeDeleteOk,
    ExchangeBind<'a>, ExchangeBindOk, ExchangeUnbind<'a>, ExchangeUnbindOk,
    QueueDeclare<'a>, QueueDeclareOk<'a>, QueueBind<'a>, QueueBindOk, QueuePurge<'a>, QueuePurgeOk,
    QueueDelete<'a>, QueueDeleteOk, QueueUnbind<'a>, QueueUnbindOk,
    BasicQos, BasicQosOk, BasicConsume<'a>, BasicConsumeOk<'a>, BasicCancel<'a>, BasicCancelOk<'a>,
    BasicPublish<'a>, BasicReturn<'a>, BasicDeliver<'a>, BasicGet<'a>, BasicGetOk<'a>,
    BasicGetEmpty, BasicAck, BasicReject, BasicRecoverAsync, BasicRecover, BasicRecoverOk,
    BasicNack, TxSelect, TxSelectOk, TxCommit, TxCommitOk, TxRollback, TxRollbackOk,
    ConfirmSelect, ConfirmSelectOk,
}

impl<'a> Method<'a> {
    /// Reads the payload of a method frame.
    #[inline]
    pub fn decode(payload: &'a [u8]) -> Result<Self, MethodError> {
        let (ids, args) = split_ids(payload)?;
        Self::decode_arguments(ids, args)
    }

    /// Appends class id, method id and arguments.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Encode::encode(self, out);
    }

    /// Whether a content header frame follows.
    pub const fn has_content(&self) -> bool {
        matches!(
            self,
            Self::BasicPublish(_)
                | Self::BasicReturn(_)
                | Self::BasicDeliver(_)
                | Self::BasicGetOk(_)
        )
    }
}

/// Class id and method id of a method payload, and its arguments: for a reader that decodes the
/// most frequent methods itself.
#[inline(always)]
pub fn split_ids(payload: &[u8]) -> Result<((u16, u16), &[u8]), MethodError> {
    let mut reader = Reader::new(payload);
    let ids = (reader.short()?, reader.short()?);
    Ok((ids, reader.rest()))
}

/// The error for an unknown class, or for an unknown method of a known class.
fn unknown(class: u16, method: u16) -> MethodError {
    if Method::ALL_IDS.iter().any(|ids| ids.0 == class) {
        MethodError::UnknownMethod { class, method }
    } else {
        MethodError::UnknownClass { class, method }
    }
}
