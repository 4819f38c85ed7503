//! The state directory: made if need be, readable by its owner alone, and of one server at a time.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ringpost_io::sys::{Lock, LockError};

use crate::exit::{Code, Failure};

/// An open state directory, held by this process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Lock,
}

/// The file whose lock says that a server runs, with its process number inside.
pub fn lock_path(state: &Path) -> PathBuf {
    state.join("ringpost.lock")
}

/// Where administrators connect.
pub fn control_path(state: &Path) -> PathBuf {
    state.join("control.sock")
}

impl StateDir {
    /// Makes and locks it.
    ///
    /// # Errors
    /// When it cannot be written, or another server has it; the text says which and what to do.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let refuse = |error: std::io::Error| {
            let code = match error.kind() {
                ErrorKind::PermissionDenied => Code::NotPermitted,
                _ => Code::CannotCreate,
            };
            let text = format!(
                "cannot write to the state directory {}: {error}\n  make it writable, or choose another with --state DIR",
                path.display()
            );
            Failure::new(code, text)
        };
        let existed = path.is_dir();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refuse)?;
        let lock = match Lock::try_exclusive(&lock_path(path)) {
            Ok(lock) => lock,
            Err(LockError::Held { holder }) => return Err(running(path, holder)),
            Err(LockError::Io(error)) => return Err(refuse(error)),
        };
        if existed {
            let mode = fs::metadata(path).map_err(refuse)?.permissions().mode();
            if mode & 0o077 != 0 {
                // Somebody else's directory stays as it is; mail in it is theirs to protect.
                let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o700));
            }
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where administrators connect.
    pub fn control_path(&self) -> PathBuf {
        control_path(&self.path)
    }
}

fn running(path: &Path, holder: Option<u32>) -> Failure {
    let pid = holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let text = format!(
        "another ringpost{pid} runs with the state directory {path}\n  stop it with `ringpost stop --state {path}`, or \
         choose another directory with --state DIR",
        path = path.display()
    );
    Failure::new(Code::TryLater, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_by_name_and_a_file_in_the_way_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/state");
        let first = StateDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let second = StateDir::open(&path).unwrap_err();
        assert_eq!(second.code, Code::TryLater);
        assert!(second.text.contains(&format!("(pid {})", std::process::id())), "{}", second.text);
        drop(first);
        StateDir::open(&path).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let blocked = StateDir::open(&dir.path().join("file")).unwrap_err();
        assert_eq!(blocked.code, Code::CannotCreate);
        assert!(blocked.text.contains("--state DIR"));
    }
}
