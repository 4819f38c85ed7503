//! Summaries as people read them.

use std::fmt;

use crate::measure::Latency;
use crate::probe::Probe;
use crate::verify::Verdict;
use crate::{handshakes, sink, source};

impl fmt::Display for source::Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{} accepted messages in {:.2} s: {:.0} per second, {:.1} MiB/s, to {} (run {})",
            self.accepted,
            self.seconds,
            self.rate,
            self.bytes as f64 / self.seconds.max(1e-9) / f64::from(1 << 20),
            self.address,
            self.run,
        )?;
        let some = [
            (self.refused, "refused"),
            (self.dropped, "without an answer"),
            (self.connect_failures, "connections failed"),
        ];
        for (count, what) in some.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(out, "{count} {what}")?;
        }
        writeln!(out, "{} connections, {} deliveries\n", self.connections, self.recipients)?;
        table(out, &self.steps)?;
        for refusal in &self.refusals {
            writeln!(out, "{} x {} at {}: {}", refusal.count, refusal.code, refusal.step, refusal.text)?;
        }
        Ok(())
    }
}

impl fmt::Display for sink::Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listen: Vec<String> = self.listen.iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "{} messages for {} recipients in {:.2} s: {:.0} per second, {:.1} MiB, {} connections, on {}",
            self.messages,
            self.recipients,
            self.seconds,
            self.rate,
            self.bytes as f64 / f64::from(1 << 20),
            self.connections,
            listen.join(" "),
        )?;
        let some = [
            (self.damaged, "damaged"),
            (self.unmarked, "without a checksum"),
            (self.refused, "refused as asked for"),
            (self.dropped, "dropped as asked for"),
            (self.mistakes, "mistakes of clients"),
        ];
        for (count, what) in some.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(out, "{count} {what}")?;
        }
        Ok(())
    }
}

impl fmt::Display for handshakes::Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{} handshakes in {:.2} s, {} of them resumed: {:.0} per second, with {}\n",
            self.handshakes, self.seconds, self.resumed, self.rate, self.address,
        )?;
        table(out, &self.steps)?;
        self.failures.iter().try_for_each(|(why, count)| writeln!(out, "{count} x failed: {why}"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{} acknowledged, {} received: {} lost, {} duplicates, {} received without an answer",
            self.acked, self.received, self.lost, self.duplicates, self.unanswered
        )?;
        self.lost_examples.iter().try_for_each(|line| writeln!(out, "lost: {line}"))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<Latency> = self.direct.iter().chain([&self.fdatasync]).cloned().collect();
        table(out, &rows)
    }
}

/// Times in milliseconds, a line for each step.
fn table(out: &mut fmt::Formatter<'_>, steps: &[Latency]) -> fmt::Result {
    let width = steps.iter().map(|step| step.step.len()).max().unwrap_or(0).max(12);
    writeln!(
        out,
        "{:<width$} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "ms", "count", "mean", "p50", "p90", "p99", "p99.9", "max"
    )?;
    for step in steps {
        write!(out, "{:<width$} {:>9}", step.step, step.count)?;
        let times = [step.p50_us, step.p90_us, step.p99_us, step.p999_us, step.max_us].map(|us| us as f64);
        for us in [step.mean_us].into_iter().chain(times) {
            write!(out, " {:>8.3}", us / 1000.0)?;
        }
        writeln!(out)?;
    }
    Ok(())
}
