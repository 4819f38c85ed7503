//! Resource limits of this process.

use std::io;

use rustix::process::{Resource as Kernel, Rlimit, getrlimit, setrlimit};

/// A resource that io_uring and many connections use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// RLIMIT_NOFILE, in descriptors.
    Descriptors,
    /// RLIMIT_MEMLOCK, in bytes.
    MemoryLock,
}

/// What is allowed; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In force now.
    pub soft: u64,
    /// How far this process may raise the other.
    pub hard: u64,
}

/// The limit as it is.
pub fn limit(resource: Resource) -> io::Result<Limit> {
    let Rlimit { current, maximum } = getrlimit(kernel(resource));
    Ok(Limit { soft: current.unwrap_or(u64::MAX), hard: maximum.unwrap_or(u64::MAX) })
}

/// Raises the soft limit to the hard one and tells what then holds.
pub fn raise(resource: Resource) -> io::Result<Limit> {
    let Rlimit { current, maximum } = getrlimit(kernel(resource));
    if current != maximum {
        setrlimit(kernel(resource), Rlimit { current: maximum, maximum })?;
    }
    limit(resource)
}

fn kernel(resource: Resource) -> Kernel {
    match resource {
        Resource::Descriptors => Kernel::Nofile,
        Resource::MemoryLock => Kernel::Memlock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_reaches_the_hard_limit_and_stays_there() {
        for resource in [Resource::Descriptors, Resource::MemoryLock] {
            let raised = raise(resource).expect("within the hard limit");
            assert_eq!(raised.soft, raised.hard);
            assert_eq!(limit(resource).expect("readable"), raised);
        }
    }
}
