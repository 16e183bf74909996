//! The judge («total queue+»): takes O(n log n) for n events.
//!
//! | kind | violation |
//! |---|---|
//! | lost | confirmed, persistent, and from a queue it belongs into no delivery was acknowledged |
//! | phantom | delivered but never sent there, or not as it was sent |
//! | unflagged | delivered again without `redelivered` |
//! | order | first deliveries of a queue that do not ascend within a publisher's channel |
//! | ack returned | delivered again though the broker knew the ack for a second, stalls apart |
//! | complaint | what a client saw: a confirmed declaration that is gone, broken protocol |
//!
//! Each queue has one consumer at a time, which drains it in the end; otherwise neither order nor
//! loss could be judged.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::history::{Ack, Delivered, End, History, Id, Outcome, Published, Stall};

/// An ack is durable within 10 ms; the rest is for a machine that tests other things too.
pub(crate) const ACK_WINDOW_NS: u64 = 1_000_000_000;

/// How many violations of a kind are shown.
const EXAMPLES_MAX: usize = 5;

/// What a violation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Lost,
    Phantom,
    Unflagged,
    Order,
    AckReturned,
    Complaint,
}

/// The verdict and what it rests on.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<(Kind, String)>,
    pub(crate) published: usize,
    pub(crate) confirmed: usize,
    pub(crate) refused: usize,
    /// Neither confirmed nor refused, and there / not there.
    pub(crate) unknown_present: usize,
    pub(crate) unknown_absent: usize,
    pub(crate) deliveries: usize,
    pub(crate) redeliveries: usize,
    /// Acks that a crash was allowed to forget, and did.
    pub(crate) acks_returned_in_window: usize,
    pub(crate) incarnations: usize,
}

impl Report {
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.violations.iter().filter(|(of, _)| *of == kind).count()
    }

    /// The kinds that occurred, each once.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.violations.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn add(&mut self, kind: Kind, text: String) {
        self.violations.push((kind, text));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} starts; {} published: {} confirmed, {} refused, {} unknown ({} of them there); {} \
             deliveries, {} again; {} acks returned within the window",
            self.incarnations,
            self.published,
            self.confirmed,
            self.refused,
            self.unknown_present + self.unknown_absent,
            self.unknown_present,
            self.deliveries,
            self.redeliveries,
            self.acks_returned_in_window,
        )?;
        write!(
            f,
            "lost {}, phantom {}, unflagged {}, order {}, acks returned {}, complaints {}",
            self.count(Kind::Lost),
            self.count(Kind::Phantom),
            self.count(Kind::Unflagged),
            self.count(Kind::Order),
            self.count(Kind::AckReturned),
            self.count(Kind::Complaint),
        )?;
        for kind in self.kinds() {
            let of_kind = self.violations.iter().filter(|(of, _)| *of == kind);
            for (_, text) in of_kind.take(EXAMPLES_MAX) {
                write!(f, "\n  {kind:?}: {text}")?;
            }
        }
        Ok(())
    }
}

/// Judges a history whose queues were all drained.
pub(crate) fn check(history: &History) -> Report {
    let mut report = Report {
        published: history.published.len(),
        deliveries: history.delivered.len(),
        incarnations: history.ends.len(),
        ..Report::default()
    };
    for complaint in &history.complaints {
        report.add(Kind::Complaint, complaint.clone());
    }
    check_order(history, &mut report);
    let mut published: Vec<&Published> = history.published.iter().collect();
    published.sort_unstable_by_key(|message| message.id);
    let mut delivered: Vec<&Delivered> = history.delivered.iter().collect();
    // Stable: the deliveries of one message from one queue stay in the order of their arrival.
    delivered.sort_by_key(|delivery| (delivery.id, delivery.queue));
    let mut rest = delivered.as_slice();
    for message in published {
        let phantoms = rest.partition_point(|delivery| delivery.id < message.id);
        report_never_sent(&rest[..phantoms], &mut report);
        rest = &rest[phantoms..];
        let own = rest.partition_point(|delivery| delivery.id == message.id);
        check_message(message, &rest[..own], history, &mut report);
        rest = &rest[own..];
    }
    report_never_sent(rest, &mut report);
    report
}

/// `deliveries` are all of this message, by queue.
fn check_message(
    message: &Published,
    deliveries: &[&Delivered],
    history: &History,
    report: &mut Report,
) {
    match message.outcome {
        Outcome::Confirmed => report.confirmed += 1,
        Outcome::Refused => report.refused += 1,
        Outcome::Unknown if deliveries.is_empty() => report.unknown_absent += 1,
        Outcome::Unknown => report.unknown_present += 1,
    }
    let mut acknowledged = 0_u16;
    for of_queue in deliveries.chunk_by(|one, other| one.queue == other.queue) {
        let queue = of_queue[0].queue;
        let bit = 1_u16.checked_shl(u32::from(queue)).unwrap_or(0);
        if message.targets & bit == 0 {
            report.add(Kind::Phantom, format!("{:x?} does not belong into {queue}", message.id));
        }
        for delivery in of_queue {
            if delivery.fingerprint != message.fingerprint {
                let text = format!("{delivery:x?} differs from what was sent: {message:x?}");
                report.add(Kind::Phantom, text);
            }
        }
        if of_queue.iter().any(|delivery| delivery.ack != Ack::None) {
            acknowledged |= bit;
        }
        check_repeated(of_queue, history, report);
    }
    let missing = message.targets & !acknowledged;
    if message.persistent && message.outcome == Outcome::Confirmed && missing != 0 {
        let queues: Vec<u32> = (0..16).filter(|queue| missing >> queue & 1 == 1).collect();
        report.add(Kind::Lost, format!("{message:x?} from {queues:?}, got {deliveries:x?}"));
    }
}

/// `deliveries` are those of one message from one queue.
fn check_repeated(deliveries: &[&Delivered], history: &History, report: &mut Report) {
    for (earlier, later) in deliveries.iter().zip(&deliveries[1..]) {
        report.redeliveries += 1;
        if !later.redelivered {
            let text = format!("{later:x?} after {earlier:x?}");
            report.add(Kind::Unflagged, text);
        }
        if earlier.ack == Ack::None {
            continue;
        }
        if may_return(earlier, later, history) {
            report.acks_returned_in_window += 1;
        } else {
            let end = history.ends.get(earlier.incarnation as usize);
            let text = format!("{later:x?} after {earlier:x?}, which ended as {end:?}");
            report.add(Kind::AckReturned, text);
        }
    }
}

/// Whether the ack of `earlier` may have been forgotten before `later`.
fn may_return(earlier: &Delivered, later: &Delivered, history: &History) -> bool {
    if earlier.incarnation == later.incarnation {
        return false;
    }
    match (earlier.ack, history.ends.get(earlier.incarnation as usize)) {
        (Ack::None | Ack::Sent, _) => true,
        (Ack::Known(since), Some(End::Crashed(at))) => {
            let stalled = stalled_ns(&history.stalls, since, *at);
            at.saturating_sub(since) <= ACK_WINDOW_NS + stalled
        }
        (Ack::Known(_), Some(End::Stopped) | None) => false,
    }
}

/// How long the disk stood still between two times.
fn stalled_ns(stalls: &[Stall], from_ns: u64, to_ns: u64) -> u64 {
    let within = stalls
        .iter()
        .map(|stall| stall.to_ns.min(to_ns).saturating_sub(stall.from_ns.max(from_ns)));
    within.sum()
}

fn check_order(history: &History, report: &mut Report) {
    let mut seen: HashSet<(u8, Id)> = HashSet::with_capacity(history.delivered.len());
    let mut last: HashMap<(u8, u32), u32> = HashMap::new();
    for delivery in &history.delivered {
        if !seen.insert((delivery.queue, delivery.id)) {
            continue;
        }
        let key = (delivery.queue, delivery.id.channel());
        let serial = delivery.id.serial();
        match last.insert(key, serial) {
            Some(before) if before > serial => {
                report.add(Kind::Order, format!("{delivery:x?} came after number {before:x}"));
                last.insert(key, before);
            }
            _ => {}
        }
    }
}

fn report_never_sent(deliveries: &[&Delivered], report: &mut Report) {
    for delivery in deliveries {
        report.add(Kind::Phantom, format!("{delivery:x?} was never sent"));
    }
}
