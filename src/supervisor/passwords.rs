//! Passwords of the system's users: held against shadow(5) (`shadow.rs`), or, in a program that is built with the feature
//! `pam`, judged by PAM (`modules.rs`). A thread of its own for each engine, one question at a time: the supervisor itself
//! never waits for an answer.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

#[cfg(feature = "pam")]
use super::modules as source;
#[cfg(not(feature = "pam"))]
use super::shadow as source;
use crate::ipc::codec::Channel;
use crate::ipc::passwords::{SystemLogin, SystemVerdict};

/// Starts the thread, which ends with the engine; the engine's end of its channel.
///
/// # Errors
/// Out of descriptors or threads.
pub fn start(root: Option<&Path>) -> io::Result<OwnedFd> {
    let root = root.map(Path::to_owned);
    let (ours, theirs) = Channel::pair()?;
    std::thread::Builder::new().name("passwords".into()).spawn(move || answer(&ours, root))?;
    Ok(theirs)
}

fn answer(channel: &Channel, root: Option<PathBuf>) {
    while let Ok(Some(SystemLogin { number, user, password })) = channel.receive_secret() {
        let password = Zeroizing::new(password);
        let found = source::ask(root.as_deref(), &user, &password);
        if channel.send(&SystemVerdict { number, found }).is_err() {
            return;
        }
    }
}

/// With PAM each answer is a process of the installed program's.
#[cfg(all(test, not(feature = "pam")))]
mod tests {
    use super::*;
    use crate::ipc::passwords::Found;
    use crate::passwords::{Scheme, hash};

    #[test]
    fn the_thread_answers_until_the_engine_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/shadow"), format!("gilles:{}\n", hash("right", Scheme::Sha256))).unwrap();
        let engine = Channel::of(start(Some(dir.path())).unwrap());
        for (number, password, found) in [(1, "right", Found::Right), (2, "left", Found::Wrong)] {
            engine.send(&SystemLogin { number, user: "gilles".into(), password: password.into() }).unwrap();
            let (said, _) = engine.receive::<SystemVerdict>().unwrap().unwrap();
            assert_eq!(said, SystemVerdict { number, found });
        }
    }
}
