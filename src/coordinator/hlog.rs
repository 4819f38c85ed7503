//! `metrics hlog`: the latencies of each stage, interval by interval, in files that HdrHistogram's viewers read. One file for
//! each stage and day (UTC), opened for each line, so that whoever moves or removes one breaks nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use ringpost_perf::{Snapshot, Stage, StagesSnapshot, hlog};
use tokio::sync::Notify;

use super::Coordinator;
use crate::limits::{HLOG_EVERY, HLOG_LINE};

/// The logs of a server.
#[derive(Default)]
pub struct Hlog {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// When the interval began; `None`: nothing is logged.
    since: Option<SystemTime>,
    /// What had been recorded by then, by shard.
    before: BTreeMap<u16, StagesSnapshot>,
    /// What went wrong last, which is told once.
    trouble: Option<String>,
}

impl Hlog {
    /// The configuration is another one.
    pub fn reload(&self) {
        self.changed.notify_one();
    }
}

/// Writes what each interval has brought, as the configuration in force says, until the process ends.
pub async fn keep(coordinator: Arc<Coordinator>) {
    let hlog = &coordinator.hlog;
    let mut is_new = true;
    loop {
        // What shards have recorded before anybody asked them is of the first interval.
        let at_start = std::mem::replace(&mut is_new, false);
        let metrics = coordinator.config().metrics.clone();
        let Some(directory) = metrics.hlog else {
            hlog.state.lock().expect("nobody panics with it").since = None;
            hlog.changed.notified().await;
            continue;
        };
        let begun = hlog.state.lock().expect("nobody panics with it").since.is_some();
        if at_start {
            hlog.state.lock().expect("nobody panics with it").since = Some(SystemTime::now());
        } else if !begun {
            let snapshot = coordinator.shards.snapshot_now().await;
            hlog.state.lock().expect("nobody panics with it").begin(&snapshot, SystemTime::now());
        }
        tokio::select! {
            () = tokio::time::sleep(metrics.hlog_every.unwrap_or(HLOG_EVERY)) => {}
            () = hlog.changed.notified() => {}
        }
        // What has been recorded until now belongs where it was to go then.
        let snapshot = coordinator.shards.snapshot_now().await;
        write(&coordinator, &snapshot, directory).await;
    }
}

/// The last interval ends.
pub async fn end(coordinator: &Arc<Coordinator>, snapshot: &Snapshot) {
    if let Some(directory) = coordinator.config().metrics.hlog.clone() {
        write(coordinator, snapshot, directory).await;
    }
}

async fn write(coordinator: &Arc<Coordinator>, snapshot: &Snapshot, directory: PathBuf) {
    let now = SystemTime::now();
    let interval = coordinator.hlog.state.lock().expect("nobody panics with it").end(snapshot, now);
    let Some((since, stages)) = interval else { return };
    let written = tokio::task::spawn_blocking(move || append(&directory, &stages, since, now)).await;
    let trouble = match written {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(error) => Some(error.to_string()),
    };
    let mut state = coordinator.hlog.state.lock().expect("nobody panics with it");
    if let Some(why) = trouble.as_ref().filter(|_| state.trouble != trouble) {
        coordinator.log.warn(&format_args!("metrics hlog: {why}; these latencies are not in the logs"));
    }
    state.trouble = trouble;
}

impl State {
    fn begin(&mut self, snapshot: &Snapshot, now: SystemTime) {
        self.since = Some(now);
        self.before = snapshot.shards.iter().map(|shard| (shard.shard, shard.stages.clone())).collect();
    }

    /// What the interval has brought, and when it began. A shard that has not answered brings more the next time.
    fn end(&mut self, snapshot: &Snapshot, now: SystemTime) -> Option<(SystemTime, StagesSnapshot)> {
        let since = self.since?;
        self.since = Some(now);
        let mut brought = StagesSnapshot::default();
        for shard in &snapshot.shards {
            let before = self.before.insert(shard.shard, shard.stages.clone()).unwrap_or_default();
            brought.merge(&shard.stages.since(&before));
        }
        Some((since, brought))
    }
}

/// Appends a line for each stage that has occurred.
fn append(directory: &Path, stages: &StagesSnapshot, since: SystemTime, now: SystemTime) -> Result<(), String> {
    let length = now.duration_since(since).unwrap_or(Duration::ZERO);
    let day = Timestamp::try_from(since).map_err(|error| error.to_string())?.strftime("%Y-%m-%d").to_string();
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for stage in Stage::ALL {
        let buckets = stages.stage(stage);
        if buckets.count() == 0 {
            continue;
        }
        let path = directory.join(format!("{}-{day}.hlog", stage.label()));
        let line = hlog::line(buckets, since, length);
        let written = line.and_then(|line| append_to(&path, since, &line));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Behind the last whole line, which is where a process that has died in the middle of one has left off.
fn append_to(path: &Path, since: SystemTime, line: &str) -> io::Result<()> {
    // Never through a link: in a directory of others it may lead anywhere.
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    let mut file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("this is no file: move it away"));
    }
    let end = whole_lines(&mut file)?;
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    let head = if end == 0 { hlog::head(since) } else { String::new() };
    file.write_all((head + line).as_bytes())
}

/// Bytes up to the end of the last line that is whole.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut last = Vec::new();
    file.seek(SeekFrom::Start(size.saturating_sub(HLOG_LINE)))?;
    file.read_to_end(&mut last)?;
    let broken = last.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
    if broken == HLOG_LINE && broken < size {
        return Err(io::Error::other("this is no log of histograms: move it away"));
    }
    Ok(size - broken)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use ringpost_perf::{ShardSnapshot, Stages};

    use super::*;

    fn intervals(path: &Path) -> usize {
        let text = fs::read(path).expect("it is there");
        let entries = IntervalLogIterator::new(&text).map(|entry| entry.expect("it can be read"));
        entries.filter(|entry| matches!(entry, LogEntry::Interval(_))).count()
    }

    fn snapshot(shards: &[(u16, &Stages)]) -> Snapshot {
        let shard = |(shard, stages): &(u16, &Stages)| ShardSnapshot {
            shard: *shard,
            stages: stages.snapshot(),
            ..ShardSnapshot::default()
        };
        Snapshot { shards: shards.iter().map(shard).collect(), ..Snapshot::default() }
    }

    #[test]
    fn each_stage_has_a_file_a_day_and_half_a_line_is_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path().join("of/its/own");
        let stages = Stages::new();
        stages.record(Stage::Connect, Duration::from_millis(5));
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let midnight = 86_400 * 20_000;
        append(&directory, &stages.snapshot(), at(midnight - 90), at(midnight - 30)).expect("written");
        append(&directory, &stages.snapshot(), at(midnight - 30), at(midnight + 30)).expect("written");
        append(&directory, &stages.snapshot(), at(midnight + 30), at(midnight + 90)).expect("written");
        let names: Vec<_> =
            fs::read_dir(&directory).expect("it is there").map(|one| one.expect("one").file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let yesterday = directory.join("connect-2024-10-03.hlog");
        assert_eq!((intervals(&yesterday), intervals(&directory.join("connect-2024-10-04.hlog"))), (2, 1));
        let whole = fs::read(&yesterday).expect("it is there");
        fs::write(&yesterday, &whole[..whole.len() - 10]).expect("written");
        append(&directory, &stages.snapshot(), at(midnight - 5), at(midnight - 1)).expect("written");
        assert_eq!(intervals(&yesterday), 2, "the whole one, and the new one");
        fs::write(&yesterday, "#[Logged").expect("written");
        append(&directory, &stages.snapshot(), at(midnight - 5), at(midnight - 1)).expect("written");
        assert_eq!(intervals(&yesterday), 1);
    }

    #[test]
    fn a_shard_that_has_not_answered_brings_more_the_next_time() {
        let (one, two) = (Stages::new(), Stages::new());
        let mut state = State::default();
        let (start, minute) = (UNIX_EPOCH, Duration::from_secs(60));
        one.record(Stage::Total, minute);
        assert!(state.end(&snapshot(&[(0, &one)]), start).is_none(), "nothing was begun");
        state = State::default();
        state.begin(&snapshot(&[(0, &one), (1, &two)]), start);
        let count = |interval: Option<(SystemTime, StagesSnapshot)>| {
            let (since, stages) = interval.expect("an interval");
            (since, stages.stage(Stage::Total).count())
        };
        [&one, &two].iter().for_each(|stages| stages.record(Stage::Total, minute));
        assert_eq!(count(state.end(&snapshot(&[(0, &one)]), start + minute)), (start, 1));
        [&one, &two].iter().for_each(|stages| stages.record(Stage::Total, minute));
        assert_eq!(count(state.end(&snapshot(&[(0, &one), (1, &two)]), start + 2 * minute)), (start + minute, 3));
    }
}
