//! Records: what a batch is made of. Writer and reader of each kind, side by side. Pure.
//!
//! A record is a [`RecordHead`], a payload, and zeros up to a multiple of 8 bytes. A message is a *group* of records in one
//! batch: `message` (or `relocated`), an `envelope` for each recipient, `text`. What is only read back with the text
//! stands behind what is needed without it, so an envelope is loaded without its body.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Ref, Unaligned};

use crate::envelope::{NewEnvelope, Status, StoredAction, StoredEnvelope};
use crate::id::MessageId;
use crate::told::Told;

/// Head of every record, 16 bytes, little endian. `reserved` is zero, and refused otherwise, so that it can mean something
/// later. The batch's crc32c covers it; a record has none of its own.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RecordHead {
    kind: u8,
    flags: u8,
    reserved: U16,
    payload_bytes: U32,
    id: U64,
}

/// What a record says. Numbers are never used again for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A new message: [`MessageHead`], sender, tag, [`ChunkHead`]s, with [`WITH_RELEASE`] the time, with
    /// [`WITH_ENVID`] the envid.
    Message = 1,
    /// A recipient of the message before it, from before actions were known by reference: [`NumberedHead`], forward-path.
    Numbered = 2,
    /// The text of the message before it: our head, then what is not in chunks.
    Text = 3,
    /// A part of a text, ahead of its message.
    Chunk = 4,
    /// How an envelope stands: [`StateHead`], reply, with [`WITH_TOLD`] how far its sender was told that it waits.
    State = 5,
    /// Like `message`, for one that lay elsewhere before.
    Relocated = 6,
    /// This message is no more, whatever older records say.
    Gone = 7,
    /// Nothing; overwritten before it was sealed.
    Void = 8,
    /// A delivery of the message before it: [`EnvelopeHead`], recipient, original recipient, action, way, request.
    Envelope = 9,
}

/// The record was copied from a segment that is being compacted.
pub(crate) const COPY: u8 = 1;

/// Bit of a message's flags, beside those that its caller knows: behind all else stands its envid. Without one it costs nothing.
pub(crate) const WITH_ENVID: u16 = 1 << 15;

/// Bit of a state's flags: behind all else stands a [`Told`]. As long as nothing was told it costs nothing.
pub(crate) const WITH_TOLD: u8 = 1;
/// Bit of a message's flags: before its envid, if any, stands the time before which it is not to be tried.
pub(crate) const WITH_RELEASE: u16 = 1 << 14;

/// Start of a `message` or `relocated` payload.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MessageHead {
    pub(crate) received_ms: U64,
    pub(crate) text_bytes: U64,
    pub(crate) head_bytes: U32,
    pub(crate) chunks: U32,
    pub(crate) envelopes: U16,
    pub(crate) flags: U16,
    pub(crate) sender_bytes: U16,
    pub(crate) tag_bytes: U16,
}

/// One chunk of a message's text.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ChunkHead {
    generation: U64,
    offset: U32,
    bytes: U32,
    slot: U16,
    reserved: [U16; 3],
}

/// Start of a payload of [`Kind::Numbered`].
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct NumberedHead {
    index: U16,
    action: U16,
    recipient_bytes: U16,
    reserved: U16,
}

/// Start of an `envelope` payload.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct EnvelopeHead {
    index: U16,
    recipient_bytes: U16,
    original_bytes: U16,
    action_bytes: U16,
    way_bytes: U16,
    /// Zero in older records.
    request_bytes: U16,
}

/// Start of a `state` payload.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct StateHead {
    due_ms: U64,
    index: U16,
    attempts: U16,
    reply_bytes: U16,
    status: u8,
    /// Zero in older records.
    flags: u8,
}

const _: () = assert!(size_of::<RecordHead>() == 16 && size_of::<MessageHead>() == 32);
const _: () = assert!(size_of::<ChunkHead>() == 24 && size_of::<EnvelopeHead>() == 12 && size_of::<StateHead>() == 16);
const _: () = assert!(size_of::<NumberedHead>() == 8);
const _: () = assert!(size_of::<RecordHead>().is_multiple_of(RECORD_ALIGN_BYTES));

/// Every record starts at a multiple of this.
pub(crate) const RECORD_ALIGN_BYTES: usize = 8;
/// Size of a record's head.
pub(crate) const HEAD_BYTES: usize = size_of::<RecordHead>();

/// Where a chunk's bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkPlace {
    pub(crate) generation: u64,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) slot: u16,
}

/// What a `state` record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateValue {
    pub(crate) index: u16,
    pub(crate) status: Status,
    pub(crate) attempts: u16,
    pub(crate) due_ms: u64,
    pub(crate) told: Told,
}

/// A record in a batch.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Bytes from the start of the records given to [`Records::new`].
    pub(crate) at: usize,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) id: MessageId,
    pub(crate) payload: &'a [u8],
}

/// Why a record that the checksum vouches for cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRecord {
    /// Written by a later version.
    #[error("unknown record kind {0}")]
    Unknown(u8),
    /// A reserved field is in use: a later version, too.
    #[error("a reserved field of a record is in use")]
    Reserved,
    /// Lengths that contradict each other.
    #[error("a record's lengths contradict each other")]
    Malformed,
}

impl Kind {
    fn from_number(number: u8) -> Option<Self> {
        use Kind::*;
        let all = [Message, Numbered, Text, Chunk, State, Relocated, Gone, Void, Envelope];
        all.into_iter().find(|kind| *kind as u8 == number)
    }
}

impl RecordHead {
    pub(crate) fn new(kind: Kind, flags: u8, id: MessageId, payload_bytes: usize) -> Self {
        let payload_bytes = u32::try_from(payload_bytes).expect("a batch is far below 4 GiB");
        let id = U64::new(id.0);
        Self { kind: kind as u8, flags, reserved: U16::ZERO, payload_bytes: U32::new(payload_bytes), id }
    }
}

/// Bytes that a record with such a payload occupies.
pub(crate) const fn record_bytes(payload_bytes: usize) -> usize {
    (HEAD_BYTES + payload_bytes).next_multiple_of(RECORD_ALIGN_BYTES)
}

impl Record<'_> {
    /// Bytes it occupies.
    pub(crate) fn bytes(&self) -> usize {
        record_bytes(self.payload.len())
    }

    /// Where the next one begins.
    pub(crate) fn end(&self) -> usize {
        self.at + self.bytes()
    }
}

/// Walks the records of a batch. After an error it ends.
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// `bytes`: records and nothing else.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Goes on with the record at this place.
    pub(crate) fn seek(&mut self, at: usize) {
        self.at = at;
    }

    fn read(&self) -> Result<Record<'a>, BadRecord> {
        let rest = self.bytes.get(self.at..).ok_or(BadRecord::Malformed)?;
        let (head, rest) = Ref::<_, RecordHead>::from_prefix(rest).map_err(|_| BadRecord::Malformed)?;
        let kind = Kind::from_number(head.kind).ok_or(BadRecord::Unknown(head.kind))?;
        if head.reserved != U16::ZERO || head.flags & !COPY != 0 {
            return Err(BadRecord::Reserved);
        }
        let payload = rest.get(..head.payload_bytes.get() as usize).ok_or(BadRecord::Malformed)?;
        Ok(Record { at: self.at, kind, flags: head.flags, id: MessageId(head.id.get()), payload })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let record = self.read();
        self.at = record.as_ref().map_or(self.bytes.len(), Record::end);
        Some(record)
    }
}

/// A `message` payload, taken apart.
#[derive(Clone, Copy)]
pub(crate) struct MessagePayload<'a> {
    pub(crate) head: MessageHead,
    pub(crate) sender: &'a [u8],
    pub(crate) tag: &'a [u8],
    pub(crate) envid: &'a [u8],
    /// Not to be tried before, in milliseconds since the epoch.
    pub(crate) release_ms: Option<u64>,
    chunks: &'a [u8],
}

impl<'a> MessagePayload<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, BadRecord> {
        let (head, rest) = MessageHead::read_from_prefix(payload).map_err(|_| BadRecord::Malformed)?;
        let (sender, rest) = take(rest, head.sender_bytes.get().into())?;
        let (tag, rest) = take(rest, head.tag_bytes.get().into())?;
        let chunks_bytes = head.chunks.get() as usize * size_of::<ChunkHead>();
        let (chunks, rest) = take(rest, chunks_bytes)?;
        let (release_ms, envid) = match head.flags.get() & WITH_RELEASE {
            0 => (None, rest),
            _ => {
                let (time, envid) = U64::read_from_prefix(rest).map_err(|_| BadRecord::Malformed)?;
                (Some(time.get()), envid)
            }
        };
        let has_envid = head.flags.get() & WITH_ENVID != 0;
        match has_envid != envid.is_empty() && head.envelopes != U16::ZERO {
            true => Ok(Self { head, sender, tag, envid, release_ms, chunks }),
            false => Err(BadRecord::Malformed),
        }
    }

    /// Its chunks, in order.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkPlace> + use<'a> {
        self.chunks
            .chunks_exact(size_of::<ChunkHead>())
            .map(|bytes| ChunkHead::read_from_bytes(bytes).expect("exactly as long").into())
    }
}

impl From<ChunkPlace> for ChunkHead {
    fn from(place: ChunkPlace) -> Self {
        Self {
            generation: U64::new(place.generation),
            offset: U32::new(place.offset),
            bytes: U32::new(place.bytes),
            slot: U16::new(place.slot),
            reserved: [U16::ZERO; 3],
        }
    }
}

impl From<ChunkHead> for ChunkPlace {
    fn from(head: ChunkHead) -> Self {
        Self {
            generation: head.generation.get(),
            offset: head.offset.get(),
            bytes: head.bytes.get(),
            slot: head.slot.get(),
        }
    }
}

impl EnvelopeHead {
    /// Of the envelope at this place in its message. The caller has looked at the lengths.
    pub(crate) fn new(index: usize, envelope: &NewEnvelope<'_>) -> Self {
        let length = |text: &str| U16::new(text.len() as u16);
        Self {
            index: U16::new(index as u16),
            recipient_bytes: length(envelope.recipient),
            original_bytes: length(envelope.original),
            action_bytes: length(envelope.action),
            way_bytes: length(envelope.way),
            request_bytes: length(envelope.request),
        }
    }
}

/// Bytes of an `envelope` payload.
pub(crate) fn envelope_bytes(envelope: &NewEnvelope<'_>) -> usize {
    let NewEnvelope { recipient, original, action, way, request } = envelope;
    size_of::<EnvelopeHead>() + recipient.len() + original.len() + action.len() + way.len() + request.len()
}

/// Whether a record is an envelope, of whatever age.
pub(crate) fn is_envelope(kind: Kind) -> bool {
    matches!(kind, Kind::Envelope | Kind::Numbered)
}

/// An envelope's record, of whatever age, taken apart. How it stands is not in it.
pub(crate) fn envelope(record: &Record<'_>) -> Result<StoredEnvelope, BadRecord> {
    let (index, recipient, original, action, way);
    let mut request = String::new();
    if record.kind == Kind::Numbered {
        let (head, rest) = NumberedHead::read_from_prefix(record.payload).map_err(|_| BadRecord::Malformed)?;
        let (text, end) = take(rest, head.recipient_bytes.get().into())?;
        if !end.is_empty() {
            return Err(BadRecord::Malformed);
        }
        (index, recipient, original, way) = (head.index.get(), lossy(text), String::new(), String::new());
        action = StoredAction::Number(head.action.get());
    } else {
        let (head, rest) = EnvelopeHead::read_from_prefix(record.payload).map_err(|_| BadRecord::Malformed)?;
        let (first, rest) = take(rest, head.recipient_bytes.get().into())?;
        let (second, rest) = take(rest, head.original_bytes.get().into())?;
        let (third, rest) = take(rest, head.action_bytes.get().into())?;
        let (fourth, rest) = take(rest, head.way_bytes.get().into())?;
        let (fifth, end) = take(rest, head.request_bytes.get().into())?;
        if !end.is_empty() {
            return Err(BadRecord::Malformed);
        }
        (index, recipient, original, way) = (head.index.get(), lossy(first), lossy(second), lossy(fourth));
        action = StoredAction::Reference(lossy(third));
        request = lossy(fifth);
    }
    let (state, last_reply) = (Status::Waiting, String::new());
    Ok(StoredEnvelope { index, recipient, original, action, way, request, state, due_ms: 0, attempts: 0, last_reply })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A `state` payload, taken apart.
pub(crate) fn state(payload: &[u8]) -> Result<(StateValue, &[u8]), BadRecord> {
    let (head, rest) = StateHead::read_from_prefix(payload).map_err(|_| BadRecord::Malformed)?;
    let status = Status::from_number(head.status).ok_or(BadRecord::Unknown(head.status))?;
    let (reply, rest) = take(rest, head.reply_bytes.get().into())?;
    let told = match head.flags {
        0 => Told::NOTHING,
        WITH_TOLD => Told(U16::read_from_bytes(rest).map_err(|_| BadRecord::Malformed)?.get()),
        _ => return Err(BadRecord::Reserved),
    };
    let (index, attempts, due_ms) = (head.index.get(), head.attempts.get(), head.due_ms.get());
    Ok((StateValue { index, status, attempts, due_ms, told }, reply))
}

/// Bytes of a `state` payload.
pub(crate) fn state_bytes(value: &StateValue, reply: &[u8]) -> usize {
    let told_bytes = if value.told == Told::NOTHING { 0 } else { size_of::<Told>() };
    size_of::<StateHead>() + reply.len() + told_bytes
}

impl StateHead {
    pub(crate) fn new(value: &StateValue, reply_bytes: usize) -> Self {
        Self {
            due_ms: U64::new(value.due_ms),
            index: U16::new(value.index),
            attempts: U16::new(value.attempts),
            reply_bytes: U16::new(reply_bytes as u16),
            status: value.status as u8,
            flags: if value.told == Told::NOTHING { 0 } else { WITH_TOLD },
        }
    }
}

fn take(bytes: &[u8], count: usize) -> Result<(&[u8], &[u8]), BadRecord> {
    bytes.split_at_checked(count).ok_or(BadRecord::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: u8, reserved: u16, payload_bytes: u32, payload: &[u8]) -> Vec<u8> {
        let head = RecordHead {
            kind,
            flags: 0,
            reserved: U16::new(reserved),
            payload_bytes: U32::new(payload_bytes),
            id: U64::new(7),
        };
        let mut bytes = [head.as_bytes(), payload].concat();
        bytes.resize(bytes.len().next_multiple_of(RECORD_ALIGN_BYTES), 0);
        bytes
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let refusal = |bytes: &[u8]| Records::new(bytes).last().expect("one record").err();
        assert_eq!(refusal(&written(3, 0, 3, b"abc")), None);
        assert_eq!(refusal(&written(99, 0, 3, b"abc")), Some(BadRecord::Unknown(99)));
        assert_eq!(refusal(&written(3, 1, 3, b"abc")), Some(BadRecord::Reserved));
        assert_eq!(refusal(&written(3, 0, 300, b"abc")), Some(BadRecord::Malformed));
        assert_eq!(refusal(b"short"), Some(BadRecord::Malformed));
    }

    #[test]
    fn envelopes_of_every_age_read_back() {
        let new = NewEnvelope { recipient: "ü@b", original: "a@b", action: "out#1", way: "", request: "NOTIFY=NEVER" };
        let payload = [
            EnvelopeHead::new(3, &new).as_bytes(),
            new.recipient.as_bytes(),
            new.original.as_bytes(),
            new.action.as_bytes(),
            new.request.as_bytes(),
        ]
        .concat();
        assert_eq!(payload.len(), envelope_bytes(&new));
        let record = |kind: Kind, payload: &[u8]| {
            let bytes = written(kind as u8, 0, payload.len() as u32, payload);
            envelope(&Records::new(&bytes).next().expect("one").expect("good"))
        };
        let found = record(Kind::Envelope, &payload).expect("an envelope");
        assert_eq!((found.index, &*found.recipient, &*found.original, &*found.way), (3, "ü@b", "a@b", ""));
        assert_eq!(found.action, StoredAction::Reference("out#1".into()));
        assert_eq!(found.request, "NOTIFY=NEVER");
        // As all were written before there were requests, and most are still.
        let plain = NewEnvelope { request: "", ..new };
        let without = [EnvelopeHead::new(3, &plain).as_bytes(), &payload[12..payload.len() - 12]].concat();
        assert_eq!(without.len(), envelope_bytes(&plain));
        let found = record(Kind::Envelope, &without).expect("an envelope");
        assert_eq!((&*found.recipient, &*found.request), ("ü@b", ""));
        assert_eq!(record(Kind::Envelope, &payload[..payload.len() - 1]), Err(BadRecord::Malformed));
        assert_eq!(record(Kind::Envelope, &[&payload[..], b"x"].concat()), Err(BadRecord::Malformed));
        let old = NumberedHead { index: 1.into(), action: 7.into(), recipient_bytes: 3.into(), reserved: 0.into() };
        let old = [old.as_bytes(), b"c@d"].concat();
        let found = record(Kind::Numbered, &old).expect("an envelope");
        assert_eq!((&*found.recipient, found.action), ("c@d", StoredAction::Number(7)));
        assert_eq!(record(Kind::Numbered, &old[..10]), Err(BadRecord::Malformed));
    }

    #[test]
    fn states_read_back() {
        let value = StateValue { index: 3, status: Status::Waiting, attempts: 9, due_ms: 1 << 40, told: Told::NOTHING };
        let payload = [StateHead::new(&value, 4).as_bytes(), b"busy"].concat();
        assert_eq!(state(&payload), Ok((value, &b"busy"[..])));
        assert_eq!((state(&payload[..19]), payload.len()), (Err(BadRecord::Malformed), state_bytes(&value, b"busy")));
        // As it is written once the sender has been told something.
        let value = StateValue { told: Told(0x1234), ..value };
        let mut payload = [StateHead::new(&value, 4).as_bytes(), b"busy\x34\x12"].concat();
        assert_eq!(state(&payload), Ok((value, &b"busy"[..])));
        assert_eq!((state(&payload[..21]), payload.len()), (Err(BadRecord::Malformed), state_bytes(&value, b"busy")));
        payload[15] = 2;
        assert_eq!(state(&payload), Err(BadRecord::Reserved), "of a later version");
    }
}
