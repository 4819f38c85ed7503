//! The system's groups, by name.

use std::ffi::CString;
use std::io;
use std::path::Path;

use super::passwd::{below, search_list};
use crate::limits::GROUP_BUFFER_BYTES_MAX;

/// The system's list of them, below its root.
const GROUPS: &str = "etc/group";

/// The number of a group; `None`: there is none of that name.
///
/// # Errors
/// When the system cannot tell.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    // No group's name has a zero byte in it.
    let Ok(name) = CString::new(name) else { return Ok(None) };
    search_list(
        // A group of many members is a long record.
        GROUP_BUFFER_BYTES_MAX,
        // SAFETY: the name ends with NUL; of the rest `search_list` says that it is valid.
        |record, buffer, bytes, found| unsafe { libc::getgrnam_r(name.as_ptr(), record, buffer, bytes, found) },
        |record: &libc::group| record.gr_gid,
    )
}

/// The same from `etc/group` below a directory, and from nothing else: `name:password:gid:members` (group(5)).
///
/// # Errors
/// When the file cannot be read.
pub fn group_below(root: &Path, name: &str) -> io::Result<Option<u32>> {
    let text = below(root, GROUPS, |path| std::fs::read_to_string(path))?;
    let number = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    Ok(text.lines().find_map(number))
}

/// The names that `etc/group` below a directory has for a number.
///
/// # Errors
/// When the file cannot be read.
pub fn group_names_below(root: &Path, gid: u32) -> io::Result<Vec<String>> {
    // One name that is not UTF-8 hides no other.
    let text = below(root, GROUPS, |path| std::fs::read(path))?;
    let text = String::from_utf8_lossy(&text);
    let of_number = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    Ok(of_number.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        assert_eq!(group("root").unwrap(), Some(0));
        for nobody in ["", "no-such-group-at-all", "ro\0ot"] {
            assert_eq!(group(nobody).unwrap(), None, "{nobody:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(group_below(dir.path(), "staff").is_err());
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nstaff:x:50:a,b\nbroken:x:y:\n").unwrap();
        assert_eq!(group_below(dir.path(), "staff").unwrap(), Some(50));
        assert_eq!(group_below(dir.path(), "broken").unwrap(), None);
        std::fs::write(dir.path().join("etc/group"), b"staff:x:50:a\n\xff:x:51:\nbroken:x:y:\nother:x:50:\n").unwrap();
        assert_eq!(group_names_below(dir.path(), 50).unwrap(), ["staff", "other"]);
        assert!(group_names_below(dir.path(), 7).unwrap().is_empty());
        assert!(group_names_below(&dir.path().join("nowhere"), 7).is_err());
    }
}
