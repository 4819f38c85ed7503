//! Passwords of the system's users by PAM (the feature `pam`), under the name of `ringpost`: `/etc/pam.d/ringpost` says which
//! modules are asked. They are foreign code, so each question has a process of its own, which is ended if it takes too long.

use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ringpost_io::sys::{self, Pam};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::spawn::own_program;
use crate::ipc::codec::Channel;
use crate::ipc::passwords::Found;
use crate::limits::PAM_PROCESS;

/// The name of the service.
const SERVICE: &str = "ringpost";
/// Where services are described.
const SERVICES: &str = "/etc/pam.d";

/// To the process: the only letter.
#[derive(Serialize, Deserialize)]
struct Question {
    parent: u32,
    /// Where the service is described; `None`: where the system has it.
    services: Option<PathBuf>,
    user: String,
    password: String,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question {:?}", self.user)
    }
}

/// Has a process ask.
pub fn ask(root: Option<&Path>, user: &str, password: &str) -> Found {
    let mut question = Question {
        parent: std::process::id(),
        services: root.map(|root| crate::cli::below(root, Path::new(SERVICES))),
        user: user.to_owned(),
        password: password.to_owned(),
    };
    let found = put(&question);
    question.password.zeroize();
    found.unwrap_or_else(|error| Found::Failed(format!("PAM: {error}")))
}

fn put(question: &Question) -> io::Result<Found> {
    let (ours, theirs) = Channel::pair()?;
    set_socket_timeout(&ours, Timeout::Recv, Some(PAM_PROCESS))?;
    let mut child = own_program("logon");
    child.stdin(Stdio::from(theirs)).stdout(Stdio::null()).process_group(0);
    let mut child = child.spawn()?;
    let answer = ours.send_secret(question).and_then(|()| ours.receive::<Found>());
    // Whatever it has answered: a module may hang in its end, or have started others that do. Before it is buried, so that the
    // number is still theirs. They may have ended by themselves.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.wait();
    let answer = answer.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(error.kind(), "no answer within its time"),
        _ => error,
    });
    match answer? {
        Some((found, _)) => Ok(found),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the process has ended without an answer")),
    }
}

/// Asks the modules what the one letter wants to know.
///
/// # Errors
/// There is nobody who wants to know it.
pub fn run(channel: &Channel) -> io::Result<()> {
    sys::hide_memory()?;
    let Some(Question { parent, services, user, password }) = channel.receive_secret()? else { return Ok(()) };
    sys::die_with_parent(parent)?;
    let password = Zeroizing::new(password);
    channel.send(&match sys::pam(SERVICE, services.as_deref(), &user, &password) {
        Ok(Pam::Right) => Found::Right,
        // A name that nobody can have.
        Ok(Pam::Wrong) | Err(_) => Found::Wrong,
        Ok(Pam::Failed(why)) => Found::Failed(why),
    })
}
