//! The text of a message on its way in: kept in memory up to `spool-memory`, from there on appended to the journal.

use ringpost_io::Disk;
use ringpost_message::feedback::Reader;
use ringpost_message::headers::Scanner;
use ringpost_message::masquerade::Masquerade;
use ringpost_queue::{Body, ChunkedBody, Queue, SubmitError};

/// A message that is being received.
pub(crate) struct Incoming {
    tail: Vec<u8>,
    chunks: Option<ChunkedBody>,
    bytes: u64,
    scanner: Scanner,
    /// Until the header is over.
    masquerade: Option<Masquerade>,
    /// Reads what it says of mail that was sent, if it may be a report.
    reader: Option<Box<Reader>>,
    /// The journal refused a chunk; the rest is swallowed and this is answered at the end.
    failed: Option<SubmitError>,
}

impl Incoming {
    /// Its `From:` is made the address `masquerade`, if that is given.
    pub(crate) fn new(masquerade: Option<&str>) -> Self {
        let masquerade = masquerade.map(Masquerade::new);
        let scanner = Scanner::new();
        Self { tail: Vec::new(), chunks: None, bytes: 0, scanner, masquerade, reader: None, failed: None }
    }

    /// It may be a report: what it says is read as it comes.
    pub(crate) fn read_by(&mut self, reader: Box<Reader>) {
        self.reader = Some(reader);
    }

    /// Takes a piece. What exceeds `spool_bytes` goes to the journal, so that memory stays bounded.
    pub(crate) async fn append<D: Disk>(&mut self, queue: &Queue<D>, piece: &[u8], spool_bytes: usize) {
        if self.failed.is_some() {
            return;
        }
        let before = self.tail.len();
        match &mut self.masquerade {
            Some(masquerade) => masquerade.feed(piece, &mut self.tail),
            None => self.tail.extend_from_slice(piece),
        }
        self.masquerade.take_if(|masquerade| masquerade.is_done());
        self.look_at(before);
        if self.tail.len() < spool_bytes {
            return;
        }
        let chunks = self.chunks.get_or_insert_with(|| queue.begin_body());
        if let Err(error) = queue.append_chunk(chunks, &self.tail).await {
            self.failed = Some(error);
            self.chunks = None;
            self.tail = Vec::new();
        }
        self.tail.clear();
    }

    /// No more comes.
    pub(crate) fn end(&mut self) {
        let Some(mut masquerade) = self.masquerade.take() else { return };
        let before = self.tail.len();
        masquerade.finish(&mut self.tail);
        self.look_at(before);
    }

    /// At what has come since there were so many bytes in memory.
    fn look_at(&mut self, before: usize) {
        let piece = &self.tail[before..];
        self.scanner.feed(piece);
        if let Some(reader) = &mut self.reader {
            reader.feed(piece);
        }
        self.bytes += piece.len() as u64;
    }

    /// What has read it, if anything has.
    pub(crate) fn take_reader(&mut self) -> Option<Box<Reader>> {
        self.reader.take()
    }

    /// Bytes of the text.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What its header says.
    pub(crate) fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// The text in memory, if it is all there.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        self.chunks.is_none().then_some(&self.tail[..])
    }

    /// Hands the text over to the journal.
    ///
    /// # Errors
    /// What went wrong while it was received.
    pub(crate) fn finish<'a>(&mut self, pieces: &'a [&'a [u8]; 1]) -> Result<Body<'a>, SubmitError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        Ok(match self.chunks.take() {
            Some(chunks) => Body::Chunks(chunks, pieces),
            None => Body::Whole(pieces),
        })
    }

    /// The part in memory; taken out so that `finish` can borrow it.
    pub(crate) fn take_tail(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.tail)
    }
}
