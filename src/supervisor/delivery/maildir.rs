//! Maildirs of other users: the message is written to `tmp/`, made durable, renamed into `new/`, and that made durable. A
//! reader sees it whole or not at all, and one that was told of as delivered survives a power cut.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, fsync, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::refusal::{Step, failed, wrong};

/// Delivers into `dir`, or its folder `.Junk`. `copy` names the message: the same again replaces what a crash has left of
/// it. On return it is durable.
///
/// # Errors
/// Always temporary, and nothing is in `new/`.
pub fn deliver(dir: &Path, junk: bool, copy: &str, message: &mut File) -> Step<()> {
    let (dir, maildir) = match junk {
        true => folder(dir)?,
        false => (dir.to_owned(), Maildir::open(dir)?),
    };
    maildir.deliver(copy, message).map_err(|error| failed(&dir, &error))
}

/// A folder of Maildir++: an empty file tells it from the Maildir that it is in.
fn folder(dir: &Path) -> Step<(PathBuf, Maildir)> {
    Maildir::open(dir)?;
    let path = dir.join(".Junk");
    let folder = Maildir::open(&path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let marked = openat(&folder.root, "maildirfolder", flags, Mode::RUSR | Mode::WUSR);
    marked.map_err(|error| failed(&path, &error.into()))?;
    Ok((path, folder))
}

/// An open Maildir: by descriptors, so that nobody can move it away under us.
struct Maildir {
    root: OwnedFd,
    tmp: OwnedFd,
    new: OwnedFd,
}

impl Maildir {
    /// Opens it; makes it if need be.
    fn open(path: &Path) -> Step<Self> {
        let opened = match open_directory(CWD, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(path).and_then(|()| open_directory(CWD, path))
            }
            opened => opened,
        };
        let root = opened.map_err(|error| failed(path, &error))?;
        check_owner(&root, path)?;
        let part = |name: &str| {
            let path = path.join(name);
            let part = part(&root, name).map_err(|error| failed(&path, &error))?;
            check_owner(&part, &path)?;
            Ok(part)
        };
        let (tmp, new, _cur) = (part("tmp")?, part("new")?, part("cur")?);
        Ok(Self { root, tmp, new })
    }

    fn deliver(&self, copy: &str, message: &mut File) -> io::Result<()> {
        let written = self.write(copy, message).and_then(|()| Ok(renameat(&self.tmp, copy, &self.new, copy)?));
        if written.is_err() {
            // What is left is in nobody's way, and replaced at the next attempt.
            let _ = unlinkat(&self.tmp, copy, AtFlags::empty());
            return written;
        }
        let durable = fsync(&self.new);
        if durable.is_err() {
            // What was not delivered is not to be seen.
            let _ = unlinkat(&self.new, copy, AtFlags::empty());
        }
        Ok(durable?)
    }

    fn write(&self, copy: &str, message: &mut File) -> io::Result<()> {
        let mut file = match self.make(copy) {
            // A crash has left it.
            Err(Errno::EXIST) => {
                unlinkat(&self.tmp, copy, AtFlags::empty())?;
                self.make(copy)?
            }
            made => made?,
        };
        io::Seek::rewind(message)?;
        io::copy(message, &mut file)?;
        file.sync_all()
    }

    fn make(&self, copy: &str) -> rustix::io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.tmp, copy, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }
}

/// In a directory where everybody may make one, another's is a trap.
fn check_owner(directory: &OwnedFd, path: &Path) -> Step<()> {
    let owner = fstat(directory).map_err(|error| failed(path, &error.into()))?.st_uid;
    match owner == geteuid().as_raw() {
        true => Ok(()),
        false => Err(wrong(path, format_args!("belongs to user {owner}"))),
    }
}

/// A directory in the Maildir itself: a link would be somebody's trick.
fn part(root: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match open_part(root, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match mkdirat(root, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => fsync(root)?,
                Err(error) => return Err(error.into()),
            }
            open_part(root, name)
        }
        opened => opened,
    }
}

fn open_part(root: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(root, name, flags, Mode::empty())?)
}

fn open_directory(at: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(at, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// With its parents, for the user alone.
fn make_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) => {
            let parent = open_directory(CWD, parent.unwrap_or(Path::new(".")))?;
            Ok(fsync(parent)?)
        }
        Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) if parent.is_some() => {
            make_directory(parent.expect("just seen"))?;
            make_directory(path)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, symlink};

    use ringpost_shard::Handed;

    use super::*;

    fn message(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn names(dir: PathBuf) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_made_for_its_user_alone_and_filled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("home/deep/Maildir");
        deliver(&path, false, "1.a_0.host", &mut message("x\n")).unwrap();
        assert_eq!(fs::read_to_string(path.join("new/1.a_0.host")).unwrap(), "x\n");
        assert_eq!(
            (names(path.clone()), names(path.join("tmp"))),
            (vec!["cur".into(), "new".into(), "tmp".into()], vec![])
        );
        for made in ["", "tmp", "new", "cur", "new/1.a_0.host"] {
            assert_eq!(fs::metadata(path.join(made)).unwrap().mode() & 0o077, 0, "{made}");
        }
        // Once more, after a crash that has left half of it.
        fs::write(path.join("tmp/1.a_0.host"), "half of it, and longer").unwrap();
        deliver(&path, false, "1.a_0.host", &mut message("x\n")).unwrap();
        assert_eq!(names(path.join("new")), ["1.a_0.host"]);
        assert_eq!(fs::read_to_string(path.join("new/1.a_0.host")).unwrap(), "x\n");
    }

    #[test]
    fn junk_has_a_folder_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        deliver(dir.path(), true, "1.a_0.host", &mut message("x\n")).unwrap();
        assert_eq!(names(dir.path().join(".Junk")), ["cur", "maildirfolder", "new", "tmp"]);
        assert_eq!(names(dir.path().join(".Junk/new")), ["1.a_0.host"]);
        assert!(names(dir.path().join("new")).is_empty());
    }

    #[test]
    fn a_link_that_waits_in_tmp_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        symlink(dir.path().join("secret"), dir.path().join("tmp/1.a_0.host")).unwrap();
        deliver(dir.path(), false, "1.a_0.host", &mut message("x\n")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), "secret");
        assert_eq!(fs::read_to_string(dir.path().join("new/1.a_0.host")).unwrap(), "x\n");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut unreadable = File::options().write(true).open("/dev/null").unwrap();
        let refused = deliver(dir.path(), false, "1.a_0.host", &mut unreadable).unwrap_err();
        assert!(matches!(refused, Handed::Temporary { status: (4, 3, 0), .. }), "{refused:?}");
        assert!(names(dir.path().join("tmp")).is_empty() && names(dir.path().join("new")).is_empty());
        fs::write(dir.path().join("file"), "").unwrap();
        let refused = deliver(&dir.path().join("file"), false, "1.a_0.host", &mut message("x\n")).unwrap_err();
        assert!(matches!(refused, Handed::Temporary { .. }), "{refused:?}");
    }
}
