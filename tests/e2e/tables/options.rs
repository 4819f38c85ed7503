//! A helper of the documentation's, with the configuration file that it asks for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::live::{rcpt, whole};
use super::{EX_CONFIG, words};
use crate::support::{cli, maildir};

const HELPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/table-team");
const LINES_MAX: usize = 20;
const FILE: &str = "etc/mail/mybackend.conf";
const TABLE: &str = "table foobar mybackend:/etc/mail/mybackend.conf\n";
const RULES: &str = "action \"team\" maildir \"@DIR@/mail/%{dest.user}\" virtual <foobar>\n\
                     match from any for domain team.example action \"team\"\n";

/// Puts the helper where helpers are, and its file.
fn install(root: &Path, text: &str) {
    let program = root.join("usr/libexec/ringpost/table-mybackend");
    for path in [&program, &root.join(FILE)] {
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    }
    fs::copy(HELPER, &program).expect("copied");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    fs::write(root.join(FILE), text).expect("written");
}

#[test]
fn s48_a_helper_is_given_its_configuration_file_and_says_what_is_in_it() {
    let helper = fs::read_to_string(HELPER).expect("an example");
    let code = helper.lines().filter(|line| !line.starts_with('#'));
    assert!(code.count() <= LINES_MAX, "not so short: {helper}");
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("ringpost.conf");
    fs::write(&config, format!("listen on lo0\n{TABLE}{}", RULES.replace("@DIR@", "/mail"))).expect("written");
    let (config, root) = (config.display().to_string(), dir.path().display().to_string());
    let file = dir.path().join(FILE).display().to_string();
    let check = |text: &str| {
        install(dir.path(), text);
        cli::run(&["check", "--root", &root, &config])
    };
    let output = check("# ours\nname\tstaff\nmembers \"gilles, eric\"\n");
    assert!(output.status.success(), "{}", words(&output));
    // It has got what the file says: `name` decides which alias there is.
    let ask = |key: &str| {
        words(&cli::run(&["table", "lookup", "--root", &root, "--config", &config, "foobar", "alias", key]))
    };
    assert_eq!(ask("staff"), "gilles, eric\n");
    assert!(!ask("team").contains("gilles"), "{}", ask("team"));
    // Named are the declaration, the file and the key; of a slip the line, and what was meant.
    let output = check("name staff\n");
    let said = words(&output);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{said}");
    for part in ["E0406", "ringpost.conf:2:14", "`/etc/mail/mybackend.conf` has no `members`", "table-mybackend"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let output = check("members gilles\n\nnmae staff\n");
    let said = words(&output);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{said}");
    for part in ["E0202", &format!("{file}:3:1"), "has no option `nmae`", "did you mean `name`?"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    // Who registers no keys is not judged, whatever is in the file.
    let quiet = helper.replace("    'config|options|'", "    'config|nothing|'");
    assert_ne!(quiet, helper);
    fs::write(dir.path().join(FILE), "root:x:0:0::/root:/bin/sh\n").expect("written");
    fs::write(dir.path().join("usr/libexec/ringpost/table-mybackend"), quiet).expect("written");
    cli::succeed(&["check", "--root", &root, &config]);
}

#[test]
fn s48_a_server_tells_its_helper_and_a_reload_judges_anew() {
    let setup = whole(TABLE, RULES).root();
    let root = setup.dir().join("root");
    install(&root, "members gilles\n");
    let server = setup.start();
    let reply = server.client().submit("s@source.example", &["team@team.example"], b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    maildir::wait_for_message(
        &root.join(server.dir().strip_prefix("/").expect("absolute")).join("mail/gilles"),
        "it",
        |_| true,
    );
    assert!(rcpt(&server, "staff@team.example").starts_with("550"));
    // A file without what must be there changes nothing.
    let state = server.state.display().to_string();
    fs::write(root.join(FILE), "name staff\n").expect("written");
    let output = cli::run(&["reload", "--state", &state]);
    assert!(!output.status.success() && words(&output).contains("E0406"), "{}", words(&output));
    assert!(rcpt(&server, "team@team.example").starts_with("250"));
    fs::write(root.join(FILE), "name staff\nmembers eric\n").expect("written");
    server.tell(&["reload"]);
    assert!(rcpt(&server, "staff@team.example").starts_with("250"));
    assert!(rcpt(&server, "team@team.example").starts_with("550"));
}
