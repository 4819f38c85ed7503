//! The index of a slice: where each message lies and how its envelopes stand. No text, no strings: those are on disk.
//!
//! Numbers grow, so entries are kept in sorted pages that fill up from the back. A page that loses most of its entries
//! shrinks, so a message that stays while its neighbours leave costs its own entry and a share of a page (S124).

use std::collections::BTreeMap;

use crate::envelope::{Listed, Status};
use crate::id::MessageId;
use crate::journal::record::ChunkPlace;
use crate::told::Told;

/// A place in a segment of this slice. Packed, so that an [`Envelope`] has no gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed(2))]
pub(crate) struct Place {
    /// Bytes from the start of the segment.
    pub(crate) offset: u32,
    /// The segment, or one of the values below.
    pub(crate) slot: u16,
}

impl Place {
    /// Nowhere on disk.
    pub(crate) const NONE: Self = Self { offset: 0, slot: u16::MAX };
    /// In a batch that is not durable yet.
    pub(crate) const PENDING: Self = Self { offset: 0, slot: u16::MAX - 1 };

    /// The segment, if it is in one.
    pub(crate) fn segment(self) -> Option<u16> {
        (self.slot < Self::PENDING.slot).then_some(self.slot)
    }
}

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its number in the slice.
    pub(crate) number: u64,
    /// Its `message` record; the envelopes and the text follow at once.
    pub(crate) place: Place,
    /// Bytes from there to its `text` record.
    pub(crate) meta_bytes: u32,
    /// Bytes in its `text` record.
    pub(crate) text_bytes: u32,
    /// How its envelopes stand, by index.
    pub(crate) envelopes: Envelopes,
}

/// The envelopes of a message; one is the usual number and needs no box.
#[derive(Debug)]
pub(crate) enum Envelopes {
    One(Envelope),
    Many(Box<[Envelope]>),
}

/// How one envelope stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    /// When it is due, in milliseconds since the epoch.
    pub(crate) due_ms: u64,
    /// When it came, in seconds since the epoch, rounded up; 0: a checkpoint of an older version does not say.
    pub(crate) came_s: u32,
    /// The state record that says so, with the last reply.
    pub(crate) place: Place,
    /// Failed attempts.
    pub(crate) attempts: u16,
    /// How far its sender was told that it waits.
    pub(crate) told: Told,
    /// Where it stands.
    pub(crate) status: Status,
    /// In flight, and set aside by whoever has it: nothing of it is in memory but this. `due_ms` is then its deadline.
    pub(crate) parked: bool,
}

impl Envelopes {
    /// `count` envelopes that came at this time, in milliseconds since the epoch, and have not been tried.
    pub(crate) fn new(count: u16, received_ms: u64, status: Status) -> Self {
        let fresh = Envelope {
            due_ms: received_ms,
            came_s: came_s(received_ms),
            place: Place::NONE,
            attempts: 0,
            told: Told::NOTHING,
            status,
            parked: false,
        };
        Self::from_vec(vec![fresh; usize::from(count)])
    }

    /// As many as there are.
    pub(crate) fn from_vec(all: Vec<Envelope>) -> Self {
        match all[..] {
            [one] => Self::One(one),
            _ => Self::Many(all.into_boxed_slice()),
        }
    }

    /// By index.
    pub(crate) fn all(&self) -> &[Envelope] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// By index.
    pub(crate) fn all_mut(&mut self) -> &mut [Envelope] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => many,
        }
    }
}

/// As [`Envelope::came_s`] has it.
pub(crate) fn came_s(received_ms: u64) -> u32 {
    u32::try_from(received_ms.div_ceil(1000)).unwrap_or(u32::MAX)
}

impl Message {
    /// Bytes of the records that it is made of, without chunks.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.meta_bytes) + u64::from(self.text_bytes)
    }

    /// Its envelopes that have not ended; `id` is its own.
    pub(crate) fn open(&self, id: MessageId) -> impl Iterator<Item = Listed> {
        let envelopes = self.envelopes.all().iter().enumerate().filter(|(_, envelope)| !envelope.status.is_final());
        envelopes.map(move |(index, envelope)| Listed {
            id,
            index: index as u16,
            state: envelope.status,
            due_ms: envelope.due_ms,
            received_ms: (envelope.came_s > 0).then(|| u64::from(envelope.came_s) * 1000),
            attempts: envelope.attempts,
            told: envelope.told,
            parked: envelope.parked,
        })
    }
}

/// What a message that has chunks needs besides.
#[derive(Clone, Debug)]
pub(crate) struct Chunked {
    /// Bytes of its text that stand before the chunks.
    pub(crate) head_bytes: u32,
    /// In order.
    pub(crate) chunks: Box<[ChunkPlace]>,
}

/// All messages of a slice.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pages: BTreeMap<u64, Vec<Message>>,
    /// Rare, so beside: the messages with chunks, by number.
    pub(crate) chunked: BTreeMap<u64, Chunked>,
    messages: usize,
}

impl Index {
    /// Adds a message; its number is new.
    pub(crate) fn insert(&mut self, message: Message) {
        let page = self.pages.entry(message.number >> PAGE_BITS).or_default();
        let at = match page.last() {
            Some(last) if last.number >= message.number => page.partition_point(|other| other.number < message.number),
            _ => page.len(),
        };
        debug_assert!(page.get(at).is_none_or(|other| other.number != message.number), "a number is used once");
        if page.len() == page.capacity() && page.capacity() >= 4 {
            // Half as much again: doubling would leave too much of the index empty.
            page.reserve_exact((page.capacity() / 2).min(PAGE_ENTRIES - page.len()));
        }
        page.insert(at, message);
        self.messages += 1;
    }

    /// The message with this number.
    pub(crate) fn get(&self, number: u64) -> Option<&Message> {
        let page = self.pages.get(&(number >> PAGE_BITS))?;
        let at = page.binary_search_by_key(&number, |message| message.number).ok()?;
        page.get(at)
    }

    /// The message with this number.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Message> {
        let page = self.pages.get_mut(&(number >> PAGE_BITS))?;
        let at = page.binary_search_by_key(&number, |message| message.number).ok()?;
        page.get_mut(at)
    }

    /// Takes the message with this number out.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Message> {
        let key = number >> PAGE_BITS;
        let page = self.pages.get_mut(&key)?;
        let at = page.binary_search_by_key(&number, |message| message.number).ok()?;
        let message = page.remove(at);
        if page.is_empty() {
            self.pages.remove(&key);
        } else if page.len() * 2 < page.capacity() && page.capacity() > 4 {
            page.shrink_to(page.len() + page.len() / 4);
        }
        self.messages -= 1;
        Some(message)
    }

    /// Messages.
    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    /// All messages by number, from this number on.
    pub(crate) fn from(&self, number: u64) -> impl Iterator<Item = &Message> {
        let pages = self.pages.range(number >> PAGE_BITS..);
        pages.flat_map(|(_, page)| page).skip_while(move |message| message.number < number)
    }

    /// All messages by number.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        self.pages.values_mut().flatten()
    }

    /// Bytes of memory it occupies, with what the allocator and the tree add.
    pub(crate) fn memory_bytes(&self) -> usize {
        // A tree node holds 11 entries and is on average two thirds full; 16 bytes per allocation.
        let page_bytes = (size_of::<u64>() + size_of::<Vec<Message>>()) * 3 / 2 + 16;
        let pages = self.pages.values().map(|page| page.capacity() * size_of::<Message>() + page_bytes);
        let boxes = self.pages.values().flatten().map(|message| match &message.envelopes {
            Envelopes::One(_) => 0,
            Envelopes::Many(many) => size_of_val(&many[..]) + 16,
        });
        pages.sum::<usize>() + boxes.sum::<usize>()
    }
}

/// A page holds the messages of 2^7 numbers: a removal moves at most 6 KiB.
const PAGE_BITS: u32 = 7;
const PAGE_ENTRIES: usize = 1 << PAGE_BITS;

const _: () = assert!(size_of::<Envelope>() == 24 && size_of::<Message>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64) -> Message {
        let place = Place { offset: number as u32, slot: 0 };
        Message { number, place, meta_bytes: 1, text_bytes: 1, envelopes: Envelopes::new(1, 0, Status::Waiting) }
    }

    #[test]
    fn numbers_come_back_sorted_however_they_came() {
        let mut index = Index::default();
        for number in [5, 3, 300, 4, 1000, 299, 127, 128] {
            index.insert(message(number));
        }
        assert!(index.remove(4).is_some() && index.remove(4).is_none());
        let all: Vec<u64> = index.from(0).map(|message| message.number).collect();
        assert_eq!(all, [3, 5, 127, 128, 299, 300, 1000]);
        let some: Vec<u64> = index.from(128).map(|message| message.number).collect();
        assert_eq!(some, [128, 299, 300, 1000]);
        assert_eq!((index.len(), index.get(300).map(|message| message.place.offset)), (7, Some(300)));
    }

    #[test]
    fn s124_sparse_and_dense_queues_stay_small() {
        let mut index = Index::default();
        (0..100_000).for_each(|number| index.insert(message(number)));
        let dense = index.memory_bytes() / 100_000;
        assert!(dense <= 80, "{dense}");
        for number in (0..100_000).filter(|number| number % 50 != 0) {
            index.remove(number);
        }
        let sparse = index.memory_bytes() / 2_000;
        assert!(sparse <= 150, "{sparse}");
    }
}
