//! Constant databases (`db:` tables): what `ringpost makemap` writes and shards look up in place. The format is D. J.
//! Bernstein's cdb, so that other tools read it, too: 256 pointers, records, 256 hash tables.
//!
//! A file is read whole. It could be mapped instead, but then a shard would stand still whenever a page has to come from
//! the disk, and die if somebody else cuts the file off.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ringpost_address::Folded;

use crate::limits::DATA_FILE_BYTES_MAX;

/// Tables, each with its place and its number of slots.
const TABLES: usize = 256;
/// Two numbers of 32 bits, little endian: a pointer, the head of a record, or a slot.
const PAIR_BYTES: usize = 8;
const HEAD_BYTES: usize = TABLES * PAIR_BYTES;
/// The record that says what a file was made from. No address or name has a zero byte.
const ORIGIN: &str = "\0ringpost";
/// Before a key in lower case: the record that says how it was written, if that is otherwise.
const SPELLED: &str = "\0";
/// Where a Berkeley DB file has its magic number, and those numbers: hash, btree, queue, heap.
const BERKELEY_AT: usize = 12;
const BERKELEY: [u32; 4] = [0x0006_1561, 0x0005_3162, 0x0004_2253, 0x0007_4582];

/// Why a database cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum CdbError {
    /// The disk's fault.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Made by another server's tools.
    #[error("{} is a Berkeley DB file, which is not read; make it anew with `{}`", path.display(), rebuild(path))]
    Berkeley {
        /// The file.
        path: PathBuf,
    },
    /// Nonsense.
    #[error("{} is not a constant database; make it anew with `{}`", path.display(), rebuild(path))]
    NotOne {
        /// The file.
        path: PathBuf,
    },
    /// A pointer that leads nowhere, or a value that is not UTF-8.
    #[error("the database is damaged; make it anew with `ringpost makemap`")]
    Damaged,
    /// The format's numbers have 32 bits.
    #[error("more than 4 GiB do not fit a constant database")]
    TooLarge,
}

/// The command that makes a file; the text's name is that without `.db`.
fn rebuild(path: &Path) -> String {
    let text = if path.extension().is_some_and(|last| last == "db") { path.with_extension("") } else { "TEXT".into() };
    let is_aliases = text.file_name().is_some_and(|name| name.to_string_lossy().contains("alias"));
    let kind = if is_aliases { "-t aliases " } else { "" };
    format!("ringpost makemap {kind}-o {} {}", path.display(), text.display())
}

/// A database in memory. A lookup takes two or three looks at it, however large it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Cdb {
    bytes: Vec<u8>,
}

impl Cdb {
    /// Reads a file.
    ///
    /// # Errors
    /// When that fails, or it is no such file.
    pub fn read(path: &Path) -> Result<Self, CdbError> {
        let unreadable = |error| CdbError::Unreadable { path: path.to_owned(), error };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(DATA_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > DATA_FILE_BYTES_MAX {
            let what = format!("it has more than {DATA_FILE_BYTES_MAX} bytes");
            return Err(unreadable(io::Error::other(what)));
        }
        Self::new(path, bytes)
    }

    /// Takes a file's bytes; `path` is for messages.
    ///
    /// # Errors
    /// When they are no such file.
    pub fn new(path: &Path, bytes: Vec<u8>) -> Result<Self, CdbError> {
        let path = || path.to_owned();
        let magic = bytes.get(BERKELEY_AT..BERKELEY_AT + 4).and_then(|magic| magic.try_into().ok());
        let is_berkeley = |magic: [u8; 4]| {
            BERKELEY.contains(&u32::from_le_bytes(magic)) || BERKELEY.contains(&u32::from_be_bytes(magic))
        };
        let cdb = Self { bytes };
        if cdb.is_sound() {
            Ok(cdb)
        } else if magic.is_some_and(is_berkeley) {
            Err(CdbError::Berkeley { path: path() })
        } else {
            Err(CdbError::NotOne { path: path() })
        }
    }

    /// Whether all tables are within the file, as they are in no other kind of file.
    fn is_sound(&self) -> bool {
        (0..TABLES).all(|table| {
            self.pair(table * PAIR_BYTES).is_some_and(|(at, slots)| {
                let end = at as usize + slots as usize * PAIR_BYTES;
                at as usize >= HEAD_BYTES && end <= self.bytes.len()
            })
        })
    }

    /// The values of a key, in the order in which they were written. Upper and lower case of the key are the same.
    pub fn find(&self, key: &str) -> impl Iterator<Item = Result<&str, CdbError>> {
        let folded = Folded::new(key);
        self.find_exactly(folded.as_str()).map(|found| {
            let bytes = found.ok_or(CdbError::Damaged)?;
            std::str::from_utf8(bytes).map_err(|_| CdbError::Damaged)
        })
    }

    /// The same where upper and lower case of a key are not the same.
    pub fn find_as_written(&self, key: &str) -> impl Iterator<Item = Result<&str, CdbError>> {
        let folded = Folded::new(key);
        let spelling = self.find_exactly(&format!("{SPELLED}{}", folded.as_str())).next().flatten();
        let (stored, is_it) = match spelling {
            Some(spelling) => (folded.as_str(), spelling == key.as_bytes()),
            None => (key, true),
        };
        self.find_exactly(stored).filter(move |_| is_it).map(|found| {
            let bytes = found.ok_or(CdbError::Damaged)?;
            std::str::from_utf8(bytes).map_err(|_| CdbError::Damaged)
        })
    }

    /// All keys, in the order in which they were written.
    pub fn keys(&self) -> impl Iterator<Item = Result<&str, CdbError>> {
        // Records stand one after the other, between the head and the first of the tables.
        let places = (0..TABLES).filter_map(|table| self.pair(table * PAIR_BYTES).map(|(at, _)| at as usize));
        let (mut at, end) = (HEAD_BYTES, places.min().unwrap_or_default());
        let keys = std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let record = self.record(at);
            at = record.map_or(end, |(key, value)| at + PAIR_BYTES + key.len() + value.len());
            Some(record.map(|(key, _)| key))
        });
        fn text(key: Option<&[u8]>) -> Result<&str, CdbError> {
            std::str::from_utf8(key.ok_or(CdbError::Damaged)?).map_err(|_| CdbError::Damaged)
        }
        keys.filter(|key| key.is_none_or(|key| !key.starts_with(SPELLED.as_bytes()))).map(text)
    }

    /// What the database was made from, and when, as its maker said.
    pub fn origin(&self) -> Option<&str> {
        self.find_exactly(ORIGIN).next().flatten().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    fn find_exactly(&self, key: &str) -> Values<'_> {
        let key: Vec<u8> = key.into();
        let hash = hash(&key);
        let (at, slots) = self.pair(hash as usize % TABLES * PAIR_BYTES).unwrap_or_default();
        let first = (hash >> 8).checked_rem(slots).unwrap_or_default();
        Values { cdb: self, key, hash, table: at as usize, slots, slot: first, left: slots }
    }

    fn pair(&self, at: usize) -> Option<(u32, u32)> {
        let bytes: [u8; PAIR_BYTES] = self.bytes.get(at..at.checked_add(PAIR_BYTES)?)?.try_into().ok()?;
        let [a, b, c, d, e, f, g, h] = bytes;
        Some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
    }

    /// Key and value of the record at a place.
    fn record(&self, at: usize) -> Option<(&[u8], &[u8])> {
        let (key, value) = self.pair(at)?;
        let start = at.checked_add(PAIR_BYTES)?;
        let middle = start.checked_add(key as usize)?;
        Some((self.bytes.get(start..middle)?, self.bytes.get(middle..middle.checked_add(value as usize)?)?))
    }
}

impl std::fmt::Debug for Cdb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cdb({} bytes)", self.bytes.len())
    }
}

/// The values of a key; `None` instead of one that cannot be read, after which there are no more.
struct Values<'a> {
    cdb: &'a Cdb,
    key: Vec<u8>,
    hash: u32,
    table: usize,
    slots: u32,
    slot: u32,
    left: u32,
}

impl<'a> Iterator for Values<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            self.left -= 1;
            let slot = self.slot;
            self.slot = if slot + 1 == self.slots { 0 } else { slot + 1 };
            let pair = self.cdb.pair(self.table + slot as usize * PAIR_BYTES);
            let found = match pair {
                Some((_, 0)) => {
                    self.left = 0;
                    return None;
                }
                Some((hash, _)) if hash != self.hash => continue,
                Some((_, at)) => self.cdb.record(at as usize),
                None => None,
            };
            match found {
                Some((key, value)) if key == self.key => return Some(Some(value)),
                Some(_) => {}
                None => {
                    self.left = 0;
                    return Some(None);
                }
            }
        }
        None
    }
}

fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381, |hash: u32, byte| hash.wrapping_mul(33) ^ u32::from(*byte))
}

/// Makes a database of keys and values, in their order; a key may be there several times. `origin` says what it is made
/// from, and when.
///
/// # Errors
/// When it would be too large.
pub fn build<'a>(records: impl IntoIterator<Item = (&'a str, &'a str)>, origin: &str) -> Result<Vec<u8>, CdbError> {
    let mut bytes = vec![0; HEAD_BYTES];
    let mut places: Vec<Vec<(u32, u32)>> = vec![Vec::new(); TABLES];
    let mut put = |key: &str, value: &str| {
        let at = narrow(bytes.len())?;
        let key = key.as_bytes();
        push_pair(&mut bytes, narrow(key.len())?, narrow(value.len())?);
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value.as_bytes());
        let hash = hash(key);
        places[hash as usize % TABLES].push((hash, at));
        Ok(())
    };
    put(ORIGIN, origin)?;
    for (key, value) in records {
        let folded = Folded::new(key);
        put(folded.as_str(), value)?;
        if folded.as_str() != key {
            put(&format!("{SPELLED}{}", folded.as_str()), key)?;
        }
    }
    for (table, places) in places.into_iter().enumerate() {
        let at = narrow(bytes.len())?;
        // Half of the slots stay empty, so that a key which is not there is missed at once.
        let mut slots = vec![(0, 0); places.len() * 2];
        for (hash, place) in places {
            let mut slot = (hash >> 8) as usize % slots.len();
            while slots[slot].1 != 0 {
                slot = (slot + 1) % slots.len();
            }
            slots[slot] = (hash, place);
        }
        let mut head = Vec::with_capacity(PAIR_BYTES);
        push_pair(&mut head, at, narrow(slots.len())?);
        bytes[table * PAIR_BYTES..(table + 1) * PAIR_BYTES].copy_from_slice(&head);
        slots.into_iter().for_each(|(hash, place)| push_pair(&mut bytes, hash, place));
        narrow(bytes.len())?;
    }
    Ok(bytes)
}

fn push_pair(bytes: &mut Vec<u8>, first: u32, second: u32) {
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&second.to_le_bytes());
}

fn narrow(number: usize) -> Result<u32, CdbError> {
    u32::try_from(number).map_err(|_| CdbError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(bytes: Vec<u8>) -> Result<Cdb, CdbError> {
        Cdb::new(Path::new("/etc/mail/aliases.db"), bytes)
    }

    fn all<'a>(cdb: &'a Cdb, key: &str) -> Vec<&'a str> {
        cdb.find(key).map(|value| value.unwrap()).collect()
    }

    #[test]
    fn what_was_written_is_found_in_its_order() {
        let many: Vec<(String, String)> = (0..5000).map(|n| (format!("key{n}"), format!("value {n}"))).collect();
        let records = many.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let twice = [("Staff", "gilles"), ("", "empty"), ("staff", "eric")];
        let cdb = open(build(records.chain(twice), "/etc/mail/aliases 2026-01-01").unwrap()).unwrap();
        for (key, value) in &many {
            assert_eq!(all(&cdb, key), [value]);
        }
        let as_written =
            |key: &str| cdb.find_as_written(key).map(|value| value.unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(as_written("Staff"), ["gilles", "eric"]);
        assert!(as_written("staff").is_empty() && as_written("STAFF").is_empty() && as_written("Key1").is_empty());
        assert_eq!(as_written("key1"), ["value 1"]);
        let keys: Vec<&str> = cdb.keys().map(|key| key.unwrap()).collect();
        assert_eq!((keys.len(), keys[0], keys[4999]), (5003, "key0", "key4999"));
        assert_eq!(&keys[5000..], ["staff", "", "staff"]);
        assert_eq!(all(&cdb, "STAFF"), ["gilles", "eric"]);
        assert_eq!(all(&cdb, ""), ["empty"]);
        for absent in ["key5000", "staf", "*)(uid=*", "' OR 1=1 --", "a\0b", "a\nb"] {
            assert!(all(&cdb, absent).is_empty(), "{absent:?}");
        }
        assert_eq!(cdb.origin(), Some("/etc/mail/aliases 2026-01-01"));
        let empty = open(build([], "").unwrap()).unwrap();
        assert!(all(&empty, "x").is_empty());
    }

    #[test]
    fn other_files_are_refused_with_the_command_that_helps() {
        let mut berkeley = vec![0; 8192];
        berkeley[BERKELEY_AT..BERKELEY_AT + 4].copy_from_slice(&BERKELEY[0].to_le_bytes());
        let error = open(berkeley).unwrap_err().to_string();
        assert!(
            error.contains("Berkeley DB")
                && error.ends_with("`ringpost makemap -t aliases -o /etc/mail/aliases.db /etc/mail/aliases`"),
            "{error}"
        );
        for nonsense in [Vec::new(), b"root: gilles\n".to_vec(), vec![0; 4096], vec![0xff; 4096]] {
            let error = open(nonsense).unwrap_err().to_string();
            assert!(error.contains("is not a constant database"), "{error}");
        }
        let error = Cdb::new(Path::new("/etc/mail/secrets.cdb"), Vec::new()).unwrap_err().to_string();
        assert!(error.ends_with("`ringpost makemap -o /etc/mail/secrets.cdb TEXT`"), "{error}");
        assert!(Cdb::read(Path::new("/nowhere/x.db")).unwrap_err().to_string().starts_with("/nowhere/x.db: "));
    }

    proptest! {
        #[test]
        fn damage_is_never_worse_than_an_error(
            at in 0usize..2600, byte in any::<u8>(), cut in 2048usize..2600, key in "[a-c]{0,3}",
        ) {
            let records = [("a", "1"), ("b", "2"), ("abc", "3"), ("aa", "4")];
            let mut bytes = build(records, "x").unwrap();
            bytes.truncate(cut);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            if let Ok(cdb) = open(bytes) {
                for value in cdb.find(&key) {
                    drop(value);
                }
                let _ = cdb.origin();
            }
        }

        #[test]
        fn any_text_comes_back(records in proptest::collection::vec(("\\PC{0,20}", "\\PC{0,40}"), 0..40)) {
            let given = records.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let cdb = open(build(given, "x").unwrap()).unwrap();
            for (key, _) in &records {
                let folded = Folded::new(key).as_str().to_owned();
                let same = |other: &str| Folded::new(other).as_str() == folded;
                let expected: Vec<&str> = records.iter().filter(|(k, _)| same(k)).map(|(_, v)| v.as_str()).collect();
                prop_assert_eq!(all(&cdb, key), expected);
            }
        }
    }
}
