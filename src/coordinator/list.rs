//! Lists in files of their own, `:include:/path`: read when they are needed, as the server's own user, and believed only if
//! not everybody can have written them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ringpost_conf::expand::Told;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::limits::LIST_BYTES;

/// Everybody may write.
const ALL_WRITE: u32 = 0o002;

/// Reads a list on a thread: a file system may hang.
pub async fn read(path: PathBuf) -> Told {
    let reading = tokio::task::spawn_blocking(move || look(&path));
    reading.await.unwrap_or_else(|_| Told::Failed("the thread that reads it has ended".into()))
}

/// What is in the file.
pub fn look(path: &Path) -> Told {
    match text(path) {
        Ok(told) => told,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Told::NotFound,
        Err(error) => Told::Failed(error.to_string()),
    }
}

fn text(path: &Path) -> io::Result<Told> {
    // A FIFO must not keep the thread.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let about = file.metadata()?;
    if !about.is_file() {
        return Ok(Told::Failed("it is not a regular file".into()));
    }
    if about.mode() & ALL_WRITE != 0 {
        return Ok(Told::Unsafe("everybody may write to it".into()));
    }
    let mut bytes = Vec::new();
    file.take(LIST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIST_BYTES {
        return Ok(Told::Failed(format!("it has more than {LIST_BYTES} bytes")));
    }
    Ok(String::from_utf8(bytes).map_or_else(|_| Told::Failed("it is not UTF-8".into()), Told::Found))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn lists_are_read_if_not_everybody_can_have_written_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        assert_eq!(look(&path), Told::NotFound);
        fs::write(&path, "gilles\n").unwrap();
        assert_eq!(look(&path), Told::Found("gilles\n".into()));
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(look(&path), Told::Unsafe(_)));
        fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(look(&path), Told::Failed(why) if why.contains("UTF-8")));
        fs::write(&path, vec![b'x'; LIST_BYTES as usize + 1]).unwrap();
        assert!(matches!(look(&path), Told::Failed(why) if why.contains("bytes")));
        assert!(matches!(look(dir.path()), Told::Failed(why) if why.contains("regular")));
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(matches!(look(&path), Told::Failed(why) if why.contains("regular")), "and nobody waits for its writer");
    }
}
