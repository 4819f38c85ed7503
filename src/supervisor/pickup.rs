//! Messages that `sendmail` has kept while there was no server: a process of their own hands them over, as soon as there is
//! something to hand over and somebody to hand it to. It speaks SMTP like everybody else, so every rule holds for them.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::limits::PICKUP;
use crate::sendmail::{drop, spool};

/// When the spool is looked at, and who is handing over.
#[derive(Debug, Default)]
pub struct Pickup {
    /// `None`: the engine has not been ready yet.
    due: Option<Instant>,
    running: Option<Child>,
}

impl Pickup {
    /// The engine takes mail: looks at once.
    pub fn begin(&mut self) {
        self.due = Some(Instant::now());
    }

    /// The engine stops: looks no more. Who is handing over finds no server at the next message, and leaves the rest.
    pub fn end(&mut self) {
        self.due = None;
    }

    /// When to look next.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Looks, if it is time to. What cannot be handed over now waits for the next look.
    pub fn look(&mut self, state: &Path) {
        let now = Instant::now();
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = Some(now + PICKUP);
        if let Some(child) = &mut self.running {
            match child.try_wait() {
                Ok(None) => return,
                Ok(Some(_)) | Err(_) => self.running = None,
            }
        }
        if !spool::waits(state) && !drop::waits(state) {
            return;
        }
        let started = Command::new("/proc/self/exe")
            .arg0("ringpost")
            .arg("--state")
            .arg(state)
            .arg("pickup")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn();
        match started {
            Ok(child) => self.running = Some(child),
            Err(error) => eprintln!("ringpost: messages of sendmail wait, but nobody can be sent for them: {error}"),
        }
    }
}
