//! The door: a shard's queue, which is one slice that takes new mail, and all slices that earlier numbers of shards have left
//! to it (`slice % shards == me`). A message stays in its slice; a state goes to the slice of its message.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::zip;

use ringpost_io::{Disk, Runtime, Signal};

use crate::body::ChunkedBody;
use crate::envelope::{Body, Counts, Listed, NewEnvelope, NewMessage, OpenError, Report, Space, State, SubmitError};
use crate::id::MessageId;
use crate::journal::batch::{Batch, group_bytes};
use crate::journal::record::{ChunkPlace, HEAD_BYTES, Kind, record_bytes};
use crate::journal::segment::{Phase, Role};
use crate::journal::{Health, Open, Signals, Slice, replay, slice_dir};
use crate::options::{Options, Plant};
use crate::scheduler::Backend;
use crate::told::Told;

/// A shard's part of the queue. Clones are the same queue.
pub struct Queue<D: Disk> {
    inner: Rc<Inner<D>>,
}

struct Inner<D: Disk> {
    slices: Vec<Rc<Slice<D>>>,
    /// The slice that takes new mail.
    own: Rc<Slice<D>>,
    due_changed: Signal,
    backend: Cell<Backend>,
    /// Of a planted bug: times that something was claimed.
    claims: Cell<u64>,
}

impl<D: Disk> Clone for Queue<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<D: Disk> Queue<D> {
    /// Opens all slices of shard `me` of `shards` below `dir`. Nothing is written but the slice's folder; segments are made
    /// by [`Queue::run`]. What was in flight at a crash is due at once.
    ///
    /// # Errors
    /// See [`OpenError`]; damage is none, it is reported and salvaged.
    pub async fn open(
        disk: D,
        dir: &Path,
        me: usize,
        shards: usize,
        options: Options,
        now_ms: u64,
    ) -> Result<(Self, Report), OpenError> {
        assert!(me < shards, "shards are numbered from 0");
        let options = options.checked();
        let own = u16::try_from(me).expect("far fewer shards than 65,536");
        let own_dir = slice_dir(dir, own);
        let made = disk.make_dir(&own_dir).await;
        made.map_err(|source| OpenError::Disk { path: own_dir.display().to_string(), source })?;
        let mut numbers = replay::slices(&disk, dir).await?;
        numbers.retain(|number| usize::from(*number) % shards == me);
        if !numbers.contains(&own) {
            numbers.insert(0, own);
        }
        let mut report = Report { slices: numbers.len(), ..Report::default() };
        let due_changed = Signal::new();
        let with = Opening { disk: &disk, dir, options: &options, now_ms, due: &due_changed };
        let mut slices = Vec::new();
        for number in numbers {
            let slice = open_slice(&with, number, number == own, &mut report).await?;
            slices.push(Rc::new(slice));
        }
        let own = slices.iter().find(|slice| slice.own).expect("it is among them").clone();
        own.check_space().await;
        let inner = Inner { slices, own, due_changed, backend: Cell::default(), claims: Cell::new(0) };
        let queue = Self { inner: Rc::new(inner) };
        queue.schedule_by(options.scheduler);
        Ok((queue, report))
    }

    /// Opens all slices there are, to be read and never written.
    pub(crate) async fn open_read_only(disk: D, dir: &Path, options: Options) -> Result<(Self, Report), OpenError> {
        let options = options.checked();
        let mut numbers = replay::slices(&disk, dir).await?;
        if numbers.is_empty() {
            numbers.push(0);
        }
        let mut report = Report { slices: numbers.len(), ..Report::default() };
        let due_changed = Signal::new();
        let with = Opening { disk: &disk, dir, options: &options, now_ms: 0, due: &due_changed };
        let mut slices = Vec::new();
        for number in numbers {
            let slice = open_slice(&with, number, false, &mut report).await?;
            slice.closed.set(true);
            slices.push(Rc::new(slice));
        }
        let own = slices[0].clone();
        let inner = Inner { slices, own, due_changed, backend: Cell::default(), claims: Cell::new(0) };
        Ok((Self { inner: Rc::new(inner) }, report))
    }

    /// Writes: to be run as a task from the start. Ends after [`Queue::stop`], when all that was taken is durable.
    pub async fn run<R: Runtime>(&self, runtime: &R) {
        self.run_with(|time| runtime.sleep(time)).await;
    }

    /// [`Queue::run`] with nothing but a way to sleep.
    pub async fn run_with<S: Future<Output = ()>>(&self, sleep: impl Fn(Duration) -> S) {
        let sleep = &sleep;
        let mut tasks: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for slice in &self.inner.slices {
            let writing = zip(slice.commit_loop(sleep), slice.flush_loop(sleep));
            let beside = zip(slice.make_loop(sleep), slice.upkeep_loop());
            tasks.push(Box::pin(async move {
                zip(writing, beside).await;
            }));
        }
        poll_fn(|context| {
            tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
            if tasks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// An id for a message; never used twice, whether or not a message with it is submitted.
    pub fn next_id(&self) -> MessageId {
        let mut books = self.inner.own.books.borrow_mut();
        books.next_number += 1;
        MessageId::new(books.slice, books.next_number - 1)
    }

    /// Takes a message; on `Ok` it and its envelopes are durable (promise 1) and in flight: the caller must settle or
    /// release each. To be awaited to its end, or nobody would.
    ///
    /// # Errors
    /// See [`SubmitError`]. The id is used up.
    pub async fn submit(&self, message: NewMessage<'_>) -> Result<MessageId, SubmitError> {
        let slice = &self.inner.own;
        slice.accepting()?;
        assert_eq!(message.id.slice(), slice.number, "ids come from `next_id`");
        let mut body;
        let (chunked, pieces) = match &message.body {
            Body::Chunks(chunked, pieces) => (Some(chunked), *pieces),
            Body::Whole(pieces) => {
                let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
                if bytes <= slice.options.inline_bytes_max() {
                    (None, *pieces)
                } else {
                    body = self.begin_body();
                    for piece in *pieces {
                        self.append_chunk(&mut body, piece).await?;
                    }
                    (Some(&body), &[][..])
                }
            }
        };
        let chunks = chunked.map_or(&[][..], ChunkedBody::chunks);
        check_lengths(&message)?;
        let bytes = group_bytes(&message, chunks.len(), pieces);
        let append = |batch: &mut Batch| {
            batch.append_message(&message, chunks, pieces);
        };
        let done = self.append(bytes, append).await?;
        done.wait().await?;
        Ok(message.id)
    }

    /// Begins a text that is appended ahead of its message.
    pub fn begin_body(&self) -> ChunkedBody {
        ChunkedBody::new(self.inner.own.books.clone(), self.inner.own.signals.upkeep.clone())
    }

    /// Appends to such a text; on `Ok` the bytes are durable.
    ///
    /// # Errors
    /// See [`SubmitError`]; the body is of no more use.
    pub async fn append_chunk(&self, body: &mut ChunkedBody, bytes: &[u8]) -> Result<(), SubmitError> {
        let slice = &self.inner.own;
        for piece in bytes.chunks(slice.options.chunk_bytes_max()) {
            slice.accepting()?;
            let at = Cell::new(0);
            let append = |batch: &mut Batch| {
                at.set(batch.records_bytes());
                batch.append(Kind::Chunk, 0, MessageId::new(slice.number, 0), &[piece]);
            };
            let done = self.append(record_bytes(piece.len()), append).await?;
            let landing = done.wait().await?;
            let offset = landing.at + (crate::journal::batch::BATCH_HEAD_BYTES + at.get() + HEAD_BYTES) as u32;
            let bytes = piece.len() as u32;
            body.push(ChunkPlace { generation: landing.generation, offset, bytes, slot: landing.slot });
        }
        Ok(())
    }

    /// Appends to the open batch of new mail, waiting while it is full.
    async fn append(
        &self,
        bytes: usize,
        append: impl FnOnce(&mut Batch),
    ) -> Result<Rc<crate::journal::Done>, SubmitError> {
        let slice = &self.inner.own;
        if bytes + crate::journal::batch::BATCH_HEAD_BYTES > slice.options.mail_bytes_max() {
            return Err(SubmitError::TooLarge);
        }
        loop {
            let room = slice.signals.room.raised();
            {
                let mut open = slice.open.borrow_mut();
                if open.batch.fits(bytes, slice.options.mail_bytes_max()) {
                    append(&mut open.batch);
                    let first = !std::mem::replace(&mut open.awaited, true);
                    let done = open.done.clone();
                    drop(open);
                    if first {
                        slice.signals.work.raise();
                    }
                    return Ok(done);
                }
                // Only states: nobody would write them at once for us.
                if !std::mem::replace(&mut open.awaited, true) {
                    slice.signals.work.raise();
                }
            }
            room.await;
            slice.accepting()?;
        }
    }

    /// When the next envelope is due, in milliseconds since the epoch; may be earlier than true.
    pub fn next_due(&self) -> Option<u64> {
        self.inner
            .slices
            .iter()
            .filter(|slice| slice.health.get() == Health::Good)
            .filter_map(|slice| slice.books.borrow().due.next())
            .min()
    }

    /// Has this backend say from now on when what waits is due. All that waits is armed anew if it is another one.
    pub fn schedule_by(&self, backend: Backend) {
        if self.inner.backend.replace(backend) != backend {
            self.inner.slices.iter().for_each(|slice| slice.books.borrow_mut().schedule_by(backend));
            self.inner.due_changed.raise();
        }
    }

    /// Whether anything ever becomes due.
    pub fn fires(&self) -> bool {
        self.inner.own.books.borrow().due.fires()
    }

    /// Raised when something may be due earlier than [`Queue::next_due`] said.
    pub fn due_changed(&self) -> Signal {
        self.inner.due_changed.clone()
    }

    /// Takes envelopes that are due, whole messages until about `max` envelopes; they are in flight then. None while the
    /// disk does not write, since their outcome could not be kept.
    pub fn claim_due(&self, now_ms: u64, max: usize) -> Vec<(MessageId, Vec<u16>)> {
        let mut claimed = Vec::new();
        let mut left = max;
        for slice in self.inner.slices.iter().filter(|slice| slice.health.get() == Health::Good) {
            slice.now_ms.set(slice.now_ms.get().max(now_ms));
            let count = slice.books.borrow_mut().claim(now_ms, left, &mut claimed);
            left = left.saturating_sub(count);
        }
        if self.inner.own.options.plant == Plant::ForgetsClaims && !claimed.is_empty() {
            let claims = self.inner.claims.get();
            self.inner.claims.set(claims + 1);
            claimed.truncate(claimed.len() - usize::from(claims % 16 == 7));
        }
        claimed
    }

    /// Enters what became of an envelope; on disk within `state_delay`. An envelope that has ended stays as it is.
    pub fn settle(&self, id: MessageId, index: u16, state: State) {
        self.watching_due(id, |slice| slice.settle(id, index, &state));
    }

    /// Enters how far the sender of an envelope was told that it waits, which [`Queue::walk`] shows from then on; on disk
    /// within `state_delay` of the return. An envelope that has ended stays as it is.
    pub async fn note(&self, id: MessageId, index: u16, told: Told) {
        if let Some(slice) = self.slice(id) {
            slice.note(id, index, told).await;
        }
    }

    /// Gives an envelope back without an attempt, to be due then.
    pub fn release(&self, id: MessageId, index: u16, until_ms: u64) {
        self.watching_due(id, |slice| slice.books.borrow_mut().release(id.number(), index, until_ms));
    }

    /// Whoever has this envelope in flight keeps nothing of it in memory until it calls [`Queue::unpark`]. `until_ms` is its
    /// deadline, and what [`Queue::walk`] shows as its time.
    pub fn park(&self, id: MessageId, index: u16, until_ms: u64) {
        if let Some(slice) = self.slice(id) {
            slice.books.borrow_mut().park(id.number(), index, until_ms);
        }
    }

    /// Takes an envelope up that was parked. False: it is not, since somebody has released or settled it meanwhile.
    pub fn unpark(&self, id: MessageId, index: u16) -> bool {
        self.slice(id).is_some_and(|slice| slice.books.borrow_mut().unpark(id.number(), index))
    }

    /// An envelope that waits is due then at the latest; nothing is written. False: it did not wait so long.
    pub fn hasten(&self, id: MessageId, index: u16, due_ms: u64) -> bool {
        let mut earlier = false;
        self.watching_due(id, |slice| earlier = slice.books.borrow_mut().hasten(id.number(), index, due_ms));
        earlier
    }

    /// Shows envelopes that have not ended, by message, from `from` on until about `max` messages were looked at. Returns
    /// where to go on; `None`: that was the last. Neither allocates nor changes anything.
    pub fn walk(&self, from: Option<MessageId>, max: usize, mut visit: impl FnMut(Listed)) -> Option<MessageId> {
        let mut left = max;
        let mut slices: Vec<&Rc<Slice<D>>> = self.inner.slices.iter().collect();
        slices.sort_by_key(|slice| slice.number);
        for slice in slices {
            let start = match from {
                Some(from) if from.slice() > slice.number => continue,
                Some(from) if from.slice() == slice.number => from.number(),
                _ => 0,
            };
            let books = slice.books.borrow();
            for message in books.index.from(start) {
                let id = MessageId::new(slice.number, message.number);
                if left == 0 {
                    return Some(id);
                }
                left -= 1;
                message.open(id).for_each(&mut visit);
            }
        }
        None
    }

    /// The envelopes of one message that have not ended, as [`Queue::walk`] shows them.
    pub fn stand(&self, id: MessageId) -> Vec<Listed> {
        let Some(slice) = self.slice(id) else { return Vec::new() };
        let books = slice.books.borrow();
        books.index.get(id.number()).map_or_else(Vec::new, |message| message.open(id).collect())
    }

    /// Whether the journal takes what becomes of envelopes; while it does not, nothing is claimed.
    pub fn is_writing(&self) -> bool {
        self.inner.slices.iter().all(|slice| slice.health.get() == Health::Good)
    }

    /// Makes all that waits due now; returns how many envelopes were not.
    pub fn make_due(&self, now_ms: u64) -> u64 {
        let changed = self.inner.slices.iter().map(|slice| slice.books.borrow_mut().make_due(now_ms)).sum();
        self.inner.due_changed.raise();
        changed
    }

    fn watching_due(&self, id: MessageId, change: impl FnOnce(&Slice<D>)) {
        let Some(slice) = self.slice(id) else { return };
        let before = slice.books.borrow().due.next();
        change(slice);
        let after = slice.books.borrow().due.next();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.inner.due_changed.raise();
        }
    }

    /// Returns when all that was settled is durable, or the disk has refused it.
    pub async fn flush(&self) {
        for slice in &self.inner.slices {
            slice.flush().await;
        }
    }

    /// Keeps a message's text readable beyond its end, until [`Queue::unpin`].
    pub fn pin(&self, id: MessageId) {
        if let Some(slice) = self.slice(id) {
            slice.books.borrow_mut().pin(id.number());
        }
    }

    /// Ends one [`Queue::pin`].
    pub fn unpin(&self, id: MessageId) {
        if let Some(slice) = self.slice(id) {
            slice.books.borrow_mut().unpin(id.number());
            slice.after_books();
        }
    }

    /// All envelopes that have not ended, by message and index; from memory.
    pub fn list(&self) -> Vec<Listed> {
        let mut found = Vec::new();
        for slice in &self.inner.slices {
            let books = slice.books.borrow();
            for message in books.index.from(0) {
                found.extend(message.open(MessageId::new(slice.number, message.number)));
            }
        }
        found
    }

    /// Sums over all slices.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { amplification: 1.0, ..Counts::default() };
        let mut used_bytes = 0;
        for slice in &self.inner.slices {
            let books = slice.books.borrow();
            counts.messages += books.index.len() as u64;
            counts.envelopes += books.tally.open;
            counts.deferred += books.tally.deferred;
            counts.in_flight += books.tally.in_flight;
            counts.parked += books.tally.parked;
            counts.batches += slice.batches.get();
            let (used, live, _) = books.segments.sums();
            used_bytes += used;
            counts.bytes_live += live;
            for segment in books.segments.table.values() {
                match (segment.phase, segment.role) {
                    (Phase::Free, _) => counts.segments.free += 1,
                    (Phase::Retired { .. }, _) => counts.retired += 1,
                    (_, Role::Hot) => counts.segments.active += 1,
                    (_, Role::Cold) => counts.segments.cold += 1,
                }
            }
        }
        if counts.bytes_live > 0 {
            counts.amplification = used_bytes as f64 / counts.bytes_live as f64;
        }
        counts
    }

    /// Bytes of memory that the index and the due times occupy, with what the allocator and the trees add. Walks the index.
    pub fn memory_bytes(&self) -> usize {
        let books = self.inner.slices.iter().map(|slice| slice.books.borrow());
        books.map(|books| books.index.memory_bytes() + books.due.memory_bytes()).sum()
    }

    /// Whether new mail can be taken.
    pub fn space(&self) -> Space {
        self.inner.own.space()
    }

    /// Looks at the free space of the disk; to be called every second or so.
    pub async fn check_space(&self) {
        for slice in &self.inner.slices {
            slice.check_space().await;
        }
    }

    /// No more will come: [`Queue::run`] writes what there is and ends.
    pub fn stop(&self) {
        for slice in &self.inner.slices {
            slice.stopping.set(true);
            slice.signals.work.raise();
        }
    }

    pub(crate) fn slice(&self, id: MessageId) -> Option<&Slice<D>> {
        self.inner.slices.iter().find(|slice| slice.number == id.slice()).map(|slice| &**slice)
    }
}

/// The lengths that a record can say.
fn check_lengths(message: &NewMessage<'_>) -> Result<(), SubmitError> {
    let short = |text: &str| text.len() <= usize::from(u16::MAX);
    let count = message.envelopes.len();
    let fits = (1..=usize::from(u16::MAX)).contains(&count)
        && short(message.sender)
        && short(message.tag)
        && short(message.envid)
        && message.envelopes.iter().all(|envelope| {
            let NewEnvelope { recipient, original, action, way, request } = envelope;
            [recipient, original, action, way, request].into_iter().all(|text| short(text))
        });
    if fits { Ok(()) } else { Err(SubmitError::TooLarge) }
}

/// What all slices are opened with.
struct Opening<'a, D> {
    disk: &'a D,
    dir: &'a Path,
    options: &'a Options,
    now_ms: u64,
    due: &'a Signal,
}

async fn open_slice<D: Disk>(
    with: &Opening<'_, D>,
    number: u16,
    own: bool,
    report: &mut Report,
) -> Result<Slice<D>, OpenError> {
    let Opening { disk, options, now_ms, due, .. } = *with;
    let dir = slice_dir(with.dir, number);
    let mut found = replay::read(disk, &dir, number, options, report).await?;
    found.books.segments.seed(options.seed ^ now_ms.rotate_left(20) ^ u64::from(number).rotate_left(48));
    let slice = Slice {
        number,
        dir,
        disk: disk.clone(),
        options: options.clone(),
        books: Rc::new(RefCell::new(found.books)),
        files: RefCell::new(found.files),
        open: RefCell::new(Open::new(Vec::new())),
        in_flight: RefCell::default(),
        spare_buffer: RefCell::default(),
        health: Cell::new(Health::Good),
        signals: Signals { due: due.clone(), ..Signals::default() },
        flush_now: Cell::new(false),
        stopping: Cell::new(false),
        closed: Cell::new(false),
        urgent: Cell::new(false),
        has_spare: Cell::new(false),
        make_error: Cell::new(None),
        free_bytes: Cell::new(u64::MAX),
        checkpoints: RefCell::default(),
        now_ms: Cell::new(now_ms),
        batches: Cell::new(0),
        own,
        junk: RefCell::new(found.junk),
    };
    {
        let mut progress = slice.checkpoints.borrow_mut();
        progress.written = found.tail_bytes;
        progress.bytes = found.checkpoint_bytes;
    }
    for (message, generation) in found.revenants {
        slice.append_gone(MessageId::new(number, message), Some(generation));
    }
    Ok(slice)
}
