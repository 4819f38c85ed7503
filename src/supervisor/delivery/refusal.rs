//! Why a delivery was not made: what went wrong here is temporary, for somebody can mend it; only a program may say "never".

use std::fmt::Display;
use std::io;
use std::path::Path;

use ringpost_shard::Handed;
use rustix::io::Errno;

/// The result of a step: what stops the delivery is its outcome.
pub type Step<T> = Result<T, Handed>;

/// Something about a file that its owner or an administrator has to change.
pub fn wrong(path: &Path, what: impl Display) -> Handed {
    Handed::temporary((4, 2, 0), format!("{}: {what}", path.display()))
}

/// The system refused something. No room on the disk and no room for this user have codes of their own (RFC 3463 §3.3,
/// §3.4).
pub fn failed(path: &Path, error: &io::Error) -> Handed {
    let status = match Errno::from_io_error(error) {
        Some(Errno::NOSPC) => (4, 3, 1),
        Some(Errno::DQUOT | Errno::FBIG) => (4, 2, 2),
        Some(Errno::LOOP) => return wrong(path, "a symbolic link"),
        _ => (4, 3, 0),
    };
    Handed::temporary(status, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disks_and_full_quotas_have_their_codes() {
        let status = |errno: Errno| match failed(Path::new("/x"), &errno.into()) {
            Handed::Temporary { status, text } => (status, text.starts_with("/x: ")),
            other => panic!("{other:?}"),
        };
        assert_eq!(status(Errno::NOSPC), ((4, 3, 1), true));
        assert_eq!(status(Errno::DQUOT), ((4, 2, 2), true));
        assert_eq!(status(Errno::LOOP), ((4, 2, 0), true));
        assert_eq!(status(Errno::ACCESS), ((4, 3, 0), true));
    }
}
