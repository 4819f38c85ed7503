//! Programs that are not ours: how one is run, whatever it is for. Own process group and session, nothing but its three
//! standard descriptors, a clean environment, bounded time and output. Never from the supervisor itself, which has several
//! threads and all rights: from a helper process that has become the user.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ringpost_io::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process_group, pidfd_open, setrlimit,
};

use crate::limits::{PROGRAM_DESCRIPTORS, PROGRAM_END, PROGRAM_OUTPUT_BYTES};

/// A program to run.
#[derive(Debug)]
pub struct Program {
    /// Its path, or a name to be found in the PATH of its environment, and its arguments. Not empty.
    pub arguments: Vec<String>,
    /// All of its environment.
    pub environment: Vec<(&'static str, OsString)>,
    /// Where it starts.
    pub dir: PathBuf,
    /// Its standard input.
    pub input: File,
    /// How long it may take.
    pub time: Duration,
}

/// How it ended, and what it said.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub ended: Ended,
    /// The first bytes of standard output and error, in the order in which they were written.
    pub output: Vec<u8>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// It took too long and was ended.
    TooLate,
    /// Nobody waits for it any more, and it was ended.
    GivenUp,
}

/// Runs a program to its end; earlier if `peer` hangs up.
///
/// # Errors
/// It cannot be started.
pub fn run(program: Program, peer: BorrowedFd<'_>) -> io::Result<Finished> {
    let (output, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (name, arguments) =
        program.arguments.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no program"))?;
    lower_descriptors()?;
    sys::keep_descriptors()?;
    let child = Command::new(name)
        .args(arguments)
        .env_clear()
        .envs(program.environment)
        .current_dir(program.dir)
        .stdin(program.input)
        .stdout(theirs.try_clone()?)
        .stderr(Stdio::from(theirs))
        .process_group(0)
        .spawn()?;
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let output = Output::new(output)?;
    Running { child, process, output, end: None }.wait(Instant::now() + program.time, peer)
}

/// The supervisor raises its own limit for many connections; what it starts gets back what programs are used to.
fn lower_descriptors() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum.map_or(PROGRAM_DESCRIPTORS, |maximum| maximum.min(PROGRAM_DESCRIPTORS));
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum })?)
}

struct Running {
    child: Child,
    process: OwnedFd,
    output: Output,
    /// Why it has been told to end.
    end: Option<Ended>,
}

impl Running {
    fn wait(mut self, mut deadline: Instant, peer: BorrowedFd<'_>) -> io::Result<Finished> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (ended, hung_up) = self.look(left, peer)?;
            if ended {
                if self.end.is_some() {
                    // Whoever of its group did not listen; before it is buried, so that the number is still theirs.
                    let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
                }
                let ended = self.end.unwrap_or(how(self.child.wait()?));
                self.output.take();
                return Ok(Finished { ended, output: self.output.kept });
            }
            let group = Pid::from_child(&self.child);
            if hung_up || Instant::now() >= deadline {
                // The group may be gone when the signal comes: the next look tells.
                let _ = match self.end {
                    None => kill_process_group(group, Signal::TERM),
                    Some(_) => kill_process_group(group, Signal::KILL),
                };
                self.end = self.end.or(Some(if hung_up { Ended::GivenUp } else { Ended::TooLate }));
                deadline = Instant::now() + PROGRAM_END;
            }
        }
    }

    /// Waits until something happens, and takes output: whether it has ended, and whether the peer has hung up for the
    /// first time.
    fn look(&mut self, time: Duration, peer: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
        let mut fds = vec![PollFd::new(&self.process, PollFlags::IN)];
        if self.end.is_none() {
            // No more than its end is expected from there.
            fds.push(PollFd::from_borrowed_fd(peer, PollFlags::RDHUP));
        }
        let (at_peer, at_output) = (1, fds.len());
        if self.output.open {
            fds.push(PollFd::new(&self.output.pipe, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timespec(time))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let (ended, hung_up, said) = (happened(0), at_output > at_peer && happened(at_peer), happened(at_output));
        if said {
            self.output.take();
        }
        Ok((ended, hung_up))
    }
}

/// What a program says. It is read to the end, or the program would wait; the first bytes are kept.
struct Output {
    pipe: OwnedFd,
    kept: Vec<u8>,
    open: bool,
}

impl Output {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&pipe)?;
        rustix::fs::fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?;
        Ok(Self { pipe, kept: Vec::new(), open: true })
    }

    /// Takes what is there. Somebody in the background may hold the pipe open for long: he is not waited for.
    fn take(&mut self) {
        let mut piece = [0; PROGRAM_OUTPUT_BYTES];
        while self.open {
            match rustix::io::read(self.pipe.as_fd(), &mut piece) {
                Ok(0) => self.open = false,
                Ok(count) => {
                    let room = PROGRAM_OUTPUT_BYTES - self.kept.len();
                    self.kept.extend_from_slice(&piece[..count.min(room)]);
                    if room == 0 {
                        // A program that says no end of things must not keep us from seeing its own.
                        return;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => self.open = false,
            }
        }
    }
}

fn how(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(0)),
    }
}

/// For `poll`.
pub fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::path::Path;

    use rustix::process::test_kill_process_group;

    use super::*;

    fn shell(script: &str, input: &str) -> Program {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(input.as_bytes()).unwrap();
        file.rewind().unwrap();
        Program {
            arguments: vec!["sh".into(), "-c".into(), script.into()],
            environment: vec![("PATH", "/usr/bin:/bin".into()), ("HOME", "/tmp".into())],
            dir: "/".into(),
            input: file,
            time: Duration::from_secs(60),
        }
    }

    /// Runs it with a peer that stays.
    fn finish(program: Program) -> Finished {
        let (ours, _theirs) = sys::packet_pair().unwrap();
        run(program, ours.as_fd()).unwrap()
    }

    fn text(finished: &Finished) -> &str {
        std::str::from_utf8(&finished.output).unwrap()
    }

    #[test]
    fn it_gets_its_input_its_environment_and_nothing_else() {
        let finished = finish(shell(
            "cat; env | grep -v -e PWD -e SHLVL -e '^_=' | sort; pwd; ls /proc/self/fd | wc -l; ulimit -n",
            "in\n",
        ));
        // The fourth descriptor is that of `ls` itself.
        assert_eq!(text(&finished), "in\nHOME=/tmp\nPATH=/usr/bin:/bin\n/\n4\n1024\n");
        assert_eq!(finished.ended, Ended::Exit(0));
    }

    #[test]
    fn its_end_is_told_as_it_was() {
        assert_eq!(finish(shell("exit 75", "")).ended, Ended::Exit(75));
        assert_eq!(finish(shell("kill -9 $$", "")).ended, Ended::Signal(9));
        let missing = Program { arguments: vec!["/no/such/program".into()], ..shell("", "") };
        let (ours, _theirs) = sys::packet_pair().unwrap();
        assert_eq!(run(missing, ours.as_fd()).unwrap_err().kind(), io::ErrorKind::NotFound);
        let nothing = Program { arguments: Vec::new(), ..shell("", "") };
        assert!(run(nothing, ours.as_fd()).is_err());
    }

    #[test]
    fn endless_output_is_cut_and_harms_nobody() {
        let finished = finish(shell("echo first; yes | head -c 10000000; echo last >&2; exit 3", ""));
        assert_eq!((finished.ended, finished.output.len()), (Ended::Exit(3), PROGRAM_OUTPUT_BYTES));
        assert!(finished.output.starts_with(b"first\ny\n"));
    }

    #[test]
    fn one_that_takes_too_long_is_ended_with_its_children() {
        let script = "sleep 1000 & echo $$; wait";
        let program = Program { time: Duration::from_millis(300), ..shell(script, "") };
        let finished = finish(program);
        assert_eq!(finished.ended, Ended::TooLate);
        let group = Pid::from_raw(text(&finished).trim().parse().unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        // Whoever adopts the orphans buries them in his own time.
        while test_kill_process_group(group).is_ok() && !all_dead(group) {
            assert!(Instant::now() < deadline, "its children live");
            std::thread::yield_now();
        }
    }

    fn all_dead(group: Pid) -> bool {
        let group = group.as_raw_nonzero().to_string();
        let stats = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(Path::new(&entry.ok()?.path()).join("stat")).ok());
        let mut of_group = stats.filter(|stat| {
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(2)).is_some_and(|its| its == group)
        });
        of_group.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
    }

    #[test]
    fn one_that_does_not_listen_is_killed() {
        let program =
            Program { time: Duration::from_millis(100), ..shell("trap '' TERM; sleep 1000 & wait; wait", "") };
        let began = Instant::now();
        assert_eq!(finish(program).ended, Ended::TooLate);
        assert!(began.elapsed() >= PROGRAM_END);
    }

    #[test]
    fn it_is_ended_when_nobody_waits_for_it() {
        let (ours, theirs) = sys::packet_pair().unwrap();
        drop(theirs);
        assert_eq!(run(shell("sleep 1000", ""), ours.as_fd()).unwrap().ended, Ended::GivenUp);
    }

    #[test]
    fn somebody_left_in_the_background_is_not_waited_for() {
        let began = Instant::now();
        let finished = finish(shell("sleep 30 & echo done", ""));
        assert_eq!((finished.ended, text(&finished)), (Ended::Exit(0), "done\n"));
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
