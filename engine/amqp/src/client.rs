//! What a client sends to open a connection: for load clients, simulations and tests.

use crate::frame::PROTOCOL_HEADER;
use crate::limits::Tune;
use crate::method::{ConnectionOpen, ConnectionStartOk, ConnectionTuneOk, encode_frame};
use crate::sasl::{Credentials, encode_plain};
use crate::table::TableRef;

/// The client's half of the handshake, with the mechanism `PLAIN`.
///
/// ```text
///   client                          server
///   protocol header        ──►
///                          ◄──      start
///   start-ok               ──►
///                          ◄──      tune
///   tune-ok, open          ──►
///                          ◄──      open-ok
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// Who logs in.
    pub credentials: Credentials<'a>,
    /// The client properties, with its capabilities.
    pub properties: TableRef<'a>,
    /// What the client answers to the server's tune.
    pub tune: Tune,
    /// The virtual host.
    pub virtual_host: &'a str,
}

impl Hello<'_> {
    /// `guest` at `/`, without properties and heartbeats, with the usual limits.
    pub const GUEST: Self = Self {
        credentials: Credentials { username: b"guest", password: b"guest" },
        properties: TableRef::EMPTY,
        tune: Tune { heartbeat: 0, ..Tune::SERVER_DEFAULT },
        virtual_host: "/",
    };

    /// Appends everything, for a client that does not wait for the answers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(PROTOCOL_HEADER);
        self.encode_start_ok(out);
        self.encode_tune_ok(out);
        self.encode_open(out);
    }

    /// Appends the answer to `connection.start`.
    pub fn encode_start_ok(&self, out: &mut Vec<u8>) {
        let start_ok = ConnectionStartOk {
            client_properties: self.properties,
            mechanism: "PLAIN",
            response: &encode_plain(self.credentials),
            locale: "en_US",
        };
        encode_frame(0, &start_ok, out);
    }

    /// Appends the answer to `connection.tune`.
    pub fn encode_tune_ok(&self, out: &mut Vec<u8>) {
        let Tune { channel_max, frame_max, heartbeat } = self.tune;
        encode_frame(0, &ConnectionTuneOk { channel_max, frame_max, heartbeat }, out);
    }

    /// Appends `connection.open`, which follows the tune-ok.
    pub fn encode_open(&self, out: &mut Vec<u8>) {
        encode_frame(0, &ConnectionOpen { virtual_host: self.virtual_host }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, Frame, Method};

    #[test]
    fn a_server_reads_what_was_asked_for() {
        let mut wire = Vec::new();
        Hello { virtual_host: "v", ..Hello::GUEST }.encode(&mut wire);
        let frames = wire.strip_prefix(PROTOCOL_HEADER).unwrap();
        let (mut decoder, mut cursor, mut names) = (Decoder::new(4096), 0, Vec::new());
        while let Some(Frame::Method { payload, .. }) = decoder.next(frames, &mut cursor).unwrap() {
            let method = Method::decode(payload).unwrap();
            match method {
                Method::ConnectionStartOk(ok) => assert_eq!(ok.response, b"\0guest\0guest"),
                Method::ConnectionTuneOk(ok) => {
                    assert_eq!((ok.channel_max, ok.heartbeat), (2047, 0));
                }
                Method::ConnectionOpen(open) => assert_eq!(open.virtual_host, "v"),
                _ => {}
            }
            names.push(method.name());
        }
        assert_eq!(names, ["connection.start-ok", "connection.tune-ok", "connection.open"]);
    }
}
