//! Lists in files of their own, `:include:/path` in an alias: read when they are needed, as the server's own user.

use std::path::{Path, PathBuf};

use ringpost_conf::expand::Told;
use ringpost_shard::Forwarding;

use crate::supervisor::forward;

/// Reads a list on a thread: a file system may hang.
pub async fn read(path: PathBuf) -> Told {
    let reading = tokio::task::spawn_blocking(move || look(&path));
    reading.await.unwrap_or_else(|_| Told::Failed("the thread that reads it has ended".into()))
}

/// What is in the file.
pub fn look(path: &Path) -> Told {
    told(forward::read_list(path))
}

/// What was found of a user's file, as an expansion is told.
pub fn told(read: Forwarding) -> Told {
    match read {
        Forwarding::Text(text) => Told::Found(text),
        Forwarding::NotThere => Told::NotFound,
        Forwarding::Unsafe(why) => Told::Unsafe(why),
        Forwarding::Failed(why) => Told::Failed(why),
    }
}
