//! What is in the memory of a process.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

use rustix::process::Pid;

/// How often these bytes are in the memory of a process: every part of it that can be read.
pub fn count_in_memory(pid: Pid, wanted: &[u8]) -> usize {
    let pid = pid.as_raw_nonzero();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("root may look");
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).expect("root may look");
    let mut found = 0;
    let mut parts = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with('r'))) {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let (from, to) = (u64::from_str_radix(from, 16).expect("hex"), u64::from_str_radix(to, 16).expect("hex"));
        let mut bytes = vec![0; (to - from) as usize];
        // The kernel's own pages are not to be had that way.
        if memory.seek(SeekFrom::Start(from)).is_ok() && memory.read_exact(&mut bytes).is_ok() {
            found += memchr::memmem::find_iter(&bytes, wanted).count();
            parts += 1;
        }
    }
    assert!(parts > 20, "only {parts} parts of process {pid} were read");
    found
}

/// All forms in which a key of 32 bytes may lie about: as it is, and as the words of a big number are stored.
pub fn copies(pid: Pid, secret: &[u8]) -> usize {
    let words: Vec<u8> = secret.iter().rev().copied().collect();
    count_in_memory(pid, secret) + count_in_memory(pid, &words)
}
