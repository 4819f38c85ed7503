//! Tables as they are declared, and what is wrong with them before anything is looked up: said by `ringpost check`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::cli;

const EX_CONFIG: i32 = 78;

/// A configuration and the files beside it.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, text).expect("written");
        path
    }

    /// Exit code and problems of `check --json`; absolute paths are taken below the directory.
    fn check(&self, text: &str) -> (Option<i32>, Vec<Value>) {
        let path = self.put("ringpost.conf", text).display().to_string();
        let output = cli::run(&["check", "--json", "--root", &self.0.path().display().to_string(), &path]);
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        let problems = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object a line"));
        (output.status.code(), problems.filter(|problem| problem["severity"] != "note").collect())
    }

    /// Each problem as `FILE:3:7 E0403 message = help`, files by their names.
    fn problems(&self, text: &str) -> Vec<String> {
        let (exit, problems) = self.check(text);
        let errors = problems.iter().any(|problem| problem["severity"] == "error");
        assert_eq!(exit, Some(if errors { EX_CONFIG } else { 0 }), "{problems:?}");
        problems.iter().map(described).collect()
    }
}

fn described(problem: &Value) -> String {
    let text = |name: &str| problem[name].as_str().unwrap_or_default();
    let file = Path::new(text("file")).file_name().expect("a name").to_string_lossy().into_owned();
    let (line, column) = (&problem["line"], &problem["column"]);
    format!("{file}:{line}:{column} {} {} = {}", text("code"), text("message"), text("help"))
}

#[test]
fn s32_tables_are_declared_in_one_line() {
    let files = Files::new();
    files.put("p", "a.example\n");
    files.put("sqlite.conf", "dbpath /x.sqlite\nquery_domain select 1 from d where k = ?\n");
    files.put("ldap.conf", "url ldap://127.0.0.1\ndomain_filter (dc=%s)\ndomain_attributes dc\n");
    files.put("b.db", "");
    files.put("mine.conf", "");
    let helper = files.put("usr/libexec/ringpost/table-mybackend", HELPER);
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("changed");
    let declarations = [
        "table x \"/p\"",
        "table x { a.example, b.example }",
        "table x db:/b.db",
        "table x sqlite:/sqlite.conf",
        "table x ldap:/ldap.conf",
        "table x mybackend:/mine.conf",
        "table <x> file:/p",
    ];
    for declaration in declarations {
        let text = format!("listen on lo0\n{declaration}\naccept from any for domain <x> deliver to mbox\n");
        assert_eq!(files.problems(&text), [""; 0], "{declaration}");
    }
    let wrong = files.problems("table x sqlit:/sqlite.conf\ntable <localnames> { a }\naccept for domain <x> relay\n");
    assert!(
        wrong[0].starts_with("ringpost.conf:1:9 E0307 no such table backend: `sqlit` = did you mean `sqlite`?"),
        "{wrong:?}"
    );
    assert!(wrong[1].starts_with("ringpost.conf:2:7 E0306 <localnames> is a built-in table"), "{wrong:?}");
    let wrong = files.problems("table x { a.example }\ntable x { b.example }\naccept for domain <x> relay\n");
    assert!(wrong[0].starts_with("ringpost.conf:2:7 E0305 table `x` is already declared"), "{wrong:?}");
}

/// Each service, a statement that asks for it, a good line of a file, and a bad one with the column of what is bad in it.
const MISUSES: &[(&str, &str, &str, &str, usize)] = &[
    ("alias", "accept for any alias <t> deliver to mbox", "root: gilles", "x: error:nonsense", 4),
    ("alias of addresses", "accept for any virtual <t> deliver to mbox", "a@b.example gilles", "c@d.example e@", 13),
    ("domain", "accept for domain <t> relay", "a.example", "b@c.example", 1),
    ("credentials of a relay", "action b relay host smtps://l@h.example auth <t>", "l u:p", "m nopass", 3),
    ("userinfo", "accept for any userbase <t> deliver to maildir", "joe 1:2:/home/joe", "jim ten:2:/home/jim", 5),
    ("netaddr", "accept from source <t> for any relay", "10.0.0.0/8", "10.0.0.0/33", 1),
    ("source", "accept for any relay source <t>", "192.0.2.1", "192.0.2.300", 1),
    ("addrname of a relay", "accept for any relay helo <t>", "192.0.2.1 mx.example", "192.0.2.2 -x-", 11),
    ("addrname of a listener", "listen on lo0 port 26 hostnames <t>", "127.0.0.1 a.example", "127.0.0.2 -x-", 11),
    ("mailaddr of a sender", "accept sender <t> for any relay", "@a.example", "gilles@", 1),
    ("mailaddr of a recipient", "accept recipient <t> for any relay", "a@a.example", "gilles@", 1),
    ("mailaddrmap", "listen on lo0 port 26 senders <t>", "joe joe@a.example", "jim jim@", 5),
    ("dkim", "dkim sign s from <t>", "a.example s1:/k", "b.example s1", 11),
];

/// What has a code of its own, wherever it stands, and says no more than that.
const OTHERS: &[(&str, &str, &str, &str, &str)] = &[
    ("relayhost", "action b relay host <t>", "smtp://a.example", "stmp://b.example", "1 E0504"),
    (
        "relayhost by domain",
        "action b relay domain <t>",
        "a.example smtp://m.example",
        "b.example stmp://m.example",
        "11 E0504",
    ),
    ("regex", "match from any for any helo regex <t> reject", "^x", "(", "1 E0508"),
    ("a mapping", "accept for any alias <t> deliver to mbox", "root: gilles", "staff", "1 E0401"),
    ("a password", "listen on lo0 port 26 auth <t>", "joe $2b$10$abc", "jim secret", "5 W0807"),
];

/// What is said of a file with these lines and a statement that asks for it, in line 5; warnings of other files aside.
fn misused(statement: &str, lines: &[&str]) -> Vec<String> {
    let files = Files::new();
    let rest = "listen on lo0\ntable t file:/data\naction a discard\nmatch for local tag X action a\n";
    files.put("data", &format!("# one line is wrong\n{}\n", lines.join("\n")));
    let mut found = files.problems(&format!("{rest}{statement}\n"));
    found.retain(|line| line.starts_with("data:") || line.contains(" E0"));
    found
}

#[test]
fn s33_a_wrong_entry_of_a_file_is_found_when_it_is_read() {
    for (service, statement, good, bad, column) in MISUSES {
        assert_eq!(misused(statement, &[good]), [""; 0], "{service}");
        let found = misused(statement, &[good, bad]);
        assert!(found.len() == 1 && found[0].starts_with(&format!("data:3:{column} E0403 ")), "{service}: {found:?}");
        // And where it is needed.
        assert!(found[0].contains("needed by `") && found[0].contains("ringpost.conf:5:"), "{service}: {found:?}");
    }
    for (service, statement, good, bad, expected) in OTHERS {
        assert_eq!(misused(statement, &[good]), [""; 0], "{service}");
        let found = misused(statement, &[good, bad]);
        assert!(found.len() == 1 && found[0].starts_with(&format!("data:3:{expected} ")), "{service}: {found:?}");
    }
}

/// Registers two services, notes that it was started, and answers nothing.
const HELPER: &str = "#!/bin/sh\n\
    while read -r line; do case $line in config\\|ready) break;; esac; done\n\
    for service in domain alias; do echo \"register|$service\"; done\n\
    echo started >> \"$(dirname \"$0\")/started\"\n\
    echo 'register|ready'\n\
    cat > /dev/null\n";

#[test]
fn s34_a_helper_says_what_it_answers_before_it_is_needed() {
    let files = Files::new();
    let helper = files.put("helper", &HELPER.replace("domain alias", "alias"));
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("changed");
    let good = "table users proc:/helper\nlisten on lo0\naccept for local alias <users> deliver to mbox\n";
    assert_eq!(files.problems(good), [""; 0]);
    assert_eq!(fs::read_to_string(files.0.path().join("started")).expect("it was asked"), "started\n");
    let bad = "table users proc:/helper\nlisten on lo0 auth <users>\naccept for local alias <users> deliver to mbox\n";
    let expected = "ringpost.conf:2:20 E0402 backend `proc` cannot answer credentials lookups, which `auth` needs = \
                    `helper` answers alias lookups";
    assert_eq!(files.problems(bad), [expected]);
    // A server says the same and does not start, and so does the canonical form.
    let path = files.put("ringpost.conf", bad).display().to_string();
    let root = files.0.path().display().to_string();
    for args in
        [&["serve", "--config", &path, "--state", &format!("{root}/state")][..], &["check", "--canonical", &path]]
    {
        let output = cli::run(&[args, &["--root", &root]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(EX_CONFIG) && said.contains("error[E0402]") && said.contains('^'),
            "{said}"
        );
    }
    // One that cannot be asked now is not judged: what it does not answer is a temporary failure.
    files.put("helper", "#!/bin/sh\nexit 1\n");
    assert_eq!(files.problems(good), [""; 0]);
}
