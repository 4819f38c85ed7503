//! Reading on behind what is damaged. What is salvaged is reported, and its segment is not written again, so that somebody
//! can look at what is left.

use ringpost_io::{BLOCK_BYTES, File};

use crate::journal::batch::{BatchHead, Life};
use crate::journal::replay::Cursor;
use crate::limits::WINDOW_BYTES;
use crate::options::Plant;

/// The life of a segment whose superblock is damaged, from its first batch. Freeing erases that block, so it is never a
/// leftover.
pub(crate) async fn first_batch<F: File>(file: &F) -> Option<Life> {
    let block = file.read(BLOCK_BYTES as u64, BLOCK_BYTES).await.ok()?;
    let head = BatchHead::peek(&block)?;
    if head.sequence() != 0 || (BLOCK_BYTES + head.length()) as u64 > file.size() {
        return None;
    }
    let whole = file.read(BLOCK_BYTES as u64, head.length()).await.ok()?;
    BatchHead::verify(&whole, head.life(), Plant::None).map(|head| head.life())
}

/// Whether there is at least the head of a batch that was being written when all stopped.
pub(crate) async fn looks_begun<F: File>(cursor: &Cursor<F>, plant: Plant) -> bool {
    let Ok(block) = cursor.file.read(cursor.at, BLOCK_BYTES).await else { return true };
    BatchHead::peek(&block).is_some_and(|head| head.is_of(cursor.life, plant) && head.sequence() == cursor.sequence)
}

/// The next whole batch of this life behind `from` whose sequence is at least `sequence`, and its place. Blocks that cannot
/// be read are stepped over.
pub(crate) async fn next_valid<F: File>(
    file: &F,
    life: Life,
    from: u64,
    sequence: u32,
    plant: Plant,
) -> Option<(u64, BatchHead)> {
    let mut at = from;
    while at + BLOCK_BYTES as u64 <= file.size() {
        let window = match file.read(at, WINDOW_BYTES).await {
            Ok(window) if window.len() >= BLOCK_BYTES => window,
            _ => file.read(at, BLOCK_BYTES).await.unwrap_or_default(),
        };
        for (number, block) in window.chunks_exact(BLOCK_BYTES).enumerate() {
            let place = at + (number * BLOCK_BYTES) as u64;
            let Some(head) = BatchHead::peek(block) else { continue };
            let candidate = head.is_of(life, plant)
                && head.sequence() >= sequence
                && place > from
                && place + head.length() as u64 <= file.size();
            if candidate
                && let Ok(whole) = file.read(place, head.length()).await
                && let Some(head) = BatchHead::verify(&whole, life, plant)
            {
                return Some((place, head));
            }
        }
        at += (window.len() / BLOCK_BYTES * BLOCK_BYTES).max(BLOCK_BYTES) as u64;
    }
    None
}
