//! Mailboxes of one file: a message is appended as a whole or not at all.
//!
//! Locking is what Debian's mailers agree on (policy 11.6): fcntl on the file, then a `.lock` beside it, both without
//! waiting in between, so that nobody who takes them the other way round can hang together with us. The file must be the
//! user's own and have no other name: whoever can write to its directory might else have us write to another's.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Pid, geteuid, test_kill_process};

use super::refusal::{Step, failed, wrong};
use crate::limits::{MAILBOX_LOCK, MAILBOX_LOCK_LOOK, MAILBOX_LOCK_STALE};

/// What a `.lock` file is to a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DotLock {
    /// Mail programs look for it.
    Must,
    /// As far as the directory allows: the file may be a log that nobody else locks.
    IfAllowed,
}

/// Where to append, and how long to wait for it.
#[derive(Clone, Copy, Debug)]
pub struct Mailbox<'a> {
    /// The file; made if it does not exist, with what the umask leaves of `rw-rw----`.
    pub path: &'a Path,
    /// Its `.lock`.
    pub dot_lock: DotLock,
    /// Time to get both locks.
    pub patience: Duration,
}

impl<'a> Mailbox<'a> {
    /// With the usual patience.
    pub fn new(path: &'a Path, dot_lock: DotLock) -> Self {
        Self { path, dot_lock, patience: MAILBOX_LOCK }
    }

    /// Appends a message with LF line ends; it is durable on return. `from` is the separator line without its line end.
    ///
    /// # Errors
    /// Always temporary, and the file is as it was.
    pub fn append(&self, from: &str, message: &mut File) -> Step<()> {
        let locked = self.lock()?;
        let before = locked.file.metadata().map_err(|error| failed(self.path, &error))?.len();
        match write(&locked.file, before, from, message) {
            Ok(()) => Ok(()),
            Err(error) => {
                // Cutting needs no room; if it fails all the same, the reason that is told is the first one.
                let _ = locked.file.set_len(before).and_then(|()| locked.file.sync_all());
                Err(failed(self.path, &error))
            }
        }
        .and_then(|()| match locked.is_new {
            true => sync_directory_of(self.path).map_err(|error| failed(self.path, &error)),
            false => Ok(()),
        })
    }

    /// Opens and locks the file, whatever others do to it meanwhile.
    fn lock(&self) -> Step<Locked> {
        let deadline = Instant::now() + self.patience;
        let mut is_new = false;
        loop {
            let (file, was_made) = self.open()?;
            is_new |= was_made;
            if let Some(dot) = self.try_both(&file)? {
                self.check(&file)?;
                if is_at(&file, self.path) {
                    return Ok(Locked { file, is_new, _dot: dot });
                }
                // A mail program has put another file in its place while we waited.
            }
            if Instant::now() >= deadline {
                let waited = self.patience.as_secs();
                return Err(wrong(self.path, format_args!("locked by another program for {waited} s")));
            }
            std::thread::sleep(MAILBOX_LOCK_LOOK);
        }
    }

    fn open(&self) -> Step<(File, bool)> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP;
        let made = rustix::fs::open(self.path, flags | OFlags::CREATE | OFlags::EXCL, mode);
        let opened = match made {
            Ok(file) => Ok((file, true)),
            Err(Errno::EXIST) => rustix::fs::open(self.path, flags, mode).map(|file| (file, false)),
            Err(error) => Err(error),
        };
        let (file, is_new) = opened.map_err(|error| match error {
            Errno::ISDIR => wrong(self.path, "a directory"),
            error => failed(self.path, &error.into()),
        })?;
        let file = File::from(file);
        self.check(&file)?;
        Ok((file, is_new))
    }

    fn check(&self, file: &File) -> Step<()> {
        let about = file.metadata().map_err(|error| failed(self.path, &error))?;
        if !about.is_file() {
            return Err(wrong(self.path, "not a regular file"));
        }
        if about.uid() != geteuid().as_raw() {
            return Err(wrong(self.path, format_args!("belongs to user {}", about.uid())));
        }
        // None: it was removed after it was opened, which is found out under the lock.
        if about.nlink() > 1 {
            return Err(wrong(self.path, "has another name (a hard link)"));
        }
        Ok(())
    }

    /// Both locks or none.
    fn try_both(&self, file: &File) -> Step<Option<Option<DotFile>>> {
        match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Ok(None),
            Err(error) => return Err(failed(self.path, &error.into())),
        }
        match DotFile::make(self.path) {
            Ok(Some(dot)) => Ok(Some(Some(dot))),
            // The other lock goes with the file, which is opened anew.
            Ok(None) => Ok(None),
            Err(error) if self.dot_lock == DotLock::IfAllowed && is_not_allowed(&error) => Ok(Some(None)),
            Err(error) => Err(failed(&dot_path(self.path), &error)),
        }
    }
}

fn is_not_allowed(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS))
}

/// A mailbox that is ours for the moment.
struct Locked {
    file: File,
    is_new: bool,
    _dot: Option<DotFile>,
}

/// A `.lock` file, removed when dropped.
struct DotFile(PathBuf);

impl DotFile {
    /// None: it is somebody else's. The process number inside is what liblockfile looks at.
    fn make(mailbox: &Path) -> io::Result<Option<Self>> {
        let path = dot_path(mailbox);
        match File::options().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                let lock = Self(path);
                write!(file, "{}", std::process::id())?;
                Ok(Some(lock))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if is_stale(&path) {
                    // Who is quicker has it.
                    let _ = fs::remove_file(&path);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for DotFile {
    fn drop(&mut self) {
        // What cannot be removed is stale in five minutes.
        let _ = fs::remove_file(&self.0);
    }
}

fn dot_path(mailbox: &Path) -> PathBuf {
    let mut path = mailbox.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// A lock of a dead process or, without a number in it, one that is old.
fn is_stale(lock: &Path) -> bool {
    let Ok(about) = fs::symlink_metadata(lock) else { return false };
    let age = about.modified().ok().and_then(|made| SystemTime::now().duration_since(made).ok());
    if !about.is_file() || age.is_none_or(|age| age < MAILBOX_LOCK_LOOK * 10) {
        return false;
    }
    // The first bytes: it is not our file, and may be anything.
    let mut start = String::new();
    let read = File::open(lock).and_then(|file| file.take(32).read_to_string(&mut start));
    let holder = read.ok().and_then(|_| start.trim().parse().ok()).and_then(Pid::from_raw);
    match holder {
        Some(holder) => test_kill_process(holder) == Err(Errno::SRCH),
        None => age.is_some_and(|age| age >= MAILBOX_LOCK_STALE),
    }
}

/// Whether the path still means this file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}

/// `From `, the message with its lines that could be mistaken for that quoted (as mboxrd does it, so that a reader can undo
/// it), an empty line.
fn write(mailbox: &File, before: u64, from: &str, message: &mut File) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, mailbox);
    out.write_all(missing_end(mailbox, before)?)?;
    writeln!(out, "{from}")?;
    message.rewind()?;
    let mut lines = BufReader::with_capacity(64 << 10, message);
    let mut line = Vec::new();
    let mut whole = true;
    loop {
        line.clear();
        // In pieces, if a line is very long: only its start may look like the separator.
        if (&mut lines).take(LINE_PIECE_BYTES).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if whole && is_like_separator(&line) {
            out.write_all(b">")?;
        }
        out.write_all(&line)?;
        whole = line.ends_with(b"\n");
    }
    out.write_all(if whole { b"\n" } else { b"\n\n" })?;
    out.flush()?;
    drop(out);
    mailbox.sync_all()
}

fn is_like_separator(line: &[u8]) -> bool {
    let quoted = line.iter().take_while(|byte| **byte == b'>').count();
    line[quoted..].starts_with(b"From ")
}

/// What the last message lacks of the empty line that must stand before the next.
fn missing_end(mailbox: &File, bytes: u64) -> io::Result<&'static [u8]> {
    let mut end = [0; 2];
    let count = bytes.min(2) as usize;
    let mut reader = mailbox;
    reader.seek(SeekFrom::Start(bytes - count as u64))?;
    reader.read_exact(&mut end[..count])?;
    Ok(match &end[..count] {
        [] | b"\n\n" | b"\n" => b"",
        [_, b'\n'] => b"\n",
        _ => b"\n\n",
    })
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// A line is looked at in pieces of so many bytes.
const LINE_PIECE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use ringpost_shard::Handed;
    use tempfile::TempDir;

    use super::*;

    const FROM: &str = "From a@b Thu Nov 28 16:13:00 2025";

    fn message(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn quick(path: &Path) -> Mailbox<'_> {
        Mailbox { patience: Duration::from_millis(250), ..Mailbox::new(path, DotLock::Must) }
    }

    fn mailbox() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mbox");
        (dir, path)
    }

    fn why(result: Step<()>) -> String {
        match result {
            Err(Handed::Temporary { text, .. }) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_are_separated_and_quoted() {
        let (dir, path) = mailbox();
        quick(&path).append(FROM, &mut message("Subject: 1\n\nFrom here\n>From there\nfrom\n")).unwrap();
        quick(&path).append(FROM, &mut message("Subject: 2\n\nno end")).unwrap();
        quick(&path).append(FROM, &mut message("")).unwrap();
        let expected = format!(
            "{FROM}\nSubject: 1\n\n>From here\n>>From there\nfrom\n\n{FROM}\nSubject: 2\n\nno end\n\n{FROM}\n\n"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the lock is gone");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o007, 0);
    }

    #[test]
    fn what_stands_before_ends_with_an_empty_line() {
        for (before, between) in [("x", "\n\n"), ("x\n", "\n"), ("x\n\n", ""), ("\n", ""), ("", "")] {
            let (_dir, path) = mailbox();
            fs::write(&path, before).unwrap();
            quick(&path).append(FROM, &mut message("y\n")).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{before}{between}{FROM}\ny\n\n"));
        }
    }

    #[test]
    fn only_the_start_of_a_line_is_quoted_however_long_it_is() {
        let (_dir, path) = mailbox();
        let long = format!("{}From here\nFrom\n", "x".repeat(LINE_PIECE_BYTES as usize));
        quick(&path).append(FROM, &mut message(&long)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{FROM}\n{long}\n"));
    }

    #[test]
    fn files_that_are_not_plainly_ours_are_left_alone() {
        let (dir, path) = mailbox();
        let target = dir.path().join("target");
        fs::write(&target, "secret\n").unwrap();
        symlink(&target, &path).unwrap();
        assert!(why(quick(&path).append(FROM, &mut message("x\n"))).contains("symbolic link"));
        fs::remove_file(&path).unwrap();
        symlink(dir.path().join("nowhere"), &path).unwrap();
        assert!(why(quick(&path).append(FROM, &mut message("x\n"))).contains("symbolic link"), "not even to make it");
        fs::remove_file(&path).unwrap();
        fs::hard_link(&target, &path).unwrap();
        assert!(why(quick(&path).append(FROM, &mut message("x\n"))).contains("hard link"));
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(why(quick(&path).append(FROM, &mut message("x\n"))).contains("regular"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(why(quick(&path).append(FROM, &mut message("x\n"))).contains("directory"));
        assert_eq!(fs::read_to_string(&target).unwrap(), "secret\n");
        // A device that swallows all is no mailbox either.
        assert!(why(quick(Path::new("/dev/null")).append(FROM, &mut message("x\n"))).contains("regular"));
    }

    #[test]
    fn a_lock_is_waited_for_and_a_dead_ones_is_broken() {
        let (_dir, path) = mailbox();
        let lock = dot_path(&path);
        fs::write(&lock, std::process::id().to_string()).unwrap();
        assert!(why(quick(&path).append(FROM, &mut message("x\n"))).contains("locked"));
        assert!(lock.exists(), "a living process holds it");
        let old = SystemTime::now() - Duration::from_secs(10);
        // The highest number that there can be, which nobody has.
        fs::write(&lock, "4194303").unwrap();
        File::options().write(true).open(&lock).unwrap().set_modified(old).unwrap();
        quick(&path).append(FROM, &mut message("x\n")).unwrap();
        assert!(!lock.exists());
        fs::write(&lock, "").unwrap();
        File::options().write(true).open(&lock).unwrap().set_modified(old).unwrap();
        assert!(why(quick(&path).append(FROM, &mut message("x\n"))).contains("locked"));
        let older = SystemTime::now() - MAILBOX_LOCK_STALE;
        File::options().write(true).open(&lock).unwrap().set_modified(older).unwrap();
        quick(&path).append(FROM, &mut message("y\n")).unwrap();
    }

    #[test]
    fn a_mailbox_that_is_replaced_while_it_is_waited_for_is_opened_anew() {
        let (_dir, path) = mailbox();
        fs::write(&path, "old\n\n").unwrap();
        let lock = dot_path(&path);
        fs::write(&lock, std::process::id().to_string()).unwrap();
        let appending = std::thread::spawn({
            let path = path.clone();
            move || Mailbox::new(&path, DotLock::Must).append(FROM, &mut message("x\n"))
        });
        // Whether it has opened the file by now or not: it must end up in the one that is there at the end.
        fs::write(path.with_extension("new"), "").unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        fs::remove_file(&lock).unwrap();
        appending.join().unwrap().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{FROM}\nx\n\n"));
    }

    #[test]
    fn a_failure_leaves_the_file_as_it_was() {
        let (_dir, path) = mailbox();
        fs::write(&path, "before\n\n").unwrap();
        let file = File::options().read(true).append(true).open(&path).unwrap();
        // A message that cannot be read stands for a disk that cannot be written.
        let mut unreadable = File::options().write(true).open("/dev/null").unwrap();
        assert!(write(&file, 8, FROM, &mut unreadable).is_err());
        fs::write(&path, "before\n\n").unwrap();
        why(quick(&path).append(FROM, &mut unreadable));
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\n\n");
    }
}
