//! Files that are there as a whole or not at all, and stay: written under another name, made durable, renamed.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes a file of this mode, whatever the umask, in the place of what has its name. The content and the name are durable
/// on return, or, after an error, the old file is as it was.
///
/// # Errors
/// The directory cannot be written, or the disk is full.
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path)?;
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        // Never a file that is there: in a directory of many users it might be a link of somebody's.
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory_of(path, &file)
    })();
    if written.is_err() {
        // It is nobody's message or table, and overwritten next time.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A dot in front: what lists the directory passes over it. Two programs do not meet in it.
fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a path without a name"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

fn sync_directory_of(path: &Path, file: &File) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent) {
        Ok(directory) => directory.sync_all(),
        // One may write there, but not look: the whole file system, then.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(rustix::fs::syncfs(file)?),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, 0o600, b"one").unwrap();
        replace(&path, 0o600, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = dir.path().join("other");
        fs::write(&other, "mine").unwrap();
        symlink(&other, temporary(&path).unwrap()).unwrap();
        replace(&path, 0o600, b"three").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&other).unwrap()), (b"three".to_vec(), b"mine".to_vec()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left over");
        assert!(replace(&dir.path().join("no/such"), 0o600, b"").is_err());
        assert!(replace(Path::new("/"), 0o600, b"").is_err());
    }
}
