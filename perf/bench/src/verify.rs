//! Was anything lost? Compares the source's file of acknowledged deliveries with the sink's file of received ones.
//! Each line of either is `key recipient`: one line per recipient that was accepted, so that a message that was
//! split on the way still adds up.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde::Serialize;

/// Result of a comparison. `lost` must be zero for a server that keeps its promises.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Deliveries that were answered with 250.
    pub acked: u64,
    /// Different deliveries that were received.
    pub received: u64,
    /// Answered with 250 and never received.
    pub lost: u64,
    /// Received more often than once (each repetition counts).
    pub duplicates: u64,
    /// Received but never answered with 250: allowed, when the connection broke in between.
    pub unanswered: u64,
    /// First few lost ones, `key recipient`, in order.
    pub lost_examples: Vec<String>,
}

/// Reads and compares the two files.
///
/// # Errors
/// When a file cannot be read.
pub fn verify(acked: &Path, received: &Path) -> io::Result<Verdict> {
    Ok(compare(&std::fs::read_to_string(acked)?, &std::fs::read_to_string(received)?))
}

/// Compares the texts of the two files. A last line without an end (its writer was killed) does not count.
pub fn compare(acked: &str, received: &str) -> Verdict {
    let mut times: HashMap<&str, u64> = HashMap::new();
    let mut verdict = Verdict::default();
    for line in whole_lines(received) {
        let count = times.entry(line).or_default();
        *count += 1;
        match *count {
            1 => verdict.received += 1,
            _ => verdict.duplicates += 1,
        }
    }
    for line in whole_lines(acked) {
        verdict.acked += 1;
        if times.remove(line).is_none() {
            verdict.lost += 1;
            if verdict.lost_examples.len() < 10 {
                verdict.lost_examples.push(line.to_owned());
            }
        }
    }
    verdict.unanswered = times.len() as u64;
    verdict
}

fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    text[..end].lines().filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_unanswered_are_told_apart() {
        let acked = "a-1 r0\na-1 r1\na-2 r0\na-3 r0\na-4 r";
        let received = "a-1 r0\na-1 r0\na-2 r0\na-9 r0\na-3 r0\na-1 r0\n";
        let verdict = compare(acked, received);
        assert_eq!(verdict.lost_examples, ["a-1 r1"]);
        assert_eq!(
            (verdict.acked, verdict.received, verdict.lost, verdict.duplicates, verdict.unanswered),
            (4, 4, 1, 2, 1)
        );
    }
}
