//! The other two processes: started from this program's own file, one channel each as their standard input, started
//! again with growing pauses when they die. Always from the main thread: they end with the thread that started them.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use serde::Serialize;

use super::News;
use crate::ipc::codec::Channel;
use crate::ipc::engine::{Purpose, ToEngine};
use crate::limits::{END, RESTART_FIRST, RESTART_FORGET, RESTART_MAX};

/// This program's own file, under the name that it was called by, with a hidden subcommand.
pub fn own_program(subcommand: &str) -> Command {
    let name = std::env::args_os().next().unwrap_or_else(|| "ringpost".into());
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).arg(subcommand);
    command
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Shards and coordinator.
    Engine,
    /// Private keys.
    Keyholder,
}

impl Role {
    /// The hidden subcommand.
    pub fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Keyholder => "keyholder",
        }
    }
}

/// One of the two, running or waiting to be started.
pub struct Child {
    role: Role,
    news: Sender<News>,
    generation: u64,
    running: Option<(process::Child, Channel)>,
    started: Instant,
    pause: Duration,
    due: Option<Instant>,
}

impl Child {
    /// Not started yet.
    pub fn new(role: Role, news: Sender<News>) -> Self {
        let started = Instant::now();
        Self { role, news, generation: 0, running: None, started, pause: Duration::ZERO, due: None }
    }

    /// Starts it; what it says, and its end, arrive as news.
    pub fn start(&mut self) -> io::Result<()> {
        let (ours, theirs) = Channel::pair()?;
        let reading = ours.try_clone()?;
        let child = own_program(self.role.name())
            .stdin(Stdio::from(theirs))
            // Ctrl-C at the terminal is the supervisor's to hear, who tells the others.
            .process_group(0)
            .spawn()?;
        self.generation += 1;
        self.due = None;
        self.started = Instant::now();
        self.running = Some((child, ours));
        let (role, generation, news) = (self.role, self.generation, self.news.clone());
        std::thread::Builder::new().name(role.name().into()).spawn(move || {
            listen(role, generation, &reading, &news);
            // The supervisor may have ended.
            let _ = news.send(News::Gone { role, generation });
        })?;
        Ok(())
    }

    /// Whether news of this generation are of the process that runs now.
    pub fn is(&self, generation: u64) -> bool {
        self.running.is_some() && self.generation == generation
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// When it is to be started again.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Sends a letter. If it is gone, its end is on its way as news.
    pub fn tell<T: Serialize>(&self, letter: &T) {
        if let Some((_, channel)) = &self.running
            && let Err(error) = channel.send(letter)
        {
            eprintln!("ringpost: cannot reach the {}: {error}", self.role.name());
        }
    }

    /// Sends the engine a descriptor.
    pub fn give(&self, purpose: Purpose, descriptor: BorrowedFd<'_>) {
        self.hand(&ToEngine::Descriptor(purpose), descriptor);
    }

    /// Sends a letter with a descriptor alongside.
    pub fn hand<T: Serialize>(&self, letter: &T, descriptor: BorrowedFd<'_>) {
        if let Some((_, channel)) = &self.running
            && let Err(error) = channel.send_with(letter, Some(descriptor))
        {
            eprintln!("ringpost: cannot reach the {}: {error}", self.role.name());
        }
    }

    /// It works: a later death is a new matter.
    pub fn is_well(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// Ends it; the news of its end follows.
    pub fn kill(&mut self) {
        if let Some((child, _)) = &mut self.running {
            // It may have ended by itself.
            let _ = child.kill();
        }
    }

    /// It has closed its channel: waits for its end and sets when it is to start again. How it ended, in words.
    pub fn bury(&mut self) -> String {
        let Some((mut child, channel)) = self.running.take() else { return "it did not run".into() };
        channel.close();
        let how = match wait(&mut child) {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => status.to_string(),
            },
            Err(error) => error.to_string(),
        };
        if self.started.elapsed() >= RESTART_FORGET {
            self.pause = Duration::ZERO;
        }
        self.pause = (self.pause * 2).clamp(RESTART_FIRST, RESTART_MAX);
        self.due = Some(Instant::now() + self.pause);
        how
    }

    /// Ends it at once and waits for that.
    pub fn end_now(&mut self) {
        self.kill();
        self.end();
    }

    /// Closes its channel, which tells it to end, and waits for that.
    pub fn end(&mut self) {
        if let Some((mut child, channel)) = self.running.take() {
            channel.close();
            // Only to leave no zombie.
            let _ = wait(&mut child);
        }
    }
}

/// Waits for a process that has no channel any more; ends it if it does not end by itself.
fn wait(child: &mut process::Child) -> io::Result<process::ExitStatus> {
    let deadline = Instant::now() + END;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill()?;
    child.wait()
}

fn listen(role: Role, generation: u64, channel: &Channel, news: &Sender<News>) {
    loop {
        let received = match role {
            Role::Engine => channel.receive().map(|got| got.map(|(letter, _)| News::Engine { generation, letter })),
            Role::Keyholder => {
                channel.receive().map(|got| got.map(|(letter, _)| News::Keyholder { generation, letter }))
            }
        };
        match received {
            Ok(Some(letter)) => {
                if news.send(letter).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
            Err(error) => {
                eprintln!("ringpost: from the {}: {error}", role.name());
                return;
            }
        }
    }
}
