//! Whose the processes are. Where root starts the server and the system has both users, the engine becomes `ringpost` and
//! the keyholder `ringpost-key`, and root's is the supervisor alone. One of the two is not enough: an engine that is apart
//! from root, but not from the keys, would be half of it, and a server that has `ringpost` for programs of aliases only stays
//! as it was. Not root: everything is the user's who has started it.

use std::io;
use std::path::Path;

use ringpost_io::sys;
use serde::{Deserialize, Serialize};

/// Whom the engine becomes.
pub const ENGINE: &str = "ringpost";
/// Whom the keyholder becomes.
pub const KEYHOLDER: &str = "ringpost-key";

/// A user whom a process becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name in the system's list.
    pub name: String,
    /// User number; not 0.
    pub uid: u32,
    /// Number of the first group; not 0.
    pub gid: u32,
}

impl Owner {
    /// This process becomes that user, with these groups besides, for good.
    ///
    /// # Errors
    /// Not permitted; the process must end.
    pub fn take_over(&self, groups: &[u32]) -> io::Result<()> {
        let became = sys::become_user(self.uid, self.gid, groups);
        became.map_err(|error| io::Error::new(error.kind(), format!("cannot become the user {}: {error}", self.name)))
    }

    /// The groups that the system lists for it.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn groups(&self) -> io::Result<Vec<u32>> {
        sys::groups_of(&self.name, self.uid, self.gid)
    }
}

/// Whose they will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owners {
    /// All are the caller's, who is not root.
    Caller,
    /// Root's, with few of its powers, and why.
    Root {
        /// A line for administrators.
        why: String,
        /// The user whose the engine was once, as far as that is known.
        once: Option<u32>,
    },
    /// Each is somebody else's.
    Apart {
        /// `ringpost`.
        engine: Owner,
        /// `ringpost-key`.
        keyholder: Owner,
    },
}

impl Owners {
    /// Looks both users up, in the system's list or in `etc/passwd` below `root`.
    ///
    /// # Errors
    /// The system cannot say now who is there.
    pub fn find(root: Option<&Path>) -> io::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Caller);
        }
        Ok(Self::of(look_up(root, ENGINE)?, look_up(root, KEYHOLDER)?))
    }

    fn of(engine: Option<Owner>, keyholder: Option<Owner>) -> Self {
        let once = engine.as_ref().map(|engine| engine.uid).filter(|uid| *uid != 0);
        let why = match (engine, keyholder) {
            (Some(engine), Some(keyholder)) => match doubt(&engine, &keyholder) {
                None => return Self::Apart { engine, keyholder },
                Some(doubt) => doubt,
            },
            (Some(_), None) => format!("there is no user {KEYHOLDER}"),
            (None, Some(_)) => format!("there is no user {ENGINE}"),
            (None, None) => format!("there are no users {ENGINE} and {KEYHOLDER}"),
        };
        Self::Root { why: format!("engine and keyholder run as root, with few of its powers: {why}"), once }
    }

    /// Whom the engine becomes.
    pub fn engine(&self) -> Option<&Owner> {
        match self {
            Self::Apart { engine, .. } => Some(engine),
            Self::Caller | Self::Root { .. } => None,
        }
    }

    /// Whom the keyholder becomes.
    pub fn keyholder(&self) -> Option<&Owner> {
        match self {
            Self::Apart { keyholder, .. } => Some(keyholder),
            Self::Caller | Self::Root { .. } => None,
        }
    }

    /// What an administrator should know.
    pub fn note(&self) -> Option<&str> {
        match self {
            Self::Root { why, .. } => Some(why),
            Self::Caller | Self::Apart { .. } => None,
        }
    }
}

fn look_up(root: Option<&Path>, name: &str) -> io::Result<Option<Owner>> {
    let found = match root.map_or_else(|| sys::user(name), |root| sys::user_below(root, name)) {
        // A directory for a test that has no users.
        Err(error) if root.is_some() && error.kind() == io::ErrorKind::NotFound => None,
        other => other.map_err(|error| io::Error::new(error.kind(), format!("the user {name}: {error}")))?,
    };
    Ok(found.map(|user| Owner { name: user.name, uid: user.uid, gid: user.gid }))
}

/// Why these two would not be apart from root and from each other.
fn doubt(engine: &Owner, keyholder: &Owner) -> Option<String> {
    let roots = [engine, keyholder].into_iter().find(|owner| owner.uid == 0 || owner.gid == 0);
    if let Some(owner) = roots {
        return Some(format!("the user {} has root's number, or its group", owner.name));
    }
    (engine.uid == keyholder.uid).then(|| format!("the users {ENGINE} and {KEYHOLDER} have the same number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str, uid: u32, gid: u32) -> Option<Owner> {
        Some(Owner { name: name.into(), uid, gid })
    }

    #[test]
    fn s140_both_users_must_be_there_and_be_two() {
        let apart = Owners::of(owner(ENGINE, 997, 997), owner(KEYHOLDER, 996, 996));
        assert_eq!((apart.engine().unwrap().uid, apart.keyholder().unwrap().uid, apart.note()), (997, 996, None));
        for (engine, keyholder, says, was) in [
            (None, None, "there are no users ringpost and ringpost-key", None),
            (owner(ENGINE, 997, 997), None, "there is no user ringpost-key", Some(997)),
            (None, owner(KEYHOLDER, 996, 996), "there is no user ringpost", None),
            (owner(ENGINE, 0, 997), owner(KEYHOLDER, 996, 996), "the user ringpost has root's number", None),
            (owner(ENGINE, 997, 997), owner(KEYHOLDER, 996, 0), "the user ringpost-key has root's", Some(997)),
            (owner(ENGINE, 997, 997), owner(KEYHOLDER, 997, 996), "have the same number", Some(997)),
        ] {
            let owners = Owners::of(engine, keyholder);
            assert!(owners.note().unwrap().contains(says), "{owners:?}");
            assert!(owners.engine().is_none() && owners.keyholder().is_none(), "{owners:?}");
            assert!(matches!(owners, Owners::Root { once, .. } if once == was), "{owners:?}");
        }
    }

    #[test]
    fn users_of_a_directory_are_found_and_one_without_a_list_has_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look_up(Some(dir.path()), ENGINE).unwrap(), None);
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "ringpost:x:997:990::/:\n").unwrap();
        assert_eq!(look_up(Some(dir.path()), ENGINE).unwrap(), owner(ENGINE, 997, 990));
        assert_eq!(look_up(Some(dir.path()), KEYHOLDER).unwrap(), None);
    }
}
