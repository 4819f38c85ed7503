//! One fsync of a directory for all files that were renamed into it meanwhile: group commit, as the journal does it with
//! messages. Whoever is alone in a directory syncs it on the trip that he makes anyway.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::blocking::Blocking;
use super::disk::sync_directory;
use crate::Signal;

/// The directories into which files are being published.
pub(super) struct Directories {
    blocking: Blocking,
    busy: RefCell<HashMap<PathBuf, Rc<Directory>>>,
}

/// One of them.
pub(super) struct Directory {
    blocking: Blocking,
    path: PathBuf,
    state: RefCell<State>,
    ended: Signal,
}

#[derive(Default)]
struct State {
    /// Publications that have begun and not ended.
    inside: usize,
    /// A sync is under way.
    running: bool,
    /// Syncs that have ended.
    rounds: u64,
    /// The last of them that failed, and its error. Zero: none.
    failed: (u64, i32),
}

/// Somebody who publishes in a directory.
pub(super) struct Inside<'d> {
    all: &'d Directories,
    directory: Rc<Directory>,
}

impl Directories {
    /// Nobody is in any.
    pub(super) fn new(blocking: Blocking) -> Self {
        Self { blocking, busy: RefCell::default() }
    }

    /// Begins; whether nobody else is there.
    pub(super) fn enter(&self, path: &Path) -> (Inside<'_>, bool) {
        let mut busy = self.busy.borrow_mut();
        let directory = match busy.get(path) {
            Some(directory) => directory.clone(),
            None => {
                let state = RefCell::default();
                let (blocking, ended) = (self.blocking.clone(), Signal::new());
                let directory = Rc::new(Directory { blocking, path: path.to_owned(), state, ended });
                busy.insert(path.to_owned(), directory.clone());
                directory
            }
        };
        let alone = directory.state.borrow().inside == 0;
        directory.state.borrow_mut().inside += 1;
        (Inside { all: self, directory }, alone)
    }
}

impl Inside<'_> {
    /// Returns when a sync that began after this call has ended: all renames before it are durable.
    pub(super) async fn sync(&self) -> io::Result<()> {
        let directory = &self.directory;
        // One that runs may have missed us: the next is ours.
        let wanted = {
            let state = directory.state.borrow();
            state.rounds + if state.running { 2 } else { 1 }
        };
        loop {
            let ended = directory.ended.raised();
            let (rounds, running) = {
                let state = directory.state.borrow();
                (state.rounds, state.running)
            };
            if rounds >= wanted {
                return directory.result(wanted);
            }
            if running {
                ended.await;
            } else {
                directory.run().await;
            }
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.directory.state.borrow_mut();
        state.inside -= 1;
        if state.inside == 0 {
            self.all.busy.borrow_mut().remove(&self.directory.path);
        }
    }
}

impl Directory {
    async fn run(&self) {
        self.state.borrow_mut().running = true;
        // Should this future be dropped on its way, the next in line begins anew; until then it has failed.
        let round = Round { directory: self, error: libc::EIO };
        let path = self.path.clone();
        let result = self.blocking.run(move || sync_directory(&path)).await;
        round.end(result);
    }

    /// Of a round that has ended. If a later one has failed meanwhile, that counts, too: better once more than not at all.
    fn result(&self, round: u64) -> io::Result<()> {
        match self.state.borrow().failed {
            (failed, error) if failed >= round => Err(io::Error::from_raw_os_error(error)),
            _ => Ok(()),
        }
    }
}

/// A sync on its way.
struct Round<'d> {
    directory: &'d Directory,
    /// Zero: none.
    error: i32,
}

impl Round<'_> {
    fn end(mut self, result: io::Result<()>) {
        self.error = result.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let mut state = self.directory.state.borrow_mut();
        state.running = false;
        state.rounds += 1;
        if self.error != 0 {
            state.failed = (state.rounds, self.error);
        }
        drop(state);
        self.directory.ended.raise();
    }
}
