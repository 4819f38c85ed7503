//! Formats: what `ringpost format` says is what a Maildir's path, a program and a `.forward` get.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::homes::{give, mode};
use crate::support::{Server, Setup, cli, maildir, wait_until};

const EX_CONFIG: i32 = 78;
const EX_DATAERR: i32 = 65;
const SOON: Duration = Duration::from_secs(20);
/// All that a person needs, but for the home directory.
const TOKENS: &str =
    "%{sender.user} %{sender.domain} %{rcpt.user} %{rcpt.domain} %{dest.user} %{dest.domain} %{user.username} %u";

fn format(text: &str, values: &[&str]) -> String {
    let said = cli::succeed(&[&["format", text], values].concat());
    said.strip_suffix('\n').expect("a line").to_owned()
}

/// Slices of a user's name.
fn of_user(name: &str, slice: &str) -> String {
    format(&format!("%{{user.username{slice}}}"), &["--user", name])
}

/// A program of a user's own that writes down its arguments, each with a mark behind it.
fn notes_arguments(setup: &Setup, user: &str) {
    let program = setup.put(
        &format!("root/home/{user}/note"),
        "#!/bin/sh\ncat > /dev/null\nout=$1\nshift\nprintf '%s|' \"$@\" > \"$out\"\n",
    );
    mode(&program, 0o755);
    give(&program);
}

fn submit(server: &Server, from: &str, to: &str) {
    let reply = server.client().submit(from, &[to], b"Subject: t\r\n\r\nhello\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn s18_a_path_a_program_and_a_forward_get_what_format_prints() {
    let dashes = TOKENS.replace(' ', "|");
    let rules = format!(
        "table lists {{ list => Gilles+x@B.example }}\n\
         accept from any for domain lists.example virtual <lists> deliver to mbox\n\
         accept from any for domain b.example deliver to maildir \"%{{user.directory}}/m/{}\"\n\
         accept from any for domain c.example deliver to mda \"@DIR@/root/home/gilles/note @DIR@/root/home/gilles/mda {TOKENS} %{{user.directory}} %{{mbox.from}}\"\n\
         accept from any for domain d.example deliver to mbox\n",
        dashes.replace('|', "-")
    );
    let setup = Setup::new(rules).with_users(&["gilles", "eric"]);
    notes_arguments(&setup, "gilles");
    notes_arguments(&setup, "eric");
    let (gilles, eric) = (setup.dir().join("root/home/gilles"), setup.dir().join("root/home/eric"));
    setup.forward("eric", &format!("\"|{0}/note {0}/forward {TOKENS} %{{user.directory}}\"\n", eric.display()));
    let server = setup.start();
    let home = |user: &str| server.dir().join("root/home").join(user).display().to_string();
    let values = |rcpt: &str, dest: &str, user: &str| {
        let home = home(user);
        let values = ["--sender", "s@a.example", "--rcpt", rcpt, "--dest", dest, "--user", user, "--home", &home];
        values.map(str::to_owned)
    };
    let expected = |text: &str, values: [String; 10]| format(text, &values.each_ref().map(String::as_str));

    submit(&server, "s@a.example", "Gilles+x@B.example");
    let line = expected(&dashes, values("Gilles+x@B.example", "Gilles+x@B.example", "gilles"));
    assert_eq!(line, "s|a.example|Gilles+x|B.example|Gilles+x|B.example|gilles|%u");
    assert_eq!(maildir::messages(&gilles.join("m").join(line.replace('|', "-"))).len(), 1, "{line}");
    let line = expected(
        &format!("%{{user.directory}}/m/{TOKENS}"),
        values("Gilles+x@B.example", "Gilles+x@B.example", "gilles"),
    );
    assert!(line.starts_with(&format!("{}/m/s a.example", home("gilles"))), "{line}");

    // What the recipient has become is something else than what he was.
    submit(&server, "s@a.example", "list@lists.example");
    let line = expected(&dashes, values("list@lists.example", "Gilles+x@B.example", "gilles"));
    assert_eq!(line, "s|a.example|list|lists.example|Gilles+x|B.example|gilles|%u");
    assert_eq!(maildir::messages(&gilles.join("m").join(line.replace('|', "-"))).len(), 1, "{line}");

    submit(&server, "s@a.example", "Gilles+x@c.example");
    let line = expected(&dashes, values("Gilles+x@c.example", "Gilles+x@c.example", "gilles"));
    assert_eq!(read(&gilles.join("mda")), format!("{line}|{}|s@a.example|", home("gilles")));

    submit(&server, "s@a.example", "Eric+y@d.example");
    let line = expected(&dashes, values("Eric+y@d.example", "Eric+y@d.example", "eric"));
    assert_eq!(read(&eric.join("forward")), format!("{line}|{}|", home("eric")));
}

#[test]
fn s18_the_one_letter_formats_stay_and_are_warned_of() {
    let output = cli::run(&["format", "/var/mail/%u", "--user", "gilles"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout == b"/var/mail/%u\n", "{output:?}");
    assert!(said.contains("warning[W0812]") && said.contains("%{user.username}") && said.contains("^^"), "{said}");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ringpost.conf");
    fs::write(&path, "listen on lo0\naccept for local deliver to maildir \"/var/mail/%u\"\n").expect("written");
    let output = cli::run(&["check", &path.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("warning[W0812]"), "{said}");
}

#[test]
fn s19_slices() {
    let cases = [
        ("[1:5]", "ille"),
        ("[0]", "g"),
        ("[-3:]", "les"),
        ("[:-2]", "gill"),
        ("[0:6]", "gilles"),
        ("[2:]", "lles"),
        ("[-4:-1]", "lle"),
        ("[9:]", ""),
        ("[3:1]", ""),
    ];
    for (slice, expected) in cases {
        assert_eq!(of_user("gilles", slice), expected, "{slice}");
    }
    for (slice, expected) in
        [("[0]", "ä"), ("[1:3]", "中🦀"), ("[-1]", "é"), ("[:-1]", "ä中🦀"), ("[0:1]:uppercase", "Ä")]
    {
        assert_eq!(of_user("ä中🦀é", slice), expected, "{slice}");
    }
    assert_eq!(format("%{rcpt.user[0:6]:strip|lowercase}", &["--rcpt", "GILLES+x@b.example"]), "gilles");
    // Where OpenSMTPD gives another character.
    let output = cli::run(&["format", "%{user.username[1:5]}", "--user", "gilles"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("warning[W0806]") && said.contains("`[1:5]` is `[1:6]`"), "{said}");
}

#[test]
fn s20_the_whole_text_is_expanded() {
    for length in [0, 1, 2, 31, 63, 64] {
        let name: String = ('a'..='z').cycle().take(length).collect();
        for slice in ["".to_owned(), "[:]".to_owned(), format!("[0:{length}]")] {
            let said = format(&format!("<before> %{{user.username{slice}}} <after>"), &["--user", &name]);
            assert_eq!(said, format!("<before> {name} <after>"), "{slice}");
            let said = format(&format!("100%% of %{{user.username{slice}}}"), &["--user", &name]);
            assert_eq!(said, format!("100% of {name}"), "{slice}");
        }
    }
}

#[test]
fn s21_whole_addresses_and_the_null_sender() {
    let values = ["--sender", "S@a.example", "--rcpt", "Gilles+x@B.example", "--dest", "gilles@here.example"];
    for name in ["sender", "rcpt", "dest"] {
        let both = format(&format!("%{{{name}}} %{{{name}.user}}@%{{{name}.domain}}"), &values);
        let (whole, pieces) = both.split_once(' ').expect("two");
        assert!(whole == pieces && whole.contains('@'), "{both}");
    }
    assert_eq!(format("<%{sender}> %{mbox.from}", &["--sender", ""]), "<> MAILER-DAEMON");
    // The article's slip.
    let output = cli::run(&["format", "/var/mail/%{sender@domain}"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{said}");
    assert!(said.contains("error[E0506]: unknown format `sender@domain`") && said.contains("1:11"), "{said}");
    assert!(said.contains("^^^") && said.contains("did you mean `sender.domain`?"), "{said}");
    assert_eq!(cli::run(&["format", "x%{rcpt"]).status.code(), Some(EX_CONFIG));
    // What no path can be made of.
    for (path, rcpt) in
        [("/m/%{rcpt.ext}/x", "a@x.example"), ("/m/%{rcpt.user}", "..@x.example"), ("~/m", "a@x.example")]
    {
        let output = cli::run(&["format", "--path", path, "--rcpt", rcpt]);
        assert!(output.status.code() == Some(EX_DATAERR) && output.stdout.is_empty(), "{path}: {output:?}");
    }
    assert_eq!(
        format("~/m/%{rcpt.user}", &["--path", "--home", "/home/g", "--rcpt", "../x@y.example"]),
        "/home/g/m/..:x"
    );
    // A message of the null sender.
    let rules = "accept from any for domain c.example deliver to mda \"@DIR@/root/home/gilles/note @DIR@/root/home/gilles/mda <%{sender}> %{mbox.from} %{rcpt}\"\n";
    let setup = Setup::new(rules).with_users(&["gilles"]);
    notes_arguments(&setup, "gilles");
    let server = setup.start();
    submit(&server, "", "gilles@c.example");
    assert_eq!(read(&server.dir().join("root/home/gilles/mda")), "<>|MAILER-DAEMON|gilles@c.example|");
}
