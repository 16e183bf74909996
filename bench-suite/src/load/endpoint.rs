//! One connection's side of the load, as a value: octets in, octets out, time as an argument. A
//! `driver` moves the octets; endpoints are the same for every driver.

use std::net::TcpStream;
use std::time::Instant;

use crate::fault::Fault;

/// A connection under load, after its topology has been declared and its consumers have been
/// started.
///
/// ```text
///             receive(chunk, now)              poll_send(now, out)
///   driver ───────────────────────► endpoint ──────────────────────► driver
///             next_due(now): when to poll although nothing came
/// ```
pub(crate) trait Endpoint: Send {
    /// Takes octets from the broker, cut anywhere.
    fn receive(&mut self, chunk: &[u8], now: Instant) -> Result<(), Fault>;

    /// Appends output: complete frames, up to about 128 KiB or one message. It is called only after
    /// the kernel has taken all of the previous output, so that a slow broker holds the endpoint
    /// back.
    fn poll_send(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Fault>;

    /// When [`Endpoint::poll_send`] will have output, as far as is known now: `now` or earlier
    /// means at once, `None` means not before something arrives. The driver asks in every turn,
    /// because other endpoints may have changed the answer; a time in the future is a time to ask
    /// again.
    fn next_due(&self, now: Instant) -> Option<Instant>;

    /// Whether it has nothing to send and waits for nothing. Once true, it stays true.
    fn is_done(&self) -> bool;

    /// What it waits for, for the error message if the broker falls silent.
    fn awaits(&self) -> &'static str;
}

/// An endpoint and its socket, ready to be driven.
pub(crate) struct Attached<E> {
    /// Connected, blocking, without timeouts.
    pub(crate) stream: TcpStream,
    /// Octets that arrived before the endpoint took over; they are received first.
    pub(crate) received: Vec<u8>,
    pub(crate) endpoint: E,
}
