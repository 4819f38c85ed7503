//! The administrator's end of the control socket.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ringpost_io::sys::{Lock, LockError};
use serde::Serialize;

use crate::exit::{Code, Failure};
use crate::ipc::control::{Answer, Request};
use crate::supervisor::{control_path, lock_path};

/// A connection to a running server.
#[derive(Debug)]
pub struct Server(BufReader<UnixStream>);

/// Whether a server runs.
#[derive(Debug)]
pub enum Found {
    Running(Server),
    /// The state directory is there, and nobody holds it.
    Stopped,
}

impl Server {
    /// Looks for the server of a state directory.
    ///
    /// # Errors
    /// When there is no such directory, or a server that does not answer.
    pub fn find(state: &Path) -> Result<Found, Failure> {
        if !state.is_dir() {
            let text = format!(
                "there is no state directory {}\n  name the server's with --state DIR, or run this where it was started",
                state.display()
            );
            return Err(Failure::new(Code::NoInput, text));
        }
        match UnixStream::connect(control_path(state)) {
            Ok(stream) => Ok(Found::Running(Self(BufReader::new(stream)))),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Failure::new(
                Code::NotPermitted,
                format!("{}: only its own user and root may control this server", control_path(state).display()),
            )),
            Err(error) => match holder(state) {
                None => Ok(Found::Stopped),
                Some(pid) => Err(Failure::new(
                    Code::TryLater,
                    format!("the server (pid {pid}) is starting or stopping, try again: {error}"),
                )),
            },
        }
    }

    /// The server, which has to run.
    pub fn running(state: &Path) -> Result<Self, Failure> {
        match Self::find(state)? {
            Found::Running(server) => Ok(server),
            Found::Stopped => Err(Failure::new(
                Code::Unavailable,
                format!("no server runs with the state directory {}", state.display()),
            )),
        }
    }

    /// Asks and hands over every line of the answer; what the server says at the end.
    pub fn ask(
        &mut self,
        request: &Request,
        mut each: impl FnMut(Answer) -> Result<(), Failure>,
    ) -> Result<String, Failure> {
        let mut line = serde_json::to_vec(request).map_err(std::io::Error::from)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)?;
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(Failure::new(Code::Unavailable, "the server ended before it had answered"));
            }
            match serde_json::from_str(&line).map_err(std::io::Error::from)? {
                Answer::Done(text) => return Ok(text),
                Answer::Error(text) => return Err(Failure::new(Code::Failed, text)),
                answer => each(answer)?,
            }
        }
    }
}

/// Process number of the server that holds a state directory; 0 if it has not said.
pub fn holder(state: &Path) -> Option<u32> {
    match Lock::try_exclusive(&lock_path(state)) {
        Err(LockError::Held { holder }) => Some(holder.unwrap_or(0)),
        _ => None,
    }
}

/// One JSON object a line, as every listing has it.
pub fn json_lines<T: Serialize>(rows: &[T]) -> Result<String, Failure> {
    let mut out = String::new();
    for row in rows {
        out += &serde_json::to_string(row).map_err(std::io::Error::from)?;
        out.push('\n');
    }
    Ok(out)
}

/// Standard output as a command of the shell has it: a reader that has gone away ends the command, and is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}
