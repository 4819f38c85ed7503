//! Segments between two lives: made ahead of need, marked free, given back. Nothing here is waited for by a commit unless no
//! segment is ready. The upkeep loop also decides when `checkpoint.rs` and `compact.rs` are due.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use zerocopy::IntoBytes;

use ringpost_io::{BLOCK_BYTES, Create, Disk, File};

use crate::envelope::{Space, SubmitError};
use crate::journal::segment::{Birth, Phase, Segment, Superblock};
use crate::journal::{Health, Slice};
use crate::limits;

impl<D: Disk> Slice<D> {
    /// Keeps spare segments ready, until the committer has ended.
    pub(crate) async fn make_loop<S: Future<Output = ()>>(&self, sleep: &impl Fn(Duration) -> S) {
        while !self.closed.get() {
            let make = self.signals.make.raised();
            let Some(bytes) = self.bytes_to_make().await else {
                make.await;
                continue;
            };
            let made = self.make(bytes).await;
            self.urgent.set(false);
            if let Err(error) = &made {
                self.make_error.set(Some(error.kind()));
                if error.kind() == io::ErrorKind::StorageFull {
                    self.free_bytes.set(0);
                }
            }
            self.signals.made.raise();
            if made.is_err() {
                or(sleep(limits::MAKE_AGAIN), make).await;
            }
        }
    }

    /// The size of the next segment to make, if one is needed. What somebody waits for is small and may use the reserve:
    /// new mail is refused long before, so it holds states.
    async fn bytes_to_make(&self) -> Option<u64> {
        let (free, known) = {
            let books = self.books.borrow();
            (books.segments.free().count(), books.segments.table.len())
        };
        if self.urgent.get() {
            return Some(self.options.starter_bytes());
        }
        let wanted = if self.own { self.options.spare_segments } else { 0 };
        if free >= wanted || self.stopping.get() {
            return None;
        }
        let bytes = if known == 0 { self.options.starter_bytes() } else { self.options.segment_bytes };
        self.look_at_space().await;
        (self.free_bytes.get() >= self.options.reserve_bytes.saturating_add(bytes)).then_some(bytes)
    }

    async fn make(&self, bytes: u64) -> io::Result<()> {
        for slot in self.junk.take() {
            self.remove_file(slot).await;
        }
        if !self.junk.borrow().is_empty() {
            // A disk that removes nothing makes nothing; trying would only leave more behind.
            return Err(io::ErrorKind::Other.into());
        }
        let slot = self.books.borrow().segments.unused_slot(&self.junk.borrow()).ok_or(io::ErrorKind::StorageFull)?;
        let path = self.path(slot);
        // Without a free one a commit may soon wait for it; with one it is the commits that must not wait for the disk.
        self.look_for_spare();
        let file = match self.disk.create(&path, bytes, Create::PrewrittenInRests(&self.has_spare)).await {
            Ok(file) => file,
            Err(error) => {
                // A part of it may be there; it would be taken for a segment, and takes the room that was short.
                self.remove_file(slot).await;
                return Err(error);
            }
        };
        self.files.borrow_mut().insert(slot, Rc::new(file));
        self.books.borrow_mut().segments.table.insert(slot, Segment::free(bytes));
        Ok(())
    }

    /// Whether the segment that is being made is the next that a batch will need.
    pub(crate) fn look_for_spare(&self) {
        self.has_spare.set(self.books.borrow().segments.free().next().is_some());
    }

    /// Frees, compacts, writes checkpoints, until the committer has ended; then a last checkpoint makes the next start quick.
    pub(crate) async fn upkeep_loop(&self) {
        loop {
            let upkeep = self.signals.upkeep.raised();
            self.books.borrow_mut().segments.changed = false;
            if self.free_one().await || self.give_back_one().await {
                continue;
            }
            if self.checkpoint_is_due() && self.checkpoint().await.is_ok() {
                continue;
            }
            if self.compact_one().await {
                continue;
            }
            if self.closed.get() {
                break;
            }
            upkeep.await;
        }
        if self.checkpoints.borrow().written > 0 && self.health.get() == Health::Good {
            // Without it the next start replays more.
            let _ = self.checkpoint().await;
        }
    }

    /// Ends the life of a segment that nothing needs any more.
    async fn free_one(&self) -> bool {
        let (slot, life, retired) = {
            let mut books = self.books.borrow_mut();
            let Some(slot) = books.segments.freeable() else { return false };
            let segment = books.segments.table.get_mut(&slot).expect("just found");
            let retired = matches!(segment.phase, Phase::Retired { .. });
            if !retired {
                segment.phase = Phase::Freeing;
            }
            (slot, segment.life, retired)
        };
        if retired {
            self.remove(slot).await;
            return true;
        }
        let next_number = self.books.borrow().next_number;
        let birth = Birth { role: None, life, created_ms: self.now_ms.get(), order: 0, next_number, previous: (0, 0) };
        let mut block = vec![0; BLOCK_BYTES];
        let superblock = Superblock::new(&birth, self.number);
        block[..superblock.as_bytes().len()].copy_from_slice(superblock.as_bytes());
        let file = self.file(slot).expect("a segment in use has a file");
        // In this order: a life without its first batch would look like corruption.
        let marked = match file.write_durable(0, &block).await {
            Ok(()) => file.write_durable(BLOCK_BYTES as u64, &vec![0; BLOCK_BYTES]).await,
            error => error,
        };
        let mut books = self.books.borrow_mut();
        match marked {
            Ok(()) => {
                let segment = books.segments.table.get_mut(&slot).expect("it was there");
                *segment = Segment::free(segment.bytes);
            }
            // It may still be believed at a start, so whatever needs it waits for a checkpoint.
            Err(_) => books.segments.fail(slot),
        }
        drop(books);
        self.look_for_spare();
        self.signals.made.raise();
        true
    }

    /// Gives free segments back that nobody will need soon: starters, and what is left from a flood.
    async fn give_back_one(&self) -> bool {
        let slot = {
            let books = self.books.borrow();
            let wanted = if self.own { self.options.spare_segments.max(1) } else { 0 };
            let free: Vec<(u16, u64)> = books.segments.free().map(|(slot, segment)| (slot, segment.bytes)).collect();
            let removable = free.iter().filter(|(slot, _)| !books.segments.listed.contains(slot));
            let small = removable.clone().filter(|(_, bytes)| *bytes < self.options.segment_bytes);
            match free.len() {
                count if count > wanted * limits::FREE_SEGMENTS_FACTOR => removable.map(|(slot, _)| *slot).max(),
                count if count > wanted => small.map(|(slot, _)| *slot).max(),
                _ => None,
            }
        };
        match slot {
            Some(slot) => {
                self.remove(slot).await;
                true
            }
            None => false,
        }
    }

    /// Removes a segment that is free or retired.
    pub(crate) async fn remove(&self, slot: u16) {
        if let Some(segment) = self.books.borrow_mut().segments.table.get_mut(&slot) {
            segment.phase = Phase::Freeing;
        }
        self.files.borrow_mut().remove(&slot);
        self.remove_file(slot).await;
        // Only now may the number be used for another file.
        self.books.borrow_mut().segments.table.remove(&slot);
    }

    /// What stays is tried again before the next file is made; a start would find it blank, free, or older than its
    /// checkpoint.
    async fn remove_file(&self, slot: u16) {
        match self.disk.remove(&self.path(slot)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => self.junk.borrow_mut().push(slot),
            _ => {}
        }
    }

    /// Looks at the free space, wakes who waits for it, and lets the upkeep look round.
    pub(crate) async fn check_space(&self) {
        self.look_at_space().await;
        self.signals.make.raise();
        self.signals.upkeep.raise();
    }

    async fn look_at_space(&self) {
        if let Ok(free) = self.disk.free_bytes(&self.dir).await {
            self.free_bytes.set(free);
        }
    }

    /// Low well before nothing can be written: states must always find room.
    pub(crate) fn space(&self) -> Space {
        let low = self.health.get() == Health::Broken || self.has_less_than(self.options.segment_bytes * 3 / 2);
        if low { Space::Low } else { Space::Enough }
    }

    /// Whether a message may be appended.
    pub(crate) fn accepting(&self) -> Result<(), SubmitError> {
        if self.closed.get() {
            return Err(SubmitError::Stopped);
        }
        if self.health.get() == Health::Broken {
            return Err(SubmitError::Disk);
        }
        match self.has_less_than(self.options.segment_bytes / 2) {
            true => Err(SubmitError::Full),
            false => Ok(()),
        }
    }

    /// No further segment may be made, and those there are have less room than this.
    fn has_less_than(&self, bytes: u64) -> bool {
        let may_make = self.free_bytes.get() >= self.options.reserve_bytes.saturating_add(self.options.segment_bytes);
        !may_make && self.books.borrow().segments.room_bytes() < bytes
    }
}
