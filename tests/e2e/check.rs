//! `ringpost check`: everything that is wrong, at once, with its place; and the server says the same.

use std::fs;

use crate::support::cli;

/// EX_CONFIG of sysexits.
const EX_CONFIG: i32 = 78;

const BROKEN: &str = "\
listen on 127.0.0.1 port 99999
action \"out\" relay host \"gopher://mx.example.org\"
match for domian \"a.example\" action \"out\"
match for any action \"nothing\"
";

const PLACES: [&str; 4] = ["ringpost.conf:1:", "ringpost.conf:2:", "ringpost.conf:3:", "ringpost.conf:4:"];

#[test]
fn all_errors_are_reported_at_once_with_their_places() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ringpost.conf");
    fs::write(&path, BROKEN).expect("written");
    let path = path.display().to_string();
    let state = dir.path().join("state").display().to_string();
    for args in [&["check", &path][..], &["serve", "--config", &path, "--state", &state]] {
        let output = cli::run(args);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(EX_CONFIG), "{args:?}:\n{said}");
        for place in PLACES {
            assert!(said.contains(place), "{args:?}: no {place} in:\n{said}");
        }
        assert!(said.contains("domain"), "{args:?}: no suggestion in:\n{said}");
        assert!(said.contains('^'), "{args:?}: nothing points at it:\n{said}");
        assert!(said.contains("error[E"), "{args:?}: no code in:\n{said}");
    }
}

#[test]
fn what_is_right_passes_and_what_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ringpost.conf");
    fs::write(
        &path,
        "listen on 127.0.0.1 port 2525\naction \"out\" relay host \"smtp://mx.example.org\"\n\
         match from local for any action \"out\"\n",
    )
    .expect("written");
    cli::succeed(&["check", &path.display().to_string()]);
    let output = cli::run(&["check", "/nowhere/ringpost.conf"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/ringpost.conf"), "{output:?}");
}

#[test]
fn every_example_of_the_documentation_passes() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let mut checked = 0;
    for entry in fs::read_dir(&dir).expect("docs/examples") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            cli::succeed(&["check", &path.display().to_string()]);
            checked += 1;
        }
    }
    assert!(checked > 0, "no examples in {}", dir.display());
}
