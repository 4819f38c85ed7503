//! What belongs to the engine when that is a user of its own. The state directory stays root's: the engine may make files
//! in it, and root's are none of its business (sticky, as `/tmp`). What an engine of root's has left there is handed over
//! once. Everything by descriptors: no link is followed, and nothing is given away that has a second name elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use ringpost_conf::Config;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, fstat, mkdirat, openat,
};
use rustix::io::Errno;

use crate::limits::{HANDED_OVER, HANDED_OVER_DEEP, PLACE_DEEP};
use crate::owners::Owner;
use crate::sendmail::drop;

/// Directories of the engine's in a state directory.
pub const DIRECTORIES: [&str; 4] = ["queue", "Maildir", "tlsrpt", "mta-sts"];
/// Files of its there; what is added to the name with a dot, in front or behind, is one of the same kind.
const FILES: [&str; 3] = ["engine.lock", "limits.json", "warmup.json"];
/// Directories of root's there: if they were missing, the engine could make them, or links of their names.
const ROOTS: [&str; 2] = ["spool", "tls"];
/// Of a state directory: all may pass, the engine may make files, each removes its own only.
const SHARED: u32 = 0o1771;

/// Makes a state directory one that root and the engine share.
///
/// # Errors
/// It is not root's, or something in it is not whose it must be; what to do is said.
pub fn share(state: &Path, engine: &Owner) -> io::Result<()> {
    let dir = open_directory(CWD, state, OFlags::empty())?;
    let owner = fstat(&dir)?.st_uid;
    if owner != 0 {
        return Err(io::Error::other(format!(
            "it belongs to user {owner}, and the supervisor is root\n  give it to root with `chown -R root {}`; what is the \
             engine's is handed over at the start",
            state.display()
        )));
    }
    for name in ROOTS {
        keep_for_root(state, name)?;
    }
    drop::prepare(state).map_err(|error| io::Error::new(error.kind(), format!("drop: {error}")))?;
    let mut left = HANDED_OVER;
    for name in names(&dir)? {
        let is_file = FILES.iter().any(|file| is_like(&name, file));
        let given = match DIRECTORIES.iter().any(|directory| name == *directory) {
            true => give_directory(&dir, &name, engine, &mut left),
            false if is_file => give_file(&dir, &name, engine),
            false => Ok(()),
        };
        given.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", state.join(&name).display())))?;
    }
    fchown(&dir, None, Some(Gid::from_raw(engine.gid)))?;
    Ok(fchmod(&dir, Mode::from_raw_mode(SHARED))?)
}

/// The engine is root's again: what it makes from now on is to be handed over when it is not any more. So what `once` had is
/// root's, as far as [`share`] looks.
///
/// # Errors
/// The directory cannot be read.
pub fn take_back(state: &Path, once: u32) -> io::Result<()> {
    let dir = open_directory(CWD, state, OFlags::empty())?;
    for name in DIRECTORIES {
        match open_directory(&dir, name, OFlags::NOFOLLOW) {
            Ok(there) if fstat(&there)?.st_uid == once => fchown(&there, Some(Uid::ROOT), None)?,
            // What is no directory, or not there, is not ours to judge here.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Makes the directories in which the engine is to write and that are not there yet, below ones that are root's alone. The
/// rest it may try itself.
pub fn make_places(config: &Config, engine: &Owner) {
    for place in config.places().own {
        // It will say so itself what it does not get to.
        let _ = make_place(&place, engine);
    }
}

fn make_place(place: &Path, engine: &Owner) -> io::Result<()> {
    let missing: Vec<&OsStr> = place.ancestors().take_while(|at| !at.exists()).filter_map(Path::file_name).collect();
    let Some(there) = place.ancestors().nth(missing.len()).filter(|_| (1..=PLACE_DEEP).contains(&missing.len())) else {
        return Ok(());
    };
    let mut at = open_directory(CWD, there, OFlags::empty())?;
    let about = fstat(&at)?;
    if about.st_uid != 0 || about.st_mode & 0o022 != 0 {
        return Ok(());
    }
    let mut made = Vec::new();
    for name in missing.iter().rev() {
        mkdirat(&at, *name, Mode::RWXU)?;
        at = open_directory(&at, *name, OFlags::NOFOLLOW)?;
        made.push(at.try_clone()?);
    }
    // The innermost first: as long as one is root's, nobody else changes what is in it.
    for directory in made.iter().rev() {
        fchown(directory, Some(Uid::from_raw(engine.uid)), Some(Gid::from_raw(engine.gid)))?;
    }
    Ok(())
}

fn keep_for_root(state: &Path, name: &str) -> io::Result<()> {
    let path = state.join(name);
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let wrong = |why: &str| io::Error::other(format!("{name}: {why}"));
    let there = open_directory(CWD, &path, OFlags::NOFOLLOW).map_err(|_| wrong("it is there, and no directory"))?;
    let about = fstat(&there)?;
    if about.st_uid != 0 {
        return Err(wrong(&format!("it belongs to user {}, not to root", about.st_uid)));
    }
    if about.st_mode & 0o077 != 0 {
        fchmod(&there, Mode::RWXU)?;
    }
    Ok(())
}

/// What an engine of root's has left in a directory, and then the directory itself: so what is interrupted begins anew, and
/// what is done is not looked at again.
fn give_directory(dir: &OwnedFd, name: &OsStr, engine: &Owner, left: &mut u64) -> io::Result<()> {
    let there = open_directory(dir, name, OFlags::NOFOLLOW)?;
    let about = fstat(&there)?;
    match about.st_uid {
        0 => {
            // An older server may have left it open to others.
            fchmod(&there, Mode::from_raw_mode(about.st_mode & 0o700))?;
            give_all(&there, engine, left, HANDED_OVER_DEEP)
        }
        owner if owner == engine.uid => Ok(()),
        owner => Err(io::Error::other(format!(
            "it belongs to user {owner}, and must be root's or that of the user {}",
            engine.name
        ))),
    }
}

fn give_all(dir: &OwnedFd, engine: &Owner, left: &mut u64, deep: usize) -> io::Result<()> {
    if deep == 0 {
        return Err(io::Error::other("directories in it are deeper than ours ever are"));
    }
    for name in names(dir)? {
        *left = left.checked_sub(1).ok_or_else(|| {
            let how = format!("`chown -R {}:` it by hand, as root", engine.name);
            io::Error::other(format!("more than {HANDED_OVER} files are to be handed over: {how}"))
        })?;
        match open_directory(dir, &name, OFlags::NOFOLLOW) {
            Ok(inner) if matches!(fstat(&inner)?.st_uid, uid if uid == 0 || uid == engine.uid) => {
                give_all(&inner, engine, left, deep - 1)?;
            }
            // Another's; he keeps it.
            Ok(_) => {}
            Err(error) if is_no_directory(&error) => give_file(dir, &name, engine)?,
            Err(error) => return Err(error),
        }
    }
    Ok(fchown(dir, Some(Uid::from_raw(engine.uid)), Some(Gid::from_raw(engine.gid)))?)
}

/// A file of root's that has one name. Links and others are left as they are: the engine makes none.
fn give_file(dir: &OwnedFd, name: &OsStr, engine: &Owner) -> io::Result<()> {
    // What it is is looked at before anything is done with it, and without opening it: it may be a pipe.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    let about = fstat(&file)?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile || about.st_uid != 0 {
        return Ok(());
    }
    if about.st_nlink != 1 {
        // It may be anybody's secret.
        return Err(io::Error::other(format!("{}: a file with {} links", name.display(), about.st_nlink)));
    }
    let (uid, gid) = (Uid::from_raw(engine.uid), Gid::from_raw(engine.gid));
    Ok(chownat(&file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}

fn open_directory(at: impl AsFd, path: impl rustix::path::Arg, more: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more, Mode::empty())?)
}

fn is_no_directory(error: &io::Error) -> bool {
    // A link, where links are not followed, is one or the other, by the kernel's mood.
    [Errno::NOTDIR, Errno::LOOP].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(found)
}

/// `limits.json`, `limits.json.bad`, `.limits.json.4711`.
fn is_like(name: &OsStr, file: &str) -> bool {
    let name = name.as_bytes();
    let name = name.strip_prefix(b".").unwrap_or(name);
    name.strip_prefix(file.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
}
