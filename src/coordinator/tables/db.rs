//! `db:` tables: a constant database, read whole, and again when another file has taken its place.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ringpost_conf::tables::cdb::Cdb;
use tokio::sync::OwnedSemaphorePermit;

use super::cache::Question;
use super::service::{BETWEEN_ROWS, Rows};
use super::settings::Problem;
use super::table::{Looked, Trouble};

/// See the module.
pub struct Db {
    path: PathBuf,
    read: Arc<Mutex<Option<Read>>>,
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
        Self { path, read: Arc::default() }
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
        let mut values = Vec::new();
        for value in cdb.find(&question.key) {
            values.push(value.map_err(|error| Trouble::Entry(error.to_string()))?);
        }
        match (values.as_slice(), question.service.rows()) {
            ([], _) => Ok(None),
            ([first], _) | ([first, ..], Rows::Any) => Ok(Some((*first).to_owned())),
            (all, Rows::Many) => Ok(Some(all.join(BETWEEN_ROWS))),
            (all, Rows::One) => Err(Trouble::Entry(format!("{} values, one is wanted", all.len()))),
        }
    }

    async fn current(&self) -> Result<Arc<Cdb>, String> {
        let (path, read) = (self.path.clone(), self.read.clone());
        let reading = tokio::task::spawn_blocking(move || current(&path, &read));
        reading.await.unwrap_or_else(|_| Err("the thread that reads has ended".into()))
    }
}

fn current(path: &Path, read: &Mutex<Option<Read>>) -> Result<Arc<Cdb>, String> {
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
    let cdb = Arc::new(Cdb::read(path).map_err(|error| error.to_string())?);
    *read = Some(Read { identity, cdb: cdb.clone() });
    Ok(cdb)
}
