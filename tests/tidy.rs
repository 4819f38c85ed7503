//! The house rules that a program can check: who knows whom, where unsafe code and runtimes live, sizes, module
//! comments, names. What is checked here needs no reviewer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 1000;

/// Of our crates, which may use which (the drawing in docs/architecture.md).
const ARROWS: [(&str, &[&str]); 12] = [
    ("ringpost-io", &[]),
    ("ringpost-perf", &[]),
    ("ringpost-address", &[]),
    ("ringpost-conf", &["ringpost-address"]),
    ("ringpost-smtp", &["ringpost-address"]),
    ("ringpost-message", &["ringpost-address"]),
    ("ringpost-routes", &["ringpost-address"]),
    ("ringpost-queue", &["ringpost-io"]),
    ("ringpost-tls", &[]),
    (
        "ringpost-shard",
        &[
            "ringpost-io",
            "ringpost-perf",
            "ringpost-address",
            "ringpost-conf",
            "ringpost-smtp",
            "ringpost-message",
            "ringpost-routes",
            "ringpost-queue",
            "ringpost-tls",
        ],
    ),
    (
        "ringpost-sim",
        &[
            "ringpost-tls",
            "ringpost-shard",
            "ringpost-io",
            "ringpost-conf",
            "ringpost-smtp",
            "ringpost-queue",
            "ringpost-message",
            "ringpost-perf",
        ],
    ),
    ("ringpost-bench", &["ringpost-smtp", "ringpost-message", "ringpost-io", "ringpost-perf"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        let mut entries: Vec<_> =
            fs::read_dir(dir).expect("readable").map(|entry| entry.expect("entry").path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("utf-8");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    for dir in ["src", "conf", "shards", "io", "perf", "tests"] {
        walk(&root().join(dir), &mut found);
    }
    assert!(found.len() > 50, "the walk has lost its way: {} files", found.len());
    found
}

/// Lines that are code: comments and strings of documentation do not count.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").display().to_string()
}

fn complain(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn arrows_point_the_right_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let ours = package["dependencies"].as_array().expect("dependencies").iter();
        let ours = ours.filter(|dependency| dependency["kind"].is_null()).map(|dependency| dependency["name"].as_str());
        let ours = ours.flatten().filter(|name| name.starts_with("ringpost")).map(str::to_owned).collect();
        uses.insert(package["name"].as_str().expect("name").to_owned(), ours);
    }
    let mut complaints = Vec::new();
    for (name, used) in uses.iter().filter(|(name, _)| *name != "ringpost") {
        match ARROWS.iter().find(|(of, _)| of == name) {
            None => complaints.push(format!("{name} is not in the drawing")),
            Some((_, allowed)) => {
                let wrong = used.iter().filter(|target| !allowed.contains(&target.as_str()));
                complaints.extend(wrong.map(|target| format!("{name} must not know {target}")));
            }
        }
    }
    complain(complaints);
}

#[test]
fn s71_tls_and_the_keyholder_know_nothing_of_mail() {
    let manifest = fs::read_to_string(root().join("shards/tls/Cargo.toml")).expect("it is there");
    let uses = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).expect("a section");
    let mut complaints: Vec<String> =
        uses.lines().filter(|line| line.starts_with("ringpost")).map(str::to_owned).collect();
    let (mut seen, mail) =
        (0, ["ringpost_smtp", "ringpost_queue", "ringpost_conf", "ringpost_shard", "ringpost_message"]);
    for (path, text) in sources() {
        let name = relative(&path);
        if !name.starts_with("shards/tls/src/") && !name.starts_with("src/keyholder/") {
            continue;
        }
        seen += 1;
        for (at, line) in code_lines(&text) {
            let ours = line.split("crate::").skip(1).any(|rest| {
                name.starts_with("src/") && !["ipc::", "limits::"].iter().any(|room| rest.starts_with(room))
            });
            if ours || mail.iter().any(|room| line.contains(room)) {
                complaints.push(format!("{name}:{at}: {}", line.trim()));
            }
        }
    }
    assert!(seen > 8, "the search has lost its way: {seen} files");
    complain(complaints);
}

#[test]
fn unsafe_code_lives_in_io_and_says_why() {
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        let name = relative(&path);
        let in_io = name.starts_with("io/");
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in code_lines(&text) {
            let opens = line.contains("unsafe {") || line.contains("unsafe impl") || line.contains("unsafe fn");
            if !opens || name == "tests/tidy.rs" {
                continue;
            }
            if !in_io {
                complaints.push(format!("{name}:{at}: unsafe outside io/"));
            } else if !lines[at.saturating_sub(6)..at].iter().any(|line| line.contains("SAFETY:")) {
                complaints.push(format!("{name}:{at}: unsafe without SAFETY:"));
            }
        }
        let is_root = name.ends_with("src/lib.rs") && !in_io || name == "src/main.rs";
        if is_root && !text.contains("#![forbid(unsafe_code)]") {
            complaints.push(format!("{name}: no #![forbid(unsafe_code)]"));
        }
    }
    complain(complaints);
}

#[test]
fn runtimes_and_clocks_stay_in_their_rooms() {
    let rules: [(&str, &[&str]); 6] = [
        ("glommio::", &["io/src/ring/", "io/tests/"]),
        ("tokio::", &["src/coordinator/", "src/engine.rs", "tests/"]),
        ("Instant::now()", &["io/", "src/", "perf/bench/", "tests/", "conf/examples/"]),
        ("SystemTime::now()", &["io/", "src/", "perf/bench/", "tests/"]),
        ("thread::sleep", &["io/", "src/pulse.rs", "src/supervisor/", "src/cli/", "perf/bench/", "tests/"]),
        ("std::env::", &["src/", "io/tests/", "perf/", "tests/", "conf/tests/", "conf/examples/"]),
    ];
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        let name = relative(&path);
        let tests_at = text.find("#[cfg(test)]").unwrap_or(text.len());
        if name.contains("/tests/") || name == "tests/tidy.rs" {
            continue;
        }
        for (at, line) in code_lines(&text[..tests_at]) {
            for (word, rooms) in rules {
                if line.contains(word) && !rooms.iter().any(|room| name.starts_with(room)) {
                    complaints.push(format!("{name}:{at}: {word} does not belong here"));
                }
            }
        }
    }
    complain(complaints);
}

#[test]
fn files_are_short_begin_with_their_purpose_and_have_a_name() {
    let banned = ["util", "utils", "common", "helpers", "misc", "types", "core", "manager"];
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        let name = relative(&path);
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            complaints.push(format!("{name}: {lines} lines, more than {FILE_LINES_MAX}"));
        }
        if !text.starts_with("//!") {
            complaints.push(format!("{name}: does not begin with what it is for"));
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
        if banned.contains(&stem) {
            complaints.push(format!("{name}: a name that says nothing"));
        }
    }
    complain(complaints);
}

#[test]
fn nothing_unfinished_is_left() {
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
    ];
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        for (at, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                complaints.push(format!("{}:{}: {}", relative(&path), at + 1, line.trim()));
            }
        }
    }
    complain(complaints);
}

/// The tests' names by the number at their beginning: `s08_wildcards_…` shows S08.
fn tests_by_number() -> BTreeMap<u32, Vec<String>> {
    let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (path, text) in sources() {
        for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("fn s")) {
            let name = line.split('(').next().unwrap_or(line);
            let digits = name.split('_').next().unwrap_or_default();
            if let Ok(number) = digits.parse() {
                found.entry(number).or_default().push(format!("`s{name}` in {}", relative(&path)));
            }
        }
    }
    found.values_mut().for_each(|names| names.sort());
    found
}

#[test]
fn the_table_of_what_was_promised_is_up_to_date() {
    let path = root().join("docs/seed-coverage.md");
    let text = fs::read_to_string(&path).expect("it is there");
    let mut tests = tests_by_number();
    assert!(tests.len() > 10, "the search has lost its way: {} numbers", tests.len());
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, number, what, kind, ..] = cells[..] else { return line.to_owned() };
        let Some(number) = number.strip_prefix('S').and_then(|number| number.parse().ok()) else {
            return line.to_owned();
        };
        let names = tests.remove(&number).unwrap_or_default();
        let state = if names.is_empty() { "–" } else { "tested" };
        format!("| S{number:02} | {what} | {kind} | {state} | {} |", names.join("<br>")).replace("|  |", "| |")
    };
    let fresh: String = text.lines().map(row).flat_map(|line| [line, "\n".to_owned()]).collect();
    assert!(tests.is_empty(), "tests of what was never promised: {tests:?}");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, fresh).expect("written");
    } else {
        assert!(text == fresh, "docs/seed-coverage.md is not up to date: BLESS=1 cargo test --test tidy");
    }
}
