//! Tables of a running server: one that fails is asked again, one that is mended counts at once.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::directory::Slapd;
use crate::support::server::SMALL;
use crate::support::{Server, Setup, cli, maildir, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// What all tables of this file have, whatever they are asked for.
const ENTRIES: [(&str, &str); 8] = [
    ("s@source.example", "1"),
    ("127.0.0.1", "1"),
    ("probe", "1"),
    ("staff@d.example", "gilles"),
    ("vuser", "10:100:/tmp/v"),
    ("f.example", "1"),
    ("@s.example", "catcher"),
    ("@l.example", "catcher"),
];

/// Who is looked up for what: each line asks `<t>` for another service, and the last must never decide instead of it.
const RULES: &str = "\
action \"none\" discard
action \"v\" maildir \"@DIR@/mail/%{dest.user}\" virtual <t>
action \"u\" maildir \"@DIR@/mail/%{user.username}\" userbase <t>
match from any mail-from <t> for domain a.example action \"none\"
match from src <t> for domain b.example action \"none\"
match from any tag <t> for domain c.example action \"none\"
match from any for domain d.example action \"v\"
match from any for domain e.example action \"u\"
match from any mail-from \"s@source.example\" for domain <t> action \"none\"
match from any for any action \"none\"
";

/// One for each of the lines.
const RECIPIENTS: [&str; 6] =
    ["x@a.example", "x@b.example", "x@c.example", "staff@d.example", "vuser@e.example", "x@f.example"];

const SERVICES: [&str; 6] = ["alias", "domain", "userinfo", "netaddr", "mailaddr", "string"];

pub fn whole(table: &str, rules: &str) -> Setup {
    let listeners = "listen on 127.0.0.1 port @SMTP@ tag probe\nhttp listen on 127.0.0.1 port @HTTP@\n";
    Setup::whole(format!("{SMALL}{listeners}smtp limit max-mails 1000000\n{table}\n{rules}"))
}

/// The reply to RCPT.
pub fn rcpt(server: &Server, to: &str) -> String {
    let mut client = server.client();
    assert_eq!(client.say("MAIL FROM:<s@source.example>").code, 250);
    let reply = client.say(&format!("RCPT TO:<{to}>"));
    format!("{} {}", reply.code, reply.lines[0])
}

fn run(args: &[&str], server: &Server) -> std::process::Output {
    let state = server.state.display().to_string();
    cli::run(&[args, &["--state", &state]].concat())
}

pub fn sqlite(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).expect("opened").execute_batch(sql).expect("done");
}

/// A database of the entries, and the table's configuration for all services.
pub fn database(dir: &Path) -> PathBuf {
    let path = dir.join("t.sqlite");
    sqlite(&path, "create table t (k text, v text)");
    for (key, value) in ENTRIES {
        sqlite(&path, &format!("insert into t values ('{key}', '{value}')"));
    }
    let queries = SERVICES.map(|service| format!("query_{service} select v from t where k = ?\n")).concat();
    fs::write(dir.join("sqlite.conf"), format!("dbpath {}\n{queries}", path.display())).expect("written");
    path
}

pub fn ldif(place: &str) -> String {
    let entry = |(number, (key, value)): (usize, &(&str, &str))| {
        format!("\ndn: cn={number},{place}\nobjectClass: mapEntry\ncn: {number}\nmapKey: {key}\nmapValue: {value}\n")
    };
    let head = format!("\ndn: {place}\nobjectClass: organizationalUnit\n");
    head + &ENTRIES.iter().enumerate().map(entry).collect::<String>()
}

pub const PLACE: &str = "ou=live,dc=opensmtpd,dc=org";

fn helper(path: &Path) {
    let registered = SERVICES.map(|service| format!("register|{service}\\n")).concat();
    let arms =
        ENTRIES.map(|(key, value)| format!("    '{key}') echo \"lookup-result|$id|found|{value}\" ;;\n")).concat();
    let script = format!(
        "#!/bin/sh\nwhile IFS='|' read -r kind version time name operation service id key; do\n  \
         case \"$kind|$version\" in\n  'config|ready') printf '{registered}register|ready\\n' ;;\n  \
         'table|0.1') [ -e \"$0.broken\" ] && exit 1\n  case \"$key\" in\n{arms}    \
         *) echo \"lookup-result|$id|not-found\" ;;\n    esac ;;\n  esac\ndone\n"
    );
    fs::write(path, script).expect("written");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("ours");
}

/// All are accepted, then none for now and none for ever, then all again.
#[track_caller]
fn fails_for_now(source: &str, prepare: impl FnOnce(&Path), mut turn: impl FnMut(&Path, bool)) {
    let table = format!("table t {source} cache 0s negative 0s stale 0s");
    let setup = whole(&table, RULES);
    prepare(setup.dir());
    let server = setup.start();
    let replies = |start: &str| {
        let all = RECIPIENTS.map(|to| (to, rcpt(&server, to)));
        all.into_iter().filter(|(_, reply)| !reply.starts_with(start)).collect::<Vec<_>>()
    };
    assert_eq!(replies("250"), [], "{source}");
    turn(server.dir(), false);
    // It may have been asked for something a moment ago.
    wait_until("it fails", SOON, || rcpt(&server, RECIPIENTS[0]).starts_with("451"));
    assert_eq!(replies("451 4.3.0"), [], "{source} fails");
    turn(server.dir(), true);
    wait_until("it is asked again", SOON, || replies("250").is_empty());
}

#[test]
fn s49_every_service_of_sqlite_fails_for_now() {
    let away = |dir: &Path| dir.join("away");
    fails_for_now(
        "sqlite:@DIR@/sqlite.conf",
        |dir| drop(database(dir)),
        |dir, works| {
            let database = dir.join("t.sqlite");
            if works {
                fs::remove_file(&database).expect("removed");
                fs::rename(away(dir), database).expect("moved");
            } else {
                fs::rename(&database, away(dir)).expect("moved");
                fs::write(database, "this is no database, whatever its name says").expect("written");
            }
        },
    );
}

#[test]
fn s49_every_service_of_db_fails_for_now() {
    let make = |dir: &Path| {
        let lines = ENTRIES.map(|(key, value)| format!("{key} {value}\n")).concat();
        fs::write(dir.join("t"), lines).expect("written");
        cli::succeed(&["makemap", &dir.join("t").display().to_string()]);
    };
    fails_for_now("db:@DIR@/t.db", make, |dir, works| {
        if works {
            make(dir);
        } else {
            fs::write(dir.join("t.db"), "nonsense").expect("written");
        }
    });
}

#[test]
fn s49_every_service_of_ldap_fails_for_now() {
    let mut slapd = Slapd::with(&ldif(PLACE));
    let port = slapd.port();
    fails_for_now(
        "ldap:@DIR@/ldap.conf",
        |dir| directory(dir, port),
        |_, works| {
            if works { slapd.start() } else { slapd.stop() }
        },
    );
}

pub fn directory(dir: &Path, port: u16) {
    let searches =
        SERVICES.map(|service| format!("{service}_filter (mapKey=%s)\n{service}_attributes mapValue\n")).concat();
    fs::write(dir.join("ldap.conf"), format!("url ldap://127.0.0.1:{port}\nbasedn {PLACE}\n{searches}"))
        .expect("written");
}

#[test]
fn s49_every_service_of_a_helper_fails_for_now() {
    fails_for_now(
        "proc:@DIR@/helper",
        |dir| helper(&dir.join("helper")),
        |dir, works| {
            let broken = dir.join("helper.broken");
            if works { fs::remove_file(broken).expect("there") } else { fs::write(broken, "").expect("written") }
        },
    );
}

#[test]
fn s47_one_table_has_an_answer_for_each_service() {
    let rules = "action \"local\" maildir \"@DIR@/mail/%{dest.user}\" alias <m>\n\
                 match from any for domain <m> action \"local\"\n";
    let setup = whole("table m sqlite:@DIR@/m.conf", rules);
    let path = setup.dir().join("m.sqlite");
    sqlite(
        &path,
        "create table domains (k text, v text); create table aliases (k text, v text);
         insert into domains values ('poolp.org', 'yes'), ('staff', 'yes');
         insert into aliases values ('staff', 'gilles'), ('staff', 'eric'), ('poolp.org', 'odd');",
    );
    let conf = format!(
        "dbpath {}\nquery_domain select v from domains where k = ?\nquery_alias select v from aliases where k = ?\n",
        path.display()
    );
    fs::write(setup.dir().join("m.conf"), conf).expect("written");
    let server = setup.start();
    let reply = server.client().submit("s@source.example", &["staff@poolp.org"], b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    for user in ["gilles", "eric"] {
        maildir::wait_for_message(&server.dir().join("mail").join(user), "a copy", |_| true);
    }
    assert!(rcpt(&server, "staff@other.example").starts_with("550"));
    for _ in 0..2 {
        // The same key, once for each service, from the cache as well.
        assert_eq!(server.tell(&["table", "lookup", "m", "domain", "poolp.org"]), "poolp.org\n");
        assert_eq!(server.tell(&["table", "lookup", "m", "alias", "poolp.org"]), "odd\n");
        assert_eq!(server.tell(&["table", "lookup", "m", "alias", "staff"]), "gilles, eric\n");
        assert_eq!(server.tell(&["table", "lookup", "m", "domain", "staff"]), "staff\n");
    }
    let output = run(&["table", "lookup", "m", "credentials", "staff"], &server);
    assert_eq!(output.status.code(), Some(super::EX_TEMPFAIL), "{}", super::words(&output));
    let shown = server.tell(&["table", "show", "m"]);
    assert!(shown.contains("table m sqlite:") && shown.contains("asked for: alias domain"), "{shown}");
}

#[test]
fn s51_tables_are_shown_as_they_were_declared_and_asked() {
    let rules = "table v {\n  \"@\" => gilles, # all others\n  root = eric\n\n  7 => chl,\n}\n\
                 table d { poolp.org, \"*.example\", }\ntable n { 1, 42 }\n\
                 action \"local\" maildir \"@DIR@/mail/%{dest.user}\" virtual <v>\n\
                 match from any tag <n> for any action \"local\"\nmatch from any for domain <d> action \"local\"\n";
    let server = whole("", rules).start();
    let shown = server.tell(&["table", "show", "v"]);
    for part in ["table v {", "@ => gilles", "root => eric", "7 => chl", "asked for: alias"] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    assert!(!shown.contains("all others"), "{shown}");
    let shown = server.tell(&["table", "show"]);
    assert!(shown.contains("table d { poolp.org, *.example }\n  asked for: domain\n"), "{shown}");
    // What is printed is read again, and says the same.
    let dir = tempfile::tempdir().expect("a directory");
    let conf = dir.path().join("ringpost.conf");
    let statements: String =
        shown.lines().filter(|line| !line.starts_with("  asked for")).map(|line| format!("{line}\n")).collect();
    let used = "action a maildir \"/m/%{dest.user}\" virtual <v>\nmatch from any tag <n> for any action a\nmatch from any for domain <d> action a\n";
    fs::write(&conf, format!("{statements}{used}")).expect("written");
    let again = cli::succeed(&["table", "show", "--config", &conf.display().to_string()]);
    assert_eq!(again, shown);
    assert_eq!(server.tell(&["table", "lookup", "v", "alias", "7@poolp.org"]), "chl\n");
    assert_eq!(server.tell(&["table", "lookup", "v", "alias", "who@poolp.org"]), "gilles\n");
    assert_eq!(server.tell(&["table", "lookup", "d", "domain", "a.b.example"]), "a.b.example\n");
    assert_eq!(server.tell(&["table", "lookup", "n", "string", "42"]), "42\n");
    let output = run(&["table", "lookup", "d", "domain", "other.org"], &server);
    assert_eq!(output.status.code(), Some(1), "{}", super::words(&output));
    let output = run(&["table", "lookup", "d", "userinfo", "x"], &server);
    assert!(super::words(&output).contains("no statement asks <d> for userinfo lookups"), "{}", super::words(&output));
    assert!(rcpt(&server, "7@poolp.org").starts_with("250"));
    assert!(rcpt(&server, "x@other.org").starts_with("550"));
}

#[test]
fn s52_files_are_read_with_all_their_line_ends_and_again() {
    let rules = "action \"none\" discard\nmatch from any for domain <d> action \"none\"\n\
                 match from any for domain <m> action \"none\"\n";
    let setup = whole("table d \"@DIR@/domains\"\ntable m file:@DIR@/manual manual", rules);
    let (domains, manual) = (setup.dir().join("domains"), setup.dir().join("manual"));
    // One per line.
    fs::write(&domains, "# ours\r\n\r\npoolp.org # required\r\n\t\n  \"opensmtpd.org\"\r\nlast.example")
        .expect("written");
    fs::write(&manual, "m.example\n").expect("written");
    let server = setup.start();
    for good in ["poolp.org", "opensmtpd.org", "last.example", "m.example"] {
        assert!(rcpt(&server, &format!("x@{good}")).starts_with("250"), "{good}");
    }
    for bad in ["ours", "required", "other.example"] {
        assert!(rcpt(&server, &format!("x@{bad}")).starts_with("550"), "{bad}");
    }
    fs::write(&manual, "other.example\n").expect("written");
    let new = server.dir().join("new");
    fs::write(&new, "poolp.org\nadded.example\n").expect("written");
    fs::rename(&new, &domains).expect("moved");
    wait_until("the new file is read by itself", SOON, || rcpt(&server, "x@added.example").starts_with("250"));
    assert!(rcpt(&server, "x@last.example").starts_with("550"));
    assert!(rcpt(&server, "x@other.example").starts_with("550"), "that one waits for a request");
    assert!(server.tell(&["table", "update", "m"]).contains("read again: <m>"));
    wait_until("it was asked for", SOON, || rcpt(&server, "x@other.example").starts_with("250"));
    // A broken one is refused whole, and said.
    fs::write(&manual, "good.example\nnot..a.domain\n").expect("written");
    let output = run(&["table", "update", "m"], &server);
    assert_eq!(output.status.code(), Some(1), "{}", super::words(&output));
    assert!(super::words(&output).contains("manual:2:1"), "{}", super::words(&output));
    fs::remove_file(&manual).expect("removed");
    let output = run(&["table", "update", "m"], &server);
    assert_eq!(output.status.code(), Some(1), "{}", super::words(&output));
    assert!(super::words(&output).contains("manual: No such file"), "{}", super::words(&output));
    assert!(rcpt(&server, "x@other.example").starts_with("250") && rcpt(&server, "x@good.example").starts_with("550"));
    // At the start it must be there.
    let output = cli::run(&["check", &server.dir().join("ringpost.conf").display().to_string()]);
    assert_eq!(output.status.code(), Some(super::EX_CONFIG));
    assert!(super::words(&output).contains("E0701"), "{}", super::words(&output));
}

#[test]
fn s50_what_is_mended_counts_without_a_restart() {
    let slapd = Slapd::with(&ldif(PLACE));
    let tables = "table f \"@DIR@/aliases\"\ntable s sqlite:@DIR@/sqlite.conf\ntable l ldap:@DIR@/ldap.conf";
    let one = |name: &str| {
        format!(
            "action \"{name}\" maildir \"@DIR@/mail/%{{dest.user}}\" virtual <{name}>\n\
             match from any for domain {name}.example action \"{name}\"\n"
        )
    };
    let setup = whole(tables, &["f", "s", "l"].map(one).concat());
    let aliases = setup.dir().join("aliases");
    let wrong = "error:550 5.7.1 closed";
    fs::write(&aliases, format!("staff: \"{wrong}\"\n")).expect("written");
    let path = database(setup.dir());
    sqlite(&path, &format!("insert into t values ('staff', '{wrong}')"));
    directory(setup.dir(), slapd.port());
    slapd.change(&format!(
        "dn: cn=50,{PLACE}\nchangetype: add\nobjectClass: mapEntry\ncn: 50\nmapKey: staff\nmapValue: {wrong}\n"
    ));
    let server = setup.start();
    let replies = || ["f", "s", "l"].map(|domain| rcpt(&server, &format!("staff@{domain}.example")));
    assert!(replies().iter().all(|reply| reply.starts_with("550 5.7.1 closed")), "{:?}", replies());
    // A broken file changes nothing.
    fs::write(&aliases, "staff: two words\n").expect("written");
    let output = run(&["table", "update", "f"], &server);
    assert_eq!(output.status.code(), Some(1), "{}", super::words(&output));
    assert!(super::words(&output).contains("`two words` is not an alias"), "{}", super::words(&output));
    assert!(replies()[0].starts_with("550 5.7.1 closed"));
    fs::write(&aliases, "staff: gilles\n").expect("written");
    sqlite(&path, "update t set v = 'gilles' where k = 'staff'");
    slapd.change(&format!("dn: cn=50,{PLACE}\nchangetype: modify\nreplace: mapValue\nmapValue: gilles\n"));
    for table in ["s", "l"] {
        server.tell(&["table", "update", table]);
    }
    wait_until("all three are right", SOON, || replies().iter().all(|reply| reply.starts_with("250")));
    let reply = server.client().submit("s@source.example", &["staff@l.example"], b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    maildir::wait_for_message(&server.dir().join("mail/gilles"), "a copy", |_| true);
}
