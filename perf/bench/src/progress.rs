//! What a person sees while a run goes on: a bar on a terminal, a plain line now and then elsewhere. On stderr only.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use crate::limits::{BAR_EVERY, LINE_EVERY};

const BAR_WIDTH: usize = 24;

/// The bar, or the plain lines, of one run.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    terminal: bool,
    last: Instant,
    last_count: u64,
}

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Part of the run that is over, 0 to 1; none when it has no end.
    pub part: Option<f64>,
    /// Messages so far.
    pub count: u64,
    /// 99th percentile of a message, in microseconds, if known.
    pub p99_us: Option<u64>,
    /// Refused, dropped or damaged so far.
    pub bad: u64,
}

impl Progress {
    /// `shown` false makes it silent.
    pub fn new(shown: bool, now: Instant) -> Self {
        Self { shown, terminal: std::io::stderr().is_terminal(), last: now, last_count: 0 }
    }

    /// When `show` next has something to do.
    pub fn next(&self) -> Option<Instant> {
        self.shown.then(|| self.last + if self.terminal { BAR_EVERY } else { LINE_EVERY })
    }

    /// Draws, if it is time.
    pub fn show(&mut self, now: Instant, shown: impl FnOnce() -> Shown) {
        if self.next().is_none_or(|next| now < next) {
            return;
        }
        let shown = shown();
        let rate = (shown.count - self.last_count) as f64 / (now - self.last).as_secs_f64();
        let mut line = String::new();
        if let Some(part) = shown.part {
            let full = (part.clamp(0.0, 1.0) * BAR_WIDTH as f64) as usize;
            line += &format!("[{}{}] {:3.0}%  ", "#".repeat(full), "-".repeat(BAR_WIDTH - full), part.min(1.0) * 100.0);
        }
        line += &format!("{} messages  {rate:.0}/s", shown.count);
        if let Some(p99) = shown.p99_us {
            line += &format!("  p99 {:.1} ms", p99 as f64 / 1000.0);
        }
        if shown.bad > 0 {
            line += &format!("  {} refused or lost", shown.bad);
        }
        // A closed stderr must not end a measurement.
        let _ = match self.terminal {
            true => write!(std::io::stderr(), "\r\x1b[K{line}"),
            false => writeln!(std::io::stderr(), "{line}"),
        };
        (self.last, self.last_count) = (now, shown.count);
    }

    /// Removes the bar before the summary is printed.
    pub fn clear(&self) {
        if self.shown && self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
