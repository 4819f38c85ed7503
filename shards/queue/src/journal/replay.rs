//! A start: what is on disk becomes the books. Reads only, so that `inspect.rs` may use it beside nobody.
//!
//! Never fails because of mail: what is damaged is reported and stepped over. It does fail on what a later version has
//! written, since to skip that would lose mail without a word.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::path::Path;
use std::rc::Rc;

use futures_lite::future::yield_now;

use ringpost_io::{BLOCK_BYTES, Disk, File};

use crate::envelope::{OpenError, Report};
use crate::index::Place;
use crate::journal::batch::{BatchHead, Life};
use crate::journal::books::{Books, Learned};
use crate::journal::checkpoint::{self, BadCheckpoint, Checkpoint, Listed};
use crate::journal::record::BadRecord;
use crate::journal::segment::{Birth, FirstBlock, Phase, Role, Segment, Superblock};
use crate::journal::{salvage, segment_path, segment_slot, slice_number};
use crate::limits;
use crate::options::{Options, Plant};

/// A slice as it was found.
pub(crate) struct Found<D: Disk> {
    pub(crate) books: Books,
    pub(crate) files: BTreeMap<u16, Rc<D::File>>,
    /// Ended messages with a copy younger than their end, and that copy's generation: each is owed a `gone` record.
    pub(crate) revenants: Vec<(u64, u64)>,
    /// Bytes that were replayed.
    pub(crate) tail_bytes: u64,
    /// Size of the checkpoint.
    pub(crate) checkpoint_bytes: u64,
    /// Files of no use.
    pub(crate) junk: Vec<u16>,
}

/// Reads one segment's batches from front to back.
pub(crate) struct Cursor<F> {
    pub(crate) slot: u16,
    pub(crate) file: Rc<F>,
    pub(crate) life: Life,
    /// Where the next batch would begin.
    pub(crate) at: u64,
    /// Its sequence.
    pub(crate) sequence: u32,
    plant: Plant,
    window: Vec<u8>,
    window_at: u64,
}

impl<F: File> Cursor<F> {
    pub(crate) fn new(slot: u16, file: Rc<F>, life: Life, at: u64, sequence: u32, plant: Plant) -> Self {
        Self { slot, file, life, at, sequence, plant, window: Vec::new(), window_at: 0 }
    }

    /// The next batch if it is whole and the next in sequence; `advance` steps over it.
    pub(crate) async fn batch(&mut self) -> io::Result<Option<(BatchHead, &[u8])>> {
        self.ensure(BLOCK_BYTES).await?;
        let Some(head) = self.rest().and_then(BatchHead::peek) else { return Ok(None) };
        if !head.is_of(self.life, self.plant) || head.sequence() != self.sequence {
            return Ok(None);
        }
        if self.at + head.length() as u64 > self.file.size() {
            return Ok(None);
        }
        self.ensure(head.disk_bytes()).await?;
        let Some(rest) = self.rest() else { return Ok(None) };
        let verified = BatchHead::verify(rest, self.life, self.plant);
        Ok(verified.map(|head| (head, &rest[..head.length()])))
    }

    pub(crate) fn advance(&mut self, head: &BatchHead) {
        self.at += head.disk_bytes() as u64;
        self.sequence = head.sequence() + 1;
    }

    fn rest(&self) -> Option<&[u8]> {
        let start = usize::try_from(self.at.checked_sub(self.window_at)?).ok()?;
        self.window.get(start..)
    }

    async fn ensure(&mut self, bytes: usize) -> io::Result<()> {
        let there = self.rest().map_or(0, <[u8]>::len);
        if there < bytes && self.at + there as u64 != self.file.size() {
            // The old window first: two at once would double the memory of a start.
            self.window = Vec::new();
            self.window = self.file.read(self.at, bytes.max(limits::WINDOW_BYTES)).await?;
            self.window_at = self.at;
            yield_now().await;
        }
        Ok(())
    }
}

/// The slices that exist.
pub(crate) async fn slices<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<u16>, OpenError> {
    let names = disk.list(dir).await;
    let names = names.map_err(|source| OpenError::Disk { path: dir.display().to_string(), source })?;
    let mut slices: Vec<u16> = names.iter().filter_map(|(name, _)| slice_number(name)).collect();
    slices.sort_unstable();
    slices.dedup();
    Ok(slices)
}

/// Reads a slice. `report` gets what is damaged.
pub(crate) async fn read<D: Disk>(
    disk: &D,
    dir: &Path,
    slice: u16,
    options: &Options,
    report: &mut Report,
) -> Result<Found<D>, OpenError> {
    let mut replay = Replay {
        dir,
        slice,
        options,
        report,
        found: Found {
            books: Books { slice, ..Books::default() },
            files: BTreeMap::new(),
            revenants: Vec::new(),
            tail_bytes: 0,
            checkpoint_bytes: 0,
            junk: Vec::new(),
        },
        births: BTreeMap::new(),
        cursors: Vec::new(),
        learned: Learned::default(),
        next_generation: 1,
        next_order: 0,
    };
    let checkpoint = replay.read_checkpoint(disk).await?;
    replay.open_segments(disk, checkpoint.as_ref()).await?;
    replay.load(checkpoint);
    replay.merge().await?;
    Ok(replay.conclude())
}

struct Replay<'a, D: Disk> {
    dir: &'a Path,
    slice: u16,
    options: &'a Options,
    report: &'a mut Report,
    found: Found<D>,
    /// Segments that hold batches, with what their superblocks say.
    births: BTreeMap<u16, Birth>,
    /// What is to be replayed, each with the order of its first batch if that is known.
    cursors: Vec<(Cursor<D::File>, Option<u64>)>,
    learned: Learned,
    next_generation: u64,
    next_order: u64,
}

impl<D: Disk> Replay<'_, D> {
    async fn read_checkpoint(&mut self, disk: &D) -> Result<Option<Checkpoint>, OpenError> {
        let path = self.dir.join(checkpoint::NAME);
        let bytes = match disk.read_whole(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                self.damage(&format!("{}: {error}; replaying all segments", path.display()));
                return Ok(None);
            }
        };
        match checkpoint::decode(&bytes, self.slice) {
            Ok(checkpoint) => {
                self.found.checkpoint_bytes = bytes.len() as u64;
                self.next_generation = checkpoint.next_generation;
                self.next_order = checkpoint.next_order;
                self.found.books.next_number = checkpoint.next_number;
                Ok(Some(checkpoint))
            }
            Err(BadCheckpoint::Version(version)) => {
                Err(OpenError::Version { path: path.display().to_string(), what: format!("version {version}") })
            }
            Err(BadCheckpoint::Damaged) => {
                self.damage(&format!("{}: damaged; replaying all segments", path.display()));
                Ok(None)
            }
        }
    }

    async fn open_segments(&mut self, disk: &D, checkpoint: Option<&Checkpoint>) -> Result<(), OpenError> {
        let names = disk.list(self.dir).await.map_err(|source| self.disk_error(self.dir, source))?;
        for (name, bytes) in names {
            let Some(slot) = segment_slot(&name) else { continue };
            if bytes < limits::SEGMENT_BYTES_MIN.min(self.options.starter_bytes()) || bytes > limits::SEGMENT_BYTES_MAX
            {
                self.found.junk.push(slot);
                continue;
            }
            let path = segment_path(self.dir, slot);
            let file = Rc::new(disk.open(&path).await.map_err(|source| self.disk_error(&path, source))?);
            let listed = checkpoint.and_then(|checkpoint| checkpoint.segments.iter().find(|entry| entry.slot == slot));
            let block = match file.read(0, BLOCK_BYTES).await {
                Ok(block) => Superblock::parse(&block, self.slice),
                Err(_) => FirstBlock::Unreadable,
            };
            self.found.files.insert(slot, file.clone());
            let mut segment = Segment::free(bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64);
            match block {
                FirstBlock::Blank => {}
                FirstBlock::Foreign(version) => {
                    let what = format!("version {version}, or another slice");
                    return Err(OpenError::Version { path: path.display().to_string(), what });
                }
                FirstBlock::Birth(birth) => self.born(slot, &birth, &mut segment, listed, checkpoint),
                FirstBlock::Unreadable => self.unreadable(slot, &mut segment, listed).await,
            }
            self.found.books.segments.table.insert(slot, segment);
        }
        for listed in checkpoint.iter().flat_map(|checkpoint| &checkpoint.segments) {
            let has_mail = |place: Place| place.slot == listed.slot;
            let needed = checkpoint
                .is_some_and(|checkpoint| checkpoint.messages.iter().any(|(message, _)| has_mail(message.place)));
            if !self.found.files.contains_key(&listed.slot) && needed {
                self.damage(&format!("{}: missing", segment_path(self.dir, listed.slot).display()));
            }
        }
        Ok(())
    }

    /// A segment with a superblock.
    fn born(
        &mut self,
        slot: u16,
        birth: &Birth,
        segment: &mut Segment,
        listed: Option<&Listed>,
        checkpoint: Option<&Checkpoint>,
    ) {
        self.next_generation = self.next_generation.max(birth.life.generation + 1);
        self.next_order = self.next_order.max(birth.order + 1);
        self.found.books.next_number = self.found.books.next_number.max(birth.next_number);
        let Some(role) = birth.role else { return };
        let listed = listed.filter(|listed| listed.generation == birth.life.generation);
        // In use then, it would be listed; so its end has been recorded, only not in itself.
        let over = checkpoint.is_some_and(|checkpoint| birth.life.generation < checkpoint.next_generation);
        if listed.is_none() && over {
            return;
        }
        self.births.insert(slot, *birth);
        self.take_up(slot, birth.life, role, segment, listed, Some(birth.order));
    }

    /// Without its superblock a segment is believed if its first batch, which nothing of an earlier life can be, is whole,
    /// or if the checkpoint knows it.
    async fn unreadable(&mut self, slot: u16, segment: &mut Segment, listed: Option<&Listed>) {
        if let Some(listed) = listed.filter(|listed| listed.phase == Phase::Retired { damaged: false }) {
            // A segment that failed before: what is left of it the checkpoint knows.
            let life = Life { generation: listed.generation, stamp: listed.stamp };
            return self.take_up(slot, life, listed.role, segment, Some(listed), None);
        }
        let file = self.found.files[&slot].clone();
        let first = salvage::first_batch(&*file).await;
        let path = segment_path(self.dir, slot).display().to_string();
        let life = match (first, listed) {
            (Some(life), _) => life,
            (None, Some(listed)) => Life { generation: listed.generation, stamp: listed.stamp },
            (None, None) => {
                self.damage(&format!("{path}: its first block is damaged, and nothing in it can be told to be mail"));
                segment.phase = Phase::Retired { damaged: true };
                return;
            }
        };
        self.damage(&format!("{path}: its first block is damaged; its mail was salvaged"));
        self.next_generation = self.next_generation.max(life.generation + 1);
        let listed = listed.filter(|listed| listed.generation == life.generation);
        self.take_up(slot, life, listed.map_or(Role::Hot, |listed| listed.role), segment, listed, None);
        segment.phase = Phase::Retired { damaged: true };
    }

    fn take_up(
        &mut self,
        slot: u16,
        life: Life,
        role: Role,
        segment: &mut Segment,
        listed: Option<&Listed>,
        order: Option<u64>,
    ) {
        segment.phase = listed.map_or(Phase::Sealed, |listed| listed.phase);
        segment.life = life;
        segment.role = role;
        let (at, sequence) = listed.map_or((BLOCK_BYTES as u32, 0), |listed| (listed.used, listed.batches));
        segment.used = at;
        segment.batches = sequence;
        if listed.is_some() && segment.phase != Phase::Filling {
            // The checkpoint says all about it; behind its end there may be a batch that failed, which nobody may believe.
            segment.covered = true;
            return;
        }
        // Each run begins its own segments: a tail that was not written by us is not written on.
        segment.phase = Phase::Sealed;
        let file = self.found.files[&slot].clone();
        let order = order.filter(|_| sequence == 0);
        self.cursors.push((Cursor::new(slot, file, life, at.into(), sequence, self.options.plant), order));
    }

    /// The messages of the checkpoint. What lies in a segment that has since begun another life has no place for now: it
    /// was moved, and will be met, or it had ended.
    fn load(&mut self, checkpoint: Option<Checkpoint>) {
        let Some(checkpoint) = checkpoint else { return };
        let books = &mut self.found.books;
        books.segments.listed = checkpoint.segments.iter().map(|listed| listed.slot).collect();
        let same: Vec<u16> = checkpoint
            .segments
            .iter()
            .filter(|listed| books.segments.generation(listed.slot) == Some(listed.generation))
            .map(|listed| listed.slot)
            .collect();
        let keep = |place: Place| if same.binary_search(&place.slot).is_ok() { place } else { Place::NONE };
        for (mut message, chunked) in checkpoint.messages {
            message.place = keep(message.place);
            message.envelopes.all_mut().iter_mut().for_each(|envelope| envelope.place = keep(envelope.place));
            books.add(message, chunked);
        }
    }

    /// Replays what came after, in order over all segments.
    async fn merge(&mut self) -> Result<(), OpenError> {
        let mut cursors = std::mem::take(&mut self.cursors);
        let mut heap = BinaryHeap::new();
        for (key, (cursor, order)) in cursors.iter_mut().enumerate() {
            let order = match order {
                Some(order) => Some(*order),
                None => self.order_of_next(cursor).await,
            };
            match order {
                Some(order) => heap.push(Reverse((order, key))),
                None => cursor.release(),
            }
        }
        while let Some(Reverse((_, key))) = heap.pop() {
            let cursor = &mut cursors[key].0;
            self.replay_one(cursor).await?;
            if let Some(order) = self.order_of_next(cursor).await {
                heap.push(Reverse((order, key)));
            } else {
                cursor.release();
            }
        }
        let births = std::mem::take(&mut self.births);
        for birth in births.values() {
            self.check_previous(birth);
        }
        Ok(())
    }

    /// The order of the cursor's next batch, after what is damaged before it was stepped over; `None` at the end.
    async fn order_of_next(&mut self, cursor: &mut Cursor<D::File>) -> Option<u64> {
        match cursor.batch().await {
            Ok(Some((head, _))) => return Some(head.order()),
            Ok(None) => {}
            Err(error) => self.damage(&format!("{}: {error}", segment_path(self.dir, cursor.slot).display())),
        }
        let torn_at = cursor.at;
        let begun = salvage::looks_begun(cursor, self.options.plant).await;
        match salvage::next_valid(&*cursor.file, cursor.life, cursor.at, cursor.sequence, self.options.plant).await {
            Some((at, head)) => {
                let path = segment_path(self.dir, cursor.slot).display().to_string();
                let (lost, bytes) = (head.sequence() - cursor.sequence, at - torn_at);
                self.damage(&format!(
                    "{path}: {lost} batches in {bytes} bytes at {torn_at} are damaged; what follows was salvaged"
                ));
                if let Some(segment) = self.found.books.segments.table.get_mut(&cursor.slot) {
                    segment.phase = Phase::Retired { damaged: true };
                }
                cursor.at = at;
                cursor.sequence = head.sequence();
                Some(head.order())
            }
            None => {
                self.report.torn += u64::from(begun);
                None
            }
        }
    }

    async fn replay_one(&mut self, cursor: &mut Cursor<D::File>) -> Result<(), OpenError> {
        let (slot, at) = (cursor.slot, cursor.at as u32);
        let Ok(Some((head, batch))) = cursor.batch().await else { return Ok(()) };
        let applied = self.found.books.apply(slot, at, batch, Some(&mut self.learned));
        let path = segment_path(self.dir, slot).display().to_string();
        match applied {
            Ok(_) => {}
            Err(unknown @ (BadRecord::Unknown(_) | BadRecord::Reserved)) => {
                return Err(OpenError::Version { path, what: unknown.to_string() });
            }
            Err(BadRecord::Malformed) => {
                let segment = self.found.books.segments.table.get_mut(&slot).expect("it is being read");
                segment.phase = Phase::Retired { damaged: true };
                self.damage(&format!("{path}: a record in the batch at {at} is malformed; the rest of it is skipped"));
            }
        }
        self.report.batches += 1;
        self.found.tail_bytes += head.disk_bytes() as u64;
        self.next_order = self.next_order.max(head.order() + 1);
        self.found.books.next_number = self.found.books.next_number.max(head.next_number());
        cursor.advance(&head);
        let segment = self.found.books.segments.table.get_mut(&slot).expect("it is being read");
        segment.used = cursor.at as u32;
        segment.batches = cursor.sequence;
        Ok(())
    }

    /// A segment must hold as many batches as the next one's superblock says.
    fn check_previous(&mut self, birth: &Birth) {
        let (generation, batches) = birth.previous;
        let table = &self.found.books.segments.table;
        let short = table.iter().find(|(_, segment)| {
            generation != 0 && segment.in_use() && segment.life.generation == generation && segment.batches < batches
        });
        if let Some((slot, segment)) = short {
            let (slot, lost) = (*slot, batches - segment.batches);
            self.damage(&format!("{}: its last {lost} batches are damaged", segment_path(self.dir, slot).display()));
            if let Some(segment) = self.found.books.segments.table.get_mut(&slot) {
                segment.phase = Phase::Retired { damaged: true };
            }
        }
    }

    fn conclude(mut self) -> Found<D> {
        let books = &mut self.found.books;
        let gone: Vec<u64> = books
            .index
            .from(0)
            .filter(|message| message.place.segment().is_none())
            .map(|message| message.number)
            .collect();
        for number in gone {
            books.finish(number);
        }
        books.segments.next_generation = self.next_generation;
        books.segments.next_order = self.next_order;
        books.rebuild_due();
        self.report.messages += books.index.len() as u64;
        self.report.envelopes += books.tally.open;
        self.found.revenants = self.learned.revenants;
        self.found
    }

    fn damage(&mut self, what: &str) {
        self.report.damage.push(what.to_owned());
    }

    fn disk_error(&self, path: &Path, source: io::Error) -> OpenError {
        OpenError::Disk { path: path.display().to_string(), source }
    }
}

impl<F: File> Cursor<F> {
    /// Gives its memory back.
    fn release(&mut self) {
        self.window = Vec::new();
    }
}
