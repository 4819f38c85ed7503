//! Reading messages back: what is known of them without their text, and the text in pieces.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use ringpost_io::{Disk, File};

use crate::envelope::{Flags, ReadError, Stored};
use crate::id::MessageId;
use crate::index::{Chunked, Place};
use crate::journal::Slice;
use crate::journal::record::{
    HEAD_BYTES, Kind, MessagePayload, Record, Records, envelope, is_envelope, record_bytes, state,
};
use crate::limits::REPLY_BYTES_MAX;
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

    /// A message for delivery: without what earlier attempts were told, but with its text, if that lies in one piece of at
    /// most `text_bytes_max` bytes. One read of the disk for both.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn load_with_text(
        &self,
        id: MessageId,
        text_bytes_max: u32,
    ) -> Result<(Stored, Option<Vec<u8>>), ReadError> {
        let slice = self.slice(id).ok_or(ReadError::Unknown)?;
        slice.load_parts(id, text_bytes_max).await.map(|(stored, text, _)| (stored, text))
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

/// A message, its text, and by index of the envelope where the last reply lies.
type Loaded = (Stored, Option<Vec<u8>>, BTreeMap<u16, Place>);

/// One run of a text's bytes on disk.
struct Piece {
    slot: u16,
    generation: u64,
    offset: u32,
    bytes: u32,
}

impl<D: Disk> Slice<D> {
    pub(crate) async fn load(&self, id: MessageId) -> Result<Stored, ReadError> {
        let (mut stored, _, replies) = self.load_parts(id, 0).await?;
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

    /// A message, its text if that is wanted, and where the last replies to its envelopes lie.
    async fn load_parts(&self, id: MessageId, text_bytes_max: u32) -> Result<Loaded, ReadError> {
        let (place, generation, meta_bytes, text_bytes) = {
            let books = self.books.borrow();
            let (message, chunked) = books.find(id.number()).ok_or(ReadError::Unknown)?;
            let generation = books.segments.generation(message.place.slot);
            let small = chunked.is_none() && (1..=text_bytes_max).contains(&message.text_bytes);
            (message.place, generation, message.meta_bytes, small.then_some(message.text_bytes))
        };
        let generation = generation.ok_or(ReadError::Damaged)?;
        let text_at = meta_bytes as usize + HEAD_BYTES;
        let wanted = text_bytes.map_or(meta_bytes as usize, |bytes| text_at + bytes as usize);
        let mut bytes = self.read_at(place.slot, generation, place.offset, wanted).await?;
        let text = text_bytes.map(|_| bytes.split_off(text_at));
        bytes.truncate(meta_bytes as usize);
        let mut stored = parse(id, &bytes).ok_or(ReadError::Damaged)?;
        let mut replies: BTreeMap<u16, Place> = BTreeMap::new();
        {
            // How the envelopes stand is looked up after the read: it may have changed meanwhile.
            let books = self.books.borrow();
            let (message, chunked) = books.find(id.number()).ok_or(ReadError::Unknown)?;
            stored.body_bytes += chunked.map_or(0, chunk_bytes);
            let known = message.envelopes.all();
            if known.len() != stored.envelopes.len() {
                return Err(ReadError::Damaged);
            }
            for (envelope, known) in stored.envelopes.iter_mut().zip(known) {
                envelope.state = known.status;
                envelope.due_ms = known.due_ms;
                envelope.attempts = known.attempts;
                if known.place.segment().is_some() {
                    replies.insert(envelope.index, known.place);
                }
            }
        }
        Ok((stored, text, replies))
    }

    async fn reply(&self, id: MessageId, place: Place) -> io::Result<String> {
        let file: Rc<D::File> = self.file(place.slot).ok_or(io::ErrorKind::NotFound)?;
        let bytes = file.read(place.offset.into(), record_bytes(16 + REPLY_BYTES_MAX)).await?;
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
        sender: String::from_utf8_lossy(payload.sender).into_owned(),
        flags: Flags(payload.head.flags.get()),
        tag: String::from_utf8_lossy(payload.tag).into_owned(),
        envelopes,
        body_bytes: payload.head.text_bytes.get(),
    })
}
