//! What the end of a program says of the mail. Codes are those of sysexits.h, with the status codes of Postfix's table;
//! where the machine is to blame, which can be mended, the mail waits, as sendmail lets it.

use ringpost_shard::Handed;

use crate::limits::PROGRAM;
use crate::supervisor::programs::{Ended, Finished};

/// The outcome of a delivery to `program` (its name, for people).
pub fn verdict(program: &str, finished: &Finished) -> Handed {
    let said = said(&finished.output);
    let temporary = |status, what: String| Handed::Temporary { status, text: with(&what, &said) };
    match finished.ended {
        Ended::Exit(0) => Handed::Delivered { text: with(&format!("delivered to {program}"), &said) },
        Ended::Exit(code) => match meaning(code) {
            ((4, subject, detail), what) => temporary((4, subject, detail), format!("{program}: {what}")),
            (status, what) => {
                // The sender is told the output apart, line by line.
                Handed::Permanent { status, text: format!("{program}: {what}"), output: said }
            }
        },
        Ended::Signal(signal) => temporary((4, 3, 0), format!("{program}: ended by signal {signal}")),
        Ended::TooLate => temporary((4, 3, 0), format!("{program}: took longer than {} s", PROGRAM.as_secs())),
        Ended::GivenUp => temporary((4, 3, 0), format!("{program}: ended, for the server stops")),
    }
}

/// Status and words for an exit code other than 0.
fn meaning(code: i32) -> ((u8, u16, u16), String) {
    let (status, what) = match code {
        64 => ((5, 3, 0), "wrong command line"),
        65 => ((5, 6, 0), "the message is malformed"),
        66 => ((5, 3, 0), "input cannot be opened"),
        67 => ((5, 1, 1), "no such user"),
        68 => ((5, 1, 2), "no such host"),
        69 => ((5, 3, 0), "service unavailable"),
        70 => ((5, 3, 0), "internal error"),
        71 => ((4, 3, 0), "out of system resources"),
        72 => ((4, 3, 0), "a system file is missing"),
        73 => ((4, 2, 0), "the mailbox cannot be made"),
        74 => ((4, 3, 0), "input or output failed"),
        75 => ((4, 3, 0), "try again later"),
        76 => ((5, 5, 0), "the other side breaks its protocol"),
        77 => ((5, 7, 0), "not permitted"),
        78 => ((5, 3, 5), "configured wrongly"),
        // What a shell says of a command that is missing, or not to be executed: a slip, as when we cannot start one.
        126 | 127 => ((4, 3, 5), "the command cannot be run"),
        // What a shell says of a command that a signal has ended.
        129..=192 => return ((4, 3, 0), format!("ended by signal {}", code - 128)),
        _ => return ((5, 3, 0), format!("exit code {code}")),
    };
    (status, what.to_owned())
}

/// Its output as text without control characters other than line ends.
fn said(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.trim().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

fn with(what: &str, said: &str) -> String {
    if said.is_empty() { what.to_owned() } else { format!("{what}; it said: {}", said.replace('\n', " ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ended: Ended, output: &str) -> Handed {
        verdict("lda", &Finished { ended, output: output.into() })
    }

    fn status(code: i32) -> (u8, u16, u16) {
        match of(Ended::Exit(code), "") {
            Handed::Delivered { .. } => (2, 0, 0),
            Handed::Temporary { status, .. } | Handed::Permanent { status, .. } => status,
        }
    }

    #[test]
    fn codes_mean_what_they_mean_elsewhere() {
        for code in [71, 72, 73, 74, 75, 126, 127, 137] {
            assert_eq!(status(code).0, 4, "{code}");
        }
        for code in [1, 64, 65, 66, 67, 68, 69, 70, 76, 77, 78, 111, 255] {
            assert_eq!(status(code).0, 5, "{code}");
        }
        assert_eq!((status(0), status(67), status(68)), ((2, 0, 0), (5, 1, 1), (5, 1, 2)));
        assert!(matches!(of(Ended::Signal(9), ""), Handed::Temporary { .. }));
        assert!(matches!(of(Ended::TooLate, ""), Handed::Temporary { .. }));
    }

    #[test]
    fn what_it_said_is_kept() {
        let refused = of(Ended::Exit(67), "no mailbox\x07 here\nask root\n");
        let Handed::Permanent { text, output, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(text, "lda: no such user");
        assert_eq!(output, "no mailbox  here\nask root");
        assert_eq!(of(Ended::Exit(0), ""), Handed::Delivered { text: "delivered to lda".into() });
    }
}
