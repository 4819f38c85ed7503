//! What is on the disk, and what has no business there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::text::MARK;

/// What hostile addresses try to make.
pub const CANARY: &str = "rp-canary";

/// Every path below a directory, relative to it, but for those in `without`.
pub fn paths(dir: &Path, without: &[&str]) -> BTreeSet<PathBuf> {
    let (mut found, mut todo) = (BTreeSet::new(), vec![dir.to_owned()]);
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).expect("readable") {
            let path = entry.expect("an entry").path();
            let relative = path.strip_prefix(dir).expect("below").to_owned();
            if without.iter().any(|name| relative == Path::new(name)) {
                continue;
            }
            if path.symlink_metadata().expect("there").is_dir() {
                todo.push(path);
            }
            found.insert(relative);
        }
    }
    found
}

/// Nobody has made one, where a program starts or in any place that an address names.
pub fn no_canary_outside(dir: &Path) {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/".into());
    let above = dir.parent().expect("not the root");
    for place in [Path::new("/"), Path::new("/etc"), &std::env::temp_dir(), Path::new(&home), Path::new("."), above] {
        assert!(!place.join(CANARY).exists(), "{CANARY} in {}", place.display());
    }
}

/// The keys of all messages below a directory of Maildirs, by the Maildir's path.
pub fn maildirs(dir: &Path) -> BTreeMap<PathBuf, Vec<usize>> {
    let mut found: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for path in paths(dir, &[]) {
        let Some(maildir) = path.parent().filter(|parent| parent.ends_with("new")).and_then(Path::parent) else {
            continue;
        };
        let text = fs::read(dir.join(&path)).expect("readable");
        found.entry(maildir.to_owned()).or_default().extend(keys(&text));
    }
    found.values_mut().for_each(|keys| keys.sort_unstable());
    found
}

/// The keys of the messages in a text.
pub fn keys(text: &[u8]) -> Vec<usize> {
    let text = String::from_utf8_lossy(text);
    let keys = text.lines().filter_map(|line| line.strip_prefix(MARK));
    let mut keys: Vec<usize> = keys.map(|key| key.parse().expect("a number")).collect();
    keys.sort_unstable();
    keys
}
