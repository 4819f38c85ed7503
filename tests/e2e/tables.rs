//! Tables that others answer for, with the real ones: slapd, redis-server, SQLite, helpers, tinycdb. Asked through
//! `ringpost table`, which uses the server's own code.

mod asking;
pub mod directory;
mod files;
mod live;
pub mod matrix;
mod options;
pub mod stores;
mod traced;

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

#[test]
fn a_running_server_is_asked_by_name() {
    let server = crate::support::Setup::discard().start();
    let state = server.state.display().to_string();
    let output = cli::run(&["table", "lookup", "aliases", "alias", "root", "--state", &state]);
    assert_eq!(output.status.code(), Some(EX_TEMPFAIL), "{}", words(&output));
    assert!(words(&output).contains("there is no table <aliases>"), "{}", words(&output));
    for command in ["stat", "show", "update"] {
        let output = cli::run(&["table", command, "aliases", "--state", &state]);
        assert_eq!(output.status.code(), Some(1), "{command}: {}", words(&output));
        assert!(words(&output).contains("there is no table <aliases>"), "{command}: {}", words(&output));
    }
    assert_eq!(server.tell(&["table", "show"]), "");
    let output = cli::run(&["table", "lookup", "aliases", "aliases", "root", "--state", &state]);
    assert_eq!(output.status.code(), Some(64));
    assert!(words(&output).contains("there are no `aliases` lookups; there are alias, domain"), "{}", words(&output));
}

#[test]
fn many_keys_are_answered_in_lines_or_in_json() {
    let output = lookup(None, "getpwnam", "userinfo", &["root", "no-such-user"]);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    let mut lines: Vec<String> = words(&output).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines[0], "no-such-user\tnot-found");
    assert!(lines[1].starts_with("root\tfound\troot:0:0:/"), "{lines:?}");
    let said = cli::succeed(&["table", "lookup", "--json", "getpwnam", "userinfo", "root"]);
    let said: serde_json::Value = serde_json::from_str(&said).expect("an object");
    assert_eq!(said["key"], "root");
    assert!(said["answer"]["found"].as_str().is_some_and(|value| value.starts_with("root:0:0:/")), "{said}");
}
