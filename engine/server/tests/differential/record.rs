//! What is compared: everything that came, without what may differ by chance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::link::Message;

/// A channel of the run: index of the connection, channel number.
pub(crate) type ChannelId = (usize, u16);

/// All a run brought to light.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Transcript {
    /// One for each step.
    pub(crate) steps: Vec<StepRecord>,
    /// After the last step: all channels are closed, then each queue is emptied.
    pub(crate) end: StepRecord,
    /// What was in each queue, first to last.
    pub(crate) contents: BTreeMap<String, Vec<String>>,
    /// Each exchange that was declared, and whether it is still there.
    pub(crate) exchanges: BTreeMap<String, String>,
}

/// What a step brought.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct StepRecord {
    /// What came on each channel.
    pub(crate) channels: BTreeMap<ChannelId, ChannelRecord>,
    /// What `queue.declare` (passive) says of each queue after the step.
    pub(crate) queues: BTreeMap<String, String>,
}

/// What came on one channel in one step.
///
/// Deliveries of different consumers are kept apart: their queues are independent, and so is the
/// order in which they deliver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ChannelRecord {
    /// Replies and closes, in order.
    pub(crate) replies: Vec<String>,
    /// By consumer tag, in order.
    pub(crate) deliveries: BTreeMap<String, Vec<String>>,
    /// The delivery tags of all deliveries.
    pub(crate) delivery_tags: BTreeSet<u64>,
    /// In order.
    pub(crate) returns: Vec<String>,
    /// Publishes that were acknowledged, however folded.
    pub(crate) acked: BTreeSet<u64>,
    /// Publishes that were refused.
    pub(crate) nacked: BTreeSet<u64>,
    /// Consumer tags of `basic.cancel` by the broker.
    pub(crate) cancels: BTreeSet<String>,
    /// Things that came in an order that no broker may choose.
    pub(crate) violations: Vec<String>,
}

impl fmt::Debug for StepRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((connection, channel), record) in &self.channels {
            writeln!(f, "    connection {connection} channel {channel}:")?;
            for (name, value) in record.lines() {
                writeln!(f, "      {name}: {value}")?;
            }
        }
        for (queue, state) in &self.queues {
            writeln!(f, "    {queue}: {state}")?;
        }
        Ok(())
    }
}

impl ChannelRecord {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        lines.extend(self.replies.iter().map(|reply| ("reply", reply.clone())));
        for (consumer_tag, messages) in &self.deliveries {
            let lines_of_one =
                messages.iter().map(|message| ("delivery", format!("{consumer_tag}: {message}")));
            lines.extend(lines_of_one);
        }
        if !self.delivery_tags.is_empty() {
            lines.push(("delivery tags", format!("{:?}", self.delivery_tags)));
        }
        lines.extend(self.returns.iter().map(|message| ("return", message.clone())));
        if !self.acked.is_empty() {
            lines.push(("acked", format!("{:?}", self.acked)));
        }
        if !self.nacked.is_empty() {
            lines.push(("nacked", format!("{:?}", self.nacked)));
        }
        lines.extend(self.cancels.iter().map(|tag| ("cancelled", tag.clone())));
        lines.extend(self.violations.iter().map(|text| ("VIOLATION", text.clone())));
        lines
    }
}

/// A message on one line. Large bodies show their size and a sum.
pub(crate) fn line_of(message: &Message) -> String {
    let body = if message.body.len() <= 32 {
        message.body.escape_ascii().to_string()
    } else {
        let sum = message
            .body
            .iter()
            .fold(0_u64, |sum, octet| sum.wrapping_mul(0x0100_0000_01B3) ^ u64::from(*octet));
        let start = message.body[..8].escape_ascii().to_string();
        format!("{start}… {} octets, sum {sum:016x}", message.body.len())
    };
    format!(
        "[{body}] from '{}' key '{}' {}",
        message.exchange, message.routing_key, message.properties
    )
}

/// The first place where two runs differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Index of the step; that of the last one plus 1 for the end.
    pub(crate) step: usize,
    /// What the left broker did.
    pub(crate) left: String,
    /// What the right broker did.
    pub(crate) right: String,
}

/// Compares two runs of the same steps.
pub(crate) fn difference(left: &Transcript, right: &Transcript) -> Option<Difference> {
    let steps = left.steps.iter().zip(&right.steps).enumerate();
    for (step, (left, right)) in steps {
        if left != right {
            return Some(Difference {
                step,
                left: format!("{left:?}"),
                right: format!("{right:?}"),
            });
        }
    }
    if left == right {
        return None;
    }
    let show = |side: &Transcript| {
        format!("{:?}    {:?}\n    {:?}\n", side.end, side.contents, side.exchanges)
    };
    Some(Difference { step: left.steps.len(), left: show(left), right: show(right) })
}
