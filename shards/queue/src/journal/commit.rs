//! The committer: one batch in flight, all that arrives meanwhile is the next. No timer stands before a commit that somebody
//! waits for. What a failing disk means is decided here; see the module's rules.

use std::future::Future;
use std::io;
use std::time::Duration;

use zerocopy::IntoBytes;

use ringpost_io::{BLOCK_BYTES, Disk, File};

use crate::envelope::{State, SubmitError};
use crate::id::MessageId;
use crate::index::Place;
use crate::journal::batch::{Batch, Seal};
use crate::journal::record::{Kind, StateValue, record_bytes, state, state_bytes};
use crate::journal::segment::{Birth, Phase, Role, Superblock};
use crate::journal::state::kept_reply;
use crate::journal::{Done, Health, Landing, Open, Slice};
use crate::limits;
use crate::told::Told;

impl<D: Disk> Slice<D> {
    /// Makes batches durable until the slice is stopped and nothing is left to write, or the disk does not take it.
    pub(crate) async fn commit_loop<S: Future<Output = ()>>(&self, sleep: &impl Fn(Duration) -> S) {
        loop {
            let work = self.signals.work.raised();
            if !self.is_wanted() {
                if self.stopping.get() {
                    break;
                }
                work.await;
                continue;
            }
            let (mut batch, done) = self.close_open();
            match self.commit(Role::Hot, &mut batch).await {
                Ok(landing) => done.tell(Ok(landing)),
                Err(error) => self.refuse(&batch, &done, error),
            }
            self.end_flight(batch);
            if self.health.get() == Health::Broken {
                if self.stopping.get() {
                    break;
                }
                self.probe(sleep).await;
            }
        }
        self.closed.set(true);
        let open = self.open.replace(Open::new(Vec::new()));
        open.done.tell(Err(SubmitError::Stopped));
        for signal in [&self.signals.room, &self.signals.lazy, &self.signals.make, &self.signals.upkeep] {
            signal.raise();
        }
    }

    /// Flushes states that no batch has taken along in time.
    pub(crate) async fn flush_loop<S: Future<Output = ()>>(&self, sleep: &impl Fn(Duration) -> S) {
        while !self.closed.get() {
            let lazy = self.signals.lazy.raised();
            if self.open.borrow().batch.is_empty() {
                lazy.await;
                continue;
            }
            sleep(self.options.state_delay).await;
            if !self.open.borrow().batch.is_empty() && self.health.get() == Health::Good {
                self.flush_now.set(true);
                self.signals.work.raise();
            }
        }
    }

    fn is_wanted(&self) -> bool {
        let open = self.open.borrow();
        open.awaited || !open.batch.is_empty() && (self.flush_now.get() || self.stopping.get())
    }

    /// Takes the open batch away and puts an empty one there.
    fn close_open(&self) -> (Batch, std::rc::Rc<Done>) {
        let buffer = self.spare_buffer.take();
        let mut open = self.open.borrow_mut();
        let mut closed = std::mem::replace(&mut *open, Open::new(buffer));
        self.flush_now.set(!closed.overflow.is_empty());
        let mut overflow = std::mem::replace(&mut closed.overflow, Batch::new(Vec::new()));
        if !overflow.is_empty() {
            self.pour(&mut overflow, &mut open);
        }
        *self.in_flight.borrow_mut() = Some(closed.done.clone());
        let mut books = self.books.borrow_mut();
        books.homes_in_flight = std::mem::take(&mut books.homes_open);
        if open.batch.is_empty() {
            books.ending_in_flight = std::mem::take(&mut books.ending_open);
        } else {
            // What was poured may end messages, and which of them cannot be told: it keeps what all of it keeps.
            books.homes_open = books.homes_in_flight.clone();
        }
        drop(books);
        self.signals.room.raise();
        (closed.batch, closed.done)
    }

    /// Fills the open batch from what found its predecessor full.
    fn pour(&self, from: &mut Batch, open: &mut Open) {
        for record in from.records().flatten() {
            let target = match open.batch.fits(record.bytes(), self.options.batch_bytes_max) {
                true => &mut open.batch,
                false => &mut open.overflow,
            };
            target.append_record(&record, record.kind, record.flags);
        }
    }

    fn end_flight(&self, batch: Batch) {
        self.in_flight.borrow_mut().take();
        let used = batch.disk_bytes();
        let buffer = batch.into_buffer();
        if buffer.capacity() <= limits::BUFFER_KEPT_BYTES || used > buffer.capacity() / 4 {
            *self.spare_buffer.borrow_mut() = buffer;
        }
    }

    /// Writes a batch, on an error once more to a fresh segment, and enters it into the books.
    ///
    /// # Errors
    /// The first error; nothing of the batch is in the books.
    pub(crate) async fn commit(&self, role: Role, batch: &mut Batch) -> io::Result<Landing> {
        let slot = self.segment_for(role, batch).await?;
        let Err(error) = self.write(role, slot, batch).await else { return Ok(self.publish(slot, batch)) };
        self.fail(slot, batch);
        let Ok(slot) = self.segment_for(role, batch).await else { return Err(error) };
        if self.write(role, slot, batch).await.is_ok() {
            return Ok(self.publish(slot, batch));
        }
        self.fail(slot, batch);
        Err(error)
    }

    /// The segment is never written again, and nothing is freed before a checkpoint says what of it counts.
    fn fail(&self, slot: u16, batch: &mut Batch) {
        batch.attempted = true;
        self.books.borrow_mut().segments.fail(slot);
        self.after_books();
    }

    async fn write(&self, role: Role, slot: u16, batch: &mut Batch) -> io::Result<()> {
        let (file, at, superblock) = self.seal(role, slot, batch);
        match superblock {
            Some(superblock) => file.write_durable(0, batch.sealed(Some(superblock.as_bytes()))).await,
            None => file.write_durable(u64::from(at), batch.sealed(None)).await,
        }
    }

    /// The segment that the batch goes to; waits for one to be made if there is none.
    async fn segment_for(&self, role: Role, batch: &Batch) -> io::Result<u16> {
        let bytes = batch.disk_bytes();
        if role == Role::Hot {
            self.make_error.set(None);
        }
        loop {
            let made = self.signals.made.raised();
            {
                let mut books = self.books.borrow_mut();
                if let Some(slot) = books.segments.fitting(role, bytes) {
                    return Ok(slot);
                }
                if role == Role::Hot {
                    self.urgent.set(false);
                }
                // Cold mail must leave room for new mail and states until what it moves is freed.
                let spared = role == Role::Hot
                    || books.segments.free().count() > 1
                    || books.segments.left_bytes() >= self.options.segment_bytes / 4;
                if spared && let Some(slot) = books.segments.take(role, bytes) {
                    drop(books);
                    self.look_for_spare();
                    self.signals.make.raise();
                    self.signals.upkeep.raise();
                    return Ok(slot);
                }
            }
            if role == Role::Cold {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if let Some(kind) = self.make_error.take() {
                return Err(kind.into());
            }
            self.urgent.set(true);
            self.signals.make.raise();
            made.await;
        }
    }

    fn seal(&self, role: Role, slot: u16, batch: &mut Batch) -> (std::rc::Rc<D::File>, u32, Option<Superblock>) {
        let mut books = self.books.borrow_mut();
        if role == Role::Cold {
            void_stale(&books, batch);
        }
        let order = books.segments.next_order();
        let next_number = books.next_number;
        let segment = books.segments.table.get(&slot).expect("a segment in use is in the table");
        assert!(segment.phase == Phase::Filling, "only the segment being filled is written");
        assert!(u64::from(segment.used) + batch.disk_bytes() as u64 <= segment.bytes, "a batch stays in its segment");
        let (life, sequence, at) = (segment.life, segment.batches, segment.used);
        let superblock = (sequence == 0).then(|| {
            let created_ms = self.now_ms.get();
            let birth = Birth { role: Some(role), life, created_ms, order, next_number, previous: segment.previous };
            Superblock::new(&birth, self.number)
        });
        batch.seal(&Seal { life, sequence, order, next_number }, self.options.plant);
        (self.file(slot).expect("a segment in use has a file"), at, superblock)
    }

    /// In the books before anyone is told.
    fn publish(&self, slot: u16, batch: &Batch) -> Landing {
        let mut books = self.books.borrow_mut();
        let segment = books.segments.table.get_mut(&slot).expect("a segment in use is in the table");
        let (role, generation, at) = (segment.role, segment.life.generation, segment.used);
        segment.used += batch.disk_bytes() as u32;
        segment.batches += 1;
        if role == Role::Hot {
            let homes = std::mem::take(&mut books.homes_in_flight);
            homes.into_iter().for_each(|home| books.segments.need(slot, home));
            books.end_durably();
        }
        let revenants = books.apply(slot, at, batch.body(), None).expect("we have written these records ourselves");
        drop(books);
        self.batches.set(self.batches.get() + 1);
        self.checkpoints.borrow_mut().written += batch.disk_bytes() as u64;
        for number in revenants {
            self.append_gone(MessageId::new(self.number, number), Some(generation));
        }
        self.after_books();
        Landing { slot, at, generation }
    }

    /// Tells everybody in a batch that it failed. Its states go to the next one.
    fn refuse(&self, batch: &Batch, done: &Done, error: io::Error) {
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        if !full {
            self.health.set(Health::Broken);
        }
        {
            let mut books = self.books.borrow_mut();
            let homes = std::mem::take(&mut books.homes_in_flight);
            books.homes_open.extend(homes);
            let ending = std::mem::take(&mut books.ending_in_flight);
            books.ending_open.extend(ending);
        }
        for record in batch.records().flatten() {
            match record.kind {
                Kind::State => {
                    let (value, reply) = state(record.payload).expect("a record of ours");
                    if self.books.borrow().is_current(record.id.number(), &value) {
                        self.append_state(record.id, &value, reply);
                    }
                }
                Kind::Gone => self.append_gone(record.id, None),
                // If it never reached the disk, nothing needs to be said of it.
                Kind::Message if batch.attempted => self.append_gone(record.id, None),
                _ => {}
            }
        }
        done.tell(Err(if full { SubmitError::Full } else { SubmitError::Disk }));
    }

    /// Says for every later start that this message has ended.
    pub(crate) fn append_gone(&self, id: MessageId, copy_in: Option<u64>) {
        self.books.borrow_mut().homes_open.extend(copy_in);
        self.append_lazy(record_bytes(0), |batch| {
            batch.append(Kind::Gone, 0, id, &[]);
        });
    }

    /// Enters an outcome and appends its record.
    pub(crate) fn settle(&self, id: MessageId, index: u16, outcome: &State) {
        let value: Option<StateValue> = self.books.borrow_mut().settle(id.number(), index, outcome);
        if let Some(value) = value {
            self.append_state(id, &value, kept_reply(outcome));
        }
        self.after_books();
    }

    fn append_state(&self, id: MessageId, value: &StateValue, reply: &[u8]) {
        self.append_lazy(record_bytes(state_bytes(value, reply)), |batch| {
            batch.append_state(id, value, reply);
        });
    }

    /// Enters how far a sender was told that an envelope waits, and appends a state that says so. What the last attempt was
    /// told stays in the state, so it is read back first.
    pub(crate) async fn note(&self, id: MessageId, index: u16, told: Told) {
        let place = || {
            let books = self.books.borrow();
            let message = books.index.get(id.number())?;
            message.envelopes.all().get(usize::from(index)).map(|envelope| envelope.place)
        };
        let mut reply = String::new();
        for _ in 0..limits::NOTE_TRIES {
            let Some(was) = place() else { return };
            reply = match was {
                Place::PENDING => {
                    self.flush().await;
                    continue;
                }
                Place::NONE => String::new(),
                // A reply is worth keeping, not worth failing for.
                _ => self.reply(id, was).await.unwrap_or_default(),
            };
            if place() == Some(was) {
                break;
            }
        }
        let value = self.books.borrow_mut().note(id.number(), index, told);
        if let Some(value) = value {
            self.append_state(id, &value, reply.as_bytes());
        }
        self.after_books();
    }

    /// Appends what need not be durable at once.
    pub(crate) fn append_lazy(&self, bytes: usize, append: impl FnOnce(&mut Batch)) {
        let mut open = self.open.borrow_mut();
        let fits = open.overflow.is_empty() && open.batch.fits(bytes, self.options.batch_bytes_max);
        let first = open.batch.is_empty();
        append(if fits { &mut open.batch } else { &mut open.overflow });
        drop(open);
        if first {
            self.signals.lazy.raise();
        } else if !fits {
            self.flush_now.set(true);
            self.signals.work.raise();
        }
    }

    /// Waits until all that is appended is durable, or has failed.
    pub(crate) async fn flush(&self) {
        loop {
            let (done, more) = {
                let mut open = self.open.borrow_mut();
                let more = !open.overflow.is_empty();
                match (open.batch.is_empty(), &*self.in_flight.borrow()) {
                    _ if self.closed.get() => return,
                    (false, _) => {
                        open.awaited = true;
                        (open.done.clone(), more)
                    }
                    (true, Some(in_flight)) => (in_flight.clone(), more),
                    (true, None) => return,
                }
            };
            self.signals.work.raise();
            if done.wait().await.is_err() || !more {
                return;
            }
        }
    }

    /// Waits until the disk writes again: an empty batch to a fresh segment succeeds.
    async fn probe<S: Future<Output = ()>>(&self, sleep: &impl Fn(Duration) -> S) {
        let mut pause = limits::PROBE;
        loop {
            let mut slept = Duration::ZERO;
            while slept < pause {
                if self.stopping.get() {
                    return;
                }
                sleep(limits::PROBE).await;
                slept += limits::PROBE;
            }
            self.books.borrow_mut().segments.seal(Role::Hot);
            let mut batch = Batch::new(Vec::new());
            if let Ok(slot) = self.segment_for(Role::Hot, &batch).await {
                if self.write(Role::Hot, slot, &mut batch).await.is_ok() {
                    self.publish(slot, &batch);
                    self.health.set(Health::Good);
                    self.flush_now.set(true);
                    self.signals.due.raise();
                    return;
                }
                // Whatever of it is on disk says nothing.
                self.fail(slot, &mut batch);
                let listed = self.books.borrow().segments.listed.contains(&slot);
                if !listed {
                    self.remove(slot).await;
                }
            }
            pause = (pause * 2).min(limits::PROBE_MAX);
        }
    }
}

/// Voids what has changed since it was copied. Nothing can change between here and the seal, and what changes later has a
/// record with a later order.
fn void_stale(books: &crate::journal::books::Books, batch: &mut Batch) {
    for at in 0..batch.copied.len() {
        let copied = batch.copied[at];
        let message = books.index.get(copied.number);
        let now: Option<Place> = match copied.index {
            None => message.map(|message| message.place),
            Some(index) => message
                .and_then(|message| message.envelopes.all().get(usize::from(index)).map(|envelope| envelope.place)),
        };
        if now != Some(copied.from) {
            batch.void(copied.at, copied.end);
        }
    }
}

const _: () = assert!(size_of::<Superblock>() <= BLOCK_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Status;
    use crate::index::{Envelopes, Message};
    use crate::journal::batch::Copied;
    use crate::journal::books::Books;

    #[test]
    fn a_copied_state_that_was_superseded_before_the_seal_is_voided() {
        let from = Place { offset: 4096, slot: 3 };
        let mut books = Books::default();
        for number in [1, 2] {
            let mut envelopes = Envelopes::new(1, 0, Status::Waiting);
            envelopes.all_mut()[0].place = from;
            books.add(Message { number, place: from, meta_bytes: 1, text_bytes: 1, envelopes }, None);
        }
        let mut batch = Batch::new(Vec::new());
        for number in [1, 2] {
            let value = StateValue { index: 0, status: Status::Waiting, attempts: 0, due_ms: 0, told: Told::NOTHING };
            let at = batch.append_state(MessageId(number), &value, b"old");
            batch.copied.push(Copied { at, end: batch.records_bytes(), from, number, index: Some(0) });
        }
        books.settle(1, 0, &State::Deferred { until_ms: 9, reply: "new".into() });
        void_stale(&books, &mut batch);
        let kinds: Vec<Kind> = batch.records().flatten().map(|record| record.kind).collect();
        assert_eq!(kinds, [Kind::Void, Kind::State]);
        books.settle(2, 0, &State::Delivered);
        void_stale(&books, &mut batch);
        assert!(batch.records().flatten().all(|record| record.kind == Kind::Void), "also the second time it is sealed");
    }
}
