//! Decodes what a server sends and checks that it is valid AMQP.

use std::collections::BTreeMap;

use leveret_amqp::decoder::{Decoder, Frame};
use leveret_amqp::frame::FRAME_OVERHEAD;
use leveret_amqp::properties::{ContentHeader, Properties};
use leveret_amqp::{Method, method};

/// A method, a method with its whole content, or a heartbeat from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A method without content.
    Method {
        /// The channel.
        channel: u16,
        /// Class id, method id and arguments.
        payload: Vec<u8>,
    },
    /// A method with content.
    Content {
        /// The channel.
        channel: u16,
        /// Class id, method id and arguments.
        payload: Vec<u8>,
        /// Property flags and values.
        properties: Vec<u8>,
        /// The whole body.
        body: Vec<u8>,
    },
    /// A heartbeat.
    Heartbeat,
}

impl Incoming {
    /// The method, with or without content; `None` for a heartbeat.
    pub fn method(&self) -> Option<Method<'_>> {
        match self {
            Self::Method { payload, .. } | Self::Content { payload, .. } => {
                Method::decode(payload).ok()
            }
            Self::Heartbeat => None,
        }
    }

    /// The channel; 0 for a heartbeat.
    pub fn channel(&self) -> u16 {
        match self {
            Self::Method { channel, .. } | Self::Content { channel, .. } => *channel,
            Self::Heartbeat => 0,
        }
    }

    /// The body; empty if there is no content.
    pub fn body(&self) -> &[u8] {
        match self {
            Self::Content { body, .. } => body,
            _ => &[],
        }
    }
}

/// Content that has not been received completely.
#[derive(Debug)]
struct Partial {
    payload: Vec<u8>,
    /// Properties and declared body size, once the header has been received.
    header: Option<(Vec<u8>, u64)>,
    body: Vec<u8>,
}

/// The receiving side of a connection.
#[derive(Debug)]
pub struct Stream {
    decoder: Decoder,
    frame_size_max: usize,
    /// Octets of the body frame that is being received, so far.
    body_frame_size: usize,
    partial: BTreeMap<u16, Partial>,
}

impl Stream {
    /// A stream before the handshake: frames have at most 4096 octets.
    pub fn new() -> Self {
        Self {
            decoder: Decoder::new(4096),
            frame_size_max: 4096,
            body_frame_size: 0,
            partial: BTreeMap::new(),
        }
    }

    /// Sets the largest size of a frame in octets.
    pub fn set_frame_size_max(&mut self, frame_size_max: u32) {
        self.decoder.set_frame_size_max(frame_size_max);
        self.frame_size_max = frame_size_max as usize;
    }

    /// Whether no frame and no message is partly received.
    pub fn is_between_messages(&self) -> bool {
        self.decoder.between_frames() && self.partial.is_empty()
    }

    /// Decodes bytes and appends what is complete to `incoming`.
    ///
    /// # Errors
    /// What is not valid.
    pub fn feed(&mut self, bytes: &[u8], incoming: &mut Vec<Incoming>) -> Result<(), String> {
        let mut cursor = 0;
        // Taken out so that frames can borrow from it while `self` is changed.
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(0));
        loop {
            match decoder.next(bytes, &mut cursor) {
                Ok(Some(frame)) => self.frame(&frame, bytes, incoming)?,
                Ok(None) => break,
                Err(error) => return Err(format!("invalid frame: {error}")),
            }
        }
        self.decoder = decoder;
        Ok(())
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        bytes: &[u8],
        incoming: &mut Vec<Incoming>,
    ) -> Result<(), String> {
        match frame {
            Frame::Method { channel, payload } => self.method(*channel, payload, incoming),
            Frame::Header { channel, payload } => self.header(*channel, payload, incoming),
            Frame::Body { channel, data, first, last } => {
                let data = &bytes[data.clone()];
                self.body_frame_size = if *first { 0 } else { self.body_frame_size } + data.len();
                self.check_size(self.body_frame_size)?;
                if *last && self.body_frame_size == 0 {
                    return Err("an empty body frame".into());
                }
                self.body(*channel, data, *last, incoming)
            }
            Frame::Heartbeat { channel: 0 } => {
                incoming.push(Incoming::Heartbeat);
                Ok(())
            }
            Frame::Heartbeat { channel } => Err(format!("a heartbeat on channel {channel}")),
        }
    }

    fn check_size(&self, payload_size: usize) -> Result<(), String> {
        if payload_size + FRAME_OVERHEAD > self.frame_size_max {
            return Err(format!(
                "a payload of {payload_size} with frame-max {}",
                self.frame_size_max
            ));
        }
        Ok(())
    }

    fn method(
        &mut self,
        channel: u16,
        payload: &[u8],
        incoming: &mut Vec<Incoming>,
    ) -> Result<(), String> {
        self.check_size(payload.len())?;
        let method = Method::decode(payload).map_err(|error| format!("bad method: {error}"))?;
        if self.partial.contains_key(&channel) {
            return Err(format!("{} in the middle of content", method.name()));
        }
        let on_connection = method.ids().0 == method::ConnectionClose::IDS.0;
        if on_connection != (channel == 0) {
            return Err(format!("{} on channel {channel}", method.name()));
        }
        let payload = payload.to_vec();
        if method.has_content() {
            let partial = Partial { payload, header: None, body: Vec::new() };
            self.partial.insert(channel, partial);
        } else {
            incoming.push(Incoming::Method { channel, payload });
        }
        Ok(())
    }

    fn header(
        &mut self,
        channel: u16,
        payload: &[u8],
        incoming: &mut Vec<Incoming>,
    ) -> Result<(), String> {
        self.check_size(payload.len())?;
        let header = ContentHeader::decode(payload).map_err(|error| error.to_string())?;
        Properties::parse(header.properties).map_err(|error| error.to_string())?;
        if (header.class_id, header.weight) != (60, 0) {
            return Err(format!("header of class {}, weight {}", header.class_id, header.weight));
        }
        let partial = self.partial.get_mut(&channel);
        let Some(partial) = partial.filter(|partial| partial.header.is_none()) else {
            return Err(format!("a content header out of place on channel {channel}"));
        };
        partial.header = Some((header.properties.to_vec(), header.body_size));
        if header.body_size == 0 {
            self.whole(channel, incoming);
        }
        Ok(())
    }

    fn body(
        &mut self,
        channel: u16,
        data: &[u8],
        last: bool,
        incoming: &mut Vec<Incoming>,
    ) -> Result<(), String> {
        let partial = self.partial.get_mut(&channel);
        let Some((partial, size)) = partial.and_then(|partial| {
            let size = partial.header.as_ref()?.1;
            Some((partial, size))
        }) else {
            return Err(format!("a body out of place on channel {channel}"));
        };
        partial.body.extend_from_slice(data);
        if partial.body.len() as u64 > size {
            return Err(format!("a body of more than the declared {size} octets"));
        }
        if last && partial.body.len() as u64 == size {
            self.whole(channel, incoming);
        }
        Ok(())
    }

    fn whole(&mut self, channel: u16, incoming: &mut Vec<Incoming>) {
        if let Some(Partial { payload, header: Some((properties, _)), body }) =
            self.partial.remove(&channel)
        {
            incoming.push(Incoming::Content { channel, payload, properties, body });
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}
