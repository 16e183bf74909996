//! The AMQP 0-9-1 wire codec of Leveret: bytes in, typed frames out, and back.
//!
//! Pure: no sockets, no clock, no threads. Decoding borrows from the input, is bounded in depth,
//! count and size, and never panics. Memory grows with received bytes, never with declared sizes.
//!
//! The path of a received publish: [`decoder::Decoder`] cuts frames, [`method::BasicPublish`] and
//! [`properties::ContentHeader`] read the first two, and body frames are handed out as ranges of
//! the caller's chunk. The way out is [`encoder::encode_content`].
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "client"))]
pub mod client;
pub mod decoder;
pub mod encoder;
pub mod envelope;
pub mod frame;
pub mod limits;
pub mod method;
pub mod octets;
pub mod prelude;
pub mod properties;
pub mod reply;
pub mod sasl;
pub mod table;
pub mod wire;

pub use decoder::{Decoder, Frame, FrameError};
pub use method::{Method, MethodError, encode_frame};
pub use properties::{ContentHeader, Properties, PropertiesBuilder, PropertiesError};
pub use reply::ReplyCode;
pub use table::{ArrayBuilder, ArrayRef, OwnedTable, TableBuilder, TableError, TableRef, Value};
