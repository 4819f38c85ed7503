//! S37: a text file of a million entries is a table in memory like any other. How long that takes is measured by
//! `examples/million.rs`; bounds here are wide, but for memory, which does not depend on who else uses the machine. One test
//! alone in its process, for it looks at the memory of that.

use std::path::Path;
use std::time::{Duration, Instant};

use ringpost_conf::tables::{Keys, ServiceKind};
use ringpost_conf::{Config, Keyed, Mapping, Memory, Options, load};

const ENTRIES: usize = 1_000_000;
/// Promised for each entry beyond its text.
const BYTES_MAX: i64 = 120;
/// Promised are 2 s with optimisation and a processor for it alone.
const LOADED_WITHIN: Duration = Duration::from_secs(60);
/// Promised are 1 µs each.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn s37_a_million_entries_of_a_file_are_small_and_found() {
    let text: String = (0..ENTRIES).map(|n| format!("user{n:07}: box{n:07}\n")).collect();
    let rules = "table t file:t\naction a maildir virtual <t>\nmatch from any for any action a\n";
    // The text is counted here and no more when it is gone.
    let before = memory();
    let files = Memory::default().with("c", rules).with("t", text);
    let began = Instant::now();
    let (config, reports) =
        load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|reports| panic!("{reports}"));
    assert!(began.elapsed() < LOADED_WITHIN, "{:?}", began.elapsed());
    drop((files, reports));
    let each = (memory() - before) / ENTRIES as i64;
    assert!(each < BYTES_MAX, "{each} bytes for each entry beyond its text");
    let began = Instant::now();
    for number in (0..ENTRIES).map(|n| n * 7_919 % ENTRIES) {
        assert_eq!(found(&config, &format!("User{number:07}@any.example")), [format!("box{number:07}")]);
    }
    assert!(began.elapsed() < LOOKED_UP_WITHIN, "{:?}", began.elapsed());
    assert!(found(&config, "user1000000").is_empty());
}

fn found(config: &Config, key: &str) -> Vec<String> {
    let Some(Mapping::Virtual(Keyed::Memory(map))) = &config.actions[0].mapping else { panic!("not in memory") };
    let targets = map.find(Keys::new(ServiceKind::Alias, key, '+'));
    targets.map_or(Vec::new(), |targets| targets.iter().map(ToString::to_string).collect())
}

/// Memory of this process that is not of files, in bytes.
fn memory() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the field");
    line.trim().trim_end_matches(" kB").parse::<i64>().expect("a number") * 1024
}
