//! Starting a program that talks over its standard input and output. The one place that does: the supervisor will.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ringpost_conf::tables::HELPER_DIRECTORIES;
use rustix::process::{Pid, Signal, kill_process_group};

use super::limits::{HELPER_END, HELPER_LOOK};

/// A program that runs. Dropped, it is told to end, and made to.
pub struct Program {
    /// To its standard input and from its standard output.
    pub talk: UnixStream,
    /// What it writes to its standard error.
    pub complaints: UnixStream,
    /// See [`Running`].
    pub running: Running,
}

/// Ends the program when it is dropped. Its streams should be closed by then, which is how it hears of that.
pub struct Running(Option<Child>);

/// Starts a program under a name of our choice, with an argument if there is one.
///
/// # Errors
/// When it is not found or cannot be started.
pub fn start(program: &Path, name: &str, argument: Option<&Path>) -> io::Result<Program> {
    use std::os::unix::process::CommandExt;

    let path = find(program)?;
    let (talk, theirs) = UnixStream::pair()?;
    let (complaints, their_complaints) = UnixStream::pair()?;
    let mut command = Command::new(path);
    command.arg0(name).stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone()?)));
    command.stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
    command.stderr(Stdio::from(std::os::fd::OwnedFd::from(their_complaints)));
    // Signals of the terminal are the supervisor's to hear.
    command.args(argument).current_dir("/").process_group(0);
    let child = command.spawn()?;
    Ok(Program { talk, complaints, running: Running(Some(child)) })
}

/// A path as it is; a name in the places where helpers are, then in `PATH`.
fn find(program: &Path) -> io::Result<PathBuf> {
    if program.is_absolute() {
        return Ok(program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = HELPER_DIRECTORIES.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    places.map(|place| place.join(program)).find(|path| path.is_file()).ok_or_else(|| {
        let what = format!("there is no program {} in {} or PATH", program.display(), HELPER_DIRECTORIES.join(", "));
        io::Error::new(io::ErrorKind::NotFound, what)
    })
}

impl Running {
    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.0.as_mut()?.try_wait().ok()??;
        Some(status.to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        let bury = move || {
            let deadline = Instant::now() + HELPER_END;
            while Instant::now() < deadline {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::park_timeout(HELPER_LOOK);
            }
            // With all that it has started. It may have ended by itself meanwhile; either way nothing of it is left.
            if let Some(group) = Pid::from_raw(child.id() as i32) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait();
        };
        // Without a thread it stays until this process ends; its input is closed.
        let _ = std::thread::Builder::new().name("burial".into()).spawn(bury);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_program_is_found_talked_to_and_ended() {
        let mut program = start(Path::new("cat"), "table", None).unwrap();
        program.talk.write_all(b"hello\n").unwrap();
        let mut answer = [0; 6];
        program.talk.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello\n");
        assert_eq!(program.running.ended(), None);
        let pid = program.running.0.as_ref().unwrap().id();
        drop(program);
        let deadline = Instant::now() + std::time::Duration::from_secs(30);
        while Path::new(&format!("/proc/{pid}")).exists() {
            assert!(Instant::now() < deadline, "{pid} is still there");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = start(Path::new("table-nonesuch"), "t", None).err().unwrap().to_string();
        assert!(error.contains("table-nonesuch") && error.contains("/usr/libexec/smtpd"), "{error}");
        assert!(start(Path::new("/nonesuch/helper"), "t", None).is_err());
    }
}
