//! One process that is asked many things, as a server is: keys go in, answers come out as soon as they are known.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::support::server::PROGRAM;

/// `ringpost table lookup SOURCE SERVICE -`.
pub struct Asking {
    child: Child,
    keys: ChildStdin,
    answers: BufReader<ChildStdout>,
    log: tempfile::NamedTempFile,
}

impl Asking {
    pub fn new(source: &str, service: &str) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let complaints = File::create(log.path()).expect("the same file");
        let mut child = Command::new(PROGRAM)
            .args(["table", "lookup", source, service, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .expect("the program starts");
        let keys = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, keys, answers, log }
    }

    /// Asks, and does not wait.
    pub fn begin(&mut self, key: &str) {
        writeln!(self.keys, "{key}").expect("it listens");
    }

    /// The next answer, whichever it is: key, `found`, `not-found` or `failed`, and the value or reason.
    pub fn next(&mut self) -> (String, String, String) {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        let mut parts = line.trim_end_matches('\n').splitn(3, '\t').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        (part(), part(), part())
    }

    /// Asks and waits: `found VALUE`, `not-found` or `failed REASON`.
    pub fn ask(&mut self, key: &str) -> String {
        self.begin(key);
        let (asked, what, more) = self.next();
        assert_eq!(asked, key);
        format!("{what} {more}").trim_end().to_owned()
    }

    /// How often the log says something.
    pub fn logged(&self, what: &str) -> usize {
        let text = std::fs::read_to_string(self.log.path()).expect("the log");
        text.lines().filter(|line| line.contains(what)).count()
    }

    /// Number of its open connections to a port or socket, as `/proc` tells.
    pub fn sockets(&self) -> usize {
        let dir = format!("/proc/{}/fd", self.child.id());
        let links = std::fs::read_dir(Path::new(&dir)).expect("it runs");
        let links = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
