//! Users of the system, looked up for the engine, which may not read the files that they stand in. One question at a time on
//! each lane; whoever is to be asked may hang, and then that lane waits.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::coordinator::tables::system_user;
use crate::ipc::codec::Channel;
use crate::ipc::supervisor::UserAnswer;

/// Serves one lane from a thread of its own, until the other end is closed; returns that end.
///
/// # Errors
/// Out of threads or descriptors.
pub fn serve(root: Option<PathBuf>) -> std::io::Result<OwnedFd> {
    let (ours, theirs) = Channel::pair()?;
    std::thread::Builder::new().name("users".into()).spawn(move || {
        while let Ok(Some((name, _))) = ours.receive::<String>() {
            let answer: UserAnswer = system_user(&name, root.as_deref()).map_err(|error| error.to_string());
            if ours.send(&answer).is_err() {
                return;
            }
        }
    })?;
    Ok(theirs)
}
