//! A text that is on its way into the journal ahead of its message.

use std::cell::RefCell;
use std::rc::Rc;

use ringpost_io::Signal;

use crate::journal::books::Books;
use crate::journal::record::{ChunkPlace, HEAD_BYTES};

/// The part of a text that is in the journal already. Dropping it without a message frees the space.
pub struct ChunkedBody {
    books: Rc<RefCell<Books>>,
    upkeep: Signal,
    chunks: Vec<ChunkPlace>,
    bytes: u64,
}

impl ChunkedBody {
    pub(crate) fn new(books: Rc<RefCell<Books>>, upkeep: Signal) -> Self {
        Self { books, upkeep, chunks: Vec::new(), bytes: 0 }
    }

    /// Takes over a chunk that is durable and counted as live.
    pub(crate) fn push(&mut self, chunk: ChunkPlace) {
        self.bytes += u64::from(chunk.bytes);
        self.chunks.push(chunk);
    }

    pub(crate) fn chunks(&self) -> &[ChunkPlace] {
        &self.chunks
    }

    /// Bytes appended so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for ChunkedBody {
    fn drop(&mut self) {
        let mut books = self.books.borrow_mut();
        for chunk in &self.chunks {
            books.segments.sub_live(Some(chunk.slot), HEAD_BYTES as u64 + u64::from(chunk.bytes));
        }
        if books.segments.changed {
            drop(books);
            self.upkeep.raise();
        }
    }
}
