//! What an administrator may choose about the queue.

use std::time::Duration;

use ringpost_io::BLOCK_BYTES;

use crate::limits;
use crate::scheduler::Backend;

/// Settings of a queue; see `limits.rs` for the reasons of the defaults. What makes no sense is corrected on opening.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of a segment in bytes.
    pub segment_bytes: u64,
    /// Segments kept ready, so that no batch waits for one to be pre-written.
    pub spare_segments: usize,
    /// Bytes in one batch.
    pub batch_bytes_max: usize,
    /// Time until a state record that no batch has taken along is flushed.
    pub state_delay: Duration,
    /// Free bytes of the file system that mail may not use.
    pub reserve_bytes: u64,
    /// Bytes written between two checkpoints.
    pub checkpoint_bytes: u64,
    /// Randomness for the stamps that tell our batches from look-alikes inside of mail.
    pub seed: u64,
    /// Says when what waits is due.
    pub scheduler: Backend,
    /// Test-only fault.
    pub plant: Plant,
}

/// A bug planted on purpose, to prove that the simulation would find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// No bug.
    #[default]
    None,
    /// The checksum leaves out which life of the segment a batch belongs to, and the reader does not look either:
    /// leftovers of a recycled segment's earlier life look valid.
    GenerationOutsideCrc,
    /// Of what is claimed, one message in some is not handed over: it waits for ever, unless somebody notices.
    ForgetsClaims,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: limits::SEGMENT_BYTES,
            spare_segments: limits::SPARE_SEGMENTS,
            batch_bytes_max: limits::BATCH_BYTES_MAX,
            state_delay: limits::STATE_DELAY,
            reserve_bytes: limits::RESERVE_BYTES,
            checkpoint_bytes: limits::CHECKPOINT_BYTES,
            seed: 0,
            scheduler: Backend::default(),
            plant: Plant::None,
        }
    }
}

impl Options {
    /// Within the bounds, whole blocks, and a batch fits a starter segment with its superblock.
    pub(crate) fn checked(mut self) -> Self {
        let block = BLOCK_BYTES as u64;
        let bytes = self.segment_bytes.clamp(limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX);
        self.segment_bytes = bytes / block * block;
        let fits = (self.starter_bytes() - block) as usize;
        self.batch_bytes_max = self.batch_bytes_max.clamp(8 * BLOCK_BYTES, fits) / BLOCK_BYTES * BLOCK_BYTES;
        self
    }

    /// Size of a segment that is made while somebody waits.
    pub(crate) fn starter_bytes(&self) -> u64 {
        self.segment_bytes.min(limits::STARTER_BYTES)
    }

    /// Bytes of a batch that mail may use; the rest is for states.
    pub(crate) fn mail_bytes_max(&self) -> usize {
        self.batch_bytes_max - self.batch_bytes_max / limits::STATES_SHARE
    }

    /// Longest chunk: a quarter of a batch at most, so that several sessions share one.
    pub(crate) fn chunk_bytes_max(&self) -> usize {
        limits::CHUNK_BYTES_MAX.min(self.batch_bytes_max / 4)
    }

    /// Longest text that lies in one piece with its message.
    pub(crate) fn inline_bytes_max(&self) -> usize {
        limits::INLINE_TEXT_BYTES_MAX.min(self.batch_bytes_max / 4)
    }
}
