//! The journal: a slice of the queue on disk.
//!
//! # Words
//! *Appended*: in the open batch, in memory. *Written*: handed to the disk. *Durable*: the disk has said so. Nobody is told
//! 250 before durable.
//!
//! # Files
//! `slice-NN/NNNNN.seg`: segments, pre-written once and recycled. `slice-NN/index.ckpt`: the index as it was at some moment.
//!
//! # A segment
//! One block of superblock, then batches, each at a multiple of 4 KiB, written from front to back in one *life*. A life has a
//! *generation*, which counts all lives of all segments of the slice, and a random *stamp*; both are in every batch and in
//! its crc32c, so neither leftovers of an earlier life nor look-alikes inside of mail are taken for batches. The superblock
//! is written together with the first batch, in one write; so a new segment costs no write of its own. A segment is
//! written by one run of the program only: after a start the tail of the last one is never written over.
//!
//! # Order
//! A batch has a *sequence* in its life (0, 1, 2 …) and an *order* in the slice. Within a segment a replay follows the
//! sequence; between segments it merges by order, since cold segments are filled while hot ones come and go. Gaps in the
//! order mean nothing: a batch that failed has used one up.
//!
//! One batch of new mail is in flight at a time. So a valid batch proves that all before it in its segment were durable;
//! an invalid batch with a valid one behind it is corruption, and so is a segment with fewer batches than the superblock of
//! the next one says. An invalid batch at the end is a torn tail: nobody was answered.
//!
//! # A write that fails
//! The segment (A) is never written again; what is durable in it stays readable. The batch is sealed once more, with the
//! next order, as the first of a fresh segment (B). A may hold it too, whole or torn:
//! - torn: A's replay ends there. B does not continue A's sequence, so nothing of B is lost by that; and B's superblock
//!   counts A's batches without it, so it is not reported as corruption.
//! - whole: a replay meets its messages twice, with the same ids. The later copy, in B, is the place; states are absolute
//!   and later ones win.
//!
//! If B fails too, everybody in the batch is told 451 and nothing of it enters the books. Its states are tried again with
//! the next batch, and with them goes a `gone` record for each of its messages, so that a later start does not believe A or
//! B. A crash before that record is durable may bring such a message back: it is then delivered although its client was
//! told to try again, which "at least once" allows.
//!
//! Whatever a failed segment holds behind its last durable batch, nothing that could be said against it, and nothing that it
//! refers to, is freed before a checkpoint has been written: from then on a start does not look at that segment's tail.
//!
//! # What is live, and when a segment is freed
//! Live are: the latest copy of each message that has not ended, its chunks, and for each of its envelopes the latest state.
//! A segment with nothing live is freed: first its superblock is overwritten with one that says so, durably; then its first
//! batch is erased; then it is written again. But the states of *ended* messages must not go before the messages do, or a
//! start would bring those back, and their chunks must not go before the states are durable, or it would bring them back
//! without their text. So each segment remembers the generations that it *needs*: homes of messages whose end
//! it records, older copies of messages that it holds. It is freed after them, or once a *checkpoint* covers it: then its
//! states are not needed, since a start begins from there.
//!
//! A checkpoint lists the segments in use with how far they were filled, and all messages. A start reads it, and replays
//! only what came after. A message of the checkpoint whose segment has since begun another life had ended, or it would have
//! been moved. Without a readable checkpoint all segments are replayed, and at worst some mail is delivered twice.
//!
//! A segment that is mostly dead but not quite is compacted: what is live in it is copied to a *cold* segment. Copies that
//! became stale before their batch is sealed are voided in it; a message that ended while its copy was being written is
//! owed a `gone` record.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringpost_io::{Disk, Signal};

use crate::envelope::SubmitError;
use crate::journal::batch::Batch;
use crate::journal::books::Books;
use crate::options::Options;

pub(crate) mod batch;
pub(crate) mod books;
pub(crate) mod checkpoint;
pub(crate) mod commit;
pub(crate) mod compact;
pub(crate) mod record;
pub(crate) mod recycle;
pub(crate) mod replay;
pub(crate) mod salvage;
pub(crate) mod segment;
pub(crate) mod state;

/// One slice: its books, its files and its open batch. What happens to it is in the files of this folder.
pub(crate) struct Slice<D: Disk> {
    pub(crate) number: u16,
    pub(crate) dir: PathBuf,
    pub(crate) disk: D,
    pub(crate) options: Options,
    pub(crate) books: Rc<RefCell<Books>>,
    pub(crate) files: RefCell<BTreeMap<u16, Rc<D::File>>>,
    /// What the next write takes along.
    pub(crate) open: RefCell<Open>,
    /// Who waits for the write in flight.
    pub(crate) in_flight: RefCell<Option<Rc<Done>>>,
    /// The buffer that is not in use.
    pub(crate) spare_buffer: RefCell<Vec<u8>>,
    pub(crate) health: Cell<Health>,
    pub(crate) signals: Signals,
    /// Lazy states are to be written now.
    pub(crate) flush_now: Cell<bool>,
    pub(crate) stopping: Cell<bool>,
    /// The committer has ended: nothing will be written any more.
    pub(crate) closed: Cell<bool>,
    /// A batch waits for a segment to be made.
    pub(crate) urgent: Cell<bool>,
    /// There is another free segment while one is made, so that it may take its time.
    pub(crate) has_spare: Cell<bool>,
    /// Why the last segment could not be made.
    pub(crate) make_error: Cell<Option<std::io::ErrorKind>>,
    /// Free bytes of the file system when last looked at.
    pub(crate) free_bytes: Cell<u64>,
    pub(crate) checkpoints: RefCell<checkpoint::Progress>,
    pub(crate) now_ms: Cell<u64>,
    pub(crate) batches: Cell<u64>,
    /// Whether it keeps spare segments: only the slice that takes new mail does.
    pub(crate) own: bool,
    /// Files of no use, to be removed.
    pub(crate) junk: RefCell<Vec<u16>>,
}

/// The batch that gathers while another is in flight.
pub(crate) struct Open {
    pub(crate) batch: Batch,
    /// Somebody waits for it.
    pub(crate) awaited: bool,
    pub(crate) done: Rc<Done>,
    /// States that found the batch full.
    pub(crate) overflow: Batch,
}

/// Whom to wake.
#[derive(Default)]
pub(crate) struct Signals {
    /// The committer: a batch is wanted.
    pub(crate) work: Signal,
    /// Submitters: there is a new open batch.
    pub(crate) room: Signal,
    /// The flusher: a lazy state waits.
    pub(crate) lazy: Signal,
    /// The maker of segments.
    pub(crate) make: Signal,
    /// Who waits for a segment.
    pub(crate) made: Signal,
    /// Recycling, checkpoints, compaction.
    pub(crate) upkeep: Signal,
    /// The caller: something may be due earlier than it was told. The same for all slices.
    pub(crate) due: Signal,
}

/// Whether the disk writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// As far as we know.
    Good,
    /// It failed twice in a row: nothing is accepted until a probe succeeds.
    Broken,
}

/// Where a durable batch begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Landing {
    pub(crate) slot: u16,
    pub(crate) at: u32,
    pub(crate) generation: u64,
}

/// How a batch ended: one for all that wait for it.
#[derive(Default)]
pub(crate) struct Done {
    outcome: Cell<Option<Result<Landing, SubmitError>>>,
    ended: Signal,
}

impl Done {
    /// Ends at the end of the batch.
    pub(crate) async fn wait(&self) -> Result<Landing, SubmitError> {
        loop {
            let ended = self.ended.raised();
            if let Some(outcome) = self.outcome.get() {
                return outcome;
            }
            ended.await;
        }
    }

    pub(crate) fn tell(&self, outcome: Result<Landing, SubmitError>) {
        self.outcome.set(Some(outcome));
        self.ended.raise();
    }
}

impl Open {
    pub(crate) fn new(buffer: Vec<u8>) -> Self {
        Self { batch: Batch::new(buffer), awaited: false, done: Rc::default(), overflow: Batch::new(Vec::new()) }
    }
}

impl<D: Disk> Slice<D> {
    pub(crate) fn path(&self, slot: u16) -> PathBuf {
        segment_path(&self.dir, slot)
    }

    pub(crate) fn file(&self, slot: u16) -> Option<Rc<D::File>> {
        self.files.borrow().get(&slot).cloned()
    }

    /// Wakes the upkeep if the books say that there may be something to do.
    pub(crate) fn after_books(&self) {
        if std::mem::take(&mut self.books.borrow_mut().segments.changed) {
            self.signals.upkeep.raise();
        }
    }
}

/// The folder of a slice.
pub(crate) fn slice_dir(dir: &Path, slice: u16) -> PathBuf {
    dir.join(format!("slice-{slice:02}"))
}

/// The number in the name of a slice's folder.
pub(crate) fn slice_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("slice-")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// A segment's file.
pub(crate) fn segment_path(dir: &Path, slot: u16) -> PathBuf {
    dir.join(format!("{slot:05}.seg"))
}

/// The number in a segment's name.
pub(crate) fn segment_slot(name: &str) -> Option<u16> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 5).then(|| digits.parse().ok())?
}
