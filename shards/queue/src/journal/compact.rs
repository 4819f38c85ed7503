//! Compaction: what is live in a segment that is mostly dead moves to a cold one. So a few stuck messages never pin much, and
//! the space in use stays within a small multiple of what is live.

use std::io;

use futures_lite::future::yield_now;
use zerocopy::{FromBytes, IntoBytes};

use ringpost_io::{BLOCK_BYTES, Disk, File};

use crate::id::MessageId;
use crate::index::Place;
use crate::journal::Slice;
use crate::journal::batch::{BATCH_HEAD_BYTES, Batch, Copied, group, records_of};
use crate::journal::record::{
    BadRecord, COPY, ChunkHead, ChunkPlace, HEAD_BYTES, Kind, MessageHead, MessagePayload, Record, Records,
    record_bytes, state,
};
use crate::journal::replay::Cursor;
use crate::journal::segment::{Phase, Role};
use crate::limits;

impl<D: Disk> Slice<D> {
    /// Compacts one segment if too much space is in use. False: nothing was done.
    pub(crate) async fn compact_one(&self) -> bool {
        if self.closed.get() || self.stopping.get() {
            return false;
        }
        let Some(victim) = self.victim() else { return false };
        let generation = self.books.borrow().segments.generation(victim).expect("just chosen");
        let Some(reading) = Reading::new(self, victim, generation) else { return false };
        let moved = self.compact(victim).await;
        // States that supersede what lies in the victim must be durable before it is freed.
        self.flush().await;
        drop(reading);
        let mut books = self.books.borrow_mut();
        let Some(segment) = books.segments.table.get_mut(&victim) else { return false };
        let no_room = moved.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull);
        if !no_room {
            segment.stuck = segment.live;
        }
        moved.is_ok() && segment.live == 0
    }

    /// The segment with the smallest part live, if the space in use is out of proportion.
    fn victim(&self) -> Option<u16> {
        let books = self.books.borrow();
        let (used, live, _) = books.segments.sums();
        let slack = limits::SLACK_SEGMENTS * self.options.segment_bytes;
        if used <= live.saturating_mul(limits::AMPLIFICATION_MAX).saturating_add(slack) {
            return None;
        }
        let old = books.segments.next_generation.saturating_sub(limits::YOUNG_SEGMENTS);
        let candidates = books.segments.table.iter().filter(|(_, segment)| {
            segment.phase == Phase::Sealed
                && (1..segment.stuck).contains(&segment.live)
                && segment.life.generation < old
                && segment.live_bytes * 100 < segment.bytes * limits::COMPACT_BELOW_PERCENT
        });
        candidates
            .min_by_key(|(slot, segment)| (segment.live_bytes * 1000 / segment.bytes, **slot))
            .map(|(slot, _)| *slot)
    }

    async fn compact(&self, victim: u16) -> io::Result<()> {
        let (life, batches) = {
            let books = self.books.borrow();
            let segment = books.segments.table.get(&victim).expect("just chosen");
            (segment.life, segment.batches)
        };
        let file = self.file(victim).expect("a segment in use has a file");
        let mut cursor = Cursor::new(victim, file, life, BLOCK_BYTES as u64, 0, self.options.plant);
        let mut batch = Batch::new(Vec::new());
        while cursor.sequence < batches {
            let at = cursor.at as u32;
            let Some((head, bytes)) = cursor.batch().await? else {
                // What was readable at the start is not now.
                return Err(io::ErrorKind::InvalidData.into());
            };
            let mut records = records_of(bytes);
            while let Some(record) = records.next() {
                let record = record.map_err(|_| io::ErrorKind::InvalidData)?;
                let place = Place { offset: at + (BATCH_HEAD_BYTES + record.at) as u32, slot: victim };
                let needed = self.copy(&record, place, &mut records, bytes, &mut batch);
                match needed.map_err(|_| io::ErrorKind::InvalidData)? {
                    Copy::Done => {}
                    Copy::Full => {
                        self.commit_cold(&mut batch).await?;
                        records = records_of(bytes);
                        records.seek(record.at);
                    }
                }
            }
            cursor.advance(&head);
            yield_now().await;
        }
        self.commit_cold(&mut batch).await?;
        for number in self.chunked_in(victim) {
            self.move_chunked(number).await?;
        }
        Ok(())
    }

    /// Copies what begins with this record, if it is live and has no chunks.
    fn copy<'a>(
        &self,
        record: &Record<'a>,
        from: Place,
        records: &mut Records<'a>,
        bytes: &[u8],
        batch: &mut Batch,
    ) -> Result<Copy, BadRecord> {
        let books = self.books.borrow();
        let number = record.id.number();
        let (end, index) = match record.kind {
            Kind::Message | Kind::Relocated => {
                let (_, text) = group(record, records)?;
                let live = books.index.get(number).is_some_and(|message| message.place == from);
                if !live || books.index.chunked.contains_key(&number) {
                    return Ok(Copy::Done);
                }
                (text.end(), None)
            }
            Kind::State => {
                let (value, _) = state(record.payload)?;
                let message = books.index.get(number);
                let envelope = message.and_then(|message| message.envelopes.all().get(usize::from(value.index)));
                if envelope.is_none_or(|envelope| envelope.place != from) {
                    return Ok(Copy::Done);
                }
                (record.end(), Some(value.index))
            }
            _ => return Ok(Copy::Done),
        };
        if !batch.fits(end - record.at, self.options.batch_bytes_max) {
            return Ok(Copy::Full);
        }
        let at = batch.records_bytes();
        let whole = &bytes[BATCH_HEAD_BYTES + record.at..BATCH_HEAD_BYTES + end];
        for (place, record) in Records::new(whole).flatten().enumerate() {
            let kind = if place == 0 && index.is_none() { Kind::Relocated } else { record.kind };
            batch.append_record(&record, kind, COPY);
        }
        batch.copied.push(Copied { at, end: batch.records_bytes(), from, number, index });
        Ok(Copy::Done)
    }

    async fn commit_cold(&self, batch: &mut Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut full = std::mem::replace(batch, Batch::new(Vec::new()));
        self.commit(Role::Cold, &mut full).await?;
        yield_now().await;
        Ok(())
    }

    /// Messages that have chunks, and themselves or a chunk in this segment.
    fn chunked_in(&self, victim: u16) -> Vec<u64> {
        let books = self.books.borrow();
        let here = |number: &u64| books.index.get(*number).is_some_and(|message| message.place.slot == victim);
        let all = books.index.chunked.iter();
        all.filter(|(number, chunked)| here(number) || chunked.chunks.iter().any(|chunk| chunk.slot == victim))
            .map(|(number, _)| *number)
            .collect()
    }

    /// Moves a message with all its chunks: the chunks first, then the message that names them.
    async fn move_chunked(&self, number: u64) -> io::Result<()> {
        let mut moved = Vec::new();
        let outcome = self.move_chunks(number, &mut moved).await;
        let mut books = self.books.borrow_mut();
        if books.index.get(number).is_none() {
            // It ended meanwhile, and may be unreadable by now. A copy that names these chunks may be durable before its end is.
            books.ending_open.push(moved.into());
            return Ok(());
        }
        for chunk in moved {
            // From now on the message itself counts them, if it names them.
            books.segments.sub_live(Some(chunk.slot), HEAD_BYTES as u64 + u64::from(chunk.bytes));
        }
        outcome
    }

    async fn move_chunks(&self, number: u64, moved: &mut Vec<ChunkPlace>) -> io::Result<()> {
        let Some(chunks) = self.books.borrow().index.chunked.get(&number).map(|chunked| chunked.chunks.clone()) else {
            return Ok(());
        };
        let id = MessageId::new(self.number, number);
        for chunk in &chunks {
            let bytes = self.read_at(chunk.slot, chunk.generation, chunk.offset, chunk.bytes as usize).await?;
            let mut batch = Batch::new(Vec::new());
            let at = batch.append(Kind::Chunk, COPY, id, &[&bytes]);
            let landing = self.commit(Role::Cold, &mut batch).await?;
            let offset = landing.at + (BATCH_HEAD_BYTES + at + HEAD_BYTES) as u32;
            moved.push(ChunkPlace { generation: landing.generation, offset, bytes: chunk.bytes, slot: landing.slot });
        }
        let Some((place, generation, whole)) = self.group_place(number) else { return Ok(()) };
        // Its home stays until the copy is in the books: should it end meanwhile, whatever says so must not be freed either.
        let _home = Reading::new(self, place.slot, generation).ok_or(io::ErrorKind::NotFound)?;
        let bytes = self.read_at(place.slot, generation, place.offset, whole).await?;
        let mut batch = Batch::new(Vec::new());
        for record in Records::new(&bytes) {
            let record = record.map_err(|_| io::ErrorKind::InvalidData)?;
            match record.kind {
                Kind::Message | Kind::Relocated => {
                    let payload = with_chunks(record.payload, moved).ok_or(io::ErrorKind::InvalidData)?;
                    batch.append(Kind::Relocated, COPY, record.id, &[&payload]);
                }
                kind => drop(batch.append_record(&record, kind, COPY)),
            }
        }
        batch.copied.push(Copied { at: 0, end: batch.records_bytes(), from: place, number, index: None });
        self.commit(Role::Cold, &mut batch).await.map(drop)
    }

    /// Where a message's records lie, in which life of that segment, and how many bytes they are.
    fn group_place(&self, number: u64) -> Option<(Place, u64, usize)> {
        let books = self.books.borrow();
        let message = books.index.get(number)?;
        let generation = books.segments.generation(message.place.segment()?)?;
        Some((message.place, generation, message.meta_bytes as usize + record_bytes(message.text_bytes as usize)))
    }

    /// Reads from a segment that is kept while it is read.
    pub(crate) async fn read_at(&self, slot: u16, generation: u64, offset: u32, len: usize) -> io::Result<Vec<u8>> {
        let _reading = Reading::new(self, slot, generation).ok_or(io::ErrorKind::NotFound)?;
        let file = self.file(slot).ok_or(io::ErrorKind::NotFound)?;
        match file.read(offset.into(), len).await {
            Ok(bytes) if bytes.len() < len => Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        }
    }
}

/// Keeps a segment from being freed, also if the read is given up.
struct Reading<'a, D: Disk> {
    slice: &'a Slice<D>,
    slot: u16,
}

impl<'a, D: Disk> Reading<'a, D> {
    /// `None`: that life of the segment is over, or is being ended.
    fn new(slice: &'a Slice<D>, slot: u16, generation: u64) -> Option<Self> {
        slice.books.borrow_mut().segments.pin(slot, generation).then(|| Self { slice, slot })
    }
}

impl<D: Disk> Drop for Reading<'_, D> {
    fn drop(&mut self) {
        self.slice.books.borrow_mut().segments.unpin(self.slot);
        self.slice.after_books();
    }
}

enum Copy {
    Done,
    Full,
}

/// A `message` payload with other places for its chunks.
fn with_chunks(payload: &[u8], chunks: &[ChunkPlace]) -> Option<Vec<u8>> {
    let parsed = MessagePayload::parse(payload).ok()?;
    let (head, _) = MessageHead::read_from_prefix(payload).ok()?;
    if head.chunks.get() as usize != chunks.len() {
        return None;
    }
    let mut changed = Vec::with_capacity(payload.len());
    changed.extend_from_slice(head.as_bytes());
    changed.extend_from_slice(parsed.sender);
    changed.extend_from_slice(parsed.tag);
    chunks.iter().for_each(|chunk| changed.extend_from_slice(ChunkHead::from(*chunk).as_bytes()));
    changed.extend(parsed.release_ms.into_iter().flat_map(u64::to_le_bytes));
    changed.extend_from_slice(parsed.envid);
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Flags, NewEnvelope, NewMessage};
    use crate::id::MessageId;
    use crate::journal::batch::Batch;

    #[test]
    fn a_message_keeps_all_that_stands_behind_its_chunks() {
        let place = |offset| ChunkPlace { generation: 3, offset, bytes: 8, slot: 1 };
        for (release_ms, envid) in
            [(None, ""), (None, "id"), (Some(7_000), ""), (Some(7_000), "id"), (Some(7), "longer than a time")]
        {
            let mut batch = Batch::new(Vec::new());
            let message = NewMessage {
                id: MessageId(9),
                received_ms: 1,
                release_ms,
                sender: "a@b",
                envelopes: &[NewEnvelope { recipient: "c@d", action: "out", ..NewEnvelope::default() }],
                flags: Flags::EIGHTBIT,
                tag: "tag",
                envid,
                head: &[],
                body: crate::Body::Whole(&[]),
            };
            batch.append_message(&message, &[place(1), place(2)], &[]);
            let record = batch.records().flatten().next().expect("a record");
            let changed = with_chunks(record.payload, &[place(3), place(4)]).expect("as many");
            let (was, is) =
                (MessagePayload::parse(record.payload).expect("ours"), MessagePayload::parse(&changed).expect("ours"));
            assert_eq!(
                (is.release_ms, is.envid, is.sender, is.tag),
                (release_ms, envid.as_bytes(), was.sender, was.tag)
            );
            assert_eq!(is.chunks().map(|chunk| chunk.offset).collect::<Vec<_>>(), [3, 4]);
            assert!(with_chunks(record.payload, &[place(3)]).is_none());
        }
    }
}
