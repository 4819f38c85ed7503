//! Fuzzing of reader and checker: files that are spoiled again and again. One that makes it say something new is kept, and
//! spoiled further. `RINGPOST_FUZZ_SECONDS` says how long (`./test` takes a minute), `RINGPOST_FUZZ_SEED` repeats a run.

mod book;

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use book::judge::{look_at, worked};
use book::words::{FIXTURES, WORDS};

/// Without being told otherwise, and so in every `cargo test`.
const SECONDS: u64 = 2;
/// No file takes longer than this to be read, four times over, and judged.
const RUN: Duration = Duration::from_secs(1);
/// The whole process never has more, in KiB.
const MEMORY_KIB: u64 = 256 * 1024;
/// Files are kept to about this size: small ones are tried more often.
const BYTES_MAX: usize = 4_096;
const KEPT_MAX: usize = 20_000;
const CHANGES_MAX: usize = 4;
/// Of a file that is kept: kinds of mistakes.
const CODES_MAX: usize = 3;
const MARKS: &[&str] =
    &[" ", "\n", "{", "}", ",", "=", "=>", "!", "<", ">", "\"", "'", "\\", "\\\n", "#", "$", "${", "%{", "]", "@"];
const NUMBERS: &[&str] = &["0", "-1", "65535", "65536", "4294967296", "18446744073709551616", "1e9", "99999999999999w"];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Two places in a text, between characters.
    fn range(&mut self, text: &str) -> (usize, usize) {
        let mut place = || (0..=self.below(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (a, b) = (place(), place());
        (a.min(b), a.max(b))
    }
}

/// One small change.
fn spoil(text: &mut String, kept: &[String], random: &mut Random) {
    let (from, to) = random.range(text);
    let near = (from..=to.min(from + 24)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(from);
    match random.below(9) {
        0 => text.replace_range(from..near, ""),
        1 => text.insert_str(from, random.one::<&str>(MARKS)),
        2 => text.insert_str(from, &format!(" {} ", random.one(&WORDS))),
        3 => text.replace_range(from..near, random.one::<&str>(MARKS)),
        4 => text.insert_str(to, &text[from..near].repeat(1 + random.below(3))),
        5 => {
            let other = random.one(kept);
            let (start, end) = random.range(other);
            text.insert_str(from, &other[start..end]);
        }
        6 => {
            text.insert_str(from, random.one::<&str>(NUMBERS));
        }
        7 => text.insert(from, char::from_u32(random.below(0x11_0000) as u32).unwrap_or('\u{fffd}')),
        _ => {
            // Two lines change places.
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            let (a, b) = (random.below(lines.len()), random.below(lines.len()));
            if !lines.is_empty() {
                lines.swap(a, b);
            }
            *text = lines.concat();
        }
    }
}

/// The most memory that this process has ever had, in KiB.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line for it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn s17_no_file_crashes_the_reader() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let seed = variable("RINGPOST_FUZZ_SEED").unwrap_or(now);
    let seconds = Duration::from_secs(variable("RINGPOST_FUZZ_SECONDS").unwrap_or(SECONDS));
    eprintln!("RINGPOST_FUZZ_SEED={seed}");
    let mut random = Random(seed);
    let mut kept: Vec<String> = FIXTURES.iter().map(|fixture| fixture.text.clone()).collect();
    let (mut said, mut runs) = (HashSet::new(), 0_u64);
    let began = Instant::now();
    while began.elapsed() < seconds {
        let mut text = random.one(&kept).clone();
        for _ in 0..=random.below(CHANGES_MAX) {
            spoil(&mut text, &kept, &mut random);
        }
        if text.len() > BYTES_MAX {
            let end = (0..=BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        // It is a table's file and an included one as well.
        let included = random.one(&kept).clone();
        let before = worked();
        let mut codes = look_at(&text, &included, text.as_bytes());
        let took = worked() - before;
        codes.sort_unstable();
        codes.dedup();
        assert!(took < RUN, "{took:?} for:\n{text}");
        runs += 1;
        // Where all is broken nothing is reached that is behind the parser.
        if codes.len() <= CODES_MAX && kept.len() < KEPT_MAX && said.insert(codes) {
            kept.push(text);
        }
    }
    let memory = memory_kib();
    eprintln!("{runs} files, {} kept, {memory} KiB", kept.len());
    assert!(runs > 10 && said.len() > 10, "hardly anything was tried");
    assert!(memory < MEMORY_KIB, "{memory} KiB");
}
