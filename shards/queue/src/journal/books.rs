//! The books of a slice: index, segments and due times, kept in step. Pure.
//!
//! What a batch says enters them in one place, [`Books::apply`], whether the batch has just become durable or is replayed
//! after a start; so a start finds what the run before it knew.

use std::collections::{BTreeMap, BTreeSet};

use crate::envelope::Status;
use crate::id::MessageId;
use crate::index::{Chunked, Envelopes, Index, Message, Place};
use crate::journal::batch::{BATCH_HEAD_BYTES, group, is_copy, records_of};
use crate::journal::record::{BadRecord, ChunkPlace, HEAD_BYTES, Kind, MessagePayload, Record, StateValue, state};
use crate::journal::segment::Segments;
use crate::scheduler::{Backend, Scheduler};

/// All that a slice knows in memory.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) slice: u16,
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) due: Box<dyn Scheduler>,
    pub(crate) next_number: u64,
    pub(crate) tally: Tally,
    /// Messages that somebody reads, and how many do.
    pub(crate) pinned: BTreeMap<u64, u32>,
    /// Ended messages that somebody still reads.
    pub(crate) parked: BTreeMap<u64, (Message, Option<Chunked>)>,
    /// Generations that the segment of the open batch must outlive.
    pub(crate) homes_open: BTreeSet<u64>,
    /// The same for the batch in flight.
    pub(crate) homes_in_flight: BTreeSet<u64>,
    /// Chunks of messages whose end is not durable yet, and goes with the open batch: until then a crash brings them back.
    pub(crate) ending_open: Vec<Box<[ChunkPlace]>>,
    /// The same for the batch in flight.
    pub(crate) ending_in_flight: Vec<Box<[ChunkPlace]>>,
}

/// Envelopes by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) open: u64,
    pub(crate) deferred: u64,
    pub(crate) in_flight: u64,
    pub(crate) parked: u64,
}

/// What a replay must remember besides, since records of one message may lie in segments that are read later.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    /// States of messages that have not been met.
    orphans: BTreeMap<(u64, u16), (StateValue, Place)>,
    /// Messages that ended, with the generation of the last copy met.
    ended: BTreeMap<u64, u64>,
    /// Ended messages of which a copy was met after their end: a `gone` record is owed.
    pub(crate) revenants: Vec<(u64, u64)>,
}

impl Tally {
    fn count(&mut self, status: Status, attempts: u16, by: i64) {
        let add = |sum: &mut u64| *sum = sum.wrapping_add_signed(by);
        if !status.is_final() {
            add(&mut self.open);
        }
        if status == Status::Waiting && attempts > 0 {
            add(&mut self.deferred);
        }
        if status == Status::InFlight {
            add(&mut self.in_flight);
        }
    }
}

impl Books {
    /// Takes over what a durable batch at `at` in `slot` says. `batch`: head and records. Returns the messages of which
    /// a copy was written although they had ended: each is owed a `gone` record.
    pub(crate) fn apply(
        &mut self,
        slot: u16,
        at: u32,
        batch: &[u8],
        mut learned: Option<&mut Learned>,
    ) -> Result<Vec<u64>, BadRecord> {
        let mut revenants = Vec::new();
        let mut records = records_of(batch);
        while let Some(record) = records.next() {
            let record = record?;
            let place = Place { offset: at + (BATCH_HEAD_BYTES + record.at) as u32, slot };
            let number = record.id.number();
            match record.kind {
                Kind::Message | Kind::Relocated => {
                    let (meta, text) = group(&record, &mut records)?;
                    let known = self.apply_group(&record, place, meta, text.payload.len(), learned.as_deref_mut())?;
                    if !known {
                        revenants.push(number);
                    }
                }
                Kind::State => {
                    let (value, _) = state(record.payload)?;
                    match learned.as_deref_mut() {
                        Some(learned) => self.replay_state(number, value, place, learned),
                        None => self.publish_state(number, value, place, is_copy(&record)),
                    }
                }
                // Somebody waits for it and gives it back; after a start nobody does.
                Kind::Chunk if learned.is_none() => {
                    self.segments.add_live(Some(slot), (HEAD_BYTES + record.payload.len()) as u64);
                }
                Kind::Gone => {
                    if let Some(learned) = learned.as_deref_mut() {
                        self.replay_gone(number, slot, learned);
                    }
                }
                Kind::Chunk | Kind::Void => {}
                Kind::Envelope | Kind::Numbered | Kind::Text => return Err(BadRecord::Malformed),
            }
        }
        Ok(revenants)
    }

    /// False: the message had ended.
    fn apply_group(
        &mut self,
        record: &Record<'_>,
        place: Place,
        meta: usize,
        text: usize,
        learned: Option<&mut Learned>,
    ) -> Result<bool, BadRecord> {
        let payload = MessagePayload::parse(record.payload)?;
        let number = record.id.number();
        let chunks: Box<[ChunkPlace]> = payload.chunks().collect();
        let chunked = (!chunks.is_empty()).then(|| Chunked { head_bytes: payload.head.head_bytes.get(), chunks });
        if self.index.get(number).is_some() {
            self.relocate(number, place, meta as u32, chunked);
            return Ok(true);
        }
        let due_ms = payload.release_ms.unwrap_or(payload.head.received_ms.get());
        let count = payload.head.envelopes.get();
        let message =
            |envelopes| Message { number, place, meta_bytes: meta as u32, text_bytes: text as u32, envelopes };
        match learned {
            None if record.kind == Kind::Relocated => return Ok(false),
            None => self.add(message(Envelopes::new(count, due_ms, Status::InFlight)), chunked),
            Some(learned) => {
                let generation = self.segments.generation(place.slot).unwrap_or(0);
                if let Some(last) = learned.ended.get_mut(&number) {
                    *last = generation;
                    learned.revenants.push((number, generation));
                    return Ok(true);
                }
                self.add(message(Envelopes::new(count, due_ms, Status::Waiting)), chunked);
                for index in 0..count {
                    if let Some((value, place)) = learned.orphans.remove(&(number, index)) {
                        self.replay_state(number, value, place, learned);
                    }
                }
            }
        }
        Ok(true)
    }

    /// A message that is not known yet.
    pub(crate) fn add(&mut self, message: Message, chunked: Option<Chunked>) {
        let number = message.number;
        for envelope in message.envelopes.all() {
            self.tally.count(envelope.status, envelope.attempts, 1);
            self.segments.add_state(envelope.place.segment());
        }
        self.segments.add_live(message.place.segment(), message.bytes());
        if let Some(chunked) = chunked {
            self.count_chunks(&chunked.chunks, true);
            self.index.chunked.insert(number, chunked);
        }
        self.index.insert(message);
        self.next_number = self.next_number.max(number + 1);
    }

    fn relocate(&mut self, number: u64, place: Place, meta_bytes: u32, chunked: Option<Chunked>) {
        let Some(message) = self.index.get_mut(number) else { return };
        let (old, bytes) = (message.place, message.bytes());
        message.place = place;
        message.meta_bytes = meta_bytes;
        let new_bytes = message.bytes();
        self.segments.add_live(place.segment(), new_bytes);
        self.segments.sub_live(old.segment(), bytes);
        // The old copy must be gone before this one is, or a start would take the old one for the truth.
        if let Some(generation) = old.segment().and_then(|slot| self.segments.generation(slot)) {
            self.segments.need(place.slot, generation);
        }
        if let Some(chunked) = chunked {
            self.count_chunks(&chunked.chunks, true);
            if let Some(old) = self.index.chunked.insert(number, chunked) {
                self.count_chunks(&old.chunks, false);
            }
        }
    }

    fn count_chunks(&mut self, chunks: &[ChunkPlace], more: bool) {
        for chunk in chunks {
            if self.segments.generation(chunk.slot) == Some(chunk.generation) {
                let bytes = HEAD_BYTES as u64 + u64::from(chunk.bytes);
                match more {
                    true => self.segments.add_live(Some(chunk.slot), bytes),
                    false => self.segments.sub_live(Some(chunk.slot), bytes),
                }
            }
        }
    }

    fn publish_state(&mut self, number: u64, value: StateValue, place: Place, copied: bool) {
        let Some(message) = self.index.get_mut(number) else { return };
        let Some(envelope) = message.envelopes.all_mut().get_mut(usize::from(value.index)) else { return };
        let was = envelope.place;
        // A newer one may be on its way already; then this one is history.
        let same =
            value.attempts == envelope.attempts && value.told == envelope.told && agree(value.status, envelope.status);
        let expected = if copied { was.segment().is_some() } else { was == Place::PENDING };
        if same && expected {
            envelope.place = place;
            self.segments.add_state(Some(place.slot));
            self.segments.sub_state(was.segment());
        }
    }

    fn replay_state(&mut self, number: u64, value: StateValue, place: Place, learned: &mut Learned) {
        if learned.ended.contains_key(&number) {
            return;
        }
        let Some(message) = self.index.get_mut(number) else {
            learned.orphans.insert((number, value.index), (value, place));
            return;
        };
        let Some(envelope) = message.envelopes.all_mut().get_mut(usize::from(value.index)) else { return };
        let was = *envelope;
        *envelope = crate::index::Envelope {
            due_ms: value.due_ms,
            place,
            attempts: value.attempts,
            told: value.told,
            status: value.status,
            parked: false,
            ..was
        };
        let over = message.envelopes.all().iter().all(|envelope| envelope.status.is_final());
        self.tally.count(was.status, was.attempts, -1);
        self.tally.count(value.status, value.attempts, 1);
        self.segments.add_state(Some(place.slot));
        self.segments.sub_state(was.place.segment());
        if over {
            let home = self.finish(number).unwrap_or(0);
            learned.ended.insert(number, home);
        }
    }

    fn replay_gone(&mut self, number: u64, slot: u16, learned: &mut Learned) {
        let home = self.finish(number).or_else(|| learned.ended.get(&number).copied());
        if let Some(generation) = home {
            self.segments.need(slot, generation);
        }
        learned.ended.insert(number, home.unwrap_or(0));
        learned.revenants.retain(|(revenant, _)| *revenant != number);
        let orphans: Vec<_> = learned.orphans.range((number, 0)..=(number, u16::MAX)).map(|(key, _)| *key).collect();
        for key in orphans {
            learned.orphans.remove(&key);
        }
    }

    /// Forgets a message whose envelopes have all ended; returns the generation of its segment.
    pub(crate) fn finish(&mut self, number: u64) -> Option<u64> {
        let message = self.index.remove(number)?;
        let chunked = self.index.chunked.remove(&number);
        let home = message.place.segment().and_then(|slot| self.segments.generation(slot));
        for envelope in message.envelopes.all() {
            self.tally.count(envelope.status, envelope.attempts, -1);
            self.segments.sub_state(envelope.place.segment());
            // What says that it has ended must be there as long as the message itself could be found.
            match (envelope.place.segment(), home) {
                (Some(slot), Some(generation)) => self.segments.need(slot, generation),
                (None, Some(generation)) if envelope.place == Place::PENDING => {
                    self.homes_open.insert(generation);
                    self.homes_in_flight.insert(generation);
                }
                _ => {}
            }
        }
        let is_pending = |envelope: &crate::index::Envelope| envelope.place == Place::PENDING;
        if let Some(chunked) = &chunked
            && message.envelopes.all().iter().any(is_pending)
        {
            self.count_chunks(&chunked.chunks, true);
            self.ending_open.push(chunked.chunks.clone());
        }
        match self.pinned.contains_key(&number) {
            true => drop(self.parked.insert(number, (message, chunked))),
            false => self.forget(&message, chunked.as_ref()),
        }
        home
    }

    fn forget(&mut self, message: &Message, chunked: Option<&Chunked>) {
        self.segments.sub_live(message.place.segment(), message.bytes());
        if let Some(chunked) = chunked {
            self.count_chunks(&chunked.chunks, false);
        }
    }

    /// The batch in flight is durable, and with it the end of these messages.
    pub(crate) fn end_durably(&mut self) {
        for chunks in std::mem::take(&mut self.ending_in_flight) {
            self.count_chunks(&chunks, false);
        }
    }

    /// Somebody reads the message; it stays until `unpin`.
    pub(crate) fn pin(&mut self, number: u64) {
        *self.pinned.entry(number).or_default() += 1;
    }

    /// Ends a `pin`.
    pub(crate) fn unpin(&mut self, number: u64) {
        let Some(count) = self.pinned.get_mut(&number) else { return };
        *count -= 1;
        if *count == 0 {
            self.pinned.remove(&number);
            if let Some((message, chunked)) = self.parked.remove(&number) {
                self.forget(&message, chunked.as_ref());
            }
        }
    }

    /// The message and what is known of its chunks, also if it has ended and somebody reads it.
    pub(crate) fn find(&self, number: u64) -> Option<(&Message, Option<&Chunked>)> {
        match self.index.get(number) {
            Some(message) => Some((message, self.index.chunked.get(&number))),
            None => self.parked.get(&number).map(|(message, chunked)| (message, chunked.as_ref())),
        }
    }

    /// Changes how an envelope stands and keeps the sums right.
    pub(crate) fn set(&mut self, number: u64, index: u16, change: impl FnOnce(&mut crate::index::Envelope)) {
        let Some(message) = self.index.get_mut(number) else { return };
        let Some(envelope) = message.envelopes.all_mut().get_mut(usize::from(index)) else { return };
        let was = *envelope;
        change(envelope);
        let now = *envelope;
        self.tally.count(was.status, was.attempts, -1);
        self.tally.count(now.status, now.attempts, 1);
        self.tally.parked = self.tally.parked + u64::from(now.parked) - u64::from(was.parked);
        if was.place != now.place {
            self.segments.sub_state(was.place.segment());
        }
        if now.status == Status::Waiting && (was.status != Status::Waiting || was.due_ms != now.due_ms) {
            self.due.arm(now.due_ms, number);
            if self.due.len() as u64 > 2 * self.tally.open + STALE_ENTRIES_MAX {
                self.rebuild_due();
            }
        }
    }

    /// Marks what is due as in flight; at least one message if any is due, then on until `max` envelopes.
    pub(crate) fn claim(&mut self, now_ms: u64, max: usize, into: &mut Vec<(MessageId, Vec<u16>)>) -> usize {
        let mut claimed = 0;
        while claimed < max {
            let Some(number) = self.due.fire(now_ms) else { break };
            let Some(message) = self.index.get_mut(number) else { continue };
            let mut indexes = Vec::new();
            for (index, envelope) in message.envelopes.all_mut().iter_mut().enumerate() {
                if envelope.status == Status::Waiting && envelope.due_ms <= now_ms {
                    self.tally.count(envelope.status, envelope.attempts, -1);
                    envelope.status = Status::InFlight;
                    self.tally.count(envelope.status, envelope.attempts, 1);
                    indexes.push(index as u16);
                }
            }
            claimed += indexes.len();
            if !indexes.is_empty() {
                into.push((MessageId::new(self.slice, number), indexes));
            }
        }
        claimed
    }

    /// Arms the scheduler from the index: after a start, or when most of what it has is stale.
    pub(crate) fn rebuild_due(&mut self) {
        self.due.clear();
        let mut entries = Vec::new();
        for message in self.index.from(0) {
            let waiting = message.envelopes.all().iter().filter(|envelope| envelope.status == Status::Waiting);
            let mut times: Vec<u64> = waiting.map(|envelope| envelope.due_ms).collect();
            times.sort_unstable();
            times.dedup();
            entries.extend(times.into_iter().map(|due_ms| (due_ms, message.number)));
        }
        self.due.arm_all(entries);
    }

    /// Another backend says from now on when what waits is due.
    pub(crate) fn schedule_by(&mut self, backend: Backend) {
        self.due = backend.make();
        self.rebuild_due();
    }
}

/// Whether a record with the first status describes an envelope with the second: what waits may have been claimed since.
pub(crate) fn agree(recorded: Status, now: Status) -> bool {
    recorded == now || (recorded == Status::Waiting && now == Status::InFlight)
}

/// Due times that mean nothing any more, beyond as many as there are envelopes, before they are swept out.
const STALE_ENTRIES_MAX: u64 = 1024;
