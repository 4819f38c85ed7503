//! `ringpost check`: everything that is wrong, at once, with its place; and the server says the same.

use std::fs;

use crate::support::{Setup, cli};

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

fn written(dir: &tempfile::TempDir, text: &str) -> String {
    let path = dir.path().join("ringpost.conf");
    fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[test]
fn the_canonical_form_prints_itself_and_old_files_are_converted() {
    let dir = tempfile::tempdir().expect("a directory");
    let path =
        written(&dir, "# ours\nname = mx.example.org\nlisten on lo0 hostname $name\naccept for any relay # out\n");
    let once = cli::succeed(&["check", "--canonical", &path]);
    let expected = "listen on lo0 hostname mx.example.org              # 3\n\
                    action \"line-4\" relay\n\
                    match from local for any action \"line-4\"   # 4\n\
                    match from auth for any action \"line-4\"    # 4\n";
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed(&once), squeezed(expected));
    let again = written(&dir, &once);
    assert_eq!(cli::succeed(&["check", "--canonical", &again]), once);
    let all = cli::succeed(&["check", "--canonical", "--defaults", &again]);
    assert!(all.starts_with(once.lines().next().expect("a line").trim_end_matches("# 3").trim_end()), "{all}");
    assert!(all.contains("queue ttl 4d") && all.contains("# built in"), "{all}");
    let path =
        written(&dir, "# ours\nname = mx.example.org\nlisten on lo0 hostname $name\naccept for any relay # out\n");
    let converted = cli::succeed(&["convert", &path]);
    let expected = "# ours\nname = mx.example.org\nlisten on lo0 hostname $name\naction \"line-4\" relay\n\
                    match from local for any action \"line-4\"\nmatch from auth for any action \"line-4\" # out\n";
    assert_eq!(converted, expected);
    // A macro of the command line wins over the file.
    let named = cli::succeed(&["check", "--canonical", "-D", "name=other.example.org", &path]);
    assert!(named.contains("hostname other.example.org"), "{named}");
    assert!(!cli::run(&["check", "-D", "name", &path]).status.success());
}

#[test]
fn what_is_not_built_yet_is_said_by_check_and_refused_by_serve() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = written(
        &dir,
        "listen on 127.0.0.1 port 2525\nqueue compression\nadmd x\naction \"a\" relay\nmatch for any action \"a\"\n",
    );
    let output = cli::run(&["check", &path]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains(":2: `queue compression` has no effect yet") && said.contains(":3: `admd`"), "{said}");
    assert!(said.matches("this version does not start with it: take it out").count() == 2, "{said}");
    let json = cli::succeed(&["check", "--json", &path]);
    assert!(json.lines().any(|line| line.contains("\"severity\":\"note\"") && line.contains("\"line\":2")), "{json}");
    let state = dir.path().join("state").display().to_string();
    let output = cli::run(&["serve", "--config", &path, "--state", &state]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{said}");
    assert!(
        said.contains(":2: queue compression\n    take it out") && said.contains(":3: admd\n    take it out"),
        "{said}"
    );
}

#[test]
fn a_macro_of_the_command_line_counts_for_conversion_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = written(&dir, "listen on lo0\naccept for domain $ours deliver to maildir\naccept for any relay\n");
    let output = cli::run(&["convert", &path]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(EX_CONFIG) && said.contains("E0104"), "{said}");
    let converted = cli::succeed(&["convert", "-D", "ours=a.example", &path]);
    assert!(converted.contains("match from local for domain a.example action \"line-2\""), "{converted}");
}

#[test]
fn an_interface_that_is_not_there_yet_keeps_no_server_from_starting() {
    let missing = "listen on nonesuch0\nlisten on 192.0.2.77 port 2525\n";
    let rest = "action \"none\" discard\nmatch for any action \"none\"\n";
    let mut server = Setup::new(format!("{missing}{rest}")).start();
    let said = server.printed();
    assert!(said.contains("warning[W0813]: `nonesuch0` does not exist yet"), "{said}");
    assert!(said.contains("`nonesuch0` has no address: nobody listens there until the next start"), "{said}");
    assert!(said.contains("192.0.2.77 is not here"), "{said}");
    assert_eq!(server.client().submit("s@a.example", &["x@b.example"], b"Subject: t\r\n\r\nx\r\n").code, 250);
    server.stop();
    // With nothing else there would be no server.
    let dir = tempfile::tempdir().expect("a directory");
    let path = written(&dir, &format!("{missing}{rest}"));
    let state = dir.path().join("state").display().to_string();
    let output = cli::run(&["serve", "--config", &path, "--state", &state]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{said}");
    assert!(said.contains("nothing to listen on") && said.contains("ringpost.conf:1: `nonesuch0`"), "{said}");
    assert!(cli::run(&["check", &path]).status.success());
    assert_eq!(cli::run(&["check", "--strict", &path]).status.code(), Some(EX_CONFIG));
}

#[test]
fn explain_names_the_place_that_a_delivery_would_have() {
    let rules = "mda wrapper w \"/bin/wrap -x %{mda}\"\n\
                 action box mbox alias { files => \"/var/mail/of-%{rcpt.domain}\", pipe => \"|/bin/x '%{sender}'\" }\n\
                 action dir maildir \"~/%{dest.domain:lowercase}/%{rcpt.ext}\"\n\
                 action prog mda \"/bin/p 'a b' %{rcpt.user}\" wrapper w\n\
                 action store lmtp \"/run/%{user.username}.sock\"\n\
                 match for domain box.example action box\nmatch for domain dir.example action dir\n\
                 match for domain prog.example action prog\nmatch for domain store.example action store\n";
    let setup = Setup::whole(format!("listen on lo0\n{rules}")).with_users(&["gilles"]);
    let server = setup.prepare();
    let root = server.dir().join("root").display().to_string();
    let conf = server.dir().join("ringpost.conf").display().to_string();
    let cases = [
        ("gilles@box.example", format!("\"box\": mbox {root}/var/mail/gilles as gilles=")),
        ("files@box.example", format!("\"box\": file {root}/var/mail/of-box.example for")),
        ("pipe@box.example", "\"box\": program /bin/x s@a.example for".to_owned()),
        ("Gilles+Lists@Dir.Example", format!("\"dir\": maildir {root}/home/gilles/dir.example/Lists as gilles=")),
        ("gilles@dir.example", "(waits until it is mended: a format made an empty path component".to_owned()),
        ("gilles@prog.example", "\"prog\": mda /bin/wrap -x /bin/p 'a b' gilles as gilles=".to_owned()),
        ("gilles@store.example", format!("\"store\": lmtp {root}/run/gilles.sock as gilles=")),
    ];
    for (to, expected) in cases {
        let told =
            cli::succeed(&["explain", "--root", &root, "--config", &conf, "--sender", "s@a.example", "--rcpt", to]);
        let last = told.lines().last().expect("a line");
        assert!(last.starts_with("delivery: ") && last.contains(&expected), "{to}: {expected}\n{told}");
    }
}
