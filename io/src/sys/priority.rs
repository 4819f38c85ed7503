//! Whose turn comes first on a processor that several of our threads share. A wish only: a kernel that does not grant it is no
//! reason not to run.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};

/// How far a thread steps back behind those who serve everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Just behind them: it has four fifths of what they have.
    One,
    /// It has a tenth of it, and is left at once when one of them has something to do.
    Far,
}

/// This thread computes for others of ours, who wait for it, and steps back. It keeps its share of the processor whatever the
/// others do.
pub fn step_back(step: Step) -> io::Result<()> {
    let now = getpriority_process(None)?;
    let more = match step {
        Step::One => 1,
        Step::Far => 10,
    };
    Ok(setpriority_process(None, (now + more).min(LAST))?)
}

/// The lowest there is.
const LAST: i32 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_thread_is_changed() {
        let before = getpriority_process(None).unwrap();
        let other = std::thread::spawn(|| {
            step_back(Step::Far).unwrap();
            getpriority_process(None).unwrap()
        });
        assert_eq!(other.join().unwrap(), (before + 10).min(LAST));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
