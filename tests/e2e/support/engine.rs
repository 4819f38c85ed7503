//! What `/proc` says about the processes of a server.

use std::fs;

use rustix::process::Pid;

/// Number, state and parent of a process, if it is there.
fn stat(name: &str) -> Option<(Pid, char, Option<Pid>)> {
    // A process may end between listing and reading.
    let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
    let pid = stat.split(' ').next()?.parse().ok().and_then(Pid::from_raw)?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok().and_then(Pid::from_raw);
    Some((pid, state, parent))
}

/// A process and its living children, with their command lines.
pub fn family(of: Pid) -> Vec<(Pid, String)> {
    let names = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found = Vec::new();
    for name in names {
        let Some((pid, state, parent)) = stat(&name) else { continue };
        if state != 'Z' && (pid == of || parent == Some(of)) {
            let line = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// The child whose command line has the word.
pub fn child(of: Pid, word: &str) -> Option<Pid> {
    let children = family(of).into_iter().filter(|(pid, _)| *pid != of);
    children.into_iter().find(|(_, line)| line.split(' ').any(|part| part == word)).map(|(pid, _)| pid)
}

/// Whether any thread of it still runs: the first may end before the others.
pub fn lives(pid: Pid) -> bool {
    let pid = pid.as_raw_nonzero();
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut threads = threads.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    threads.any(|thread| stat(&format!("{pid}/task/{thread}")).is_some_and(|(_, state, _)| !matches!(state, 'Z' | 'X')))
}

/// A field of `/proc/PID/status` in bytes, such as `RssAnon`.
pub fn memory(pid: Pid, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("the field");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}
