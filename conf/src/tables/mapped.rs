//! Mappings in memory, made to be small: keys stand one after the other in one text, values in one list, and what finds them
//! is four bytes for each place. A million of entries is nothing unusual (seed S37).

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use super::Keys;

/// A mapping in memory. Keys are as [`Keys`] makes them.
#[derive(Clone, Debug)]
pub struct Mapped<V> {
    /// All keys, one after the other.
    keys: String,
    entries: Vec<Entry<V>>,
    /// For each place the number of its entry from 1; 0: none. An entry is where its key's hash says, or in the next place
    /// that was free. A power of two, and a quarter of it is free at least, so that a search ends.
    places: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    start: u32,
    end: u32,
    value: V,
}

/// Where a key is, or could be put.
enum At {
    Entry(usize),
    Place(usize),
}

impl<V> Default for Mapped<V> {
    fn default() -> Self {
        Self { keys: String::new(), entries: Vec::new(), places: Vec::new() }
    }
}

impl<V> Mapped<V> {
    /// Adds an entry; what the key had before, if it is not the first.
    pub fn insert(&mut self, key: &str, value: V) -> Option<V> {
        if (self.entries.len() + 1) * 4 > self.places.len() * 3 {
            self.grow();
        }
        match self.search(key) {
            At::Entry(number) => Some(std::mem::replace(&mut self.entries[number].value, value)),
            At::Place(place) => {
                let start = narrow(self.keys.len());
                self.keys.push_str(key);
                self.entries.push(Entry { start, end: narrow(self.keys.len()), value });
                self.places[place] = narrow(self.entries.len());
                None
            }
        }
    }

    /// Gives back the room that was for more entries.
    pub fn shrink(&mut self) {
        self.keys.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// What stands under exactly this key.
    pub fn get(&self, key: &str) -> Option<&V> {
        if self.entries.is_empty() {
            return None;
        }
        match self.search(key) {
            At::Entry(number) => Some(&self.entries[number].value),
            At::Place(_) => None,
        }
    }

    /// What stands under the first of these keys that is there.
    pub fn find(&self, mut keys: Keys<'_>) -> Option<&V> {
        keys.find_map(|key| self.get(key.as_str()))
    }

    /// The values, in the order in which their keys came.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|entry| &entry.value)
    }

    /// Keys and values, in the order in which the keys came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.entries.iter().map(|entry| (self.key(entry), &entry.value))
    }

    /// All keys, sorted.
    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.entries.iter().map(|entry| self.key(entry)).collect();
        keys.sort_unstable();
        keys
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn key(&self, entry: &Entry<V>) -> &str {
        &self.keys[entry.start as usize..entry.end as usize]
    }

    /// There are places.
    fn search(&self, key: &str) -> At {
        let last = self.places.len() - 1;
        let mut place = first_place(key, last);
        loop {
            match self.places[place] {
                0 => return At::Place(place),
                number => {
                    let number = number as usize - 1;
                    if self.key(&self.entries[number]) == key {
                        return At::Entry(number);
                    }
                }
            }
            place = (place + 1) & last;
        }
    }

    /// Twice as many places; every entry gets a new one.
    fn grow(&mut self) {
        const FIRST: usize = 8;
        let count = (self.places.len() * 2).max(FIRST);
        let mut places = vec![0; count];
        for (number, entry) in (1..).zip(&self.entries) {
            let mut place = first_place(self.key(entry), count - 1);
            while places[place] != 0 {
                place = (place + 1) & (count - 1);
            }
            places[place] = number;
        }
        self.places = places;
    }
}

/// Who writes tables has no reason to make keys collide, so that no secret is needed.
fn first_place(key: &str, last: usize) -> usize {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key) as usize & last
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).expect("a data file has at most a GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_found_and_nothing_else() {
        let mut mapped = Mapped::default();
        assert_eq!((mapped.get("a"), mapped.len(), mapped.is_empty()), (None, 0, true));
        for number in 0..10_000 {
            assert_eq!(mapped.insert(&format!("key{number}"), number), None);
        }
        mapped.shrink();
        assert_eq!(mapped.insert("key7", 70_000), Some(7));
        assert_eq!(mapped.insert("", 1), None);
        for number in (0..10_000).filter(|number| *number != 7) {
            assert_eq!(mapped.get(&format!("key{number}")), Some(&number));
        }
        assert_eq!((mapped.get("key7"), mapped.get(""), mapped.get("key10000")), (Some(&70_000), Some(&1), None));
        assert_eq!((mapped.len(), mapped.keys()[..3].to_vec()), (10_001, vec!["", "key0", "key1"]));
        assert_eq!(mapped.values().take(3).copied().collect::<Vec<_>>(), [0, 1, 2]);
    }
}
