//! Where users leave messages while there is no server to take them: a directory in which everybody may make files and
//! nobody may look (`docs/decisions/0011-drop-directory.md`). Only a supervisor that runs as root makes it and empties it: what it finds it
//! moves into the spool, with the user who owns the file written down, for the kernel vouches for that and the file does not.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ringpost_io::sys;
use rustix::fs::OFlags;

use super::spool::{self, SUFFIX};
use super::submission::Submission;
use crate::durable;
use crate::limits::{DROP_HALF_AGE, DROP_PER_USER, SPOOL_LINE_BYTES, SUBMIT_BYTES};

/// Everybody may make files and reach them by name; nobody may list them, or remove another's.
const MODE: u32 = 0o1733;

/// The directory below a state directory.
pub fn dir(state: &Path) -> PathBuf {
    state.join("drop")
}

/// Makes it; of root only.
///
/// # Errors
/// Something else is there, or is not root's.
pub fn prepare(state: &Path) -> io::Result<()> {
    let dir = dir(state);
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let there = fs::symlink_metadata(&dir)?;
    if !there.is_dir() || there.uid() != 0 {
        return Err(io::Error::other("it is there, and no directory of root's"));
    }
    fs::set_permissions(&dir, Permissions::from_mode(MODE))
}

/// Leaves a message there; it is durable on return.
///
/// # Errors
/// There is no such directory: the server is not root's, or has never run.
pub fn leave(state: &Path, submission: &Submission) -> io::Result<()> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    // Nobody can guess it, so nobody can be there first.
    let name = format!("{:032x}{SUFFIX}", u128::from_ne_bytes(random));
    durable::replace(&dir(state).join(name), 0o600, &submission.to_file()?)
}

/// Whether something is there.
pub fn waits(state: &Path) -> bool {
    fs::read_dir(dir(state)).is_ok_and(|mut entries| entries.next().is_some())
}

/// Moves messages into the spool until [`DROP_PER_USER`] of a user wait there: the rest is for another time, so that nobody
/// has to wait for all that another has left. How many were moved.
///
/// # Errors
/// The directory cannot be read, or the spool not be written.
pub fn take_in(state: &Path, mut complain: impl FnMut(&str)) -> io::Result<usize> {
    let entries = match fs::read_dir(dir(state)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut of_user: BTreeMap<u32, usize> = BTreeMap::new();
    let mut taken = 0;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        // It may be gone by now: its user may take it back.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if !entry.file_name().as_encoded_bytes().ends_with(SUFFIX.as_bytes()) || is_hidden(&path) {
            clear_away(&path, &metadata);
            continue;
        }
        let count = match of_user.entry(metadata.uid()) {
            Entry::Occupied(count) => count.into_mut(),
            Entry::Vacant(new) => new.insert(spool::waiting_of(state, metadata.uid())?),
        };
        if *count >= DROP_PER_USER {
            continue;
        }
        match read(&path) {
            Ok((mut submission, uid)) => {
                submission.is_of(uid, sys::name_of(uid)?.map_or_else(|| uid.to_string(), |(name, _)| name));
                spool::keep(state, &submission)?;
                fs::remove_file(&path)?;
                *count += 1;
                taken += 1;
            }
            Err(why) => {
                let aside = spool::dir(state).join(entry.file_name()).with_extension("bad");
                complain(&format!("{}: {why}; it is kept as {}", path.display(), aside.display()));
                spool::make(state)?;
                fs::rename(&path, aside)?;
            }
        }
    }
    Ok(taken)
}

/// A message and the user who has left it. What is looked at is what is read: the file is open.
fn read(path: &Path) -> Result<(Submission, u32), String> {
    // Neither a link is followed nor a pipe waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("no regular file".into());
    }
    // By a link somebody could have another's file sent.
    if metadata.nlink() != 1 {
        return Err(format!("a file with {} links", metadata.nlink()));
    }
    let bytes_max = SUBMIT_BYTES + SPOOL_LINE_BYTES;
    if metadata.len() > bytes_max {
        return Err("larger than any message".into());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok((Submission::from_file(&bytes)?, metadata.uid()))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// What is no message: half of one, whose program has died, goes when it is so old that nobody writes it any more.
fn clear_away(path: &Path, metadata: &fs::Metadata) {
    let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    if age.is_some_and(|age| age >= DROP_HALF_AGE) {
        // A directory stays; it takes part in nothing.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::message::Message;
    use super::*;

    fn submission(number: u64) -> Submission {
        let message = Message { text: b"Subject: x\r\n\r\n".to_vec(), recipients: vec!["a@x.test".into()] };
        Submission::new(message, "somebody".into(), String::new(), number, number)
    }

    fn state() -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(dir(state.path())).unwrap();
        state
    }

    #[test]
    fn what_was_left_is_moved_and_belongs_to_its_owner() {
        let state = state();
        assert!(!waits(state.path()));
        leave(state.path(), &submission(1)).unwrap();
        assert!(waits(state.path()));
        assert_eq!(take_in(state.path(), |line| panic!("{line}")).unwrap(), 1);
        assert!(!waits(state.path()) && spool::waits(state.path()));
        let uid = rustix::process::geteuid().as_raw();
        let name = fs::read_dir(spool::dir(state.path())).unwrap().next().unwrap().unwrap().path();
        let kept = Submission::from_file(&fs::read(name).unwrap()).unwrap();
        assert_eq!(kept.uid, Some(uid));
        assert_ne!(kept.user, "somebody", "the file's word is not taken for it");
        assert_eq!(take_in(&state.path().join("nowhere"), |_| {}).unwrap(), 0);
    }

    #[test]
    fn links_pipes_directories_and_nonsense_are_put_aside_once() {
        let state = state();
        let dir = dir(state.path());
        let secret = state.path().join("secret");
        fs::write(&secret, submission(1).to_file().unwrap()).unwrap();
        symlink(&secret, dir.join("symlink.mail")).unwrap();
        fs::hard_link(&secret, dir.join("link.mail")).unwrap();
        fs::create_dir(dir.join("dir.mail")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("pipe.mail"), rustix::fs::Mode::RUSR).unwrap();
        fs::write(dir.join("text.mail"), "nonsense\n").unwrap();
        let mut said = Vec::new();
        assert_eq!(take_in(state.path(), |line| said.push(line.to_owned())).unwrap(), 0);
        assert_eq!(take_in(state.path(), |line| said.push(line.to_owned())).unwrap(), 0);
        assert_eq!(said.len(), 5, "{said:?}");
        assert!(!waits(state.path()) && !spool::waits(state.path()));
        assert!(secret.exists());
    }

    #[test]
    fn one_user_fills_no_more_than_a_part() {
        let state = state();
        for number in 0..DROP_PER_USER as u64 + 3 {
            fs::write(dir(state.path()).join(format!("{number}.mail")), submission(number).to_file().unwrap()).unwrap();
        }
        fs::write(dir(state.path()).join(".half.mail"), "x").unwrap();
        assert_eq!(take_in(state.path(), |line| panic!("{line}")).unwrap(), DROP_PER_USER);
        assert_eq!(take_in(state.path(), |line| panic!("{line}")).unwrap(), 0, "those wait for the server");
        fs::remove_dir_all(spool::dir(state.path())).unwrap();
        assert_eq!(take_in(state.path(), |line| panic!("{line}")).unwrap(), 3);
        assert!(dir(state.path()).join(".half.mail").exists(), "it may be written still");
        File::open(dir(state.path()).join(".half.mail")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        take_in(state.path(), |line| panic!("{line}")).unwrap();
        assert!(!waits(state.path()));
    }
}
