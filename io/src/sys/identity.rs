//! What a process gives up: life without its parent, a readable memory, new privileges, and death by a closed pipe.

use std::io;

use rustix::process::{DumpableBehavior, Pid, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal};

/// The kernel kills this process when its parent ends. `parent` is the process that started it: if that is gone already
/// an error says so, for then no signal will come.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let expected = Pid::from_raw(parent as i32);
    if expected.is_none() || getppid() != expected {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("the parent process {parent} is gone")));
    }
    Ok(())
}

/// No core dumps, and no process of the same user may read this one's memory (PR_SET_DUMPABLE). An `execve` undoes it, and
/// so does a change of identity.
pub fn hide_memory() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Neither this process nor its children get privileges from set-uid programs (PR_SET_NO_NEW_PRIVS); for good.
pub fn no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// A peer that has hung up is an error of the write, not a signal that ends the process. Rust programs begin like that;
/// one that is started from elsewhere need not.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_no_parent() {
        // The test runner is not process 1 unless it is the container's only one; then there is nothing to see.
        let Some(parent) = getppid() else { return };
        let stranger = parent.as_raw_nonzero().get() as u32 + 1;
        let error = die_with_parent(stranger).expect_err("not our parent");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        set_parent_process_death_signal(None).expect("taken back");
    }

    #[test]
    fn memory_is_hidden() {
        let _turn = crate::sys::PROC_SELF.lock();
        hide_memory().unwrap();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    }

    #[test]
    fn a_broken_pipe_is_an_error() {
        ignore_broken_pipes();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        assert_eq!(rustix::io::write(&writer, b"x").unwrap_err(), rustix::io::Errno::PIPE);
    }
}
