//! Lists in files of their own, `:include:/path` in an alias: read when they are needed, as the server's own user.

use std::path::{Path, PathBuf};

use ringpost_conf::expand::Told;

use crate::supervisor::forward;

/// Reads a list on a thread: a file system may hang.
pub async fn read(path: PathBuf) -> Told {
    let reading = tokio::task::spawn_blocking(move || look(&path));
    reading.await.unwrap_or_else(|_| Told::Failed("the thread that reads it has ended".into()))
}

/// What is in the file.
pub fn look(path: &Path) -> Told {
    forward::read_list(path).into()
}
