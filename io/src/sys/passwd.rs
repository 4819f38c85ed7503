//! The system's users, through the name service switch: whoever it asks may take long. Or of one `passwd` file.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;

use crate::limits::{PASSWD_BUFFER_BYTES_FIRST, PASSWD_BUFFER_BYTES_MAX};

/// What the system says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name as the system has it.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Number of the user's first group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// Looks a user up by name; `None`: there is none.
///
/// # Errors
/// When the system cannot tell, or its record is not UTF-8.
pub fn user(name: &str) -> io::Result<Option<User>> {
    // No user's name has a zero byte in it.
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let found = search(
        // SAFETY: the name ends with NUL; of the rest `search` says that it is valid.
        |record, buffer, bytes, found| unsafe { libc::getpwnam_r(name.as_ptr(), record, buffer, bytes, found) },
        |record| {
            let text = |text: &CStr| {
                let text = text.to_str().map(str::to_owned);
                text.map_err(|_| io::Error::other("the user's record is not UTF-8"))
            };
            let Record { name, home, uid, gid, .. } = record;
            Ok(User { name: text(name)?, uid, gid, home: text(home)? })
        },
    )?;
    found.transpose()
}

/// Looks at the record of a user number; `None`: there is none.
pub(super) fn record_of<T>(uid: u32, look: impl FnOnce(Record<'_>) -> T) -> io::Result<Option<T>> {
    search(
        // SAFETY: `search` says that the pointers are valid.
        |record, buffer, bytes, found| unsafe { libc::getpwuid_r(uid, record, buffer, bytes, found) },
        look,
    )
}

/// A record of the system's list while its memory is there.
pub(super) struct Record<'r> {
    pub(super) name: &'r CStr,
    pub(super) comment: &'r CStr,
    home: &'r CStr,
    uid: u32,
    gid: u32,
}

/// [`search_list`] with the record's texts.
fn search<T>(
    call: impl Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> libc::c_int,
    look: impl FnOnce(Record<'_>) -> T,
) -> io::Result<Option<T>> {
    search_list(PASSWD_BUFFER_BYTES_MAX, call, |record| {
        let text = |text: *const libc::c_char| match text.is_null() {
            true => c"",
            // SAFETY: the call has succeeded, so the texts are strings in its buffer, which outlives the look.
            false => unsafe { CStr::from_ptr(text) },
        };
        look(Record {
            name: text(record.pw_name),
            comment: text(record.pw_gecos),
            home: text(record.pw_dir),
            uid: record.pw_uid,
            gid: record.pw_gid,
        })
    })
}

/// Calls one of the functions that search a list of the system, with as much room as the record takes, up to so many bytes.
/// It is given valid pointers, and the size of what the second points to; the record it has found is then looked at.
pub(super) fn search_list<R, T>(
    bytes_max: usize,
    call: impl Fn(*mut R, *mut libc::c_char, usize, *mut *mut R) -> libc::c_int,
    look: impl FnOnce(&R) -> T,
) -> io::Result<Option<T>> {
    let mut buffer: Vec<libc::c_char> = vec![0; PASSWD_BUFFER_BYTES_FIRST];
    loop {
        let mut record = MaybeUninit::<R>::zeroed();
        let mut found: *mut R = ptr::null_mut();
        match call(record.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found) {
            // SAFETY: what it points to is `record`, which the call has filled in, or nothing.
            0 => return Ok(unsafe { found.as_ref() }.map(look)),
            libc::ERANGE if buffer.len() < bytes_max => buffer.resize(buffer.len() * 2, 0),
            // Some services say so of one that is not there (getpwnam(3), getgrnam(3)).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::EINTR => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// The same from `etc/passwd` below a directory, and from nothing else. Lines that are no records are passed over, as the
/// system does.
///
/// # Errors
/// When the file cannot be read.
pub fn user_below(root: &Path, name: &str) -> io::Result<Option<User>> {
    let text = below(root, "etc/passwd", |path| std::fs::read_to_string(path))?;
    Ok(text.lines().filter_map(record).find(|user| user.name == name))
}

/// Reads a file below a directory; an error names it.
pub(super) fn below<T>(root: &Path, file: &str, read: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = root.join(file);
    read(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// `name:password:uid:gid:comment:home:shell` (passwd(5)).
fn record(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    Some(User { name: (*name).to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: (*home).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_there_and_strangers_are_not() {
        let root = user("root").unwrap().expect("every system has it");
        assert_eq!((root.name.as_str(), root.uid, root.gid), ("root", 0, 0));
        assert!(root.home.starts_with('/'));
        for nobody in ["", "no-such-user-at-all", "ro\0ot", "root\n", "*)(uid=*"] {
            assert_eq!(user(nobody).unwrap(), None, "{nobody:?}");
        }
    }

    #[test]
    fn a_file_below_a_directory_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        assert!(user_below(dir.path(), "gilles").unwrap_err().to_string().contains("etc/passwd"));
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let text =
            "# users\nroot:x:0:0:root:/root:/bin/sh\nbroken:x:a:1::/x:\nshort:x:1\ngilles:x:10:100::/home/gilles:\n";
        std::fs::write(dir.path().join("etc/passwd"), text).unwrap();
        let gilles = user_below(dir.path(), "gilles").unwrap().unwrap();
        assert_eq!(gilles, User { name: "gilles".into(), uid: 10, gid: 100, home: "/home/gilles".into() });
        for nobody in ["broken", "short", "# users", "", "eric"] {
            assert_eq!(user_below(dir.path(), nobody).unwrap(), None, "{nobody:?}");
        }
    }
}
