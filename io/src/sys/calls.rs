//! Which system calls a process may still make (seccomp). What is not allowed fails with EPERM: a library that merely tries
//! goes on without. For good, and for all threads.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

/// Whose numbers of system calls these are.
const PROCESSOR: TargetArch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };

/// How narrow it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// What computing, threads and descriptors that are open already need; it opens nothing and connects to nobody.
    Computing,
    /// All but what starts programs, looks into other processes, or changes the system.
    WithoutPrograms,
}

/// Leaves this process, all its threads, the calls of `kept`.
pub fn keep_calls(kept: Calls) -> io::Result<()> {
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let (list, listed, others) = match kept {
        Calls::Computing => (COMPUTING, SeccompAction::Allow, denied),
        Calls::WithoutPrograms => (FORBIDDEN, denied, SeccompAction::Allow),
    };
    let rules: BTreeMap<i64, Vec<_>> = list.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, others, listed, PROCESSOR).map_err(refused)?;
    let program: BpfProgram = filter.try_into().map_err(refused)?;
    apply_filter_all_threads(&program).map_err(refused)
}

fn refused(why: impl std::fmt::Display) -> io::Error {
    io::Error::other(why.to_string())
}

const COMPUTING: &[i64] = &[
    // Descriptors that are open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_ftruncate,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_ppoll,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    // Threads that sign step back behind the shards.
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_prctl,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
];

const FORBIDDEN: &[i64] = &[
    // Programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    // Identity, names and keys of the system.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_personality,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The file system's shape.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mknodat,
    // The kernel and its clock.
    libc::SYS_reboot,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests share a process, which must not be confined: what is kept is looked at in a process that ends with it
    /// (`tests/e2e/sandbox.rs`). Here it is shown that the filters can be made.
    #[test]
    fn both_filters_are_good_programs() {
        for (list, action) in [(COMPUTING, SeccompAction::Allow), (FORBIDDEN, SeccompAction::Errno(1))] {
            let rules: BTreeMap<i64, Vec<_>> = list.iter().map(|call| (*call, Vec::new())).collect();
            assert_eq!(rules.len(), list.len(), "each once");
            let other = if action == SeccompAction::Allow { SeccompAction::Errno(1) } else { SeccompAction::Allow };
            let filter = SeccompFilter::new(rules, other, action, PROCESSOR).expect("a filter");
            assert!(!BpfProgram::try_from(filter).expect("a program").is_empty());
        }
    }
}
