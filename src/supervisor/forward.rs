//! A user's `.forward`: read as that user, and believed only if nobody else can have written it. Runs in a helper process
//! that has become the user; where the server itself is an ordinary user, "the user" is that one.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ringpost_shard::Forwarding;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::limits::FORWARD_BYTES;

/// Others may write.
const OTHERS_WRITE: u32 = 0o022;
/// Everybody may write.
const EVERYBODY_WRITES: u32 = 0o002;
/// A home directory like this holds the user's mail back: an old custom while he edits his `.forward`.
const STICKY: u32 = 0o1000;

/// Reads `.forward` in `home`.
pub fn read(home: &Path) -> Forwarding {
    look(home).unwrap_or_else(|found| found)
}

/// Whether there is surely nothing to read, as most have nothing: a look that costs no process. Whoever asks has the rights
/// to see it, or is not sure.
pub fn is_absent(home: &Path) -> bool {
    let directory = match openat(CWD, home, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return true,
        Err(_) => return false,
        Ok(directory) => File::from(directory),
    };
    let is_sticky = directory.metadata().is_ok_and(|about| about.mode() & STICKY != 0);
    !is_sticky && statat(&directory, ".forward", AtFlags::SYMLINK_NOFOLLOW).is_err_and(|error| error == Errno::NOENT)
}

fn look(home: &Path) -> Result<Forwarding, Forwarding> {
    let failed = |error: io::Error| Forwarding::Failed(format!("{}: {error}", home.display()));
    let directory = match openat(CWD, home, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Forwarding::NotThere),
        opened => File::from(opened.map_err(|error| failed(error.into()))?),
    };
    let about = directory.metadata().map_err(failed)?;
    if about.mode() & STICKY != 0 {
        return Err(Forwarding::Unsafe(format!("{} is sticky: mail is held", home.display())));
    }
    // A FIFO must not keep us waiting, a link must not lead us to another's file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let path = home.join(".forward");
    let unsafe_because = |why: &str| Forwarding::Unsafe(format!("{} {why}", path.display()));
    let file = match openat(&directory, ".forward", flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Forwarding::NotThere),
        Err(Errno::LOOP) => return Err(unsafe_because("is a symbolic link")),
        Err(error) => return Err(Forwarding::Failed(format!("{}: {}", path.display(), io::Error::from(error)))),
        Ok(file) => File::from(file),
    };
    let own = geteuid().as_raw();
    for (about, path) in [(&about, home), (&file.metadata().map_err(failed)?, &path)] {
        if about.uid() != own {
            return Err(Forwarding::Unsafe(format!("{} belongs to user {}", path.display(), about.uid())));
        }
        if about.mode() & OTHERS_WRITE != 0 {
            return Err(Forwarding::Unsafe(format!("others may write to {}", path.display())));
        }
    }
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(unsafe_because("is not a regular file"));
    }
    if about.nlink() != 1 {
        return Err(unsafe_because("has another name (a hard link)"));
    }
    text(file, &path)
}

/// Reads a list that a `.forward` includes, or an alias: what this process may read, and not everybody may have written.
pub fn read_list(path: &Path) -> Forwarding {
    look_at_list(path).unwrap_or_else(|found| found)
}

fn look_at_list(path: &Path) -> Result<Forwarding, Forwarding> {
    let failed = |error: io::Error| Forwarding::Failed(format!("{}: {error}", path.display()));
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Forwarding::NotThere),
        opened => File::from(opened.map_err(|error| failed(error.into()))?),
    };
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(Forwarding::Unsafe(format!("{} is not a regular file", path.display())));
    }
    if about.mode() & EVERYBODY_WRITES != 0 {
        return Err(Forwarding::Unsafe(format!("everybody may write to {}", path.display())));
    }
    text(file, path)
}

fn text(file: File, path: &Path) -> Result<Forwarding, Forwarding> {
    let mut bytes = Vec::new();
    let read = file.take(FORWARD_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Forwarding::Failed(format!("{}: {error}", path.display())))?;
    if bytes.len() as u64 > FORWARD_BYTES {
        return Err(Forwarding::Unsafe(format!("{} is larger than {FORWARD_BYTES} bytes", path.display())));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Forwarding::Text(text)),
        Err(_) => Err(Forwarding::Unsafe(format!("{} is not UTF-8", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// A home with this in its `.forward`.
    fn home(text: &str) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".forward");
        fs::write(&path, text).unwrap();
        mode(&path, 0o644);
        mode(dir.path(), 0o755);
        (dir, path)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// The reason for which it is not believed.
    fn reason(home: &Path) -> String {
        match read(home) {
            Forwarding::Unsafe(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_read_or_not_there() {
        let (dir, path) = home("eric@poolp.org\n\\gilles\n");
        assert_eq!(read(dir.path()), Forwarding::Text("eric@poolp.org\n\\gilles\n".into()));
        fs::write(&path, "").unwrap();
        assert_eq!(read(dir.path()), Forwarding::Text(String::new()));
        fs::remove_file(&path).unwrap();
        mode(dir.path(), 0o777);
        assert_eq!(read(dir.path()), Forwarding::NotThere, "whose home it is matters only to a file in it");
        assert_eq!(read(&dir.path().join("nobody")), Forwarding::NotThere);
    }

    #[test]
    fn what_is_surely_absent_is_what_reading_would_not_find() {
        let (dir, path) = home("x\n");
        assert!(!is_absent(dir.path()));
        fs::remove_file(&path).unwrap();
        assert!(is_absent(dir.path()) && is_absent(&dir.path().join("nobody")));
        symlink("/nowhere", &path).unwrap();
        assert!(!is_absent(dir.path()), "a link is there, wherever it leads");
        fs::remove_file(&path).unwrap();
        mode(dir.path(), 0o1755);
        assert!(!is_absent(dir.path()), "mail is held");
    }

    #[test]
    fn s28_what_others_may_have_written_is_not_believed() {
        let (dir, path) = home("x\n");
        for wrong in [0o664, 0o646, 0o666] {
            mode(&path, wrong);
            assert!(reason(dir.path()).contains("others may write to"), "{wrong:o}");
        }
        mode(&path, 0o600);
        for wrong in [0o775, 0o757] {
            mode(dir.path(), wrong);
            assert!(reason(dir.path()).contains("others may write to"), "{wrong:o}");
        }
        mode(dir.path(), 0o700);
        assert_eq!(read(dir.path()), Forwarding::Text("x\n".into()));
        mode(dir.path(), 0o1700);
        assert!(reason(dir.path()).contains("sticky"));
        fs::remove_file(&path).unwrap();
        assert!(reason(dir.path()).contains("sticky"), "held, whatever is in it");
    }

    #[test]
    fn lists_are_read_if_not_everybody_can_have_written_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        assert_eq!(read_list(&path), Forwarding::NotThere);
        fs::write(&path, "gilles\n").unwrap();
        mode(&path, 0o664);
        assert_eq!(read_list(&path), Forwarding::Text("gilles\n".into()));
        mode(&path, 0o666);
        assert!(matches!(read_list(&path), Forwarding::Unsafe(why) if why.contains("everybody may write")));
        assert!(matches!(read_list(dir.path()), Forwarding::Unsafe(why) if why.contains("regular")));
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(matches!(read_list(&path), Forwarding::Unsafe(why) if why.contains("regular")), "and nobody waits");
    }

    #[test]
    fn links_and_what_is_no_file_are_not_followed() {
        let (dir, path) = home("x\n");
        let other = dir.path().join("other");
        fs::hard_link(&path, &other).unwrap();
        assert!(reason(dir.path()).contains("hard link"));
        fs::remove_file(&path).unwrap();
        symlink(&other, &path).unwrap();
        assert!(reason(dir.path()).contains("symbolic link"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(reason(dir.path()).contains("regular"));
        fs::remove_dir(&path).unwrap();
        rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(reason(dir.path()).contains("regular"), "and nobody waits for its writer");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_said_to() {
        let (dir, path) = home("x\n");
        fs::write(&path, vec![b'x'; FORWARD_BYTES as usize + 1]).unwrap();
        assert!(reason(dir.path()).contains("larger"));
        fs::write(&path, vec![b'x'; FORWARD_BYTES as usize]).unwrap();
        assert!(matches!(read(dir.path()), Forwarding::Text(text) if text.len() as u64 == FORWARD_BYTES));
        fs::write(&path, b"\xff\n").unwrap();
        assert!(reason(dir.path()).contains("UTF-8"));
    }
}
