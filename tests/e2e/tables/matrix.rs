//! The same entries with every backend: the same questions get the same answers (grammar §7.2), through `ringpost table
//! lookup --config`, which runs the server's own code.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::directory::Slapd;
use super::words;
use crate::support::cli;

/// A service, a statement that asks `<t>` for it, what is in the table, and what is asked.
struct Case {
    service: &'static str,
    statement: &'static str,
    /// Keys and values; a list has none.
    entries: &'static [(&'static str, &'static str)],
    /// Questions, and what must be found.
    asked: &'static [(&'static str, Option<&'static str>)],
}

const RULE: &str = "match from any for any action a\n";

const DOMAINS: Case = Case {
    service: "domain",
    statement: "action a discard\nmatch from any for domain <t> action a\n",
    entries: &[("poolp.org", ""), ("*.example.org", ""), ("xn--bcher-kva.example", "")],
    asked: &[
        ("poolp.org", Some("poolp.org")),
        ("PoolP.org", Some("PoolP.org")),
        ("poolp.org.", Some("poolp.org.")),
        ("a.poolp.org", None),
        ("a.example.org", Some("a.example.org")),
        ("a.b.Example.org", Some("a.b.Example.org")),
        ("example.org", None),
        ("XN--BCHER-KVA.example", Some("XN--BCHER-KVA.example")),
        ("org", None),
        ("poolp.org.example", None),
    ],
};

const ALL_DOMAINS: Case =
    Case { entries: &[("*", "")], asked: &[("a.b.example", Some("a.b.example")), ("x", Some("x"))], ..DOMAINS };

const ADDRESSES: Case = Case {
    service: "mailaddr",
    statement: "action a discard\nmatch from any mail-from <t> for any action a\n",
    entries: &[("gilles@poolp.org", ""), ("@opensmtpd.org", ""), ("root", ""), ("@*.example.org", ""), ("<>", "")],
    asked: &[
        ("gilles@poolp.org", Some("gilles@poolp.org")),
        ("Gilles+x@POOLP.org", Some("Gilles+x@POOLP.org")),
        ("eric@poolp.org", None),
        ("x@opensmtpd.org", Some("x@opensmtpd.org")),
        ("x@a.opensmtpd.org", None),
        ("root@any.example", Some("root@any.example")),
        ("root+y@any.example", Some("root+y@any.example")),
        ("rooty@any.example", None),
        ("x@a.example.org", Some("x@a.example.org")),
        ("x@a.b.example.org", Some("x@a.b.example.org")),
        ("x@example.org", None),
        ("<>", Some("<>")),
    ],
};

const ALL_ADDRESSES: Case =
    Case { entries: &[("@", "")], asked: &[("x@y.example", Some("x@y.example")), ("<>", None)], ..ADDRESSES };

const NETWORKS: Case = Case {
    service: "netaddr",
    statement: "action a discard\nmatch from src <t> for any action a\n",
    entries: &[("192.0.2.7", ""), ("10.0.0.0/8", ""), ("2001:db8::/32", ""), ("::1", ""), ("local", "")],
    asked: &[
        ("192.0.2.7", Some("192.0.2.7")),
        ("192.0.2.6", None),
        ("192.0.2.8", None),
        ("10.0.0.0", Some("10.0.0.0")),
        ("10.255.255.255", Some("10.255.255.255")),
        ("9.255.255.255", None),
        ("11.0.0.0", None),
        ("::ffff:10.1.2.3", Some("::ffff:10.1.2.3")),
        ("2001:db8::", Some("2001:db8::")),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")),
        ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", None),
        ("2001:db9::", None),
        ("[::1]", Some("[::1]")),
        ("local", Some("local")),
    ],
};

const USERS: Case = Case {
    service: "userinfo",
    statement: "action a maildir userbase <t>\nmatch from any for any action a\n",
    entries: &[("vuser", "vuser:10:100:/tmp/vuser"), ("short", "10:100:/tmp/vuser")],
    asked: &[
        ("vuser", Some("vuser:10:100:/tmp/vuser")),
        ("VUSER", Some("vuser:10:100:/tmp/vuser")),
        ("short", Some("short:10:100:/tmp/vuser")),
        ("nobody", None),
    ],
};

/// Of a listener and of a relay, in one table.
const LOGINS: Case = Case {
    service: "credentials",
    statement: "listen on 127.0.0.1 port 2525 auth <t>\naction a relay host smtps://bleh@mx.example auth <t>\n\
                match from any for any action a\n",
    entries: &[("gilles", "gilles:$6$salt$hash"), ("bleh", "gilles:secret")],
    asked: &[("gilles", Some("gilles:…")), ("bleh", Some("gilles:…")), ("GILLES", None), ("eric", None)],
};

const NAMES: Case = Case {
    service: "addrname",
    statement: "action a relay helo-src <t>\nmatch from any for any action a\n",
    entries: &[("192.168.1.3", "mx2.poolp.org"), ("2001:db8::1", "mx6.poolp.org")],
    asked: &[
        ("192.168.1.3", Some("mx2.poolp.org")),
        ("192.168.1.4", None),
        ("2001:db8::1", Some("mx6.poolp.org")),
        ("2001:DB8:0:0::1", Some("mx6.poolp.org")),
        ("[2001:db8::1]", Some("mx6.poolp.org")),
        ("2001:db8::2", None),
    ],
};

const ALIASES: Case = Case {
    service: "alias",
    statement: "action a maildir virtual <t>\nmatch from any for any action a\n",
    entries: &[
        ("staff", "gilles, eric@example.org"),
        ("log", "/var/mail/log"),
        ("prog", "|/bin/cat"),
        ("list", ":include:/etc/list"),
        ("gone", "error:550 5.1.6 moved"),
        ("@poolp.org", "catcher"),
    ],
    asked: &[
        ("staff", Some("gilles, eric@example.org")),
        ("Staff+x@any.example", Some("gilles, eric@example.org")),
        ("log", Some("/var/mail/log")),
        ("prog", Some("|/bin/cat")),
        ("list", Some(":include:/etc/list")),
        ("gone", Some("error:550 5.1.6 moved")),
        ("who@POOLP.org", Some("catcher")),
        ("who@any.example", None),
    ],
};

const SOURCES: Case = Case {
    service: "source",
    statement: "action a relay src <t>\nmatch from any for any action a\n",
    entries: &[("192.0.2.1", ""), ("2001:db8::1", "")],
    asked: &[("", Some("192.0.2.1, 2001:db8::1"))],
};

const RELAYS: Case = Case {
    service: "relayhost",
    statement: "action a relay host <t>\nmatch from any for any action a\n",
    entries: &[("smtp://a.example", ""), ("smtp://b.example:2525", "")],
    asked: &[("", Some("smtp://a.example, smtp://b.example:2525"))],
};

const ROUTES: Case = Case {
    service: "relayhost",
    statement: "action a relay domain <t>\nmatch from any for any action a\n",
    entries: &[("a.example", "smtp://mx.a.example"), ("*.b.example", "smtp://mx.b.example:2525")],
    asked: &[
        ("A.example", Some("smtp://mx.a.example")),
        ("x.y.b.example", Some("smtp://mx.b.example:2525")),
        ("b.example", None),
    ],
};

const SENDERS: Case = Case {
    service: "mailaddrmap",
    statement: "listen on 127.0.0.1 port 2525 auth { x = \"$6$y$z\" } senders <t>\naction a discard\n\
                match from any for any action a\n",
    entries: &[("gilles", "gilles@poolp.org, @example.org"), ("eric", "@eric.example")],
    asked: &[("gilles", Some("gilles@poolp.org, @example.org")), ("eric", Some("@eric.example")), ("chl", None)],
};

const WORDS: Case = Case {
    service: "string",
    statement: "action a discard\nmatch from any tag <t> for any action a\n",
    entries: &[("DKIM", ""), ("Inside", "")],
    asked: &[("DKIM", Some("DKIM")), ("dkim", None), ("Inside", Some("Inside"))],
};

/// Chains and keys.
const CERTIFICATES: Case = Case {
    service: "cert",
    statement: "pki \"*\" from <t>\nlisten on 127.0.0.1 port 2525 tls pki \"*\"\naction a discard\n\
                match from any for any action a\n",
    entries: &[("mx.example.org", "file:/c.pem file:/k.pem")],
    asked: &[("MX.example.org", Some("file:/c.pem file:/k.pem")), ("example.org", None)],
};

const SIGNERS: Case = Case {
    service: "dkim",
    statement: "dkim sign customers from <t>\naction a relay dkim customers\nmatch from any for any action a\n",
    entries: &[("example.org", "s1:/etc/dkim/s1.pem")],
    asked: &[
        ("example.org", Some("s1:/etc/dkim/s1.pem")),
        ("a.Example.org", Some("s1:/etc/dkim/s1.pem")),
        ("org", None),
    ],
};

impl Case {
    fn is_list(&self) -> bool {
        self.entries.iter().all(|(_, value)| value.is_empty())
    }

    /// Whether the whole list is the answer.
    fn is_cycled(&self) -> bool {
        self.asked.iter().any(|(question, _)| question.is_empty())
    }

    /// What a backend that has a value for each key has for this one.
    fn value(key: &'static str, value: &'static str) -> &'static str {
        if value.is_empty() { key } else { value }
    }

    fn file(&self) -> String {
        let line = |(key, value): &(&str, &str)| match (value.is_empty(), self.service) {
            (true, _) => format!("{key} # of a list\n"),
            (false, "alias") => format!("{key}: {value}\n"),
            (false, _) => format!("{key} {value}\n"),
        };
        self.entries.iter().map(line).collect()
    }

    /// The table's declaration, with each backend's data written below `dir`.
    fn declared(&self, backend: &str, dir: &Path, slapd: u16) -> String {
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        match backend {
            "static" => {
                let separator = if self.service == "cert" { " " } else { ", " };
                let values = |value: &str| value.split(separator).map(|one| format!("\"{one}\"")).collect::<Vec<_>>();
                let one = |(key, value): &(&str, &str)| match value.is_empty() {
                    true => format!("\"{key}\"\n"),
                    false => format!("\"{key}\" => {}\n", values(value).join(", ")),
                };
                format!("table t {{\n{}}}\n", self.entries.iter().map(one).collect::<String>())
            }
            "file" => format!("table t \"{}\"\n", put("t", &self.file())),
            "db" => {
                let text = put("t", &self.file());
                let kind = match (self.is_list(), self.service) {
                    (true, _) => "set",
                    (false, "alias") => "aliases",
                    (false, _) => "mapping",
                };
                cli::succeed(&["makemap", "-t", kind, &text]);
                format!("table t db:{text}.db\n")
            }
            "sqlite" => {
                let path = dir.join("t.sqlite");
                let database = rusqlite::Connection::open(&path).expect("made");
                database.execute_batch("create table t (k text, v text)").expect("made");
                for (key, value) in self.entries {
                    let row = [key, Self::value(key, value)];
                    database.execute("insert into t values (?, ?)", row).expect("written");
                }
                let rest = if self.is_cycled() { "" } else { " where k = ?" };
                let conf = format!("dbpath {}\nquery_{} select v from t{rest}\n", path.display(), self.service);
                format!("table t sqlite:{}\n", put("sqlite.conf", &conf))
            }
            "ldap" => {
                let service = self.service;
                let which = if self.is_cycled() { String::new() } else { "(mapKey=%s)".to_owned() };
                let conf = format!(
                    "url ldap://127.0.0.1:{slapd}\nbasedn {}\n{service}_filter (&(objectClass=mapEntry){which})\n\
                     {service}_attributes mapValue\n",
                    self.place()
                );
                format!("table t ldap:{}\n", put("ldap.conf", &conf))
            }
            "proc" => {
                let path = put("helper", &self.helper());
                fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("ours");
                format!("table t proc:{path}\n")
            }
            other => panic!("{other}"),
        }
    }

    /// A helper that has the entries in its own text.
    fn helper(&self) -> String {
        let mut arms = String::new();
        for (key, value) in self.entries {
            let found = Self::value(key, value);
            writeln!(arms, "    '{key}') printf 'lookup-result|%s|found|%s\\n' \"$id\" '{found}' ;;").expect("memory");
        }
        let all: Vec<&str> = self.entries.iter().map(|(key, _)| *key).collect();
        format!(
            "#!/bin/sh\nwhile IFS='|' read -r kind version time name operation service id key; do\n  \
             case \"$kind|$version|$operation\" in\n  'config|ready|') printf 'register|{}\\nregister|ready\\n' ;;\n  \
             'table|0.1|fetch') echo \"fetch-result|$id|found|{}\" ;;\n  'table|0.1|lookup') case \"$key\" in\n{arms}    \
             *) echo \"lookup-result|$id|not-found\" ;;\n    esac ;;\n  esac\ndone\n",
            self.service,
            all.join(", ")
        )
    }

    /// Where its entries are in the directory.
    fn place(&self) -> String {
        format!("ou={}-{},dc=opensmtpd,dc=org", self.service, self.entries[0].0.len() + self.entries.len())
    }

    fn ldif(&self) -> String {
        let place = self.place();
        let mut text = format!("\ndn: {place}\nobjectClass: organizationalUnit\n");
        for (number, (key, value)) in self.entries.iter().enumerate() {
            // White space at the beginning, `<` and `:` would mean something.
            writeln!(text, "\ndn: cn={number},{place}\nobjectClass: mapEntry\ncn: {number}").expect("memory");
            writeln!(text, "mapKey:: {}\nmapValue:: {}", base64(key), base64(Self::value(key, value))).expect("memory");
        }
        text
    }
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63] as char;
            out.push(if at <= three.len() { digit } else { '=' });
        }
    }
    out
}

/// `<t>`, which has a client's hash under `gilles` and a relay's `gilles:secret` under `bleh`, with each backend's data written
/// below `dir`.
pub fn logins(backend: &str, dir: &Path, slapd: u16) -> String {
    LOGINS.declared(backend, dir, slapd)
}

/// `<t>`, a list of domains that a helper answers for.
pub fn helped_domains(dir: &Path) -> String {
    DOMAINS.declared("proc", dir, 0)
}

/// What slapd must have for that.
pub fn logins_ldif() -> String {
    LOGINS.ldif()
}

/// Asks a table of a configuration; what each question got, in the order of the questions.
fn ask(conf: &Path, service: &str, questions: &[&str]) -> Vec<Option<String>> {
    let path = conf.display().to_string();
    let output = cli::run(&[&["table", "lookup", "--json", "--config", &path, "t", service, "--"], questions].concat());
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let answer = |question: &&str| {
        let line = lines.iter().find(|line| line["key"] == *question);
        match &line.unwrap_or_else(|| panic!("{service} {question}: {}", words(&output)))["answer"] {
            serde_json::Value::String(word) if word == "not-found" => None,
            found => Some(found["found"].as_str().unwrap_or_else(|| panic!("{question}: {found}")).to_owned()),
        }
    };
    questions.iter().map(answer).collect()
}

/// Every backend, or those that are named.
fn check(cases: &[&Case]) {
    check_with(&["static", "file", "db", "sqlite", "ldap", "proc"], cases);
}

fn check_with(backends: &[&str], cases: &[&Case]) {
    let slapd = backends.contains(&"ldap").then(|| {
        let entries: Vec<String> = cases.iter().map(|case| case.ldif()).collect();
        Slapd::with(&entries.concat())
    });
    for case in cases {
        for backend in backends {
            let dir = tempfile::tempdir().expect("a directory");
            let declared = case.declared(backend, dir.path(), slapd.as_ref().map_or(0, Slapd::port));
            let conf = dir.path().join("ringpost.conf");
            fs::write(&conf, format!("{declared}{}", case.statement)).expect("written");
            let questions: Vec<&str> = case.asked.iter().map(|(question, _)| *question).collect();
            let answers = ask(&conf, case.service, &questions);
            for ((question, expected), answer) in case.asked.iter().zip(&answers) {
                assert_eq!(answer.as_deref(), *expected, "{} of {backend}: {question}", case.service);
            }
        }
    }
}

#[test]
fn s39_domains_are_the_same_in_all_backends() {
    check(&[&DOMAINS, &ALL_DOMAINS]);
}

#[test]
fn s40_credentials_of_both_directions_are_the_same_in_all_backends() {
    check(&[&LOGINS]);
}

#[test]
fn s41_users_are_the_same_in_all_backends() {
    check(&[&USERS]);
    // A file that a server for IMAP has, too.
    const PASSWD: &str = "joe:$6$salt$hash:10:100:Joe Smith,,,:/tmp/vuser:/bin/sh\n";
    let dir = tempfile::tempdir().expect("a directory");
    let (passwd, conf) = (dir.path().join("passwd"), dir.path().join("ringpost.conf"));
    fs::write(&passwd, PASSWD).expect("written");
    cli::succeed(&["makemap", &passwd.display().to_string()]);
    for source in ["file:passwd", "db:passwd.db"] {
        let statements = format!("listen on 127.0.0.1 port 2525 auth <t>\naction a maildir userbase <t>\n{RULE}");
        fs::write(&conf, format!("table t {source}\n{statements}")).expect("written");
        assert_eq!(ask(&conf, "userinfo", &["joe"]), [Some("joe:10:100:/tmp/vuser".into())], "{source}");
        assert_eq!(ask(&conf, "credentials", &["joe"]), [Some("joe:…".into())], "{source}");
    }
}

#[test]
fn s42_networks_are_the_same_in_all_backends() {
    check(&[&NETWORKS]);
}

#[test]
fn s44_names_of_addresses_are_the_same_in_all_backends() {
    check(&[&NAMES]);
}

#[test]
fn s45_mail_addresses_are_the_same_in_all_backends() {
    check(&[&ADDRESSES, &ALL_ADDRESSES]);
}

#[test]
fn s38_aliases_are_the_same_in_all_backends() {
    check(&[&ALIASES]);
}

/// The other services, which no shard asks a backend for yet.
#[test]
fn s53_db_answers_as_file_does_for_all_services() {
    check(&[&SOURCES, &ROUTES, &SENDERS, &WORDS]);
    check_with(&["static", "file", "db"], &[&RELAYS, &CERTIFICATES, &SIGNERS]);
}
