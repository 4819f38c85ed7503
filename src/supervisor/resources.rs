//! What the system allows: descriptors for connections, locked memory for rings.

use ringpost_io::limits::IO_MEMORY_BYTES_MAX;
use ringpost_io::ring;
use ringpost_io::sys::{self, Resource};
use rustix::process::{Rlimit, geteuid, setrlimit};

use crate::exit::{Code, Failure};

/// Less locked memory than this, and an executor cannot be made at all.
const MEMORY_LOCK_BYTES_MIN: u64 = 512 << 10;
/// Below this many descriptors a busy server meets the limit.
const DESCRIPTORS_WISHED: u64 = 8192;

/// Raises both limits as far as this process may; what an administrator should know of what is left.
///
/// # Errors
/// When no ring could be made.
pub fn raise(shards: usize) -> Result<Vec<String>, Failure> {
    if geteuid().is_root() {
        // Root in a container may lack the right; then what is there must do.
        let _ = setrlimit(rustix::process::Resource::Memlock, Rlimit { current: None, maximum: None });
    }
    // A limit that cannot be raised is reported below by what it is.
    let (_, _) = (sys::raise(Resource::MemoryLock), sys::raise(Resource::Descriptors));
    let memory = sys::limit(Resource::MemoryLock)?.soft;
    let descriptors = sys::limit(Resource::Descriptors)?.soft;
    judge(memory, descriptors, shards)
}

fn judge(memory: u64, descriptors: u64, shards: usize) -> Result<Vec<String>, Failure> {
    if memory < MEMORY_LOCK_BYTES_MIN {
        return Err(Failure::new(
            Code::System,
            format!(
                "the limit of locked memory (RLIMIT_MEMLOCK) is {}; io_uring needs at least {}\n  raise it with \
                 `ulimit -l unlimited`, LimitMEMLOCK=infinity (systemd) or --ulimit memlock=-1 (docker)",
                bytes(memory),
                bytes(MEMORY_LOCK_BYTES_MIN)
            ),
        ));
    }
    let mut notes = Vec::new();
    let each = ring::io_memory_bytes(shards, memory);
    if each < IO_MEMORY_BYTES_MAX {
        notes.push(format!(
            "locked memory is limited to {} (RLIMIT_MEMLOCK): smaller rings, {} instead of {} each; `ulimit -l unlimited` \
             or LimitMEMLOCK=infinity lifts it",
            bytes(memory),
            bytes(each as u64),
            bytes(IO_MEMORY_BYTES_MAX as u64)
        ));
    }
    if descriptors < DESCRIPTORS_WISHED {
        notes.push(format!(
            "at most {descriptors} descriptors (RLIMIT_NOFILE), so as many connections; `ulimit -n 65536` or \
             LimitNOFILE=1048576 lifts it"
        ));
    }
    Ok(notes)
}

/// `512 KiB`, `8 MiB`, `unlimited`.
pub fn bytes(count: u64) -> String {
    match count {
        u64::MAX => "unlimited".into(),
        0..1024 => format!("{count} bytes"),
        1024..1_048_576 => format!("{} KiB", count >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", count >> 20),
        _ => format!("{} GiB", count >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_limits_are_named_and_too_small_ones_refused() {
        assert_eq!(judge(u64::MAX, 1 << 20, 8), Ok(vec![]));
        let notes = judge(8 << 20, 1024, 2).unwrap();
        assert!(notes[0].contains("limited to 8 MiB (RLIMIT_MEMLOCK): smaller rings"), "{}", notes[0]);
        assert!(notes[1].contains("1024 descriptors"));
        let refused = judge(64 << 10, 1 << 20, 1).unwrap_err();
        assert_eq!(refused.code, Code::System);
        assert!(refused.text.contains("is 64 KiB; io_uring needs at least 512 KiB"), "{}", refused.text);
    }
}
