//! Reads complete messages of a connection that has only a few in flight.

use leveret_amqp::method::{BasicDeliver, BasicGetOk};
use leveret_amqp::{ContentHeader, Decoder, Frame, Method, Properties};

use crate::client::refusal;
use crate::fault::Fault;
use crate::load::stamp::BODY_SIZE_MAX;

/// What arrives while messages are awaited.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A delivery, or the answer to `basic.get`.
    Message { body: &'a [u8], properties: Properties<'a> },
    /// `basic.get-empty`
    Empty,
}

/// The state of reading.
#[derive(Debug)]
pub(crate) struct Incoming {
    decoder: Decoder,
    stage: Stage,
    properties: Vec<u8>,
    /// At most [`BODY_SIZE_MAX`].
    body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Method,
    Header,
    Body { size: usize },
}

impl Default for Incoming {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Incoming {
    /// `frame_size_max` is in octets; 0 is no limit.
    pub(crate) const fn new(frame_size_max: u32) -> Self {
        Self {
            decoder: Decoder::new(frame_size_max),
            stage: Stage::Method,
            properties: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Reads received octets, cut anywhere, and passes on what is complete.
    pub(crate) fn read(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(Event<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut cursor = 0;
        while let Some(frame) = self.decoder.next(chunk, &mut cursor)? {
            match (frame, self.stage) {
                (Frame::Method { payload, .. }, Stage::Method) => {
                    let ids = payload.first_chunk().map_or((0, 0), |ids: &[u8; 4]| {
                        (u16::from_be_bytes([ids[0], ids[1]]), u16::from_be_bytes([ids[2], ids[3]]))
                    });
                    if ids == BasicDeliver::IDS || ids == BasicGetOk::IDS {
                        self.stage = Stage::Header;
                        continue;
                    }
                    match Method::decode(payload)? {
                        Method::BasicGetEmpty(_) => each(Event::Empty)?,
                        method => return Err(refusal("a message", method)),
                    }
                }
                (Frame::Header { payload, .. }, Stage::Header) => {
                    let wrong =
                        |error| Fault::Messages(format!("a broken content header: {error}"));
                    let header = ContentHeader::decode(payload).map_err(wrong)?;
                    Properties::parse(header.properties).map_err(wrong)?;
                    if header.body_size > BODY_SIZE_MAX as u64 {
                        return Err(Fault::Messages(format!(
                            "a body of {} B, which was never published",
                            header.body_size
                        )));
                    }
                    self.properties.clear();
                    self.properties.extend_from_slice(header.properties);
                    self.body.clear();
                    self.stage = Stage::Body { size: header.body_size as usize };
                }
                (Frame::Body { data, last, .. }, Stage::Body { size }) => {
                    self.body.extend_from_slice(&chunk[data]);
                    if self.body.len() > size {
                        return Err(Fault::Messages("a body is longer than said".to_owned()));
                    }
                    // The end octet of the frame has not arrived.
                    if !last {
                        continue;
                    }
                }
                (Frame::Heartbeat { .. }, _) => {}
                (_, stage) => {
                    return Err(Fault::Messages(format!(
                        "frames are out of order: the next should be {}",
                        stage.name()
                    )));
                }
            }
            if self.stage == (Stage::Body { size: self.body.len() }) {
                self.stage = Stage::Method;
                let properties = Properties::trusted(&self.properties);
                each(Event::Message { body: &self.body, properties })?;
            }
        }
        Ok(())
    }
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Method => "a method",
            Self::Header => "a content header",
            Self::Body { .. } => "a body",
        }
    }
}
