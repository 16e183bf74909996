//! Renders the rates and latencies between two snapshots as lines of text.

use crate::http::snapshot::{Flow, Latency, LogSnapshot, QueueSnapshot, ShardSnapshot, Snapshot};

/// Columns for the name of a queue; longer names are cut.
const NAME_COLUMNS: usize = 26;

/// The view, at most 100 columns wide.
pub(super) fn lines(before: &Snapshot, now: &Snapshot) -> Vec<String> {
    // After a restart of the broker there is no earlier snapshot to compare with.
    let fresh = Snapshot { uptime_ns: 0, ..Snapshot::default() };
    let before = if before.uptime_ns < now.uptime_ns { before } else { &fresh };
    let seconds = (now.uptime_ns - before.uptime_ns) as f64 / 1e9;
    let mut lines = vec![
        format!(
            "Leveret {}  {}  up {}",
            now.version.escape_debug(),
            now.cluster_name.escape_debug(),
            uptime(now.uptime_ns / 1_000_000_000)
        ),
        String::new(),
    ];
    lines.extend(objects(now));
    lines.extend(logs(before, now, seconds));
    lines.push(String::new());
    lines.push(heading("shard"));
    let changes: Vec<Change> = now
        .shards
        .iter()
        .map(|shard| {
            Change::of_shard(shard, before.shards.iter().find(|of| of.shard == shard.shard))
        })
        .collect();
    for change in &changes {
        lines.push(change.line(seconds));
    }
    if changes.len() > 1 {
        lines.push(Change::total(&changes).line(seconds));
    }
    if !now.queues.is_empty() {
        lines.push(String::new());
        lines.push(heading("busiest queues"));
        for queue in &now.queues {
            let earlier =
                before.queues.iter().find(|of| of.name == queue.name && of.vhost == queue.vhost);
            lines.push(Change::of_queue(queue, earlier).line(seconds));
        }
    }
    lines
}

fn objects(now: &Snapshot) -> Vec<String> {
    let sum = |of: fn(&ShardSnapshot) -> u64| now.shards.iter().map(of).sum::<u64>();
    let mut lines = vec![format!(
        "{} connections, {} channels, {} consumers, {} queues, {} ready, {} unacked",
        sum(|shard| shard.connections),
        sum(|shard| shard.channels),
        sum(|shard| shard.consumers),
        sum(|shard| shard.queues),
        sum(|shard| shard.flow.ready),
        sum(|shard| shard.flow.unacked),
    )];
    for (name, is_on) in [
        ("memory", (|shard| shard.memory_alarm) as fn(&ShardSnapshot) -> bool),
        ("disk", |shard| shard.disk_alarm),
    ] {
        if now.shards.iter().any(is_on) {
            let blocked = sum(|shard| shard.blocked);
            lines.push(format!("{name} alarm: {blocked} connections that publish are blocked"));
        }
    }
    let silent: Vec<String> = now
        .shards
        .iter()
        .filter(|shard| !shard.answered)
        .map(|shard| shard.shard.to_string())
        .collect();
    if !silent.is_empty() {
        lines.push(format!("no answer in time from shard {}: old figures", silent.join(", ")));
    }
    lines
}

/// All logs together; `None` if there are none.
fn logs(before: &Snapshot, now: &Snapshot, seconds: f64) -> Option<String> {
    let of = |snapshot: &Snapshot| {
        let logs = snapshot.shards.iter().filter_map(|shard| shard.log);
        logs.reduce(|sum, log| LogSnapshot {
            commits: sum.commits + log.commits,
            committed_bytes: sum.committed_bytes + log.committed_bytes,
            used_bytes: sum.used_bytes + log.used_bytes,
            live_bytes: sum.live_bytes + log.live_bytes,
        })
    };
    let (now, before) = (of(now)?, of(before).unwrap_or_default());
    let per_second = |count: u64| count as f64 / seconds.max(1e-9);
    let commits = now.commits.saturating_sub(before.commits);
    let written = now.committed_bytes.saturating_sub(before.committed_bytes);
    Some(format!(
        "log: {:.1} MB/s in {:.0} commits/s, {:.1} MB live of {:.1} MB",
        per_second(written) / 1e6,
        per_second(commits),
        now.live_bytes as f64 / 1e6,
        now.used_bytes as f64 / 1e6,
    ))
}

fn heading(of: &str) -> String {
    format!(
        "{of:<NAME_COLUMNS$} {:>8} {:>8} {:>8} {:>8} {:>8}  {:^13} {:^13}",
        "ready", "unacked", "publ/s", "deliv/s", "ack/s", "deliver 50/99", "queued 50/99"
    )
    .trim_end()
    .to_owned()
}

/// One line of a table: current values, and the changes since the previous snapshot.
struct Change {
    label: String,
    now: Flow,
    published: u64,
    delivered: u64,
    acknowledged: u64,
    publish_to_deliver: Latency,
    time_in_queue: Latency,
}

impl Change {
    fn of_shard(now: &ShardSnapshot, before: Option<&ShardSnapshot>) -> Self {
        let fresh = ShardSnapshot::default();
        let before = before.unwrap_or(&fresh);
        Self::new(
            format!("{} ({} connections)", now.shard, now.connections),
            (now.flow, &now.publish_to_deliver, &now.time_in_queue),
            (before.flow, &before.publish_to_deliver, &before.time_in_queue),
        )
    }

    fn of_queue(now: &QueueSnapshot, before: Option<&QueueSnapshot>) -> Self {
        // A queue that was not among the busiest in the previous snapshot shows its rates from the
        // next one on.
        let before = before.unwrap_or(now);
        let name =
            if now.vhost == "/" { now.name.clone() } else { format!("{}/{}", now.vhost, now.name) };
        Self::new(
            cut(&name.escape_debug().to_string()),
            (now.flow, &now.publish_to_deliver, &now.time_in_queue),
            (before.flow, &before.publish_to_deliver, &before.time_in_queue),
        )
    }

    fn new(
        label: String,
        now: (Flow, &Latency, &Latency),
        before: (Flow, &Latency, &Latency),
    ) -> Self {
        Self {
            label,
            now: now.0,
            published: now.0.published.saturating_sub(before.0.published),
            delivered: now.0.delivered.saturating_sub(before.0.delivered),
            acknowledged: now.0.acknowledged.saturating_sub(before.0.acknowledged),
            publish_to_deliver: now.1.since(before.1),
            time_in_queue: now.2.since(before.2),
        }
    }

    fn total(changes: &[Self]) -> Self {
        let nothing = Self::new(
            "all".into(),
            (Flow::default(), &Latency::default(), &Latency::default()),
            (Flow::default(), &Latency::default(), &Latency::default()),
        );
        changes.iter().fold(nothing, |sum, change| Self {
            label: sum.label,
            now: sum.now.plus(change.now),
            published: sum.published + change.published,
            delivered: sum.delivered + change.delivered,
            acknowledged: sum.acknowledged + change.acknowledged,
            publish_to_deliver: sum.publish_to_deliver.plus(&change.publish_to_deliver),
            time_in_queue: sum.time_in_queue.plus(&change.time_in_queue),
        })
    }

    fn line(&self, seconds: f64) -> String {
        let rate = |count: u64| amount((count as f64 / seconds).round() as u64);
        format!(
            "{:<NAME_COLUMNS$} {:>8} {:>8} {:>8} {:>8} {:>8}  {:^13} {:^13}",
            self.label,
            amount(self.now.ready),
            amount(self.now.unacked),
            rate(self.published),
            rate(self.delivered),
            rate(self.acknowledged),
            percentiles(&self.publish_to_deliver),
            percentiles(&self.time_in_queue),
        )
        .trim_end()
        .to_owned()
    }
}

fn percentiles(latency: &Latency) -> String {
    match (latency.quantile_ns(0.5), latency.quantile_ns(0.99)) {
        (Some(median), Some(p99)) => format!("{}/{}", duration(median), duration(p99)),
        _ => "-".to_owned(),
    }
}

/// At most six columns: `3.1us`, `25us`, `1.5ms`, `12s`.
fn duration(nanoseconds: u64) -> String {
    if nanoseconds == u64::MAX {
        return ">1h".to_owned();
    }
    let units = [(1e3, "us"), (1e6, "ms"), (1e9, "s")];
    let value = nanoseconds as f64;
    let (scale, unit) =
        units.into_iter().rev().find(|(scale, _)| value >= *scale).unwrap_or(units[0]);
    let scaled = value / scale;
    if scaled < 10.0 { format!("{scaled:.1}{unit}") } else { format!("{scaled:.0}{unit}") }
}

/// At most six columns: `99999`, `12.3M`.
fn amount(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..10_000_000 => format!("{}k", count / 1_000),
        10_000_000..10_000_000_000 => format!("{}M", count / 1_000_000),
        _ => format!("{}G", count / 1_000_000_000),
    }
}

fn uptime(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}d {hours:02}:{minutes:02}:{seconds:02}")
    } else {
        format!("{hours:02}:{minutes:02}:{seconds:02}")
    }
}

fn cut(name: &str) -> String {
    if name.chars().count() <= NAME_COLUMNS {
        return name.to_owned();
    }
    let start: String = name.chars().take(NAME_COLUMNS - 1).collect();
    format!("{start}~")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(shard: u16, published: u64, latency: &[(u64, u64)]) -> ShardSnapshot {
        let flow =
            Flow { ready: 7, unacked: 3, published, delivered: published / 2, acknowledged: 0 };
        ShardSnapshot {
            shard,
            answered: shard == 0,
            connections: 2,
            blocked: 1,
            disk_alarm: true,
            log: Some(LogSnapshot {
                commits: published,
                committed_bytes: published * 1_000,
                used_bytes: 16 << 20,
                live_bytes: 1_000_000,
            }),
            flow,
            publish_to_deliver: Latency(latency.to_vec()),
            ..ShardSnapshot::default()
        }
    }

    fn snapshot(uptime_s: u64, shards: Vec<ShardSnapshot>) -> Snapshot {
        Snapshot { uptime_ns: uptime_s * 1_000_000_000, shards, ..Snapshot::default() }
    }

    #[test]
    fn rates_and_percentiles_are_those_of_the_interval() {
        let before = snapshot(10, vec![shard(0, 1_000, &[(1_000, 900)]), shard(1, 0, &[])]);
        let now = snapshot(
            12,
            vec![shard(0, 5_000, &[(1_000, 900), (3_072, 98), (1_500_000, 2)]), shard(1, 40, &[])],
        );
        let lines = lines(&before, &now);
        let line = |start: &str| lines.iter().find(|line| line.starts_with(start)).unwrap();
        let words: Vec<&str> = line("0 (2 connections)").split_whitespace().skip(3).collect();
        assert_eq!(words, ["7", "3", "2000", "1000", "0", "3.1us/1.5ms", "-"]);
        let words: Vec<&str> = line("all").split_whitespace().skip(1).collect();
        assert_eq!(words, ["14", "6", "2020", "1010", "0", "3.1us/1.5ms", "-"]);
        assert!(lines.iter().any(|line| line.contains("no answer in time from shard 1")));
        assert!(lines.iter().any(|line| line.starts_with("4 connections, ")));
        assert!(lines.iter().any(|line| line.starts_with("disk alarm: 2 connections")));
        assert!(!lines.iter().any(|line| line.starts_with("memory alarm")));
        assert!(
            lines.contains(&"log: 2.0 MB/s in 2020 commits/s, 2.0 MB live of 33.6 MB".to_owned()),
            "{lines:#?}"
        );
        assert!(lines.iter().all(|line| line.len() <= 100), "{lines:#?}");
    }

    #[test]
    fn a_restarted_broker_is_compared_with_nothing() {
        let before = snapshot(100, vec![shard(0, 1_000_000, &[])]);
        let now = snapshot(2, vec![shard(0, 1_000, &[])]);
        let lines = lines(&before, &now);
        let line = lines.iter().find(|line| line.starts_with("0 (2")).unwrap();
        assert!(line.contains(" 500 "), "{line}");
    }

    #[test]
    fn names_cannot_reach_the_terminal_as_they_are() {
        let queue = QueueSnapshot {
            name: format!("\u{1b}[2J{}", "x".repeat(300)),
            vhost: "v".into(),
            ..QueueSnapshot::default()
        };
        let now = Snapshot { queues: vec![queue], uptime_ns: 1, ..Snapshot::default() };
        let text = lines(&now, &now).join("\n");
        assert!(!text.contains('\u{1b}') && text.contains("v/\\u{1b}[2Jxx"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn figures_fit_their_columns() {
        for (nanoseconds, text) in [
            (0, "0.0us"),
            (1_536, "1.5us"),
            (24_576, "25us"),
            (999_999, "1000us"),
            (1_500_000, "1.5ms"),
            (12_000_000_000, "12s"),
            (u64::MAX, ">1h"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
        for (count, text) in [
            (99_999, "99999"),
            (100_000, "100k"),
            (9_999_999, "9999k"),
            (12_345_678, "12M"),
            (10_000_000_000, "10G"),
        ] {
            assert_eq!(amount(count), text);
        }
        assert_eq!(uptime(90_061), "1d 01:01:01");
        assert_eq!(uptime(3_723), "01:02:03");
    }
}
