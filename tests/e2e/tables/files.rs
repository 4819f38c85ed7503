//! `makemap`, `newaliases` and `db:` tables, beside tinycdb and Berkeley DB.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::asking::Asking;
use super::{ATTACKS, absent, failure, value, words};
use crate::support::cli;
use crate::support::server::PROGRAM;

const ALIASES: &str = "# mail\nroot: gilles\nStaff: gilles, eric,\n\tchl@example.org\nlist: |\"/bin/cmd #1\"\n";

fn cdb(args: &[&str], input: &str) -> String {
    let mut child = Command::new("cdb")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cdb, from the package tinycdb");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("taken");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "cdb {args:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn s53_databases_are_made_read_and_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let (aliases, db) = (dir.path().join("aliases"), dir.path().join("aliases.db"));
    fs::write(&aliases, ALIASES).expect("written");
    let said = cli::succeed(&["makemap", "-t", "aliases", &text(&aliases)]);
    assert_eq!(said, format!("{}: 3 entries\n", db.display()));
    let source = format!("db:{}", db.display());
    assert_eq!(value(None, &source, "alias", "STAFF"), "gilles, eric, chl@example.org");
    assert_eq!(value(None, &source, "alias", "list"), "|/bin/cmd #1");
    for key in ATTACKS {
        absent(None, &source, "alias", key);
    }
    // Another tool reads ours, and we read its.
    assert_eq!(cdb(&["-q", &text(&db), "root"], ""), "gilles");
    assert!(cdb(&["-d", "-m", &text(&db)], "").contains("staff gilles, eric, chl@example.org\n"));
    let theirs = dir.path().join("theirs.cdb");
    cdb(&["-c", "-m", &text(&theirs)], "key one\nkey two\nother three\n");
    let source = format!("db:{}", theirs.display());
    assert_eq!(value(None, &source, "alias", "key"), "one, two");
    assert_eq!(value(None, &source, "addrname", "other"), "three");
    absent(None, &source, "alias", "missing");

    fs::write(&aliases, "root: gilles\n broken\nroot: eric\n").expect("written");
    let before = fs::read(&db).expect("there");
    let output = cli::run(&["makemap", "-t", "aliases", &text(&aliases)]);
    assert_eq!(output.status.code(), Some(super::EX_CONFIG));
    assert!(words(&output).contains("aliases:3:1: `root` is there twice"), "{}", words(&output));
    assert_eq!(fs::read(&db).expect("there"), before);
    let set = dir.path().join("domains");
    fs::write(&set, "example.org # ours\n\n*.example.org\n").expect("written");
    let out = dir.path().join("set.cdb");
    cli::succeed(&["makemap", "-t", "set", "-o", &text(&out), &text(&set)]);
    assert_eq!(value(None, &format!("db:{}", out.display()), "domain", "*.example.org"), "*.example.org");
}

#[test]
fn s53_berkeley_files_are_told_from_ours() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = dir.path().join("aliases.db");
    let mut child = Command::new("db5.3_load")
        .args(["-T", "-t", "hash", &text(&db)])
        .stdin(Stdio::piped())
        .spawn()
        .expect("db5.3_load, from the package db5.3-util");
    child.stdin.take().expect("piped").write_all(b"root\ngilles\n").expect("taken");
    assert!(child.wait().expect("it ends").success());
    let said = failure(None, &format!("db:{}", db.display()), "alias", "root");
    let rebuild = format!("ringpost makemap -t aliases -o {0} {1}", db.display(), dir.path().join("aliases").display());
    assert!(said.contains("is a Berkeley DB file") && said.contains(&rebuild), "{said}");
}

#[test]
fn s53_rebuilding_fails_no_lookup_and_mixes_no_answers() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, db) = (dir.path().join("map"), dir.path().join("map.db"));
    let content = |value: &str| (0..2000).map(|n| format!("k{n} {value}{n}\n")).collect::<String>();
    fs::write(&file, content("old")).expect("written");
    cli::succeed(&["makemap", &text(&file)]);
    let mut asking = Asking::new(&format!("db:{}", db.display()), "addrname");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                fs::write(&file, content(if round % 2 == 0 { "new" } else { "old" })).expect("written");
                cli::succeed(&["makemap", &text(&file)]);
                if ended.load(Ordering::Relaxed) && round > 3 {
                    return;
                }
            }
        });
        for n in 0..2000 {
            let answer = asking.ask(&format!("k{n}"));
            assert!(answer == format!("found old{n}") || answer == format!("found new{n}"), "k{n}: {answer}");
        }
        ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn newaliases_makes_the_systems_database_under_its_own_name() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().display().to_string();
    let output = cli::run(&["newaliases", "--root", &dir]);
    assert_eq!(output.status.code(), Some(66), "{}", words(&output));
    fs::create_dir(root.path().join("etc")).expect("made");
    fs::write(root.path().join("etc/aliases"), ALIASES).expect("written");
    let name = root.path().join("newaliases");
    symlink(PROGRAM, &name).expect("linked");
    let output = Command::new(&name).args(["--root", &dir]).output().expect("it starts");
    assert!(output.status.success(), "{}", words(&output));
    assert!(words(&output).ends_with("etc/aliases.db: 3 aliases\n"), "{}", words(&output));
    assert_eq!(value(Some(root.path()), "db:/etc/aliases.db", "alias", "root"), "gilles");
    let name = root.path().join("makemap");
    symlink(PROGRAM, &name).expect("linked");
    let output =
        Command::new(&name).args(["-t", "set", "-o", "/dev/null/x", &text(&root.path().join("etc/aliases"))]).output();
    assert_eq!(output.expect("it starts").status.code(), Some(73));
}
