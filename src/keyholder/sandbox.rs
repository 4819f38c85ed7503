//! What the keyholder gives up before it has its first key: files, network, other processes, and all system calls but those
//! that signing needs. A key that is in its memory stays there, whatever it is made to do.

use ringpost_io::sys::{self, Calls, Degree, Room};

/// Confines the process; what this kernel cannot do is told.
pub fn confine() -> Vec<String> {
    let mut lacking = Vec::new();
    if let Err(error) = sys::keep_powers(&[]) {
        lacking.push(format!("it keeps the powers of its user: {error}"));
    }
    match sys::confine(&Room::default()) {
        Degree::Full => {}
        Degree::Partly => lacking.push("the kernel's landlock is an old one, and does less".to_owned()),
        Degree::Not(why) => lacking.push(format!("files are not out of its reach: {why}")),
    }
    // Last: it forbids what was needed for the others.
    if let Err(error) = sys::keep_calls(Calls::Computing) {
        lacking.push(format!("system calls are not limited: {error}"));
    }
    lacking
}
