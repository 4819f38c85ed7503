//! A batch: the records that become durable together. Pure: [`Batch`] gathers and seals, [`BatchHead::verify`] checks.
//!
//! The buffer starts with room for a superblock, so that the first batch of a segment and the superblock that brings it
//! to life are one write. Each message is copied once: into this buffer.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use ringpost_io::BLOCK_BYTES;

use crate::envelope::{NewEnvelope, NewMessage};
use crate::id::MessageId;
use crate::index::Place;
use crate::journal::record::{
    BadRecord, COPY, ChunkHead, ChunkPlace, EnvelopeHead, HEAD_BYTES, Kind, MessageHead, Record, RecordHead, Records,
    StateHead, StateValue, WITH_ENVID, WITH_RELEASE, envelope_bytes, is_envelope, record_bytes,
};
use crate::options::Plant;
use crate::told::Told;

/// Head of a batch, 64 bytes, little endian, at a multiple of 4 KiB.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct BatchHead {
    magic: U32,
    /// crc32c of `length` bytes with this field zero.
    crc: U32,
    length: U32,
    records: U32,
    sequence: U32,
    reserved: U32,
    generation: U64,
    stamp: U64,
    order: U64,
    next_number: U64,
    reserved_too: U64,
}

const _: () = assert!(size_of::<BatchHead>() == BATCH_HEAD_BYTES);

/// Size of a batch's head.
pub(crate) const BATCH_HEAD_BYTES: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"RPb1");

/// One life of a segment: from when it is taken until it is free again. Never the same twice in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// Counts all lives of all segments of the slice.
    pub(crate) generation: u64,
    /// A random number: mail cannot contain what looks like a batch of ours.
    pub(crate) stamp: u64,
}

/// What is known of a batch when it is sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    pub(crate) life: Life,
    /// Its place in the life: 0, 1, 2 …
    pub(crate) sequence: u32,
    /// Its place among all batches of the slice.
    pub(crate) order: u64,
    /// No message in or before it has this number or a higher one.
    pub(crate) next_number: u64,
}

impl BatchHead {
    /// The head at the start of these bytes, if it looks like one; nothing is checked but its form.
    pub(crate) fn peek(bytes: &[u8]) -> Option<Self> {
        let (head, _) = Self::read_from_prefix(bytes).ok()?;
        let form = head.magic.get() == MAGIC && head.length.get() as usize >= BATCH_HEAD_BYTES;
        form.then_some(head)
    }

    /// Bytes of head and records.
    pub(crate) fn length(&self) -> usize {
        self.length.get() as usize
    }

    /// Bytes on disk.
    pub(crate) fn disk_bytes(&self) -> usize {
        self.length().next_multiple_of(BLOCK_BYTES)
    }

    pub(crate) fn sequence(&self) -> u32 {
        self.sequence.get()
    }

    pub(crate) fn order(&self) -> u64 {
        self.order.get()
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.get()
    }

    /// The life it says it belongs to.
    pub(crate) fn life(&self) -> Life {
        Life { generation: self.generation.get(), stamp: self.stamp.get() }
    }

    /// Whether it says that it belongs to this life.
    pub(crate) fn is_of(&self, life: Life, plant: Plant) -> bool {
        plant == Plant::GenerationOutsideCrc || self.life() == life
    }

    /// Whether these bytes begin with a whole batch of this life, and nothing in it has changed.
    pub(crate) fn verify(bytes: &[u8], life: Life, plant: Plant) -> Option<Self> {
        let head = Self::peek(bytes)?;
        let whole = bytes.get(..head.length())?;
        let clean = head.reserved == U32::ZERO && head.reserved_too == U64::ZERO;
        (clean && head.is_of(life, plant) && head.checksum(whole, plant) == head.crc.get()).then_some(head)
    }

    fn checksum(&self, whole: &[u8], plant: Plant) -> u32 {
        let mut head = Self { crc: U32::ZERO, ..*self };
        if plant == Plant::GenerationOutsideCrc {
            head.generation = U64::ZERO;
            head.stamp = U64::ZERO;
        }
        crc32c::crc32c_append(crc32c::crc32c(head.as_bytes()), &whole[BATCH_HEAD_BYTES..])
    }
}

/// A record that was copied from a segment under compaction; it is dropped if it has become stale by the time of sealing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    /// Its record, in bytes from the start of the batch's records.
    pub(crate) at: usize,
    /// Where the next thing begins.
    pub(crate) end: usize,
    /// Where it was copied from.
    pub(crate) from: Place,
    pub(crate) number: u64,
    /// The envelope, if it is a state.
    pub(crate) index: Option<u16>,
}

/// A batch that is being gathered, or written.
pub(crate) struct Batch {
    buffer: Vec<u8>,
    /// Bytes of `buffer` before the padding.
    used: usize,
    records: u32,
    /// What it holds that was copied.
    pub(crate) copied: Vec<Copied>,
    /// Some of it may be on disk although it is not durable.
    pub(crate) attempted: bool,
}

impl Batch {
    /// An empty batch in this buffer.
    pub(crate) fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(RECORDS_AT, 0);
        Self { buffer, used: RECORDS_AT, records: 0, copied: Vec::new(), attempted: false }
    }

    /// Takes the buffer back.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Whether these bytes of records fit into a batch of at most `limit` bytes.
    pub(crate) fn fits(&self, bytes: usize, limit: usize) -> bool {
        self.used - BLOCK_BYTES + bytes <= limit
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of records.
    pub(crate) fn records_bytes(&self) -> usize {
        self.used - RECORDS_AT
    }

    /// Bytes that it takes on disk, without a superblock.
    pub(crate) fn disk_bytes(&self) -> usize {
        (self.used - BLOCK_BYTES).next_multiple_of(BLOCK_BYTES)
    }

    /// Head and records, without padding.
    pub(crate) fn body(&self) -> &[u8] {
        &self.buffer[BLOCK_BYTES..self.used]
    }

    /// All records.
    pub(crate) fn records(&self) -> Records<'_> {
        Records::new(&self.buffer[RECORDS_AT..self.used])
    }

    /// Adds a message with its envelopes and text. The caller has looked whether it fits.
    pub(crate) fn append_message(&mut self, message: &NewMessage<'_>, chunks: &[ChunkPlace], pieces: &[&[u8]]) {
        let text_bytes = message.head.len() + pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let with_envid = if message.envid.is_empty() { 0 } else { WITH_ENVID };
        let with_release = if message.release_ms.is_some() { WITH_RELEASE } else { 0 };
        let head = MessageHead {
            received_ms: message.received_ms.into(),
            text_bytes: (text_bytes as u64).into(),
            head_bytes: (message.head.len() as u32).into(),
            chunks: (chunks.len() as u32).into(),
            envelopes: (message.envelopes.len() as u16).into(),
            flags: (message.flags.0 | with_envid | with_release).into(),
            sender_bytes: (message.sender.len() as u16).into(),
            tag_bytes: (message.tag.len() as u16).into(),
        };
        let payload = message_payload_bytes(message, chunks.len());
        self.begin(Kind::Message, 0, message.id, payload);
        self.buffer.extend_from_slice(head.as_bytes());
        self.buffer.extend_from_slice(message.sender.as_bytes());
        self.buffer.extend_from_slice(message.tag.as_bytes());
        for chunk in chunks {
            self.buffer.extend_from_slice(ChunkHead::from(*chunk).as_bytes());
        }
        if let Some(time) = message.release_ms {
            self.buffer.extend_from_slice(&time.to_le_bytes());
        }
        self.buffer.extend_from_slice(message.envid.as_bytes());
        self.end();
        for (index, envelope) in message.envelopes.iter().enumerate() {
            let head = EnvelopeHead::new(index, envelope);
            let NewEnvelope { recipient, original, action, way, request } = envelope;
            let [recipient, original, action, way, request] =
                [recipient, original, action, way, request].map(|text| text.as_bytes());
            let parts = [head.as_bytes(), recipient, original, action, way, request];
            self.append(Kind::Envelope, 0, message.id, &parts);
        }
        self.begin(Kind::Text, 0, message.id, text_bytes);
        self.buffer.extend_from_slice(message.head);
        pieces.iter().for_each(|piece| self.buffer.extend_from_slice(piece));
        self.end();
    }

    /// Adds how an envelope stands; returns the record's place among the records.
    pub(crate) fn append_state(&mut self, id: MessageId, value: &StateValue, reply: &[u8]) -> usize {
        let told = U16::new(value.told.0);
        let told = if value.told == Told::NOTHING { &[][..] } else { told.as_bytes() };
        self.append(Kind::State, 0, id, &[StateHead::new(value, reply.len()).as_bytes(), reply, told])
    }

    /// Adds a record; returns its place among the records.
    pub(crate) fn append(&mut self, kind: Kind, flags: u8, id: MessageId, parts: &[&[u8]]) -> usize {
        let at = self.records_bytes();
        self.begin(kind, flags, id, parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| self.buffer.extend_from_slice(part));
        self.end();
        at
    }

    /// Adds a record as it is, but for its kind and flags.
    pub(crate) fn append_record(&mut self, record: &Record<'_>, kind: Kind, flags: u8) -> usize {
        self.append(kind, flags, record.id, &[record.payload])
    }

    /// Turns the records from `at` to `end` into nothing.
    pub(crate) fn void(&mut self, at: usize, end: usize) {
        let mut at = RECORDS_AT + at;
        while at < RECORDS_AT + end {
            let records = Records::new(&self.buffer[at..self.used]);
            let record = records.flatten().next().expect("records we wrote");
            let (bytes, void) =
                (record.bytes(), RecordHead::new(Kind::Void, 0, MessageId(0), record.bytes() - HEAD_BYTES));
            self.buffer[at..at + HEAD_BYTES].copy_from_slice(void.as_bytes());
            at += bytes;
        }
    }

    /// Fills in the head and pads to whole blocks; may be done again with another seal.
    pub(crate) fn seal(&mut self, seal: &Seal, plant: Plant) {
        let head = BatchHead {
            magic: MAGIC.into(),
            crc: U32::ZERO,
            length: ((self.used - BLOCK_BYTES) as u32).into(),
            records: self.records.into(),
            sequence: seal.sequence.into(),
            reserved: U32::ZERO,
            generation: seal.life.generation.into(),
            stamp: seal.life.stamp.into(),
            order: seal.order.into(),
            next_number: seal.next_number.into(),
            reserved_too: U64::ZERO,
        };
        let crc = head.checksum(self.body(), plant);
        let head = BatchHead { crc: crc.into(), ..head };
        self.buffer[BLOCK_BYTES..RECORDS_AT].copy_from_slice(head.as_bytes());
        self.buffer.resize(self.used.next_multiple_of(BLOCK_BYTES), 0);
    }

    /// What is written: with the superblock in front, or without. Sealed.
    pub(crate) fn sealed(&mut self, superblock: Option<&[u8]>) -> &[u8] {
        match superblock {
            Some(superblock) => {
                self.buffer[..BLOCK_BYTES].fill(0);
                self.buffer[..superblock.len()].copy_from_slice(superblock);
                &self.buffer
            }
            None => &self.buffer[BLOCK_BYTES..],
        }
    }

    fn begin(&mut self, kind: Kind, flags: u8, id: MessageId, payload_bytes: usize) {
        debug_assert!(self.used == self.buffer.len(), "a sealed batch takes no more");
        self.buffer.extend_from_slice(RecordHead::new(kind, flags, id, payload_bytes).as_bytes());
    }

    fn end(&mut self) {
        let end = self.buffer.len().next_multiple_of(crate::journal::record::RECORD_ALIGN_BYTES);
        self.buffer.resize(end, 0);
        self.used = end;
        self.records += 1;
    }
}

/// Bytes of records that a message takes.
pub(crate) fn group_bytes(message: &NewMessage<'_>, chunks: usize, pieces: &[&[u8]]) -> usize {
    let envelopes: usize = message.envelopes.iter().map(|envelope| record_bytes(envelope_bytes(envelope))).sum();
    let text = message.head.len() + pieces.iter().map(|piece| piece.len()).sum::<usize>();
    record_bytes(message_payload_bytes(message, chunks)) + envelopes + record_bytes(text)
}

fn message_payload_bytes(message: &NewMessage<'_>, chunks: usize) -> usize {
    let texts = message.sender.len() + message.tag.len() + message.envid.len();
    let release = message.release_ms.map_or(0, |_| size_of::<u64>());
    size_of::<MessageHead>() + texts + release + chunks * size_of::<ChunkHead>()
}

/// The records of a whole batch (head and records, without padding).
pub(crate) fn records_of(batch: &[u8]) -> Records<'_> {
    Records::new(&batch[BATCH_HEAD_BYTES..])
}

/// Whether a record was copied.
pub(crate) fn is_copy(record: &Record<'_>) -> bool {
    record.flags & COPY != 0
}

/// The records of the message that begins here: itself, its envelopes, its text; and the bytes of the first two.
pub(crate) fn group<'a>(
    first: &Record<'a>,
    rest: &mut impl Iterator<Item = Result<Record<'a>, BadRecord>>,
) -> Result<(usize, Record<'a>), BadRecord> {
    for record in rest {
        let record = record?;
        match record.kind {
            _ if record.id != first.id => break,
            kind if is_envelope(kind) => {}
            Kind::Text => return Ok((record.at - first.at, record)),
            _ => break,
        }
    }
    Err(BadRecord::Malformed)
}

const RECORDS_AT: usize = BLOCK_BYTES + BATCH_HEAD_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Body, Flags, Status};

    const LIFE: Life = Life { generation: 5, stamp: 77 };

    fn sealed(life: Life, plant: Plant) -> Vec<u8> {
        let mut batch = Batch::new(Vec::new());
        let message = NewMessage {
            id: MessageId(9),
            received_ms: 1,
            release_ms: Some(2),
            sender: "a@b",
            envelopes: &[
                NewEnvelope { recipient: "c@d", action: "out#1", ..NewEnvelope::default() },
                NewEnvelope { recipient: "e@f", original: "g@h", action: "in#2", way: "{}", request: "NOTIFY=NEVER" },
            ],
            flags: Flags::default(),
            tag: "t",
            envid: "id",
            head: b"H: x\r\n",
            body: Body::Whole(&[]),
        };
        let expected = group_bytes(&message, 0, &[b"text"]);
        batch.append_message(&message, &[], &[b"text"]);
        assert_eq!(batch.records_bytes(), expected);
        let value = StateValue { index: 1, status: Status::Waiting, attempts: 1, due_ms: 5, told: Told::NOTHING };
        batch.append_state(MessageId(9), &value, b"later");
        batch.seal(&Seal { life, sequence: 3, order: 8, next_number: 10 }, plant);
        batch.sealed(None).to_vec()
    }

    #[test]
    fn every_changed_bit_is_seen() {
        let bytes = sealed(LIFE, Plant::None);
        assert_eq!(bytes.len(), BLOCK_BYTES);
        let head = BatchHead::verify(&bytes, LIFE, Plant::None).expect("as written");
        assert_eq!((head.sequence(), head.order(), head.next_number()), (3, 8, 10));
        for bit in 0..head.length() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchHead::verify(&changed, LIFE, Plant::None).is_none(), "bit {bit}");
        }
        assert!(BatchHead::verify(&bytes[..head.length() - 1], LIFE, Plant::None).is_none(), "cut off");
    }

    #[test]
    fn leftovers_of_another_life_are_refused_unless_the_bug_is_planted() {
        let next = Life { generation: 6, stamp: 78 };
        assert!(BatchHead::verify(&sealed(LIFE, Plant::None), next, Plant::None).is_none());
        let planted = Plant::GenerationOutsideCrc;
        assert!(BatchHead::verify(&sealed(LIFE, planted), next, planted).is_some());
    }

    #[test]
    fn voided_records_are_skipped_over() {
        let mut batch = Batch::new(Vec::new());
        let at = batch.append(Kind::Chunk, 0, MessageId(1), &[b"0123456789"]);
        let end = batch.append(Kind::Gone, 0, MessageId(2), &[]);
        batch.void(at, end);
        let kinds: Vec<Kind> = batch.records().flatten().map(|record| record.kind).collect();
        assert_eq!(kinds, [Kind::Void, Kind::Gone]);
    }
}
