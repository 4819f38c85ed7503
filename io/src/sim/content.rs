//! What is in a simulated file: blocks as a reader sees them, and what is on the disk where that differs.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::random::Random;
use crate::BLOCK_BYTES;

type Block = Rc<[u8; BLOCK_BYTES]>;

/// A disk writes a sector of 512 bytes or does not; a block of eight it may cut.
const SECTOR_BYTES: usize = 512;

/// A block that was never written is all zeros, and not stored.
pub(super) struct Content {
    bytes: u64,
    blocks: BTreeMap<u64, Block>,
    volatile: BTreeMap<u64, Volatile>,
    /// Bytes of an unpublished file that a crash cannot take away.
    bytes_durable: u64,
}

/// A block that a crash may change back.
struct Volatile {
    durable: Option<Block>,
    surely_lost: bool,
}

/// How a block was written.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// On the disk.
    Durable,
    /// Not at all.
    Absent,
    /// In the cache.
    Volatile {
        /// Or not even there: a crash takes it back for certain.
        surely_lost: bool,
    },
}

impl Content {
    pub(super) fn zeros(bytes: u64) -> Self {
        Self { bytes, blocks: BTreeMap::new(), volatile: BTreeMap::new(), bytes_durable: bytes }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let end = self.bytes.min(at.saturating_add(len as u64));
        let mut read = Vec::with_capacity(end.saturating_sub(at) as usize);
        let mut place = at;
        while place < end {
            let (number, from) = split(place);
            let take = (BLOCK_BYTES - from).min((end - place) as usize);
            match self.blocks.get(&number) {
                Some(block) => read.extend_from_slice(&block[from..from + take]),
                None => read.resize(read.len() + take, 0),
            }
            place += take as u64;
        }
        read
    }

    /// Writes whole blocks; `fate` is asked for each.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8], mut fate: impl FnMut() -> Fate) {
        let (first, _) = split(at);
        for (number, bytes) in (first..).zip(bytes.as_chunks::<BLOCK_BYTES>().0) {
            match fate() {
                Fate::Absent => {}
                Fate::Durable => {
                    self.volatile.remove(&number);
                    self.blocks.insert(number, Rc::new(*bytes));
                }
                Fate::Volatile { surely_lost } => {
                    self.make_volatile(number, surely_lost);
                    self.blocks.insert(number, Rc::new(*bytes));
                }
            }
        }
    }

    /// Adds bytes at the end, to the cache.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() {
            let (number, from) = split(self.bytes);
            let take = (BLOCK_BYTES - from).min(left.len());
            self.make_volatile(number, false);
            let block = self.blocks.entry(number).or_insert_with(|| Rc::new([0; BLOCK_BYTES]));
            Rc::make_mut(block)[from..from + take].copy_from_slice(&left[..take]);
            self.bytes += take as u64;
            left = &left[take..];
        }
    }

    /// Makes everything durable, or says so.
    pub(super) fn settle(&mut self, lie: bool) {
        self.bytes_durable = self.bytes;
        if lie {
            self.volatile.values_mut().for_each(|volatile| volatile.surely_lost = true);
        } else {
            self.volatile.clear();
        }
    }

    pub(super) fn invert(&mut self, at: u64) {
        let (number, from) = split(at);
        let block = self.blocks.entry(number).or_insert_with(|| Rc::new([0; BLOCK_BYTES]));
        Rc::make_mut(block)[from] ^= 1 << (at % 8);
    }

    /// Decides about everything that is not durable.
    pub(super) fn crash(&mut self, random: &mut Random) {
        for (number, volatile) in std::mem::take(&mut self.volatile) {
            let old = volatile.durable;
            let kept = match (volatile.surely_lost, random.below(3)) {
                (true, _) | (false, 0) => old,
                (false, 1) => continue,
                (false, _) => {
                    let mut torn = old.unwrap_or_else(|| Rc::new([0; BLOCK_BYTES]));
                    if let Some(new) = self.blocks.get(&number) {
                        tear(Rc::make_mut(&mut torn), new, random);
                    }
                    Some(torn)
                }
            };
            match kept {
                Some(block) => drop(self.blocks.insert(number, block)),
                None => drop(self.blocks.remove(&number)),
            }
        }
        // An unpublished file has lost some of its end.
        let lost = random.below(self.bytes - self.bytes_durable + 1);
        self.bytes -= lost;
        self.bytes_durable = self.bytes;
    }

    fn make_volatile(&mut self, number: u64, surely_lost: bool) {
        let durable = self.blocks.get(&number).cloned();
        let volatile = self.volatile.entry(number).or_insert(Volatile { durable, surely_lost });
        volatile.surely_lost |= surely_lost;
    }
}

/// Some sectors of the new block have reached the disk.
fn tear(old: &mut [u8; BLOCK_BYTES], new: &[u8; BLOCK_BYTES], random: &mut Random) {
    let sectors = old.as_chunks_mut::<SECTOR_BYTES>().0.iter_mut().zip(new.as_chunks::<SECTOR_BYTES>().0);
    for (old, new) in sectors {
        if random.chance(0.5) {
            *old = *new;
        }
    }
}

fn split(at: u64) -> (u64, usize) {
    (at / BLOCK_BYTES as u64, (at % BLOCK_BYTES as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> Vec<u8> {
        vec![byte; BLOCK_BYTES]
    }

    #[test]
    fn reads_across_blocks_and_stops_at_the_end() {
        let mut content = Content::zeros(3 * BLOCK_BYTES as u64);
        content.write(BLOCK_BYTES as u64, &block(7), || Fate::Durable);
        let read = content.read(BLOCK_BYTES as u64 - 2, BLOCK_BYTES + 4);
        assert_eq!((&read[..3], &read[BLOCK_BYTES..]), (&[0, 0, 7][..], &[7, 7, 0, 0][..]));
        assert_eq!(content.read(content.bytes() - 1, 10), [0]);
        assert!(content.read(content.bytes() + 1, 10).is_empty());
    }

    #[test]
    fn a_crash_keeps_what_is_durable_and_chooses_about_the_rest() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..300 {
            let mut content = Content::zeros(2 * BLOCK_BYTES as u64);
            content.write(0, &[block(1), block(1)].concat(), || Fate::Durable);
            content.write(BLOCK_BYTES as u64, &block(2), || Fate::Volatile { surely_lost: false });
            content.crash(&mut Random::new(seed));
            assert_eq!(content.read(0, BLOCK_BYTES), block(1));
            let after = content.read(BLOCK_BYTES as u64, BLOCK_BYTES);
            match after.iter().filter(|&&byte| byte == 2).count() {
                0 => lost += 1,
                BLOCK_BYTES => kept += 1,
                some => {
                    assert_eq!(some % SECTOR_BYTES, 0);
                    torn += 1;
                }
            }
        }
        assert!(kept > 50 && lost > 50 && torn > 50, "{kept} {lost} {torn}");
    }

    #[test]
    fn a_durable_write_over_a_doubtful_one_is_durable() {
        for seed in 0..50 {
            let mut content = Content::zeros(BLOCK_BYTES as u64);
            content.write(0, &block(1), || Fate::Volatile { surely_lost: true });
            content.write(0, &block(2), || Fate::Durable);
            content.crash(&mut Random::new(seed));
            assert_eq!(content.read(0, BLOCK_BYTES), block(2));
        }
    }

    #[test]
    fn a_lie_is_found_out() {
        let mut content = Content::zeros(BLOCK_BYTES as u64);
        content.write(0, &block(1), || Fate::Durable);
        content.write(0, &block(2), || Fate::Volatile { surely_lost: true });
        assert_eq!(content.read(0, 1), [2]);
        content.crash(&mut Random::new(1));
        assert_eq!(content.read(0, BLOCK_BYTES), block(1));
    }
}
