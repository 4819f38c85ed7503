//! How long a file of a million entries takes to read, how much memory it needs beyond its text, and how long one lookup
//! takes (seed S37, S42):
//! `cargo run --release -p ringpost-conf --example million`

use std::path::Path;
use std::time::Instant;

use ringpost_conf::tables::{Keys, Part, ServiceKind};
use ringpost_conf::{Config, Memory, Options, load};

const ENTRIES: usize = 1_000_000;
const NETWORKS: usize = 100_000;
const LOOKUPS: usize = 1_000_000;

fn main() {
    // Each in a process of its own, so that none uses the memory that another has given back.
    match std::env::args().nth(1) {
        Some(what) => case(&what),
        None => {
            let program = std::env::current_exe().expect("it runs");
            for what in ["aliases", "users", "domains", "networks"] {
                let ended = std::process::Command::new(&program).arg(what).status();
                assert!(ended.expect("it starts").success(), "{what}");
            }
        }
    }
}

fn case(what: &str) {
    let user = |n: usize| format!("user{n:07}");
    let aliases = "action a maildir virtual <t>\nmatch from any for any action a\n";
    let users = "action a maildir userbase <t>\nmatch from any for any action a\n";
    let domains = "action a discard\nmatch from any for domain <t> action a\n";
    let networks = "action a discard\nmatch from src <t> for any action a\n";
    let record = |n: usize| format!("{}:10:100:/var/vmail/{}", user(n), user(n));
    let domain = |n: usize| format!("host{n:07}.example.org");
    let network = |n: usize| format!("{}.{}.{}.0", 10 + n / 65_536, n / 256 % 256, n % 256);
    match what {
        "aliases" => {
            measure("aliases", ServiceKind::Alias, aliases, ENTRIES, |n| format!("{}: box{n:07}\n", user(n)), user)
        }
        "users" => {
            measure("users", ServiceKind::UserInfo, users, ENTRIES, |n| format!("{} {}\n", user(n), record(n)), user)
        }
        "domains" => measure("domains", ServiceKind::Domain, domains, ENTRIES, |n| format!("{}\n", domain(n)), domain),
        _ => measure("networks", ServiceKind::NetAddr, networks, NETWORKS, |n| format!("{}/24\n", network(n)), network),
    }
}

fn measure(
    what: &str,
    service: ServiceKind,
    rules: &str,
    count: usize,
    line: impl Fn(usize) -> String,
    key: impl Fn(usize) -> String,
) {
    let text: String = (0..count).map(line).collect();
    let text_bytes = text.len();
    let before = memory();
    let files = Memory::default().with("c", format!("table t file:t\n{rules}")).with("t", text);
    let began = Instant::now();
    let (config, reports) =
        load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|reports| panic!("{reports}"));
    let took = began.elapsed();
    drop((files, reports));
    let more = (memory() as f64 - before as f64) / count as f64;
    let keys: Vec<String> = (0..LOOKUPS).map(|n| key(n.wrapping_mul(7_919) % count)).collect();
    let began = Instant::now();
    let found = keys.iter().filter(|key| look(&config, service, key)).count();
    let each = began.elapsed().as_nanos() / LOOKUPS as u128;
    assert_eq!(found, LOOKUPS, "all are there");
    println!(
        "{what:>8}: {count} entries, {text_bytes} bytes, read in {:.2} s, {more:.0} bytes of memory each beyond \
         {:.0} of text, {each} ns a lookup",
        took.as_secs_f64(),
        text_bytes as f64 / count as f64
    );
}

/// As the server looks: the table's own type, and the keys of a question.
fn look(config: &Config, service: ServiceKind, key: &str) -> bool {
    match &config.tables[0].memory.parts()[0] {
        Part::Aliases(map) => map.find(Keys::new(service, key, '+')).is_some(),
        Part::Users(map) => map.find(Keys::new(service, key, '+')).is_some(),
        Part::Domains(set) => set.contains(key),
        Part::Networks(set) => set.contains(key.parse().expect("an address"), || false),
        _ => false,
    }
}

/// Memory of this process that is not of files, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
}
