//! Events become lines on standard error. A shard never waits for the log: lines go through a bounded queue to a thread
//! that writes many at once; what does not fit is counted, and the count is a line itself.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

use crate::clock::unix_ms;
use crate::limits::{LOG_GATHER, LOG_LINES};

/// The writing end; any number of clones on any thread.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    writer: std::thread::Thread,
}

struct Shared {
    lines: ArrayQueue<Line>,
    dropped: CachePadded<AtomicU64>,
    /// The writer has nothing to do and must be woken: so a busy log costs its shards no system call.
    asleep: CachePadded<AtomicBool>,
    ended: AtomicBool,
    quiet: bool,
    /// What stands below the log on a terminal, and whether it has changed since it was drawn.
    status: Mutex<(String, bool)>,
}

struct Line {
    unix_ms: u64,
    text: String,
}

impl Log {
    /// Starts the thread that writes to standard error. `quiet`: warnings alone.
    pub fn start(quiet: bool) -> io::Result<(Self, JoinHandle<()>)> {
        let short = io::stderr().is_terminal();
        Self::start_to(quiet, short, io::stderr())
    }

    fn start_to(quiet: bool, short: bool, to: impl Write + Send + 'static) -> io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            lines: ArrayQueue::new(LOG_LINES),
            dropped: CachePadded::default(),
            asleep: CachePadded::default(),
            ended: AtomicBool::new(false),
            quiet,
            status: Mutex::default(),
        });
        let writing = shared.clone();
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || write_lines(&writing, short, to))?;
        Ok((Self { shared, writer: thread.thread().clone() }, thread))
    }

    /// A line about something usual; not written when the log is quiet.
    pub fn event(&self, line: &dyn Display) {
        if !self.shared.quiet {
            self.push(line);
        }
    }

    /// A line that an administrator should see.
    pub fn warn(&self, line: &dyn Display) {
        self.push(&format_args!("warn   {line}"));
    }

    /// A line that is always written.
    pub fn push(&self, line: &dyn Display) {
        let unix_ms = unix_ms();
        let line = Line { unix_ms, text: line.to_string() };
        if self.shared.lines.push(line).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.wake();
    }

    fn wake(&self) {
        if self.shared.asleep.load(Ordering::SeqCst) && self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.writer.unpark();
        }
    }

    /// Lines that stay below all others, on a terminal that can move its cursor.
    pub fn set_status(&self, lines: &[String]) {
        let text = lines.iter().flat_map(|line| [line, "\n"]).collect();
        *self.shared.status.lock().expect("nobody panics with it") = (text, true);
        self.wake();
    }

    /// Lets the writer end once all lines are written.
    pub fn end(&self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.writer.unpark();
    }
}

fn write_lines(shared: &Shared, short: bool, mut to: impl Write) {
    let mut stamp = Stamp::new(short);
    let mut out = Vec::with_capacity(64 << 10);
    let mut status = Status::default();
    loop {
        let ended = shared.ended.load(Ordering::SeqCst);
        status.clear(shared, ended, &mut out);
        while let Some(line) = shared.lines.pop() {
            stamp.write(line.unix_ms, &mut out);
            push_clean(&line.text, &mut out);
            out.push(b'\n');
            if out.len() > 48 << 10 {
                break;
            }
        }
        let dropped = shared.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            // A Vec takes everything.
            let _ = writeln!(out, "warn   {dropped} log lines were dropped: they come faster than they can be written");
        }
        status.draw(shared, ended, &mut out);
        if out.is_empty() {
            if ended {
                return;
            }
            shared.asleep.store(true, Ordering::SeqCst);
            if shared.lines.is_empty() && !shared.has_new_status() && !shared.ended.load(Ordering::SeqCst) {
                std::thread::park();
            }
            shared.asleep.store(false, Ordering::SeqCst);
            continue;
        }
        // Nobody can be told that standard error is broken; the server goes on.
        let _ = to.write_all(&out);
        out.clear();
        if !ended && shared.lines.is_empty() {
            std::thread::park_timeout(LOG_GATHER);
        }
    }
}

impl Shared {
    fn has_new_status(&self) -> bool {
        self.status.lock().expect("nobody panics with it").1
    }
}

/// The lines below the log, as they stand on the terminal.
#[derive(Default)]
struct Status {
    drawn: Option<String>,
}

impl Status {
    /// Takes them away when something will be written in their place.
    fn clear(&mut self, shared: &Shared, ended: bool, out: &mut Vec<u8>) {
        let Some(drawn) = &self.drawn else { return };
        if ended || !shared.lines.is_empty() || shared.has_new_status() {
            // Up to their first line, and all below it away (ECMA-48, CPL and ED). A Vec takes everything.
            let _ = write!(out, "\x1b[{}F\x1b[J", drawn.lines().count());
            self.drawn = None;
        }
    }

    /// Puts them there again.
    fn draw(&mut self, shared: &Shared, ended: bool, out: &mut Vec<u8>) {
        let mut status = shared.status.lock().expect("nobody panics with it");
        if self.drawn.is_none() && !status.0.is_empty() && !ended {
            status.1 = false;
            out.extend_from_slice(status.0.as_bytes());
            self.drawn = Some(status.0.clone());
        }
    }
}

/// What a peer sends reaches the log; a line must stay a line, and a terminal what it was.
fn push_clean(text: &str, out: &mut Vec<u8>) {
    if !text.contains(char::is_control) {
        return out.extend_from_slice(text.as_bytes());
    }
    for each in text.chars() {
        if each.is_control() {
            out.extend(each.escape_default().map(|part| part as u8));
        } else {
            out.extend_from_slice(each.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// Times in UTC: `12:01:07.412` on a terminal, `2026-11-25T12:01:07.412Z` elsewhere.
struct Stamp {
    short: bool,
    second: u64,
    text: String,
}

impl Stamp {
    fn new(short: bool) -> Self {
        Self { short, second: u64::MAX, text: String::new() }
    }

    fn write(&mut self, unix_ms: u64, out: &mut Vec<u8>) {
        let second = unix_ms / 1000;
        if second != self.second {
            let pattern = if self.short { "%H:%M:%S" } else { "%Y-%m-%dT%H:%M:%S" };
            let time = jiff::Timestamp::from_second(second as i64).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            self.text = time.strftime(pattern).to_string();
            self.second = second;
        }
        let zone = if self.short { "" } else { "Z" };
        // A Vec takes everything.
        let _ = write!(out, "{}.{:03}{zone} ", self.text, unix_ms % 1000);
    }
}

/// Warnings of libraries (the ring's, the resolver's) become lines of ours.
pub fn catch_libraries(log: &Log) {
    let log = log.clone();
    // What does not validate is told where it is asked for, without the whole answer.
    let targets =
        Targets::new().with_default(tracing::Level::WARN).with_target("hickory_net::dnssec", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_level(false)
        .with_ansi(false)
        .with_writer(move || LibraryLine(log.clone()))
        .finish()
        .with(targets);
    // Both fail only when somebody was here before; then their lines go where that one sends them.
    let _ = tracing::subscriber::set_global_default(lines);
    // What goes wrong with a directory server is told by the table that needs it.
    let _ = tracing_log::LogTracer::builder().ignore_crate("ldap3").init();
}

struct LibraryLine(Log);

impl Write for LibraryLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.warn(&String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_lines_are_there_once_it_has_ended() {
        let memory = Memory::default();
        let (log, thread) = Log::start_to(false, true, memory.clone()).unwrap();
        for number in 0..3000 {
            log.event(&format_args!("smtp   n={number}"));
        }
        log.warn(&"evil\r\n\u{1b}[2J");
        log.end();
        thread.join().unwrap();
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 3001);
        let last = text.lines().last().unwrap();
        assert!(last.ends_with(r"warn   evil\r\n\u{1b}[2J"), "{last}");
        assert_eq!((last.as_bytes()[2], last.as_bytes()[8]), (b':', b'.'));
    }

    struct Stuck(Receiver<()>, Memory);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Ends when the test lets go of the other end.
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_terminal_stops_nobody_and_what_is_lost_is_counted() {
        let (go, wait) = channel();
        let memory = Memory::default();
        let (log, thread) = Log::start_to(false, false, Stuck(wait, memory.clone())).unwrap();
        let sent = LOG_LINES * 2;
        for number in 0..sent {
            log.event(&number);
        }
        drop(go);
        log.end();
        thread.join().unwrap();
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let dropped =
            text.lines().filter_map(|line| line.strip_prefix("warn   ")?.split(' ').next()?.parse::<usize>().ok());
        let dropped: usize = dropped.sum();
        assert!(dropped > 0);
        assert_eq!(text.lines().filter(|line| line.contains('T')).count() + dropped, sent);
    }

    #[test]
    fn the_status_stays_below_the_lines_and_goes_at_the_end() {
        let memory = Memory::default();
        let wait_for = |text: &str| {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !String::from_utf8_lossy(&memory.0.lock().unwrap()).ends_with(text) {
                assert!(std::time::Instant::now() < deadline, "no {text:?}");
                std::thread::yield_now();
            }
        };
        let (log, thread) = Log::start_to(false, true, memory.clone()).unwrap();
        log.set_status(&["one".into(), "two".into()]);
        wait_for("one\ntwo\n");
        log.event(&"line");
        wait_for("line\none\ntwo\n");
        log.end();
        thread.join().unwrap();
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("one\ntwo\n\x1b[2F\x1b[J"), "{text:?}");
        assert!(text.ends_with("line\none\ntwo\n\x1b[2F\x1b[J"), "{text:?}");
    }

    #[test]
    fn quiet_keeps_warnings() {
        let memory = Memory::default();
        let (log, thread) = Log::start_to(true, true, memory.clone()).unwrap();
        log.event(&"usual");
        log.warn(&"unusual");
        log.end();
        thread.join().unwrap();
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains(" usual") && text.contains("unusual"));
    }

    #[test]
    fn stamps_are_short_or_whole() {
        let mut out = Vec::new();
        Stamp::new(false).write(1_796_040_067_412, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "2026-11-30T12:01:07.412Z ");
    }
}
