//! Passwords of the system's users, held against shadow(5), which nobody but root may read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::clock::unix;
use crate::ipc::passwords::Found;
use crate::limits::SHADOW_BYTES;
use crate::passwords::{self, Checked};

const SHADOW: &str = "/etc/shadow";
/// Held against the password of a user who is not there, if nobody is: as `ringpost hash --scheme yescrypt` makes them.
const NOBODY: &str = "$y$j9T$abcdefghij0123456789./$iqivdHgc3yJCy4SWdu3DJkgZnA5K12ewyG3rQNsgD97";

/// Looks the user up, in the system's file or in that below `root`.
pub fn ask(root: Option<&Path>, user: &str, password: &str) -> Found {
    let path = root.map_or_else(|| PathBuf::from(SHADOW), |root| crate::cli::below(root, Path::new(SHADOW)));
    look(&path, user, password, today())
}

fn today() -> u64 {
    // A clock that is not set yet locks nobody out.
    (unix() / 86_400).max(1)
}

/// `today`: days since 1970.
fn look(shadow: &Path, user: &str, password: &str, today: u64) -> Found {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(shadow).and_then(|file| file.take(SHADOW_BYTES).read_to_string(&mut text));
    if let Err(error) = read {
        return Found::Failed(format!("{}: {error}", shadow.display()));
    }
    let lines = || text.lines().filter_map(Line::parse);
    let theirs = lines().find(|line| line.user == user);
    let usable = theirs.as_ref().filter(|line| line.may_log_in(today));
    // Whoever is not there, or may not, costs as much time as anybody.
    let other = || lines().find(|line| line.hash.starts_with('$')).map_or(NOBODY, |line| line.hash);
    let hash = usable.map_or_else(other, |line| line.hash);
    let fits = passwords::check(password, hash) == Checked::Right;
    if fits && usable.is_some() { Found::Right } else { Found::Wrong }
}

/// A line of shadow(5).
struct Line<'t> {
    user: &'t str,
    hash: &'t str,
    /// From that day on nobody may log in.
    expires: Option<u64>,
}

impl<'t> Line<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let mut columns = line.split(':');
        let (user, hash) = (columns.next()?, columns.next()?);
        let expires = columns.nth(5).and_then(|day| day.parse().ok());
        (!user.is_empty()).then_some(Self { user, hash, expires })
    }

    /// `!` and `*` lock an account; no hash at all is an account without a password, which is not for the network.
    fn may_log_in(&self, today: u64) -> bool {
        self.hash.starts_with('$') && self.expires.is_none_or(|day| today < day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passwords::{Scheme, hash};

    #[test]
    fn system_users_log_in_unless_they_are_locked_or_over() {
        let dir = tempfile::tempdir().unwrap();
        let shadow = dir.path().join("shadow");
        assert!(matches!(look(&shadow, "gilles", "right", 1), Found::Failed(_)), "it cannot be read");
        let made = hash("right", Scheme::Yescrypt);
        let text = format!(
            "root:*:19000:0:99999:7:::\ngilles:{made}:19000:0:99999:7:::\nlocked:!{made}:19000::::::\n\
             empty::19000::::::\nover:{made}:19000:::::20000:\nshort:{made}\n"
        );
        std::fs::write(&shadow, text).unwrap();
        for (user, password, found) in [
            ("gilles", "right", Found::Right),
            ("gilles", "left", Found::Wrong),
            ("short", "right", Found::Right),
            ("over", "right", Found::Wrong),
            ("locked", "right", Found::Wrong),
            ("empty", "", Found::Wrong),
            ("empty", "right", Found::Wrong),
            ("root", "*", Found::Wrong),
            ("nobody", "right", Found::Wrong),
        ] {
            assert_eq!(look(&shadow, user, password, 20_000), found, "{user} {password}");
        }
        assert_eq!(look(&shadow, "over", "right", 19_999), Found::Right);
    }
}
