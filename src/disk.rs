//! What is said of the disk at the start: its file system, whether writes go past the page cache, what a commit takes.

use std::io;
use std::path::Path;
use std::time::Duration;

use ringpost_io::ring::RingRuntime;
use ringpost_io::{BLOCK_BYTES, Create, Disk, File, Runtime};
use serde::{Deserialize, Serialize};

/// Durable writes of one block that are timed; the median is told.
const TRIES: usize = 5;

/// Magic numbers of statfs(2).
const FILE_SYSTEMS: [(u32, &str); 8] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlayfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0x6969, "nfs"),
];

/// The disk that holds the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Its file system; `None`: one whose name we do not know.
    file_system: Option<String>,
    /// The page cache is left out.
    direct: bool,
    /// What the smallest commit takes.
    commit: Duration,
}

impl Look {
    /// Writes a block of a file of its own some times, durably.
    ///
    /// # Errors
    /// Those of the disk. The file may be left behind then; the next look removes it.
    pub async fn at(runtime: &RingRuntime, dir: &Path) -> io::Result<Self> {
        let disk = runtime.disk();
        disk.make_dir(dir).await?;
        let path = dir.join("commit.probe");
        // Of a look that was interrupted.
        let _ = disk.remove(&path).await;
        let file = disk.create(&path, BLOCK_BYTES as u64, Create::Prewritten).await?;
        let mut times = Vec::with_capacity(TRIES);
        for _ in 0..TRIES {
            let began = runtime.now();
            file.write_durable(0, &[0; BLOCK_BYTES]).await?;
            times.push(runtime.now() - began);
        }
        times.sort();
        drop(file);
        disk.remove(&path).await?;
        let magic = rustix::fs::statfs(dir)?.f_type as u32;
        let known = FILE_SYSTEMS.iter().find(|(number, _)| *number == magic);
        Ok(Self {
            file_system: known.map(|(_, name)| (*name).to_owned()),
            direct: !disk.went_buffered(),
            commit: times[TRIES / 2],
        })
    }
}

impl std::fmt::Display for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let on = self.file_system.as_deref().map(|name| format!(" on {name}")).unwrap_or_default();
        let way = if self.direct { "O_DIRECT" } else { "through the page cache" };
        let commit_ms = self.commit.as_secs_f64() * 1e3;
        write!(f, "journal{on}, {way}, commit {commit_ms:.2} ms (measured just now)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_sentence() {
        let mut look = Look { file_system: Some("ext4".into()), direct: true, commit: Duration::from_micros(154) };
        assert_eq!(look.to_string(), "journal on ext4, O_DIRECT, commit 0.15 ms (measured just now)");
        (look.file_system, look.direct) = (None, false);
        assert_eq!(look.to_string(), "journal, through the page cache, commit 0.15 ms (measured just now)");
    }
}
