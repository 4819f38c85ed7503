//! The text files of tables are watched: a changed one is read again by itself (grammar §7.2), unless it is `manual`. So are
//! certificates and keys (§4.2).
//!
//! Folders are watched and not the files, for a file is best replaced by renaming another to its name.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crossbeam::channel::Sender;
use ringpost_conf::{Backend, Config, PkiSource};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use super::News;

/// Room for some dozens of events at a time.
const EVENTS_BYTES: usize = 8 * 1024;

/// What is watched.
pub struct Watch {
    inotify: OwnedFd,
    watched: Arc<Mutex<Watched>>,
}

#[derive(Default)]
struct Watched {
    /// Each with the number that the kernel gave it.
    folders: Vec<(i32, PathBuf)>,
    files: BTreeSet<PathBuf>,
}

impl Watch {
    /// Starts the thread that tells of changes; nothing is watched yet.
    ///
    /// # Errors
    /// There are too many such watchers, or the thread cannot be had.
    pub fn start(news: Sender<News>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        let reading = inotify.try_clone()?;
        let watched: Arc<Mutex<Watched>> = Arc::default();
        let known = watched.clone();
        std::thread::Builder::new().name("watch".into()).spawn(move || tell(&reading, &known, &news))?;
        Ok(Self { inotify, watched })
    }

    /// Watches the files of this configuration, and no others. What cannot be watched is returned, with the reason.
    pub fn follow(&self, config: &Config) -> Vec<String> {
        let files: BTreeSet<PathBuf> = files(config).map(Path::to_owned).collect();
        let mut watched = self.watched.lock().expect("nobody panics with it");
        let (mut folders, mut problems) = (Vec::new(), Vec::new());
        for folder in files.iter().filter_map(|file| file.parent()).collect::<BTreeSet<_>>() {
            // Programs that renew certificates make links, too.
            let changes = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE;
            // One that is watched already keeps its number, and no change in it is missed.
            match inotify::add_watch(&self.inotify, folder, changes) {
                Ok(number) => folders.push((number, folder.to_owned())),
                Err(error) => problems.push(format!("changes in {} will not be noticed: {error}", folder.display())),
            }
        }
        for (number, _) in &watched.folders {
            if folders.iter().all(|(wanted, _)| wanted != number) {
                // A folder that was removed is watched no more anyway.
                let _ = inotify::remove_watch(&self.inotify, *number);
            }
        }
        *watched = Watched { folders, files };
        problems
    }
}

/// The files that are read again by themselves.
fn files(config: &Config) -> impl Iterator<Item = &Path> {
    let certificates = config.pkis.iter().map(|pki| match &pki.source {
        PkiSource::Files { cert, key } => vec![cert.as_path(), key.as_path()],
        PkiSource::Listed(pairs) => pairs.iter().flat_map(|pair| [pair.cert.as_path(), pair.key.as_path()]).collect(),
        PkiSource::Table(_) => Vec::new(),
    });
    certificates.flatten().chain(tables(config))
}

/// The text files of tables.
fn tables(config: &Config) -> impl Iterator<Item = &Path> {
    config.tables.iter().filter_map(|table| match &table.backend {
        Backend::File { path } if !table.options.manual && !table.services.is_empty() => Some(path.as_path()),
        _ => None,
    })
}

fn tell(inotify: &OwnedFd, watched: &Mutex<Watched>, news: &Sender<News>) {
    let mut room = [MaybeUninit::uninit(); EVENTS_BYTES];
    let mut reader = Reader::new(inotify.as_fd(), &mut room);
    loop {
        let changed = match reader.next() {
            Ok(event) => {
                let watched = watched.lock().expect("nobody panics with it");
                let all = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                let folder = watched.folders.iter().find(|(number, _)| *number == event.wd());
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                let file = folder.zip(name).map(|((_, folder), name)| folder.join(name));
                all || file.is_some_and(|file| watched.files.contains(&file))
            }
            Err(rustix::io::Errno::INTR) => false,
            Err(_) => return,
        };
        if changed && news.send(News::TablesChanged).is_err() {
            return;
        }
    }
}
