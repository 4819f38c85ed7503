//! A snapshot as people read it: the table of `ringpost stats`, and its `--json`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::counters::Counter;
use crate::limits::{HEAT_ROWS_PER_OCTAVE, REST};
use crate::sites::{Classes, Tally};
use crate::snapshot::{CertificateDays, Gauges, ShardSnapshot, Snapshot};
use crate::stages::{Stage, StageSummary};

/// What `ringpost stats --json` and the page get: figures instead of thousands of buckets.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the server.
    pub version: String,
    /// Seconds since it began.
    pub uptime_seconds: f64,
    /// All shards together.
    pub all: Figures,
    /// Each shard, in order.
    pub shards: Vec<Figures>,
    /// How long certificates are good for.
    pub certificates: Vec<CertificateDays>,
    /// What became of mail to other servers by site; none, unless sites are told apart (`metrics sites`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteFigures>,
    /// Sites that have had mail, and of which that is counted as `other`.
    #[serde(skip_serializing_if = "is_zero")]
    pub sites_left_out: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What became of mail to a site, since it has a name in metrics.
#[derive(Clone, Debug, Serialize)]
pub struct SiteFigures {
    /// Its mail exchangers, or `other` for all sites without a name.
    pub site: String,
    /// The figures.
    #[serde(flatten)]
    pub tally: Tally,
}

/// One shard, or all together.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Stages that occurred, in order.
    pub stages: Vec<StageFigures>,
    /// Counters by name.
    pub counters: BTreeMap<&'static str, u64>,
    /// What is there now.
    pub gauges: Gauges,
    /// What other servers have refused, by class.
    pub refusals: Classes,
}

/// One stage: its summary, and rows for a heat-map or a plot.
#[derive(Clone, Debug, Serialize)]
pub struct StageFigures {
    /// The figures.
    #[serde(flatten)]
    pub summary: StageSummary,
    /// `[microseconds, count]`, ascending: values up to that, and above the row before it.
    pub rows: Vec<(u64, u64)>,
}

impl Report {
    /// Of a snapshot.
    pub fn new(snapshot: &Snapshot) -> Self {
        Self {
            version: snapshot.version.clone(),
            uptime_seconds: snapshot.uptime_seconds,
            all: Figures::new(&snapshot.merged()),
            shards: snapshot.shards.iter().map(Figures::new).collect(),
            certificates: snapshot.certificates.clone(),
            sites: snapshot.sites.iter().cloned().map(|(site, tally)| SiteFigures { site, tally }).collect(),
            sites_left_out: snapshot.sites_left_out,
        }
    }
}

impl Figures {
    fn new(shard: &ShardSnapshot) -> Self {
        let occurred = Stage::ALL.into_iter().filter(|stage| shard.stages.stage(*stage).count() > 0);
        let figures = |stage: Stage| StageFigures {
            summary: shard.stages.summary(stage),
            rows: shard.stages.stage(stage).coarse(HEAT_ROWS_PER_OCTAVE).iter().collect(),
        };
        Self {
            stages: occurred.map(figures).collect(),
            counters: shard.counters.iter().map(|(counter, value)| (counter.name(), value)).collect(),
            gauges: shard.gauges.clone(),
            refusals: shard.refusals.clone(),
        }
    }
}

/// The table that `ringpost stats` prints: a line of totals, then a line for each stage that occurred.
pub fn table(snapshot: &Snapshot) -> String {
    let all = snapshot.merged();
    let count = |counter| all.counters.get(counter);
    let (commits, batched) = (count(Counter::Commits), count(Counter::CommitBatchMessages));
    let mut out = format!(
        "ringpost {}  up {}  {} shards\n\
         received {}  refused {}  delivered {}  deferred {}  failed {}  bounced {}\n\
         sessions {}  queue {} messages, {} envelopes ({} deferred, {} in flight)  commits {}",
        snapshot.version,
        duration((snapshot.uptime_seconds * 1e6) as u64),
        snapshot.shards.len(),
        count(Counter::MessagesReceived),
        count(Counter::MessagesRefused),
        count(Counter::Delivered),
        count(Counter::Deferred),
        count(Counter::Failed),
        count(Counter::Bounced),
        all.gauges.sessions_open,
        all.gauges.queue_messages,
        all.gauges.queue_envelopes,
        all.gauges.queue_deferred,
        all.gauges.queue_in_flight,
        commits,
    );
    if commits > 0 && batched > 0 {
        write!(out, " ({:.1} messages each)", batched as f64 / commits as f64).expect("a String takes all");
    }
    if all.gauges.low_space {
        out.push_str("\nnew mail is refused: the disk is nearly full");
    }
    if !snapshot.certificates.is_empty() {
        let left = snapshot.certificates.iter().map(|one| format!("{} {} days", one.pki, one.days));
        write!(out, "\ncertificates {}", left.collect::<Vec<_>>().join(", ")).expect("a String takes all");
    }
    if snapshot.sites_left_out > 0 {
        let named = snapshot.sites.iter().filter(|(site, _)| site != REST).count();
        let left_out = snapshot.sites_left_out;
        write!(out, "\nsites {named} with a name in the metrics, {left_out} more are `{REST}` there")
            .expect("a String takes all");
    }
    refusals(&mut out, &all.refusals);
    out.push_str("\n\n");
    let heads = ["stage", "count", "mean", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![heads.map(str::to_owned)];
    for summary in all.stages.summaries() {
        rows.push([
            summary.stage.replace('_', " "),
            summary.count.to_string(),
            duration(summary.mean_us as u64),
            duration(summary.p50_us),
            duration(summary.p90_us),
            duration(summary.p99_us),
            duration(summary.p999_us),
            duration(summary.max_us),
        ]);
    }
    for row in &rows {
        let mut line = format!("{:<18}", row[0]);
        for cell in &row[1..] {
            write!(line, " {cell:>9}").expect("a String takes all");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    if rows.len() == 1 {
        out.push_str("nothing has happened yet\n");
    }
    out
}

/// Why other servers have refused mail, the most frequent first.
fn refusals(out: &mut String, classes: &Classes) {
    if classes.is_empty() {
        return;
    }
    let mut all: Vec<(&str, u64)> = classes.iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    out.push_str("\nrefused by others");
    let mut width = "refused by others".len();
    for (class, count) in all {
        let part = format!("  {class} {count}");
        if width + part.len() > WIDTH {
            out.push_str("\n                 ");
            width = "refused by others".len();
        }
        width += part.len();
        out.push_str(&part);
    }
}

/// Columns of a terminal that has no more.
const WIDTH: usize = 80;

/// A time for people, in three digits: `85 µs`, `1.23 ms`, `4.5 s`, `3.2 h`.
pub fn duration(us: u64) -> String {
    let (value, unit) = match us {
        0..1_000 => return format!("{us} µs"),
        1_000..1_000_000 => (us as f64 / 1e3, "ms"),
        1_000_000..120_000_000 => (us as f64 / 1e6, "s"),
        120_000_000..7_200_000_000 => (us as f64 / 60e6, "min"),
        _ => (us as f64 / 3600e6, "h"),
    };
    match value {
        ..9.995 => format!("{value:.2} {unit}"),
        ..99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Counters, Stages};

    fn snapshot() -> Snapshot {
        let (stages, counters) = (Stages::new(), Counters::new());
        for number in 1..=1000 {
            stages.record(Stage::CommitWait, Duration::from_micros(number));
            stages.record(Stage::RemoteTransaction, Duration::from_millis(number));
        }
        counters.add(Counter::Commits, 50);
        counters.add(Counter::CommitBatchMessages, 1000);
        let gauges = Gauges { sessions_open: 3, ..Gauges::default() };
        let mut refusals = Classes::default();
        for (class, count) in [("spam", 2), ("rate-limited", 31), ("no-such-user", 7)] {
            refusals.add(class, count);
        }
        let (stages, counters) = (stages.snapshot(), counters.snapshot());
        let shard = ShardSnapshot { shard: 0, stages, counters, gauges, refusals };
        let certificates = vec![CertificateDays { pki: "mx".into(), days: 20 }];
        let shards = vec![shard.clone(), shard];
        Snapshot { version: "0.1.0".into(), uptime_seconds: 61.2, shards, certificates, ..Snapshot::default() }
    }

    #[test]
    fn the_table_reads_in_80_columns() {
        let table = table(&snapshot());
        assert!(table.contains("commits 100 (20.0 messages each)"), "{table}");
        assert!(table.contains("up 61.2 s  2 shards"), "{table}");
        assert!(table.contains("\ncertificates mx 20 days\n"), "{table}");
        let refused = "\nrefused by others  rate-limited 62  no-such-user 14  spam 4\n";
        assert!(table.contains(refused), "{table}");
        let line = table.lines().find(|line| line.starts_with("commit wait")).expect("a line");
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells[2..9], ["2000", "500", "µs", "500", "µs", "900", "µs"], "{line}");
        assert!(table.lines().filter(|line| !line.contains("  ")).all(|line| line.chars().count() <= 80), "{table}");
        assert!(super::table(&Snapshot::default()).contains("nothing has happened yet"));
    }

    #[test]
    fn json_has_summaries_rows_and_counters() {
        let report = serde_json::to_value(Report::new(&snapshot())).expect("json");
        let stage = &report["all"]["stages"][0];
        assert_eq!((stage["stage"].as_str(), stage["count"].as_u64()), (Some("commit_wait"), Some(2000)));
        let rows = stage["rows"].as_array().expect("rows");
        assert!(rows.len() < 45, "{}", rows.len());
        assert_eq!(rows.iter().filter_map(|row| row[1].as_u64()).sum::<u64>(), 2000);
        assert_eq!(report["all"]["counters"]["commits"], 100);
        assert_eq!(report["shards"][1]["gauges"]["sessions_open"], 3);
        assert_eq!(report["certificates"][0]["days"], 20);
        assert_eq!(report["all"]["refusals"]["rate-limited"], 62);
        assert!(report.get("sites").is_none());
    }

    #[test]
    fn times_have_three_digits() {
        let texts = [85, 1_234, 45_600, 999_999, 4_500_000, 130_000_000, 10_000_000_000].map(duration);
        assert_eq!(texts, ["85 µs", "1.23 ms", "45.6 ms", "1000 ms", "4.50 s", "2.17 min", "2.78 h"]);
    }
}
