//! `<getpwnam>`: the system's users. The engine may not read the files that they stand in: there the supervisor is asked.

use std::io;
use std::path::{Path, PathBuf};

use ringpost_io::sys::{self, User};
use tokio::sync::OwnedSemaphorePermit;

use super::super::users::Users;
use super::Surroundings;
use super::cache::Question;
use super::table::{Looked, Trouble};

/// A user's record as tables have it: `name:uid:gid:home`. With a root directory its `/etc/passwd` is read and nobody else
/// is asked. May take as long as the system's directory services do.
///
/// # Errors
/// When the system cannot tell: that is not "no such user".
pub fn system_user(name: &str, root: Option<&Path>) -> io::Result<Option<String>> {
    let found = match root {
        Some(root) => sys::user_below(root, name)?,
        None => sys::user(name)?,
    };
    Ok(found.map(|User { name, uid, gid, home }| format!("{name}:{uid}:{gid}:{home}")))
}

/// The table.
pub struct System {
    root: Option<PathBuf>,
    users: Option<Users>,
}

impl System {
    /// Of the system, or of a directory that looks like one.
    pub fn new(surroundings: &Surroundings) -> Self {
        Self { root: surroundings.root.clone(), users: surroundings.users.clone() }
    }

    /// Asks on a thread. Its place is taken until the system has answered, so that one that hangs takes few threads.
    pub async fn ask(&self, question: &Question, place: OwnedSemaphorePermit) -> Looked {
        if let Some(users) = &self.users {
            return users.ask(&question.key).await.map_err(Trouble::Backend);
        }
        let (root, name) = (self.root.clone(), question.key.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let found = system_user(&name, root.as_deref());
            drop(place);
            found
        });
        match asked.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(Trouble::Backend(error.to_string())),
            Err(_) => Err(Trouble::Backend("the thread that asks the system has ended".into())),
        }
    }
}
