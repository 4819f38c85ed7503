//! What the disk itself needs to make 4 KiB durable: the measure that a durable server is held against.
//!
//! A file is written in full and synced, then overwritten block by block in order, as a journal of recycled segments
//! is, in two ways: O_DIRECT with O_DSYNC, and through the page cache with fdatasync.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use crate::limits::{PROBE_BYTES, PROBE_FILE_BYTES};
use crate::measure::{Latency, histogram};
use crate::workload::parse_time;

/// Where and how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Directory on the disk in question; a file is made there and removed again.
    #[arg(default_value = ".")]
    pub directory: PathBuf,
    /// How long each way is tried at most.
    #[arg(short, long, default_value = "2s", value_parser = parse_time)]
    pub time: Duration,
    /// Writes of each way at most.
    #[arg(short = 'n', long, default_value_t = 5000)]
    pub writes: u64,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Result of a probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Probe {
    /// O_DIRECT with O_DSYNC; none where the file system does not know O_DIRECT.
    pub direct: Option<Latency>,
    /// Overwrite in the page cache, then fdatasync.
    pub fdatasync: Latency,
}

/// Measures.
///
/// # Errors
/// When the file cannot be made or written.
pub fn run(options: &Options) -> io::Result<Probe> {
    let path = options.directory.join(format!("ringpost-probe-{}", std::process::id()));
    let result = measure(&path, options);
    // Whatever happened, the file has no further use; when it could not be made there is none.
    let _ = std::fs::remove_file(&path);
    result
}

fn measure(path: &Path, options: &Options) -> io::Result<Probe> {
    let file = File::options().create_new(true).write(true).open(path)?;
    let zeros = vec![0x5a; 1 << 20];
    for at in (0..PROBE_FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    let mut room = vec![0xa5; 2 * PROBE_BYTES];
    let start = room.as_ptr().align_offset(PROBE_BYTES);
    let block = &mut room[start..start + PROBE_BYTES];
    let direct = match open_direct(path) {
        Ok(direct) => Some(series("O_DIRECT|O_DSYNC overwrite", options, |at| direct.write_all_at(block, at))?),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
        Err(error) => return Err(error),
    };
    let fdatasync = series("overwrite+fdatasync", options, |at| {
        file.write_all_at(block, at)?;
        file.sync_data()
    })?;
    Ok(Probe { direct, fdatasync })
}

fn open_direct(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::DSYNC | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn series(name: &'static str, options: &Options, mut write: impl FnMut(u64) -> io::Result<()>) -> io::Result<Latency> {
    let mut times: Histogram<u64> = histogram();
    let start = Instant::now();
    for number in 0..options.writes.max(1) {
        let before = Instant::now();
        if before - start > options.time && number > 0 {
            break;
        }
        write(number * PROBE_BYTES as u64 % PROBE_FILE_BYTES)?;
        times.saturating_record((before.elapsed().as_micros() as u64).max(1));
    }
    Ok(Latency::of(name, &times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_measured_and_nothing_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let options =
            Options { directory: directory.path().into(), time: Duration::from_millis(200), writes: 50, json: false };
        let probe = run(&options).expect("a probe");
        assert!(probe.fdatasync.count >= 1 && probe.fdatasync.p50_us >= 1);
        assert!(probe.direct.is_none_or(|direct| direct.count >= 1));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a listing").count(), 0);
    }
}
