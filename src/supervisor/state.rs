//! The state directory: made if need be, readable by its owner alone, and of one server at a time. Where that is root, other
//! users may pass through it, to the local socket and to the drop directory; nothing else in there is for them, but what is
//! the engine's for that, where it is a user of its own (`belongings.rs`).

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ringpost_io::sys::{Lock, LockError};
use rustix::fs::Mode;

use super::belongings;
use crate::exit::{Code, Failure};
use crate::owners::Owners;
use crate::sendmail::drop;

/// An open state directory, held by this process.
#[derive(Debug)]
pub struct StateDir {
    _lock: Lock,
}

/// The file whose lock says that a server runs, with its process number inside.
pub fn lock_path(state: &Path) -> PathBuf {
    state.join("ringpost.lock")
}

/// The local socket, where every user of this machine may bring mail.
pub fn local_path(state: &Path) -> PathBuf {
    state.join("smtp.sock")
}

/// Where administrators connect.
pub fn control_path(state: &Path) -> PathBuf {
    state.join("control.sock")
}

impl StateDir {
    /// Makes and locks it, for processes of these owners.
    ///
    /// # Errors
    /// When it cannot be written, or another server has it; the text says which and what to do.
    pub fn open(path: &Path, owners: &Owners) -> Result<Self, Failure> {
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
        // What is made from now on, by us and those whom we start, is nobody else's; sockets are told otherwise.
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
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
        match owners {
            Owners::Caller => {}
            Owners::Root { once, .. } => {
                open_to_users(path)
                    .and_then(|()| once.map_or(Ok(()), |once| belongings::take_back(path, once)))
                    .map_err(refuse)?;
            }
            Owners::Apart { engine, .. } => belongings::share(path, engine).map_err(|error| {
                let text = format!("cannot use the state directory {}: {error}", path.display());
                Failure::new(Code::CannotCreate, text)
            })?,
        }
        Ok(Self { _lock: lock })
    }
}

/// Other users may pass, if the directory is root's. What is in it is closed first: an older server may have left it open.
fn open_to_users(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.uid() != 0 {
        return Ok(());
    }
    for name in OURS {
        let path = path.join(name);
        match fs::symlink_metadata(&path) {
            Ok(there) if there.is_dir() || there.is_file() => {
                fs::set_permissions(&path, Permissions::from_mode(there.permissions().mode() & 0o700))?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    drop::prepare(path).map_err(|error| io::Error::new(error.kind(), format!("drop: {error}")))?;
    fs::set_permissions(path, Permissions::from_mode(0o711))
}

/// What a server keeps there.
const OURS: [&str; 5] = ["queue", "spool", "Maildir", "ringpost.lock", "engine.lock"];

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
        let owners = match rustix::process::geteuid().is_root() {
            true => Owners::Root { why: String::new(), once: None },
            false => Owners::Caller,
        };
        let first = StateDir::open(&path, &owners).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        match rustix::process::geteuid().is_root() {
            true => assert_eq!((mode(&path), mode(&path.join("drop"))), (0o711, 0o1733)),
            false => assert_eq!(mode(&path), 0o700),
        }
        assert_eq!(mode(&lock_path(&path)), 0o600);
        let second = StateDir::open(&path, &owners).unwrap_err();
        assert_eq!(second.code, Code::TryLater);
        assert!(second.text.contains(&format!("(pid {})", std::process::id())), "{}", second.text);
        drop(first);
        StateDir::open(&path, &owners).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let blocked = StateDir::open(&dir.path().join("file"), &owners).unwrap_err();
        assert_eq!(blocked.code, Code::CannotCreate);
        assert!(blocked.text.contains("--state DIR"));
    }
}
