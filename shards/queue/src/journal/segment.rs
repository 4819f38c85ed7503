//! Segments: fixed-size files, each written from front to back in one *life*, then recycled. Pure; who reads and writes
//! them is in `commit.rs`, `replay.rs` and `recycle.rs`.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use ringpost_io::BLOCK_BYTES;

use crate::journal::batch::Life;

/// First block of a segment. All zeros: never used.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Superblock {
    magic: U32,
    /// crc32c with this field zero.
    crc: U32,
    version: U32,
    slice: U32,
    /// 0 free, 1 new mail, 2 cold.
    use_: U32,
    /// Durable batches in the segment before it (of the same role).
    previous_batches: U32,
    generation: U64,
    stamp: U64,
    created_ms: U64,
    /// Order of its first batch.
    order: U64,
    next_number: U64,
    /// The segment that the same role filled before it; 0: none that we know of.
    previous_generation: U64,
}

const _: () = assert!(size_of::<Superblock>() == 72, "within one sector, so that it is never torn");
const MAGIC: u32 = u32::from_le_bytes(*b"RPs1");
/// Changes when an older version could misread a newer journal.
pub(crate) const VERSION: u32 = 1;

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth {
    /// `None`: it is free.
    pub(crate) role: Option<Role>,
    pub(crate) life: Life,
    pub(crate) created_ms: u64,
    pub(crate) order: u64,
    pub(crate) next_number: u64,
    /// Generation of the segment before it, and how many batches that one holds.
    pub(crate) previous: (u64, u32),
}

/// What the first block of a file is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FirstBlock {
    /// Only zeros.
    Blank,
    /// A superblock.
    Birth(Birth),
    /// A superblock of another version or slice.
    Foreign(u32),
    /// Damaged.
    Unreadable,
}

impl Superblock {
    /// Reads the first block.
    pub(crate) fn parse(block: &[u8], slice: u16) -> FirstBlock {
        if block.iter().all(|byte| *byte == 0) {
            return FirstBlock::Blank;
        }
        let Ok((found, _)) = Self::read_from_prefix(block) else { return FirstBlock::Unreadable };
        if found.magic.get() != MAGIC || found.checksum() != found.crc.get() {
            return FirstBlock::Unreadable;
        }
        let role = match found.use_.get() {
            0 => None,
            1 => Some(Role::Hot),
            2 => Some(Role::Cold),
            _ => return FirstBlock::Foreign(found.version.get()),
        };
        if found.version.get() != VERSION || found.slice.get() != u32::from(slice) {
            return FirstBlock::Foreign(found.version.get());
        }
        FirstBlock::Birth(Birth {
            role,
            life: Life { generation: found.generation.get(), stamp: found.stamp.get() },
            created_ms: found.created_ms.get(),
            order: found.order.get(),
            next_number: found.next_number.get(),
            previous: (found.previous_generation.get(), found.previous_batches.get()),
        })
    }

    /// Writes it.
    pub(crate) fn new(birth: &Birth, slice: u16) -> Self {
        let use_ = match birth.role {
            None => 0,
            Some(Role::Hot) => 1,
            Some(Role::Cold) => 2,
        };
        let block = Self {
            magic: MAGIC.into(),
            crc: U32::ZERO,
            version: VERSION.into(),
            slice: u32::from(slice).into(),
            use_: use_.into(),
            previous_batches: birth.previous.1.into(),
            generation: birth.life.generation.into(),
            stamp: birth.life.stamp.into(),
            created_ms: birth.created_ms.into(),
            order: birth.order.into(),
            next_number: birth.next_number.into(),
            previous_generation: birth.previous.0.into(),
        };
        Self { crc: block.checksum().into(), ..block }
    }

    fn checksum(&self) -> u32 {
        crc32c::crc32c(Self { crc: U32::ZERO, ..*self }.as_bytes())
    }
}

/// Who fills a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// New mail and states.
    Hot = 0,
    /// Long-lived mail that was moved.
    Cold = 1,
}

/// Where a segment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between two lives.
    Free,
    /// Being filled.
    Filling,
    /// Full, or from an earlier run of the program: only read.
    Sealed,
    /// Being freed: no longer read, not yet written.
    Freeing,
    /// Failed or damaged: never written again, removed when nothing of it is needed. Damaged ones stay.
    Retired {
        /// Kept for somebody to look at.
        damaged: bool,
    },
}

/// What is known of a segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) bytes: u64,
    pub(crate) phase: Phase,
    pub(crate) role: Role,
    pub(crate) life: Life,
    /// End of its last durable batch.
    pub(crate) used: u32,
    /// Durable batches.
    pub(crate) batches: u32,
    /// Records in it that are the truth about something.
    pub(crate) live: u32,
    /// About how many bytes those are.
    pub(crate) live_bytes: u64,
    /// Reads in flight.
    pub(crate) pins: u32,
    /// What a compaction could not move; not tried again before something of it has left.
    pub(crate) stuck: u32,
    /// A checkpoint says all that its states said.
    pub(crate) covered: bool,
    /// Generations that hold dead messages which only this one says are dead. It is not freed before they are.
    pub(crate) needs: Vec<u64>,
    /// What its superblock said of the one before it.
    pub(crate) previous: (u64, u32),
}

/// All segments of a slice, by number.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    pub(crate) table: BTreeMap<u16, Segment>,
    /// The one that each role fills.
    filling: [Option<u16>; 2],
    /// The last one that each role filled in this run.
    last: [(u64, u32); 2],
    pub(crate) next_generation: u64,
    pub(crate) next_order: u64,
    /// Something may be freed.
    pub(crate) changed: bool,
    /// Segments in which the checkpoint knows mail: a file of them that is not there would be missed at a start.
    pub(crate) listed: BTreeSet<u16>,
    stamps: u64,
}

/// Live bytes that a state record is counted as.
const STATE_BYTES: u64 = 64;

impl Segment {
    /// A file between two lives.
    pub(crate) fn free(bytes: u64) -> Self {
        Self {
            bytes,
            phase: Phase::Free,
            role: Role::Hot,
            life: Life { generation: 0, stamp: 0 },
            used: BLOCK_BYTES as u32,
            batches: 0,
            live: 0,
            live_bytes: 0,
            pins: 0,
            stuck: u32::MAX,
            covered: false,
            needs: Vec::new(),
            previous: (0, 0),
        }
    }

    /// Holds, or may hold, records that a replay would believe.
    pub(crate) fn in_use(&self) -> bool {
        self.phase != Phase::Free
    }

    fn fits(&self, bytes: usize) -> bool {
        u64::from(self.used) + bytes as u64 <= self.bytes
    }
}

impl Segments {
    /// Randomness for stamps.
    pub(crate) fn seed(&mut self, seed: u64) {
        self.stamps = seed;
    }

    /// The segment this role fills, if so much fits in.
    pub(crate) fn fitting(&self, role: Role, bytes: usize) -> Option<u16> {
        let slot = self.filling[role as usize]?;
        self.table.get(&slot)?.fits(bytes).then_some(slot)
    }

    /// Seals what the role fills and begins a free segment's next life. The smallest that fits is taken for cold mail,
    /// the largest for new.
    pub(crate) fn take(&mut self, role: Role, bytes: usize) -> Option<u16> {
        let free = self
            .table
            .iter()
            .filter(|(_, segment)| segment.phase == Phase::Free && BLOCK_BYTES as u64 + bytes as u64 <= segment.bytes);
        let slot = match role {
            Role::Hot => *free.max_by_key(|(slot, segment)| (segment.bytes, u16::MAX - **slot))?.0,
            Role::Cold => *free.min_by_key(|(slot, segment)| (segment.bytes, **slot))?.0,
        };
        self.seal(role);
        let life = Life { generation: self.next_generation, stamp: self.stamp() };
        self.next_generation += 1;
        let segment = self.table.get_mut(&slot).expect("just found");
        let previous = self.last[role as usize];
        *segment = Segment { phase: Phase::Filling, role, life, previous, ..Segment::free(segment.bytes) };
        self.filling[role as usize] = Some(slot);
        Some(slot)
    }

    /// The role fills this segment no more.
    pub(crate) fn seal(&mut self, role: Role) {
        if let Some(slot) = self.filling[role as usize].take() {
            let segment = self.table.get_mut(&slot).expect("segments in use stay in the table");
            segment.phase = Phase::Sealed;
            self.last[role as usize] = (segment.life.generation, segment.batches);
            self.changed = true;
        }
    }

    /// A write failed: never written again.
    pub(crate) fn fail(&mut self, slot: u16) {
        let segment = self.table.get_mut(&slot).expect("segments in use stay in the table");
        let (role, ended) = (segment.role, (segment.life.generation, segment.batches));
        segment.phase = Phase::Retired { damaged: false };
        if self.filling[role as usize] == Some(slot) {
            self.filling[role as usize] = None;
            self.last[role as usize] = ended;
        }
        self.changed = true;
    }

    /// The segment's order of batches and what its superblock must say.
    pub(crate) fn next_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order - 1
    }

    /// One more record there is the truth.
    pub(crate) fn add_live(&mut self, slot: Option<u16>, bytes: u64) {
        if let Some(segment) = slot.and_then(|slot| self.table.get_mut(&slot)) {
            segment.live += 1;
            segment.live_bytes += bytes;
        }
    }

    /// One fewer.
    pub(crate) fn sub_live(&mut self, slot: Option<u16>, bytes: u64) {
        if let Some(segment) = slot.and_then(|slot| self.table.get_mut(&slot)) {
            debug_assert!(segment.live > 0, "each record is counted once");
            segment.live = segment.live.saturating_sub(1);
            segment.live_bytes = segment.live_bytes.saturating_sub(bytes);
            self.changed |= segment.live == 0 && segment.phase != Phase::Filling;
        }
    }

    /// Like `add_live`, for a state.
    pub(crate) fn add_state(&mut self, slot: Option<u16>) {
        self.add_live(slot, STATE_BYTES);
    }

    /// Like `sub_live`, for a state.
    pub(crate) fn sub_state(&mut self, slot: Option<u16>) {
        self.sub_live(slot, STATE_BYTES);
    }

    /// A read begins: the segment is not freed before `unpin`. False: that life of it is over, or is being ended.
    #[must_use]
    pub(crate) fn pin(&mut self, slot: u16, generation: u64) -> bool {
        let alive = |segment: &&mut Segment| {
            segment.life.generation == generation && !matches!(segment.phase, Phase::Free | Phase::Freeing)
        };
        match self.table.get_mut(&slot).filter(alive) {
            Some(segment) => {
                segment.pins += 1;
                true
            }
            None => false,
        }
    }

    /// A read ends.
    pub(crate) fn unpin(&mut self, slot: u16) {
        let segment = self.table.get_mut(&slot).expect("a pinned segment stays in the table");
        segment.pins -= 1;
        self.changed |= segment.pins == 0;
    }

    /// `slot` says of dead messages in the segment with that generation that they are dead.
    pub(crate) fn need(&mut self, slot: u16, generation: u64) {
        if let Some(segment) = self.table.get_mut(&slot)
            && segment.life.generation != generation
            && !segment.covered
            && !segment.needs.contains(&generation)
        {
            segment.needs.push(generation);
        }
    }

    /// The generation of a segment that is in use.
    pub(crate) fn generation(&self, slot: u16) -> Option<u64> {
        self.table.get(&slot).filter(|segment| segment.in_use()).map(|segment| segment.life.generation)
    }

    /// A segment with nothing live, that nobody reads and nothing needs. None while a segment that failed may still be
    /// believed at a start.
    pub(crate) fn freeable(&self) -> Option<u16> {
        if self.has_uncovered_failure() {
            return None;
        }
        let ready = |slot: u16, segment: &Segment| match segment.phase {
            Phase::Sealed => !self.is_needed(segment),
            // Its file is removed.
            _ => !self.listed.contains(&slot),
        };
        let mut done = self.table.iter().filter(|(_, segment)| self.is_done(segment));
        done.find(|(slot, segment)| ready(**slot, segment)).map(|(slot, _)| *slot)
    }

    /// A segment has failed, or was found damaged, since the last checkpoint.
    pub(crate) fn has_uncovered_failure(&self) -> bool {
        let mut all = self.table.values();
        all.any(|segment| matches!(segment.phase, Phase::Retired { .. }) && !segment.covered)
    }

    /// How many are kept only by what a checkpoint would take over.
    pub(crate) fn blocked(&self) -> usize {
        self.table.values().filter(|segment| self.is_done(segment) && self.is_needed(segment)).count()
    }

    fn is_done(&self, segment: &Segment) -> bool {
        let removable = matches!(segment.phase, Phase::Sealed | Phase::Retired { damaged: false });
        removable && segment.live == 0 && segment.pins == 0
    }

    fn is_needed(&self, segment: &Segment) -> bool {
        !segment.covered && segment.needs.iter().any(|generation| self.has_generation(*generation))
    }

    fn has_generation(&self, generation: u64) -> bool {
        self.table.values().any(|segment| segment.in_use() && segment.life.generation == generation)
    }

    /// Free ones.
    pub(crate) fn free(&self) -> impl Iterator<Item = (u16, &Segment)> {
        self.table.iter().filter(|(_, segment)| segment.phase == Phase::Free).map(|(slot, segment)| (*slot, segment))
    }

    /// Bytes left in the segment that new mail fills.
    pub(crate) fn left_bytes(&self) -> u64 {
        let filling = self.filling[Role::Hot as usize].and_then(|slot| self.table.get(&slot));
        filling.map_or(0, |segment| segment.bytes - u64::from(segment.used))
    }

    /// Bytes that new mail can still take without another file.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.left_bytes() + self.free().map(|(_, segment)| segment.bytes - BLOCK_BYTES as u64).sum::<u64>()
    }

    /// Bytes of files in use, live bytes, and how many files those are.
    pub(crate) fn sums(&self) -> (u64, u64, u64) {
        let used = self.table.values().filter(|segment| segment.in_use());
        used.fold((0, 0, 0), |sum, segment| (sum.0 + segment.bytes, sum.1 + segment.live_bytes, sum.2 + 1))
    }

    /// A number for a new file; not one of `taken`.
    pub(crate) fn unused_slot(&self, taken: &[u16]) -> Option<u16> {
        (0..crate::limits::SLOTS_MAX).find(|slot| !self.table.contains_key(slot) && !taken.contains(slot))
    }

    /// splitmix64 (Steele, Lea, Flood 2014) over the seed.
    fn stamp(&mut self) -> u64 {
        self.stamps = self.stamps.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.stamps ^ self.next_generation.rotate_left(32);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Segments {
        let mut segments = Segments { next_generation: 1, ..Segments::default() };
        segments.table.insert(0, Segment::free(1 << 20));
        segments.table.insert(1, Segment::free(1 << 20));
        segments
    }

    #[test]
    fn a_superblock_reads_back_and_is_refused_when_it_is_not_ours() {
        let life = Life { generation: 3, stamp: 4 };
        let birth = Birth { role: Some(Role::Cold), life, created_ms: 5, order: 6, next_number: 7, previous: (2, 9) };
        let bytes = Superblock::new(&birth, 1).as_bytes().to_vec();
        assert_eq!(Superblock::parse(&bytes, 1), FirstBlock::Birth(birth));
        assert_eq!(Superblock::parse(&bytes, 2), FirstBlock::Foreign(VERSION));
        assert_eq!(Superblock::parse(&[0; 4096], 1), FirstBlock::Blank);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(Superblock::parse(&changed, 1), FirstBlock::Unreadable);
        }
    }

    #[test]
    fn a_segment_that_says_who_is_dead_outlives_the_dead() {
        let mut segments = two();
        let first = segments.take(Role::Hot, 4096).expect("free");
        let second = segments.take(Role::Hot, 4096).expect("free");
        let generation = segments.generation(first).expect("in use");
        segments.seal(Role::Hot);
        segments.need(second, generation);
        segments.add_live(Some(first), 10);
        assert_eq!((segments.freeable(), segments.blocked()), (None, 1));
        segments.table.get_mut(&second).expect("there").covered = true;
        assert_eq!((segments.freeable(), segments.blocked()), (Some(second), 0));
        segments.table.get_mut(&second).expect("there").covered = false;
        segments.sub_live(Some(first), 10);
        assert_eq!(segments.freeable(), Some(first));
        segments.table.get_mut(&first).expect("there").phase = Phase::Free;
        assert_eq!(segments.freeable(), Some(second));
    }

    #[test]
    fn nobody_begins_to_read_what_is_being_freed() {
        let mut segments = two();
        let slot = segments.take(Role::Hot, 4096).expect("free");
        let generation = segments.generation(slot).expect("in use");
        segments.seal(Role::Hot);
        assert!(segments.pin(slot, generation) && !segments.pin(slot, generation + 1));
        assert_eq!(segments.freeable(), None);
        segments.unpin(slot);
        assert_eq!(segments.freeable(), Some(slot));
        segments.table.get_mut(&slot).expect("there").phase = Phase::Freeing;
        assert!(!segments.pin(slot, generation));
    }

    #[test]
    fn nothing_is_freed_between_a_failure_and_a_checkpoint() {
        let mut segments = two();
        let other = segments.take(Role::Cold, 4096).expect("free");
        segments.seal(Role::Cold);
        assert_eq!(segments.freeable(), Some(other));
        let slot = segments.take(Role::Hot, 4096).expect("free");
        segments.fail(slot);
        assert_eq!((segments.fitting(Role::Hot, 1), segments.freeable()), (None, None));
        segments.table.remove(&other);
        segments.table.get_mut(&slot).expect("there").covered = true;
        assert_eq!(segments.freeable(), Some(slot));
    }
}
