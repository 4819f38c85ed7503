//! `db:` tables: a constant database, read whole, and again when another file has taken its place.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ringpost_conf::tables::cdb::{Cdb, CdbError};
use tokio::sync::OwnedSemaphorePermit;

use super::cache::Question;
use super::limits::ROWS;
use super::service::{BETWEEN_ROWS, Rows};
use super::settings::Problem;
use super::table::{Looked, Trouble};

/// See the module.
pub struct Db {
    path: PathBuf,
    read: Arc<Mutex<Option<Read>>>,
    /// How often it was read.
    reads: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Read {
    identity: Identity,
    cdb: Arc<Cdb>,
}

/// Tells one file from another, and from itself after somebody wrote to it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Db {
    /// Not read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: Arc::default(), reads: Arc::default() }
    }

    /// How often it was read.
    pub fn connections(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Reads the file if it is not the one that was read before.
    pub async fn check(&self) -> Vec<Problem> {
        match self.current().await {
            Ok(_) => Vec::new(),
            Err(message) => vec![Problem { path: self.path.clone(), line: 0, column: 0, message, help: None }],
        }
    }

    /// The same, for who changed it.
    pub async fn update(&self) -> Result<(), String> {
        self.current().await.map(drop)
    }

    /// Looks up.
    pub async fn ask(&self, question: &Question, place: OwnedSemaphorePermit) -> Looked {
        let cdb = self.current().await.map_err(Trouble::Backend)?;
        drop(place);
        // Who asks for a whole list has no key.
        if question.key.is_empty() && question.service.parameters().contains(&0) {
            let keys = cdb.keys().map(|key| key.map_err(|error| Trouble::Entry(error.to_string())));
            let keys = keys.take(ROWS + 1).collect::<Result<Vec<_>, _>>()?;
            return match keys.len() {
                0 => Ok(None),
                1..=ROWS => Ok(Some(keys.join(BETWEEN_ROWS))),
                _ => Err(Trouble::Entry(format!("more than {ROWS} entries"))),
            };
        }
        let mut values = Vec::new();
        let damaged = |error: CdbError| Trouble::Entry(error.to_string());
        if question.service.minds_case() {
            for value in cdb.find_as_written(&question.key) {
                values.push(value.map_err(damaged)?);
            }
        } else {
            for value in cdb.find(&question.key) {
                values.push(value.map_err(damaged)?);
            }
        }
        match (values.as_slice(), question.service.rows()) {
            ([], _) => Ok(None),
            ([first], _) | ([first, ..], Rows::Any) => Ok(Some((*first).to_owned())),
            (all, Rows::Many) => Ok(Some(all.join(BETWEEN_ROWS))),
            (all, Rows::One) => Err(Trouble::Entry(format!("{} values, one is wanted", all.len()))),
        }
    }

    async fn current(&self) -> Result<Arc<Cdb>, String> {
        let (path, read, reads) = (self.path.clone(), self.read.clone(), self.reads.clone());
        let reading = tokio::task::spawn_blocking(move || current(&path, &read, &reads));
        reading.await.unwrap_or_else(|_| Err("the thread that reads has ended".into()))
    }
}

fn current(path: &Path, read: &Mutex<Option<Read>>, reads: &AtomicU64) -> Result<Arc<Cdb>, String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", path.display());
    // Held while reading, so that a large file is read by one for all.
    let mut read = read.lock().expect("nobody panics with it");
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    let identity = Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        changed: (metadata.mtime(), metadata.mtime_nsec()),
    };
    if let Some(read) = read.as_ref().filter(|read| read.identity == identity) {
        return Ok(read.cdb.clone());
    }
    reads.fetch_add(1, Ordering::Relaxed);
    let cdb = Arc::new(Cdb::read(path).map_err(|error| error.to_string())?);
    *read = Some(Read { identity, cdb: cdb.clone() });
    Ok(cdb)
}
