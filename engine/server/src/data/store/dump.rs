//! `leveret dump DATADIR`: the records of the logs, one line each, for people. Reads only.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use leveret_broker::message::Body;
use leveret_broker::storage::log::LogId;
use leveret_broker::storage::log::record::{Arrival, PublishRecord, Record};
use leveret_broker::storage::log::recovery::{Gap, Item, SegmentReader};

use crate::data::metadata::Metadata;
use crate::failure::Failure;

use super::check::queue_names;
use super::read::read_file;
use super::utc::utc;
use super::{segment_files, shard_directories};

/// How many bytes of a body are shown.
const BODY_SHOWN_BYTES: usize = 32;

/// `leveret dump`.
#[derive(Debug, PartialEq, Eq, Args)]
pub(crate) struct DumpArguments {
    /// The data directory
    #[arg(value_name = "DATADIR")]
    pub(crate) data_dir: PathBuf,
    /// Only this shard
    #[arg(long, value_name = "N")]
    pub(crate) shard: Option<u16>,
    /// Only the segment of this number
    #[arg(long, value_name = "N")]
    pub(crate) segment: Option<u32>,
    /// Only records that name this queue
    #[arg(long, value_name = "LOG_ID")]
    pub(crate) queue: Option<u64>,
}

/// Prints the records.
pub(crate) fn run(arguments: &DumpArguments) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let shards = shard_directories(&arguments.data_dir)?;
    if dump_names(&mut out, arguments).is_err() {
        return Ok(());
    }
    for (shard, path) in shards {
        if arguments.shard.is_some_and(|wanted| wanted != shard) {
            continue;
        }
        for (number, file) in segment_files(&path)? {
            if arguments.segment.is_some_and(|wanted| wanted != number) {
                continue;
            }
            if dump_segment(&mut out, shard, number, &file, arguments.queue)?.is_err() {
                // The reader has closed the pipe, which is fine.
                return Ok(());
            }
        }
    }
    let _ = out.flush();
    Ok(())
}

/// Prints the name of each log id, if the metadata can be read.
fn dump_names(out: &mut impl Write, arguments: &DumpArguments) -> io::Result<()> {
    match Metadata::peek(&arguments.data_dir) {
        Ok(loaded) => {
            let wanted = |log_id| arguments.queue.is_none_or(|wanted| wanted == log_id);
            for (log_id, name) in queue_names(&loaded).into_iter().filter(|(id, _)| wanted(*id)) {
                writeln!(out, "log id {log_id}: {name}")?;
            }
        }
        Err(failure) => eprintln!("leveret: queues have no names below: {failure}"),
    }
    Ok(())
}

fn dump_segment(
    out: &mut impl Write,
    shard: u16,
    number: u32,
    file: &Path,
    queue: Option<LogId>,
) -> Result<io::Result<()>, Failure> {
    let length = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    let mut reader = SegmentReader::new(number, length);
    let mut written = Ok(());
    let mut take = |item: Item<'_>| {
        if written.is_ok()
            && let Some(line) = line(&item, queue)
        {
            written = writeln!(out, "{shard}/{number} {line}");
        }
    };
    read_file(file, |bytes| {
        reader.feed(bytes, &mut take);
        Ok(())
    })?;
    reader.end(&mut take);
    Ok(written)
}

/// The line for an item; if a queue is given, only for items that name it.
fn line(item: &Item<'_>, queue: Option<LogId>) -> Option<String> {
    let names = |log_id: LogId| queue.is_none_or(|wanted| wanted == log_id);
    match item {
        Item::Header(header) => queue.is_none().then(|| match header {
            Ok(header) => format!(
                "header segment={} epoch={} size={} previous={}:{}",
                header.segment,
                header.identity.epoch,
                header.size_bytes,
                header.previous.0,
                header.previous.1
            ),
            Err(error) => format!("no header ({error:?})"),
        }),
        Item::Gap(gap) => queue.is_none().then(|| describe_gap(gap)),
        Item::Record { offset, length, epoch, record } => {
            let said = match record {
                Record::Publish(publish) => {
                    publish.queues.iter().any(|queue| names(queue.log_id)).then(|| say(publish))
                }
                Record::Settle(log_id, ranges) => names(*log_id).then(|| {
                    let ranges: Vec<String> =
                        ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
                    format!("settle queue={log_id} ranges={}", ranges.join(","))
                }),
                Record::Mark(mark) => names(mark.log_id).then(|| {
                    format!(
                        "mark queue={} next={} delivered-through={}",
                        mark.log_id, mark.next_sequence, mark.delivered_through
                    )
                }),
                Record::Barrier(barrier) => queue.is_none().then(|| {
                    let upto = barrier.synced_upto;
                    let written = barrier.written_at.map_or("unknown".to_owned(), utc);
                    format!(
                        "barrier synced-upto={}:{} written={written}",
                        upto.segment(),
                        upto.offset()
                    )
                }),
                Record::Filler => queue.is_none().then(|| "filler".to_owned()),
                Record::Close => queue.is_none().then(|| "close".to_owned()),
                Record::Unknown(kind) => queue.is_none().then(|| format!("unknown kind {kind}")),
                Record::PassedOver(kind) => {
                    queue.is_none().then(|| format!("unknown kind {kind}, passed over"))
                }
                Record::Newer { kind, flags } => queue.is_none().then(|| {
                    format!("kind {kind} of a newer version: flags {flags:#04x} are not known")
                }),
            };
            said.map(|said| format!("{offset}+{length} epoch={epoch} {said}"))
        }
    }
}

fn describe_gap(gap: &Gap) -> String {
    let what = match (gap.is_unused_rest(), gap.is_last) {
        (true, _) => "end of the records",
        (false, true) => "torn or damaged end",
        (false, false) => "DAMAGE: not valid",
    };
    format!("{}+{} {what}", gap.start, gap.end - gap.start)
}

fn say(publish: &PublishRecord<'_>) -> String {
    let mut line = "publish queues=".to_owned();
    for (index, queue) in publish.queues.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(line, "{comma}{}:{}", queue.log_id, queue.sequence);
    }
    let (exchange, key) = (publish.exchange.escape_ascii(), publish.routing_key.escape_ascii());
    let _ = write!(line, " exchange=\"{exchange}\" key=\"{key}\"");
    let _ = match publish.arrival {
        Some(Arrival { at, priority }) => {
            write!(line, " arrived={} priority={priority}", utc(at))
        }
        None => write!(line, " arrived=unknown"),
    };
    if !publish.extension.is_empty() {
        let _ = write!(line, " extension=\"{}\"", publish.extension.escape_ascii());
    }
    let _ = write!(line, " body={}", publish.body.len());
    if let Body::Inline(body) = publish.body {
        let shown = &body[..body.len().min(BODY_SHOWN_BYTES)];
        let more = if shown.len() < body.len() { "…" } else { "" };
        let _ = write!(line, " \"{}\"{more}", shown.escape_ascii());
    }
    line
}
