//! What a row of the table says, and how it is checked.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::wire::{End, Seen, Wire};

/// One bad input.
pub(crate) struct Row {
    /// The row, and a letter where it has several inputs.
    pub(crate) name: &'static str,
    /// Sends it.
    pub(crate) script: fn(&mut Wire),
    /// What Leveret does.
    pub(crate) ours: Outcome,
    /// What `RabbitMQ` 3.10 does, where that is not the same.
    pub(crate) rabbit: Option<Outcome>,
}

/// What a broker does. Texts are parts of what it says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// A method of this name comes, and its fields contain this.
    Reply(&'static str, &'static str),
    /// `connection.close`, and the end of the stream after close-ok.
    Close(u16, &'static str),
    /// `channel.close`; the connection goes on.
    ChannelClose(u16, &'static str),
    /// This protocol header, and the end of the stream.
    Header(&'static [u8; 8]),
    /// The end of the stream without a word, after at least this time.
    Cut(Duration),
    /// `connection.close` or the end of the stream: a client cannot rely on either.
    CloseOrCut(u16),
    /// Up to the broker: not checked.
    Anything,
}

/// At once.
pub(crate) const AT_ONCE: Duration = Duration::ZERO;

/// The 3 s that both brokers let a client wait whose handshake failed, with a margin for a clock
/// that began a little earlier.
pub(crate) const SILENT: Duration = Duration::from_millis(2_700);

/// The 10 s for the whole handshake, with the same margin.
pub(crate) const HANDSHAKE: Duration = Duration::from_millis(9_500);

/// Runs all rows at the same time; each must do what it should and leave the broker alive.
pub(crate) fn check(address: SocketAddr, is_rabbit: bool, rows: &[Row]) {
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for row in rows {
            let failures = &failures;
            // A row that panics names itself by its thread.
            let thread = thread::Builder::new().name(format!("row {}", row.name));
            let check = move || {
                let expected = if is_rabbit { row.rabbit.unwrap_or(row.ours) } else { row.ours };
                let mut wire = Wire::connect(address);
                (row.script)(&mut wire);
                if let Err(text) = expected.check(&mut wire) {
                    let mut failures = failures.lock().expect("a row failed to be checked");
                    failures.push(format!("row {}: {text}", row.name));
                }
            };
            thread.spawn_scoped(scope, check).expect("a thread");
        }
    });
    let mut failures = failures.into_inner().expect("all rows were checked");
    failures.sort();
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

impl Outcome {
    fn check(self, wire: &mut Wire) -> Result<(), String> {
        let awaited = match self {
            Self::Reply(name, _) => name,
            Self::Anything => return Ok(()),
            _ => "nothing",
        };
        let seen = wire.wait_for(awaited);
        if !self.is(&seen) {
            let Seen { end, after, before } = seen;
            return Err(format!("{self:?} expected, but {end:?} {after:?} after {before:?}"));
        }
        let goes_on = match seen.end {
            End::Close { .. } => {
                let seen = wire.answer_close();
                return match seen.end {
                    End::Cut => Ok(()),
                    _ => Err(format!("the end of the stream after close-ok expected: {seen:?}")),
                };
            }
            End::ChannelClose { .. } => true,
            _ => false,
        };
        if goes_on {
            wire.method(2, &leveret_amqp::method::ChannelOpen {});
            let seen = wire.wait_for("channel.open-ok");
            if !matches!(seen.end, End::Reply(_)) {
                return Err(format!("the connection should go on: {seen:?}"));
            }
        }
        Ok(())
    }

    fn is(self, seen: &Seen) -> bool {
        match (self, &seen.end) {
            (Self::Reply(_, part), End::Reply(reply)) => reply.contains(part),
            (Self::Close(expected, part), End::Close { code, text, .. })
            | (Self::ChannelClose(expected, part), End::ChannelClose { code, text, .. }) => {
                expected == *code && text.contains(part)
            }
            (Self::Header(expected), End::Header(header)) => expected == header,
            (Self::Cut(after), End::Cut) => seen.after >= after,
            (Self::CloseOrCut(expected), End::Close { code, .. }) => expected == *code,
            (Self::CloseOrCut(_), End::Cut) => true,
            _ => false,
        }
    }
}
