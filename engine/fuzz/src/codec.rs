//! The wire codec.

use leveret_amqp::method::split_ids;
use leveret_amqp::properties::{relayable, validate};
use leveret_amqp::{
    ContentHeader, Decoder, Frame, FrameError, Method, Properties, PropertiesBuilder, TableRef,
    Value, encode_frame, sasl,
};

/// The first octets of an input choose how it is cut.
const CONTROL_SIZE: usize = 3;

/// A stream gives the same frames whole and in pieces, and its frames can be read or refused.
///
/// Input: frame limit in 256 octets (0 is no limit), two chunk sizes taken in turn, the stream.
pub fn decoder(input: &[u8]) {
    let Some(([limit, first, second], stream)) = input.split_first_chunk::<CONTROL_SIZE>() else {
        return;
    };
    let frame_size_max = u32::from(*limit) * 256;
    let whole = read_frames(frame_size_max, std::iter::once(stream));
    let sizes = [usize::from(*first).max(1), usize::from(*second).max(1)];
    let pieces = read_frames(frame_size_max, Pieces { stream, sizes });
    assert_eq!(whole, pieces);
    for (kind, payload) in &whole.0 {
        match kind {
            1 => method(payload),
            2 => properties(payload),
            _ => {}
        }
    }
}

/// Cuts a stream in pieces of two sizes in turn.
struct Pieces<'a> {
    stream: &'a [u8],
    sizes: [usize; 2],
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.stream.is_empty() {
            return None;
        }
        let (piece, rest) = self.stream.split_at(self.sizes[0].min(self.stream.len()));
        self.stream = rest;
        self.sizes.reverse();
        Some(piece)
    }
}

type Frames = (Vec<(u8, Vec<u8>)>, Result<(), FrameError>);

/// Kind and payload of all whole frames.
fn read_frames<'a>(frame_size_max: u32, chunks: impl Iterator<Item = &'a [u8]>) -> Frames {
    let mut decoder = Decoder::new(frame_size_max);
    let (mut frames, mut body, mut fed) = (Vec::new(), Vec::new(), 0);
    for chunk in chunks {
        let mut cursor = 0;
        fed += chunk.len();
        loop {
            match decoder.next(chunk, &mut cursor) {
                Err(error) => return (frames, Err(error)),
                Ok(None) => break,
                Ok(Some(Frame::Method { payload, .. })) => frames.push((1, payload.to_vec())),
                Ok(Some(Frame::Header { payload, .. })) => frames.push((2, payload.to_vec())),
                Ok(Some(Frame::Heartbeat { .. })) => frames.push((8, Vec::new())),
                Ok(Some(Frame::Body {
                    data, first, last, ..
                })) => {
                    assert!(!first || body.is_empty());
                    body.extend_from_slice(&chunk[data]);
                    if last {
                        frames.push((3, std::mem::take(&mut body)));
                    }
                }
            }
        }
        assert_eq!(cursor, chunk.len());
        assert!(decoder.gathered_size() <= fed);
    }
    (frames, Ok(()))
}

/// A method that is understood survives being written and read again. Input: its payload.
pub fn method(input: &[u8]) {
    let Ok(method) = Method::decode(input) else {
        return;
    };
    assert_eq!(split_ids(input).map(|(ids, _)| ids), Ok(method.ids()));
    let mut frame = Vec::new();
    encode_frame(1, &method, &mut frame);
    let mut decoder = Decoder::new(0);
    let mut cursor = 0;
    let Ok(Some(Frame::Method {
        channel: 1,
        payload,
    })) = decoder.next(&frame, &mut cursor)
    else {
        panic!("not one method frame: {frame:?}");
    };
    // Compared as octets: a table may hold a float that is not equal to itself.
    let mut again = Vec::new();
    Method::decode(payload)
        .expect("it was understood before")
        .encode(&mut again);
    assert_eq!(payload, again);
    assert_eq!(cursor, frame.len());
}

/// A checked table is read to its end, and an unchecked one without a panic. Input: its octets.
pub fn table(input: &[u8]) {
    read_table(TableRef::trusted(input), 0);
    if let Ok(table) = TableRef::parse(input) {
        let size: usize = table
            .iter()
            .map(|(name, value)| 1 + name.len() + size_of(&value))
            .sum();
        assert_eq!(size, input.len());
        assert!(!format!("{table:?}").is_empty());
    }
}

/// Looks up each name of a table. Unchecked ones may be deep, so only the first levels are read.
fn read_table(table: TableRef<'_>, depth: usize) {
    for (name, value) in table.iter().take(50) {
        assert!(table.get(name).is_some());
        let _ = (value.as_integer(), value.rabbit_type_name());
        if let (Value::Table(inner), 0..32) = (value, depth) {
            read_table(inner, depth + 1);
        }
    }
}

/// Octets of a value with its letter.
fn size_of(value: &Value<'_>) -> usize {
    1 + match value {
        Value::Void => 0,
        Value::Bool(_) | Value::I8(_) | Value::U8(_) => 1,
        Value::I16(_) | Value::U16(_) => 2,
        Value::I32(_) | Value::U32(_) | Value::F32(_) => 4,
        Value::Decimal { .. } => 5,
        Value::I64(_) | Value::F64(_) | Value::Timestamp(_) => 8,
        Value::LongStr(octets) | Value::Bytes(octets) => 4 + octets.len(),
        Value::Table(table) => 4 + table.as_bytes().len(),
        Value::Array(array) => {
            let size: usize = array.iter().map(|value| size_of(&value)).sum();
            assert_eq!(size, array.as_bytes().len());
            4 + size
        }
    }
}

/// Checked properties are the same when built again, but for flags that stand for nothing.
/// Input: the payload of a content header frame.
pub fn properties(input: &[u8]) {
    let Ok(header) = ContentHeader::decode(input) else {
        return;
    };
    let built = PropertiesBuilder::from(Properties::trusted(header.properties)).finish();
    if validate(header.properties).is_ok() {
        assert_eq!(relayable(header.properties), built.as_slice());
        assert_eq!(validate(&built), Ok(()));
    }
}

/// A login that is understood survives being written and read again. Input: a SASL response.
pub fn sasl(input: &[u8]) {
    if let Ok(credentials) = sasl::parse_plain(input) {
        let again = sasl::encode_plain(credentials);
        assert_eq!(sasl::parse_plain(&again), Ok(credentials));
    }
    if let Ok(credentials) = sasl::parse_amqplain(input) {
        let again = sasl::encode_amqplain(credentials);
        assert_eq!(sasl::parse_amqplain(&again), Ok(credentials));
    }
}

#[cfg(test)]
mod tests {
    use leveret_amqp::frame::PROTOCOL_HEADER;

    use super::*;

    /// Every target takes the transcripts of real clients and damaged forms of them.
    #[test]
    fn targets_take_the_transcripts() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../amqp/tests/transcripts");
        let mut transcript_count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let stream = std::fs::read(entry.unwrap().path()).unwrap();
            let stream = stream.strip_prefix(PROTOCOL_HEADER).unwrap_or(&stream);
            let mut octets = [&[0, 7, 100], stream].concat();
            let (frames, result) = read_frames(0, std::iter::once(stream));
            assert!(!frames.is_empty() && result.is_ok());
            let step = octets.len() / 40 + 1;
            for index in (CONTROL_SIZE..octets.len()).step_by(step) {
                decoder(&octets);
                octets[index] ^= 0x55;
            }
            for (_, payload) in &frames {
                run_all(payload);
            }
            transcript_count += 1;
        }
        assert!(transcript_count > 20);
    }

    fn run_all(payload: &[u8]) {
        for target in [decoder, method, table, properties, sasl] {
            (0..payload.len().min(40)).for_each(|start| target(&payload[start..]));
        }
    }
}
