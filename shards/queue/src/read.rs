//! Reading messages back: what is known of them without their text, and the text in pieces.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use ringpost_io::{Disk, File};

use crate::envelope::{Flags, ReadError, Stored};
use crate::id::MessageId;
use crate::index::{Chunked, Place};
use crate::journal::Slice;
use crate::journal::record::{
    HEAD_BYTES, Kind, MessagePayload, Record, Records, WITH_ENVID, WITH_RELEASE, envelope, is_envelope, record_bytes,
    state,
};
use crate::limits::{REPLY_BYTES_MAX, RUN_BYTES, RUN_GAP_BYTES};
use crate::queue::Queue;

impl<D: Disk> Queue<D> {
    /// A message without its text.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn load(&self, id: MessageId) -> Result<Stored, ReadError> {
        let slice = self.slice(id).ok_or(ReadError::Unknown)?;
        slice.load(id).await
    }

    /// Divides messages into runs that lie side by side, each for one [`Queue::load_run`]; what comes with them stays with
    /// them.
    pub fn runs<T>(&self, messages: Vec<(MessageId, T)>, text_bytes_max: u32) -> Vec<Vec<(MessageId, T)>> {
        let span = |id: MessageId| self.slice(id).and_then(|slice| slice.span(id, text_bytes_max));
        let mut placed: Vec<_> = messages.into_iter().map(|one| (one.0.slice(), span(one.0), one)).collect();
        placed.sort_by_key(|(slice, span, _)| (*slice, span.as_ref().map(|span| (span.slot, span.offset))));
        let mut runs: Vec<Vec<(MessageId, T)>> = Vec::new();
        let mut last: Option<(u16, Span)> = None;
        for (slice, span, one) in placed {
            let joined = match (&last, &span) {
                (Some((of, run)), Some(span)) if *of == slice => run.with(span),
                _ => None,
            };
            match (joined, runs.last_mut()) {
                (Some(joined), Some(run)) => {
                    run.push(one);
                    last = Some((slice, joined));
                }
                _ => {
                    runs.push(vec![one]);
                    last = span.map(|span| (slice, span));
                }
            }
        }
        runs
    }

    /// Messages for delivery: without what earlier attempts were told, but each with its text, if that lies in one piece of
    /// at most `text_bytes_max` bytes. One read of the disk for all of a run that [`Queue::runs`] has made.
    ///
    /// # Errors
    /// See [`ReadError`], for each message.
    pub async fn load_run(&self, run: &[MessageId], text_bytes_max: u32) -> Vec<Result<Loaded, ReadError>> {
        let Some(slice) = run.first().and_then(|id| self.slice(*id)) else {
            return run.iter().map(|_| Err(ReadError::Unknown)).collect();
        };
        slice.load_run(run, text_bytes_max).await
    }

    /// Up to `len` bytes of a message's text (its head and body) from `at`; shorter only at its end.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_body(&self, id: MessageId, at: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        let slice = self.slice(id).ok_or(ReadError::Unknown)?;
        slice.read_body(id, at, len).await
    }
}

/// A message, and its text if that was wanted and lies in one piece.
pub type Loaded = (Stored, Option<Arc<[u8]>>);

/// A message, and by index of the envelope where the last reply lies.
type Parsed = (Stored, BTreeMap<u16, Place>);

/// Where the records of a message lie that are wanted, or those of a run of messages.
#[derive(Clone, Copy)]
struct Span {
    slot: u16,
    generation: u64,
    offset: u32,
    bytes: u32,
    /// Of them, up to the text of a message.
    meta_bytes: u32,
    /// Whether the text is among them.
    with_text: bool,
}

impl Span {
    /// Both, if they lie side by side and are no more than one read.
    fn with(&self, next: &Span) -> Option<Span> {
        let (end, next_end) = (self.offset + self.bytes, next.offset + next.bytes);
        let bytes = next_end.max(end) - self.offset;
        let near = self.slot == next.slot && next.offset >= self.offset && next.offset <= end + RUN_GAP_BYTES;
        (near && self.generation == next.generation && bytes <= RUN_BYTES).then_some(Span { bytes, ..*self })
    }

    /// Its part of what was read from `offset` on.
    fn part<'a>(&self, offset: u32, read: &'a [u8]) -> Option<&'a [u8]> {
        let at = self.offset.checked_sub(offset)? as usize;
        read.get(at..at + self.bytes as usize)
    }
}

/// One run of a text's bytes on disk.
struct Piece {
    slot: u16,
    generation: u64,
    offset: u32,
    bytes: u32,
}

impl<D: Disk> Slice<D> {
    pub(crate) async fn load(&self, id: MessageId) -> Result<Stored, ReadError> {
        let span = self.span(id, 0).ok_or_else(|| self.lost(id))?;
        let bytes = self.read_at(span.slot, span.generation, span.offset, span.bytes as usize).await?;
        let (mut stored, replies) = self.parsed(id, &span, &bytes)?;
        for (index, place) in replies {
            // A reply is worth telling, not worth failing for.
            if let Ok(reply) = self.reply(id, place).await
                && let Some(envelope) = stored.envelopes.get_mut(usize::from(index))
            {
                envelope.last_reply = reply;
            }
        }
        Ok(stored)
    }

    async fn load_run(&self, run: &[MessageId], text_bytes_max: u32) -> Vec<Result<Loaded, ReadError>> {
        let spans: Vec<Option<Span>> = run.iter().map(|id| self.span(*id, text_bytes_max)).collect();
        // Some may have gone, or lie elsewhere by now.
        let whole = spans.iter().flatten().copied().reduce(|run, next| run.with(&next).unwrap_or(run));
        let read = match whole {
            Some(whole) => self.read_at(whole.slot, whole.generation, whole.offset, whole.bytes as usize).await,
            None => Ok(Vec::new()),
        };
        let mut loaded = Vec::with_capacity(run.len());
        for (id, span) in run.iter().zip(&spans) {
            let part = match (span, &whole, &read) {
                (Some(span), Some(whole), Ok(read)) if span.slot == whole.slot => span.part(whole.offset, read),
                _ => None,
            };
            loaded.push(match (span, part) {
                (Some(span), Some(part)) => self.loaded(*id, span, part),
                _ => self.load_alone(*id, text_bytes_max).await,
            });
        }
        loaded
    }

    async fn load_alone(&self, id: MessageId, text_bytes_max: u32) -> Result<Loaded, ReadError> {
        let span = self.span(id, text_bytes_max).ok_or_else(|| self.lost(id))?;
        let bytes = self.read_at(span.slot, span.generation, span.offset, span.bytes as usize).await?;
        self.loaded(id, &span, &bytes)
    }

    /// Where a message lies, with its text if that lies in one piece of at most `text_bytes_max` bytes. `None`: see
    /// [`Slice::lost`].
    fn span(&self, id: MessageId, text_bytes_max: u32) -> Option<Span> {
        let books = self.books.borrow();
        let (message, chunked) = books.find(id.number())?;
        let generation = books.segments.generation(message.place.slot)?;
        let with_text = chunked.is_none() && (1..=text_bytes_max).contains(&message.text_bytes);
        let text_bytes = if with_text { HEAD_BYTES as u32 + message.text_bytes } else { 0 };
        let Place { offset, slot } = message.place;
        let meta_bytes = message.meta_bytes;
        Some(Span { slot, generation, offset, bytes: meta_bytes + text_bytes, meta_bytes, with_text })
    }

    /// Why a message lies nowhere.
    fn lost(&self, id: MessageId) -> ReadError {
        match self.books.borrow().find(id.number()) {
            Some(_) => ReadError::Damaged,
            None => ReadError::Unknown,
        }
    }

    /// A message from the bytes of its span.
    fn loaded(&self, id: MessageId, span: &Span, bytes: &[u8]) -> Result<Loaded, ReadError> {
        let (stored, _) = self.parsed(id, span, bytes)?;
        let text = span.with_text.then(|| bytes.get(span.meta_bytes as usize + HEAD_BYTES..));
        Ok((stored, text.flatten().map(Arc::from)))
    }

    /// A message from the bytes of its span, and where the last replies to its envelopes lie.
    fn parsed(&self, id: MessageId, span: &Span, bytes: &[u8]) -> Result<Parsed, ReadError> {
        let meta = bytes.get(..span.meta_bytes as usize);
        let mut stored = meta.and_then(|meta| parse(id, meta)).ok_or(ReadError::Damaged)?;
        self.books.borrow_mut().came(id.number(), stored.begins_ms());
        // How the envelopes stand is looked up after the read: it may have changed meanwhile.
        let books = self.books.borrow();
        let (message, chunked) = books.find(id.number()).ok_or(ReadError::Unknown)?;
        stored.body_bytes += chunked.map_or(0, chunk_bytes);
        let known = message.envelopes.all();
        if known.len() != stored.envelopes.len() {
            return Err(ReadError::Damaged);
        }
        let mut replies: BTreeMap<u16, Place> = BTreeMap::new();
        for (envelope, known) in stored.envelopes.iter_mut().zip(known) {
            envelope.state = known.status;
            envelope.due_ms = known.due_ms;
            envelope.attempts = known.attempts;
            if known.place.segment().is_some() {
                replies.insert(envelope.index, known.place);
            }
        }
        Ok((stored, replies))
    }

    /// What the state record there says that the last attempt was told.
    pub(crate) async fn reply(&self, id: MessageId, place: Place) -> io::Result<String> {
        let file: Rc<D::File> = self.file(place.slot).ok_or(io::ErrorKind::NotFound)?;
        let bytes = file.read(place.offset.into(), STATE_RECORD_BYTES_MAX).await?;
        let record = Records::new(&bytes).next().and_then(Result::ok);
        // It may have been moved or superseded during the read.
        let record = record.filter(|record| record.kind == Kind::State && record.id == id);
        let record = record.ok_or(io::ErrorKind::NotFound)?;
        let (_, reply) = state(record.payload).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(String::from_utf8_lossy(reply).into_owned())
    }

    pub(crate) async fn read_body(&self, id: MessageId, at: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        let pieces = self.pieces(id, at, len as u64)?;
        let mut text = Vec::new();
        for piece in &pieces {
            let bytes = self.read_at(piece.slot, piece.generation, piece.offset, piece.bytes as usize).await?;
            if pieces.len() == 1 {
                return Ok(bytes);
            }
            text.extend_from_slice(&bytes);
        }
        Ok(text)
    }

    /// Where the bytes `at..at + len` of a text lie.
    fn pieces(&self, id: MessageId, at: u64, len: u64) -> Result<Vec<Piece>, ReadError> {
        let books = self.books.borrow();
        let (message, chunked) = books.find(id.number()).ok_or(ReadError::Unknown)?;
        let slot = message.place.slot;
        let generation = books.segments.generation(slot).ok_or(ReadError::Damaged)?;
        let text_at = message.place.offset + message.meta_bytes + HEAD_BYTES as u32;
        let head_bytes = chunked.map_or(message.text_bytes, |chunked| chunked.head_bytes);
        if head_bytes > message.text_bytes {
            return Err(ReadError::Damaged);
        }
        let inline = |offset, bytes| Piece { slot, generation, offset, bytes };
        let head = std::iter::once(inline(text_at, head_bytes));
        let tail = std::iter::once(inline(text_at + head_bytes, message.text_bytes - head_bytes));
        let chunks = chunked.into_iter().flat_map(|chunked| &chunked.chunks).map(|chunk| Piece {
            slot: chunk.slot,
            generation: chunk.generation,
            offset: chunk.offset,
            bytes: chunk.bytes,
        });
        let mut found = Vec::new();
        let (mut begin, end) = (0, at.saturating_add(len));
        for piece in head.chain(chunks).chain(tail) {
            let piece_end = begin + u64::from(piece.bytes);
            let (from, to) = (at.max(begin), end.min(piece_end));
            if from < to {
                let offset = piece.offset + (from - begin) as u32;
                found.push(Piece { offset, bytes: (to - from) as u32, ..piece });
            }
            begin = piece_end;
        }
        Ok(found)
    }
}

/// The longest record of a state: head, reply, how far the sender was told.
const STATE_RECORD_BYTES_MAX: usize = record_bytes(16 + REPLY_BYTES_MAX + 2);

fn chunk_bytes(chunked: &Chunked) -> u64 {
    chunked.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
}

/// The `message` and `envelope` records of a message.
fn parse(id: MessageId, bytes: &[u8]) -> Option<Stored> {
    let mut records = Records::new(bytes);
    let first: Record<'_> = records.next()?.ok()?;
    let ours = matches!(first.kind, Kind::Message | Kind::Relocated) && first.id == id;
    let payload = MessagePayload::parse(first.payload).ok().filter(|_| ours)?;
    let mut envelopes = Vec::with_capacity(payload.head.envelopes.get().into());
    for record in records {
        let record = record.ok().filter(|record| is_envelope(record.kind) && record.id == id)?;
        envelopes.push(envelope(&record).ok()?);
    }
    Some(Stored {
        id,
        received_ms: payload.head.received_ms.get(),
        release_ms: payload.release_ms,
        sender: String::from_utf8_lossy(payload.sender).into_owned(),
        flags: Flags(payload.head.flags.get() & !(WITH_ENVID | WITH_RELEASE)),
        tag: String::from_utf8_lossy(payload.tag).into_owned(),
        envid: String::from_utf8_lossy(payload.envid).into_owned(),
        envelopes,
        body_bytes: payload.head.text_bytes.get(),
    })
}
