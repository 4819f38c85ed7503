//! A queue whose server is stopped, for `ringpost queue list` and `show`. Nothing is written.

use std::path::Path;

use ringpost_io::Disk;

use crate::envelope::{OpenError, ReadError, Report, Stored};
use crate::id::MessageId;
use crate::options::Options;
use crate::queue::Queue;

/// Opens all slices for reading, whoever wrote them: `load`, `read_body`, `list` and `counts` work; without
/// [`Queue::run`] nothing is ever written.
///
/// # Errors
/// See [`OpenError`].
pub async fn read_only<D: Disk>(disk: D, dir: &Path) -> Result<(Queue<D>, Report), OpenError> {
    Queue::open_read_only(disk, dir, Options::default()).await
}

/// All messages, by id. What is damaged is given with its error.
pub async fn messages<D: Disk>(queue: &Queue<D>) -> Vec<(MessageId, Result<Stored, ReadError>)> {
    let mut ids: Vec<MessageId> = queue.list().into_iter().map(|listed| listed.id).collect();
    ids.dedup();
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.push((id, queue.load(id).await));
    }
    found
}
