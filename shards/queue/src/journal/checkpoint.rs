//! The checkpoint of a slice: which segments there are, how far they were filled, and all messages. Written beside the old
//! one and renamed, so there is always a whole one or none. It may be newer than the moment it names in what it says of a
//! message; replaying what followed that moment again leads to the same end.

use std::io;

use futures_lite::future::yield_now;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use ringpost_io::{Disk, Writer};

use crate::envelope::Status;
use crate::index::{Chunked, Envelope, Envelopes, Message, Place};
use crate::journal::Slice;
use crate::journal::books::Books;
use crate::journal::record::{ChunkHead, ChunkPlace};
use crate::journal::segment::{Phase, Role, VERSION};
use crate::limits;
use crate::told::Told;

/// Name of the file in the slice's folder.
pub(crate) const NAME: &str = "index.ckpt";
const TEMPORARY: &str = "index.tmp";
const MAGIC: u32 = u32::from_le_bytes(*b"RPc1");

/// Start of the file; [`SegmentEntry`]s follow, then blocks.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct FileHead {
    magic: U32,
    version: U32,
    slice: U32,
    segments: U32,
    next_number: U64,
    next_generation: U64,
    next_order: U64,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct SegmentEntry {
    generation: U64,
    stamp: U64,
    used: U32,
    batches: U32,
    slot: U16,
    role: u8,
    /// 0 being filled, 1 sealed, 2 retired, 3 damaged.
    phase: u8,
    reserved: U32,
}

/// In front of every block, the head's too. A block without messages is the last one.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct BlockHead {
    bytes: U32,
    messages: U32,
    number: U32,
    crc: U32,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct MessageEntry {
    number: U64,
    offset: U32,
    meta_bytes: U32,
    text_bytes: U32,
    head_bytes: U32,
    chunks: U32,
    slot: U16,
    envelopes: U16,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct EnvelopeEntry {
    due_ms: U64,
    offset: U32,
    slot: U16,
    attempts: U16,
    status: u8,
    /// Zero in older checkpoints, as what follows.
    came_s: U32,
    told: U16,
    reserved: u8,
}

/// What a checkpoint says of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    pub(crate) slot: u16,
    pub(crate) generation: u64,
    pub(crate) stamp: u64,
    pub(crate) role: Role,
    pub(crate) used: u32,
    pub(crate) batches: u32,
    pub(crate) phase: Phase,
}

/// A checkpoint, read.
pub(crate) struct Checkpoint {
    pub(crate) segments: Vec<Listed>,
    pub(crate) next_number: u64,
    pub(crate) next_generation: u64,
    pub(crate) next_order: u64,
    pub(crate) messages: Vec<(Message, Option<Chunked>)>,
}

/// When the next one is due.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of batches since the last one.
    pub(crate) written: u64,
    /// Size of the last one.
    pub(crate) bytes: u64,
}

impl<D: Disk> Slice<D> {
    /// Enough was written since the last one, or segments wait for it.
    pub(crate) fn checkpoint_is_due(&self) -> bool {
        let progress = self.checkpoints.borrow();
        let worth = self.options.checkpoint_bytes.max(progress.bytes * limits::CHECKPOINT_FACTOR);
        let books = self.books.borrow();
        let blocked = books.segments.blocked();
        let retired =
            books.segments.table.values().any(|segment| {
                segment.phase == Phase::Retired { damaged: false } && segment.live == 0 && !segment.covered
            });
        progress.written >= worth || blocked >= limits::BLOCKED_SEGMENTS_MAX || retired && progress.written > 0
    }

    /// Writes one; on `Ok` it is what a start reads.
    ///
    /// # Errors
    /// The disk's; the last one is still there.
    pub(crate) async fn checkpoint(&self) -> io::Result<()> {
        let was_written = std::mem::take(&mut self.checkpoints.borrow_mut().written);
        let written = self.write_checkpoint().await;
        let mut progress = self.checkpoints.borrow_mut();
        match written {
            Ok(bytes) => {
                progress.bytes = bytes;
                Ok(())
            }
            // Not at once again, but after as much as would have been due anyway.
            Err(error) => {
                progress.bytes = progress.bytes.max(was_written / limits::CHECKPOINT_FACTOR);
                Err(error)
            }
        }
    }

    async fn write_checkpoint(&self) -> io::Result<u64> {
        let (head, sealed, listed) = {
            let mut books = self.books.borrow_mut();
            let sealed = books.segments.table.iter().filter(|(_, segment)| {
                matches!(segment.phase, Phase::Sealed | Phase::Retired { .. }) && segment.in_use()
            });
            let sealed: Vec<(u16, u64)> = sealed.map(|(slot, segment)| (*slot, segment.life.generation)).collect();
            let with_mail = books
                .segments
                .table
                .iter()
                .filter(|(_, segment)| segment.phase == Phase::Filling || segment.in_use() && segment.live > 0);
            let listed: Vec<u16> = with_mail.map(|(slot, _)| *slot).collect();
            // Until it is published the old one counts, too.
            books.segments.listed.extend(&listed);
            (encode_head(&books), sealed, listed)
        };
        let mut writer = self.disk.writer(&self.dir.join(TEMPORARY)).await?;
        let (mut total, mut block, mut from) = (0, head, Some(0));
        let mut number = 0;
        loop {
            total += block.len() as u64;
            if let Err(error) = writer.append(block).await {
                writer.discard().await;
                return Err(error);
            }
            let Some(next) = from else { break };
            yield_now().await;
            number += 1;
            (block, from) = encode_block(&self.books.borrow(), next, number);
        }
        writer.publish(&self.dir.join(NAME)).await?;
        let mut books = self.books.borrow_mut();
        books.segments.listed = listed.into_iter().collect();
        for (slot, generation) in sealed {
            if let Some(segment) = books.segments.table.get_mut(&slot)
                && segment.life.generation == generation
            {
                segment.covered = true;
                segment.needs = Vec::new();
            }
        }
        Ok(total)
    }
}

fn encode_head(books: &Books) -> Vec<u8> {
    let used: Vec<_> = books.segments.table.iter().filter(|(_, segment)| segment.in_use()).collect();
    let head = FileHead {
        magic: MAGIC.into(),
        version: VERSION.into(),
        slice: u32::from(books.slice).into(),
        segments: (used.len() as u32).into(),
        next_number: books.next_number.into(),
        next_generation: books.segments.next_generation.into(),
        next_order: books.segments.next_order.into(),
    };
    let mut bytes = vec![0; size_of::<BlockHead>()];
    bytes.extend_from_slice(head.as_bytes());
    for (slot, segment) in used {
        let entry = SegmentEntry {
            generation: segment.life.generation.into(),
            stamp: segment.life.stamp.into(),
            used: segment.used.into(),
            batches: segment.batches.into(),
            slot: (*slot).into(),
            role: segment.role as u8,
            phase: match segment.phase {
                Phase::Filling => 0,
                Phase::Free | Phase::Sealed | Phase::Freeing => 1,
                Phase::Retired { damaged: false } => 2,
                Phase::Retired { damaged: true } => 3,
            },
            reserved: U32::ZERO,
        };
        bytes.extend_from_slice(entry.as_bytes());
    }
    close_block(&mut bytes, 0, 0);
    bytes
}

/// The messages from this number on, and with which to go on; `None` after the block that ends the file.
fn encode_block(books: &Books, from: u64, number: u32) -> (Vec<u8>, Option<u64>) {
    let mut bytes = Vec::with_capacity(limits::CHECKPOINT_BLOCK_BYTES + 4096);
    bytes.resize(size_of::<BlockHead>(), 0);
    let (mut messages, mut next) = (0, None);
    for message in books.index.from(from) {
        encode_message(message, books.index.chunked.get(&message.number), &mut bytes);
        messages += 1;
        next = Some(message.number + 1);
        if bytes.len() >= limits::CHECKPOINT_BLOCK_BYTES {
            break;
        }
    }
    close_block(&mut bytes, messages, number);
    (bytes, next)
}

fn encode_message(message: &Message, chunked: Option<&Chunked>, bytes: &mut Vec<u8>) {
    let chunks = chunked.map_or(&[][..], |chunked| &chunked.chunks);
    let entry = MessageEntry {
        number: message.number.into(),
        offset: message.place.offset.into(),
        meta_bytes: message.meta_bytes.into(),
        text_bytes: message.text_bytes.into(),
        head_bytes: chunked.map_or(0, |chunked| chunked.head_bytes).into(),
        chunks: (chunks.len() as u32).into(),
        slot: message.place.slot.into(),
        envelopes: (message.envelopes.all().len() as u16).into(),
    };
    bytes.extend_from_slice(entry.as_bytes());
    for envelope in message.envelopes.all() {
        // What is in flight will not be after a crash; what is pending will be replayed.
        let status = if envelope.status == Status::InFlight { Status::Waiting } else { envelope.status };
        let place = if envelope.place == Place::PENDING { Place::NONE } else { envelope.place };
        let entry = EnvelopeEntry {
            // The time of a parked one is its deadline; whoever parked it will be gone.
            due_ms: if envelope.parked { 0 } else { envelope.due_ms }.into(),
            offset: place.offset.into(),
            slot: place.slot.into(),
            attempts: envelope.attempts.into(),
            status: status as u8,
            came_s: envelope.came_s.into(),
            told: envelope.told.0.into(),
            reserved: 0,
        };
        bytes.extend_from_slice(entry.as_bytes());
    }
    for chunk in chunks {
        bytes.extend_from_slice(ChunkHead::from(*chunk).as_bytes());
    }
}

fn close_block(bytes: &mut [u8], messages: u32, number: u32) {
    let head = BlockHead {
        bytes: ((bytes.len() - size_of::<BlockHead>()) as u32).into(),
        messages: messages.into(),
        number: number.into(),
        crc: U32::ZERO,
    };
    bytes[..size_of::<BlockHead>()].copy_from_slice(head.as_bytes());
    let crc = U32::new(crc32c::crc32c(bytes));
    let head = BlockHead { crc, ..head };
    bytes[..size_of::<BlockHead>()].copy_from_slice(head.as_bytes());
}

/// Why a checkpoint is of no use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadCheckpoint {
    /// Another version wrote it.
    Version(u32),
    /// It is damaged.
    Damaged,
}

/// Reads one.
pub(crate) fn decode(bytes: &[u8], slice: u16) -> Result<Checkpoint, BadCheckpoint> {
    let mut rest = bytes;
    let (_, mut first) = open_block(&mut rest, 0).ok_or(BadCheckpoint::Damaged)?;
    let head: FileHead = part(&mut first).ok_or(BadCheckpoint::Damaged)?;
    if head.magic.get() != MAGIC || head.slice.get() != u32::from(slice) {
        return Err(BadCheckpoint::Damaged);
    }
    if head.version.get() != VERSION {
        return Err(BadCheckpoint::Version(head.version.get()));
    }
    let mut checkpoint = Checkpoint {
        segments: Vec::new(),
        next_number: head.next_number.get(),
        next_generation: head.next_generation.get(),
        next_order: head.next_order.get(),
        messages: Vec::new(),
    };
    for _ in 0..head.segments.get() {
        let entry: SegmentEntry = part(&mut first).ok_or(BadCheckpoint::Damaged)?;
        checkpoint.segments.push(Listed {
            slot: entry.slot.get(),
            generation: entry.generation.get(),
            stamp: entry.stamp.get(),
            role: if entry.role == Role::Cold as u8 { Role::Cold } else { Role::Hot },
            used: entry.used.get(),
            batches: entry.batches.get(),
            phase: match entry.phase {
                0 => Phase::Filling,
                1 => Phase::Sealed,
                2 => Phase::Retired { damaged: false },
                3 => Phase::Retired { damaged: true },
                _ => return Err(BadCheckpoint::Damaged),
            },
        });
    }
    for number in 1.. {
        let (messages, mut block) = open_block(&mut rest, number).ok_or(BadCheckpoint::Damaged)?;
        if messages == 0 {
            break;
        }
        for _ in 0..messages {
            checkpoint.messages.push(decode_message(&mut block).ok_or(BadCheckpoint::Damaged)?);
        }
    }
    Ok(checkpoint)
}

fn open_block<'a>(rest: &mut &'a [u8], number: u32) -> Option<(u32, &'a [u8])> {
    let (head, body) = BlockHead::read_from_prefix(rest).ok()?;
    let (body, after) = body.split_at_checked(head.bytes.get() as usize)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(BlockHead { crc: U32::ZERO, ..head }.as_bytes()), body);
    *rest = after;
    (crc == head.crc.get() && number == head.number.get()).then_some((head.messages.get(), body))
}

fn decode_message(block: &mut &[u8]) -> Option<(Message, Option<Chunked>)> {
    let entry: MessageEntry = part(block)?;
    let mut envelopes = Vec::with_capacity(usize::from(entry.envelopes.get()).min(block.len()));
    for _ in 0..entry.envelopes.get() {
        let envelope: EnvelopeEntry = part(block)?;
        envelopes.push(Envelope {
            due_ms: envelope.due_ms.get(),
            came_s: envelope.came_s.get(),
            place: Place { offset: envelope.offset.get(), slot: envelope.slot.get() },
            attempts: envelope.attempts.get(),
            told: Told(envelope.told.get()),
            status: Status::from_number(envelope.status)?,
            parked: false,
        });
    }
    let mut chunks: Vec<ChunkPlace> = Vec::new();
    for _ in 0..entry.chunks.get() {
        chunks.push(part::<ChunkHead>(block)?.into());
    }
    let chunked = (!chunks.is_empty()).then(|| Chunked { head_bytes: entry.head_bytes.get(), chunks: chunks.into() });
    let message = Message {
        number: entry.number.get(),
        place: Place { offset: entry.offset.get(), slot: entry.slot.get() },
        meta_bytes: entry.meta_bytes.get(),
        text_bytes: entry.text_bytes.get(),
        envelopes: Envelopes::from_vec(envelopes),
    };
    Some((message, chunked))
}

fn part<T: FromBytes + Unaligned>(bytes: &mut &[u8]) -> Option<T> {
    let (found, rest) = T::read_from_prefix(bytes).ok()?;
    *bytes = rest;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_back_and_no_changed_byte_is_believed() {
        let mut books = Books { slice: 2, next_number: 900, ..Books::default() };
        for number in 0..20 {
            let mut envelopes = Envelopes::new(1 + (number % 3) as u16, 1000 * number, Status::Waiting);
            envelopes.all_mut().iter_mut().for_each(|envelope| envelope.told = Told(300 * number as u16));
            let place = Place { offset: number as u32, slot: 1 };
            let chunk = ChunkPlace { generation: 3, offset: 9, bytes: 8, slot: 1 };
            let chunked = (number == 7).then(|| Chunked { head_bytes: 4, chunks: vec![chunk].into() });
            books.add(Message { number, place, meta_bytes: 5, text_bytes: 6, envelopes }, chunked);
        }
        let mut bytes = encode_head(&books);
        let (block, next) = encode_block(&books, 0, 1);
        let (last, end) = encode_block(&books, next.expect("messages"), 2);
        assert_eq!(end, None);
        bytes.extend([block, last].concat());
        let read = decode(&bytes, 2).expect("as written");
        assert_eq!((read.messages.len(), read.next_number), (20, 900));
        for (number, (message, _)) in read.messages.iter().enumerate() {
            let expected = (number as u32, Told(300 * number as u16));
            assert!(message.envelopes.all().iter().all(|envelope| (envelope.came_s, envelope.told) == expected));
        }
        assert!(read.messages[7].1.as_ref().is_some_and(|chunked| chunked.chunks.len() == 1));
        assert_eq!(decode(&bytes, 3).err(), Some(BadCheckpoint::Damaged));
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            assert!(decode(&changed, 2).is_err(), "byte {at}");
            assert!(decode(&bytes[..at], 2).is_err(), "cut at {at}");
        }
    }
}
