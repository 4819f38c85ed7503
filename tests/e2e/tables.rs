//! Tables that others answer for, with the real ones: slapd, redis-server, SQLite, helpers, tinycdb. Asked through
//! `ringpost table`, which uses the server's own code.

mod asking;
mod directory;
mod files;
mod stores;

use std::path::Path;
use std::process::Output;

use crate::support::cli;

/// EX_TEMPFAIL of sysexits: it could not be asked.
const EX_TEMPFAIL: i32 = 75;
/// EX_CONFIG.
const EX_CONFIG: i32 = 78;
/// Keys that are meant to get out of their place.
const ATTACKS: [&str; 7] =
    ["*)(uid=*", "*", "gilles)(objectClass=*", "' OR 1=1 --", "'; drop table aliases;--", "gilles\nlookup", "%s"];

/// `ringpost table lookup`.
fn lookup(root: Option<&Path>, source: &str, service: &str, keys: &[&str]) -> Output {
    let root = root.map(|root| root.display().to_string());
    let mut args = vec!["table", "lookup"];
    if let Some(root) = &root {
        args.extend(["--root", root]);
    }
    args.extend([source, service, "--"]);
    args.extend(keys);
    cli::run(&args)
}

/// The value of a key that must be there.
#[track_caller]
fn value(root: Option<&Path>, source: &str, service: &str, key: &str) -> String {
    let output = lookup(root, source, service, &[key]);
    assert!(output.status.success(), "{source} {service} {key:?}: {}", words(&output));
    String::from_utf8(output.stdout).expect("UTF-8").trim_end_matches('\n').to_owned()
}

/// A key that must not be there; a failure is something else.
#[track_caller]
fn absent(root: Option<&Path>, source: &str, service: &str, key: &str) {
    let output = lookup(root, source, service, &[key]);
    assert_eq!(output.status.code(), Some(1), "{source} {service} {key:?}: {}", words(&output));
}

/// A lookup that must fail, and what is said.
#[track_caller]
fn failure(root: Option<&Path>, source: &str, service: &str, key: &str) -> String {
    let output = lookup(root, source, service, &[key]);
    assert_eq!(output.status.code(), Some(EX_TEMPFAIL), "{source} {service} {key:?}: {}", words(&output));
    words(&output)
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
