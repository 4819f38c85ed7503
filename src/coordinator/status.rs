//! The last two lines of a terminal: how long the stages take and how much goes through, drawn anew once a second below
//! the log. Only where standard error is a terminal that can move its cursor.

use std::io::IsTerminal;
use std::sync::Arc;

use ringpost_perf::report::duration;
use ringpost_perf::{Buckets, Counter, Snapshot, Stage};

use super::Coordinator;
use crate::limits::{STATUS_EVERY, STATUS_WIDTH};

/// The bars of a histogram in one line, from least to most.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of such a histogram.
const COLUMNS: usize = 8;

/// Draws until the process ends.
pub async fn show(coordinator: Arc<Coordinator>) {
    let can_move = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    if !std::io::stderr().is_terminal() || !can_move {
        return;
    }
    loop {
        tokio::time::sleep(STATUS_EVERY).await;
        let width = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(STATUS_WIDTH, |size| size.ws_col.into());
        let snapshot = coordinator.shards.snapshot().await;
        coordinator.log.set_status(&lines(&snapshot, if width == 0 { STATUS_WIDTH } else { width }));
    }
}

/// Two lines of at most `width` characters.
fn lines(snapshot: &Snapshot, width: usize) -> [String; 2] {
    let all = snapshot.merged();
    let mut latency = String::new();
    for (name, stage) in [("accept→commit", Stage::CommitWait), ("accept→delivered", Stage::Total)] {
        let times = all.stages.stage(stage);
        if times.count() == 0 {
            continue;
        }
        let quantile = |part| duration(times.quantile_us(part));
        let max = duration(times.max_us());
        let part = format!(" {name}  p50 {}  p99 {}  max {max}  {}", quantile(0.5), quantile(0.99), bars(times));
        if latency.is_empty() || latency.chars().count() + part.chars().count() <= width {
            latency.push_str(&part);
        }
    }
    if latency.is_empty() {
        latency.push_str(" no message yet");
    }
    let count = |counter| all.counters.get(counter);
    let gauges = &all.gauges;
    let flow = format!(
        " in {} msg  out {} msg  queue {}  deferred {}  sessions {}     (Ctrl-C stops)",
        count(Counter::MessagesReceived),
        count(Counter::Delivered),
        gauges.queue_messages,
        gauges.queue_deferred,
        gauges.sessions_open
    );
    [latency, flow].map(|line| line.chars().take(width).collect())
}

/// How the values are spread, on a logarithmic scale from the least to the greatest.
fn bars(times: &Buckets) -> String {
    let log = |us: u64| (us.max(1) as f64).log2();
    let least = times.iter().next().map_or(0.0, |(us, _)| log(us));
    let span = (log(times.max_us()) - least).max(f64::MIN_POSITIVE);
    let mut columns = [0_u64; COLUMNS];
    for (us, count) in times.iter() {
        let column = (log(us) - least) / span * COLUMNS as f64;
        columns[(column as usize).min(COLUMNS - 1)] += count;
    }
    let most = columns.iter().copied().max().unwrap_or(0).max(1);
    let bar = |count: u64| if count == 0 { ' ' } else { BARS[(count * 7 / most) as usize] };
    columns.into_iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use ringpost_perf::{Counters, ShardSnapshot, Stages};

    use super::*;

    fn snapshot(commits_us: &[u64]) -> Snapshot {
        let stages = Stages::new();
        for us in commits_us {
            stages.record(Stage::CommitWait, std::time::Duration::from_micros(*us));
        }
        let shard = ShardSnapshot {
            shard: 0,
            stages: stages.snapshot(),
            counters: Counters::new().snapshot(),
            ..ShardSnapshot::default()
        };
        Snapshot { version: "0".into(), uptime_seconds: 1.0, shards: vec![shard], ..Snapshot::default() }
    }

    #[test]
    fn nothing_has_come_yet() {
        let [latency, flow] = lines(&snapshot(&[]), 80);
        assert_eq!(latency, " no message yet");
        assert!(flow.starts_with(" in 0 msg  out 0 msg  queue 0"), "{flow}");
    }

    #[test]
    fn most_values_make_the_highest_bar_and_lines_are_cut() {
        let [latency, _] = lines(&snapshot(&[100, 110, 110, 110, 120, 6_400]), 200);
        assert!(latency.contains("p50 110 µs") && latency.contains('█'), "{latency}");
        assert_eq!(latency.chars().filter(|each| BARS.contains(each)).count(), 2, "{latency}");
        let [latency, flow] = lines(&snapshot(&[100]), 20);
        assert!(latency.chars().count() == 20 && flow.chars().count() == 20);
    }
}
