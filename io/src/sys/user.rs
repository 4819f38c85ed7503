//! Becoming somebody else, for good: what a helper process does before it touches that user's files.

use std::ffi::{CStr, CString};
use std::io;

use super::passwd::record_of;
use crate::limits::GROUPS_MAX;

/// The groups of a user. For a system user, one whose number has this name in the system's own list, these are the groups
/// that it lists; anybody else has `gid` alone, so that a table's `root:1000:1000` gets nothing of root's.
///
/// It may ask name services, which may wait.
///
/// # Errors
/// The list cannot be read. That is not the same as a user who is not in it.
pub fn groups_of(name: &str, uid: u32, gid: u32) -> io::Result<Vec<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(vec![gid]) };
    if !is_system_user(&name, uid)? {
        return Ok(vec![gid]);
    }
    let mut groups = [0; GROUPS_MAX];
    let mut count = GROUPS_MAX as libc::c_int;
    // SAFETY: the name ends with NUL, and `count` says how many numbers the array holds.
    if unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) } < 0 {
        return Err(io::Error::other(format!("a user in more than {GROUPS_MAX} groups")));
    }
    Ok(groups[..count as usize].to_vec())
}

/// Gives up this process's identity for another: groups, then group, then user, so that each step may still be done. There
/// is no way back; that is tried. Of an unprivileged process only what it is already is possible.
///
/// # Errors
/// Not permitted. The identity is then in between: the process must end.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer and length are those of the slice.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    // SAFETY: takes numbers, changes no memory.
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: as before.
    check(unsafe { libc::setresuid(uid, uid, uid) })?;
    // SAFETY: as before.
    if uid != 0 && unsafe { libc::setuid(0) } == 0 {
        return Err(io::Error::other("the way back to root is open"));
    }
    Ok(())
}

/// Login name and comment, which begins with the full name, of a user of the system; `None`: the list does not have him.
///
/// # Errors
/// The list cannot be read.
pub fn name_of(uid: u32) -> io::Result<Option<(String, String)>> {
    let text = |text: &CStr| text.to_string_lossy().into_owned();
    record_of(uid, |record| (text(record.name), text(record.comment)))
}

/// Whether the system's list gives this name to this number.
fn is_system_user(name: &CStr, uid: u32) -> io::Result<bool> {
    Ok(record_of(uid, |record| record.name == name)?.unwrap_or(false))
}

/// Does something as another user, as far as the kernel asks for the effective user; then this process is what it was before.
/// Of root only, and for a process with one thread.
///
/// # Errors
/// Not permitted; what the work says.
pub fn as_user<T>(uid: u32, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: takes numbers, changes no memory.
    check(unsafe { libc::seteuid(uid) })?;
    let result = work();
    // SAFETY: as before; the real user is still who we were.
    check(unsafe { libc::seteuid(libc::getuid()) })?;
    result
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_system_user_of_that_number_has_its_groups() {
        assert!(groups_of("root", 0, 0).expect("the list is readable").contains(&0));
        assert_eq!(
            groups_of("root", 61_001, 61_002).expect("not in the list"),
            [61_002],
            "a name alone is worth nothing"
        );
        assert_eq!(groups_of("ringpost-nobody", 0, 7).expect("the list is readable"), [7]);
        assert_eq!(groups_of("a\0b", 0, 7).expect("no name"), [7]);
        assert_eq!(name_of(0).expect("readable").expect("root is there").0, "root");
        assert_eq!(name_of(4_000_000_000).expect("readable"), None);
    }

    #[test]
    fn an_unprivileged_process_cannot_become_another() {
        // As root it would succeed, for the whole test process: the tests of the helper do it in one of their own.
        if rustix::process::geteuid().is_root() {
            return;
        }
        let error = become_user(0, 0, &[0]).expect_err("not permitted");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
