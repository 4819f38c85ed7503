//! What a server opens and connects to for its tables, as strace sees it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::directory::Slapd;
use super::live::{PLACE, database, directory, ldif, rcpt, sqlite, whole};
use crate::support::{Server, cli, maildir, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// System calls of running processes, as strace tells.
struct Strace {
    child: Child,
    log: PathBuf,
}

impl Strace {
    fn attach(of: &[Pid], log: PathBuf) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-s", "256", "-e", "trace=open,openat,openat2,connect", "-o"]).arg(&log);
        for pid in of {
            command.args(["-p", &pid.as_raw_nonzero().to_string()]);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let strace = Self { child: child.expect("strace, from the package of that name"), log };
        wait_until("strace has them all", SOON, || of.iter().all(|pid| is_traced(*pid)));
        strace
    }

    /// All that was seen.
    fn end(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        self.child.wait().expect("it ends");
        fs::read_to_string(&self.log).expect("its file")
    }
}

/// All threads of a process.
fn is_traced(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).expect("it runs");
    threads.filter_map(Result::ok).all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
    })
}

#[test]
fn s35_backends_stay_open() {
    const EACH: usize = 3_400;
    const AT_ONCE: usize = 100;
    const POOL: u64 = 4;
    let slapd = Slapd::with(&ldif(PLACE));
    let tables = "table s sqlite:@DIR@/sqlite.conf\ntable b db:@DIR@/t.db\ntable l ldap:@DIR@/ldap.conf";
    let one = |name: &str| {
        format!(
            "action \"{name}\" maildir \"@DIR@/mail/%{{dest.user}}\" virtual <{name}>\n\
             match from any for domain {name}.example action \"{name}\"\n"
        )
    };
    let setup = whole(tables, &["s", "b", "l"].map(one).concat());
    database(setup.dir());
    directory(setup.dir(), slapd.port());
    fs::write(setup.dir().join("t"), "@b.example catcher\n").expect("written");
    cli::succeed(&["makemap", &setup.dir().join("t").display().to_string()]);
    let server = setup.start();
    let strace = Strace::attach(&[server.engine()], server.dir().join("strace"));
    for name in ["s", "b", "l"] {
        for group in 0..EACH / AT_ONCE {
            let mut commands = "MAIL FROM:<s@source.example>\r\n".to_owned();
            for number in 0..AT_ONCE {
                commands.push_str(&format!("RCPT TO:<u{group}x{number}@{name}.example>\r\n"));
            }
            let mut client = server.client();
            client.send(commands.as_bytes());
            for _ in 0..=AT_ONCE {
                client.expect("250");
            }
        }
    }
    let seen = strace.end();
    let count = |what: &str| seen.lines().filter(|line| line.contains(what)).count() as u64;
    let opened = |name: &str| count(&format!("\"{}\"", server.dir().join(name).display()));
    let connected = count(&format!("htons({})", slapd.port()));
    for (what, count) in [("sqlite", opened("t.sqlite")), ("db", opened("t.db")), ("ldap", connected)] {
        assert!((1..=POOL).contains(&count), "{what}: {count}");
    }
    for name in ["s", "b", "l"] {
        let before = stat(&server, name);
        // The same key once more: from what is known.
        server.tell(&["table", "lookup", name, "alias", &format!("who@{name}.example")]);
        server.tell(&["table", "lookup", name, "alias", &format!("who@{name}.example")]);
        let after = stat(&server, name);
        let number = |stat: &serde_json::Value, field: &str| stat[field].as_u64().expect("a number");
        assert!(number(&before, "asked") >= EACH as u64, "{before}");
        assert!(number(&after, "hits") > number(&before, "hits"), "{before} {after}");
        assert!((1..=POOL).contains(&number(&after, "connections")), "{after}");
        let line = server.tell(&["table", "stat", name]);
        assert!(line.contains(" hits=") && line.contains(" connections="), "{line}");
    }
}

fn stat(server: &Server, name: &str) -> serde_json::Value {
    serde_json::from_str(&server.tell(&["table", "stat", "--json", name])).expect("JSON")
}

/// All that there is of users, domains and aliases is in SQLite; the system is asked for none of it.
#[test]
fn s30_users_need_not_exist() {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let rules = "table t sqlite:@DIR@/t.conf\n\
                 action \"local\" maildir \"~/Maildir\" alias <t> userbase <t>\n\
                 match from any for domain <t> action \"local\"\n";
    let setup = whole("", rules);
    let home = setup.dir().join("home");
    fs::create_dir(&home).expect("made");
    fs::create_dir(home.join("gilles")).expect("made");
    fs::create_dir(home.join("eric")).expect("made");
    let path = setup.dir().join("t.sqlite");
    sqlite(
        &path,
        &format!(
            "create table domains (k text); insert into domains values ('poolp.org');
             create table aliases (k text, v text); insert into aliases values ('staff', 'gilles'), ('staff', 'eric');
             create table users (k text, uid int, gid int, home text);
             insert into users values ('gilles', {uid}, {gid}, '{home}/gilles'), ('eric', {uid}, {gid}, '{home}/eric');",
            home = home.display()
        ),
    );
    let conf = format!(
        "dbpath {}\nquery_domain select k from domains where k = ?\nquery_alias select v from aliases where k = ?\n\
         query_userinfo select uid, gid, home from users where k = ?\n",
        path.display()
    );
    fs::write(setup.dir().join("t.conf"), conf).expect("written");
    let server = setup.start();
    // The supervisor's children, too: the processes that become a user to deliver.
    let strace = Strace::attach(&[server.engine(), server.supervisor()], server.dir().join("strace"));
    let reply = server.client().submit("s@source.example", &["staff@poolp.org"], b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    for user in ["gilles", "eric"] {
        maildir::wait_for_message(&home.join(user).join("Maildir"), "a copy", |_| true);
    }
    assert!(rcpt(&server, "root@poolp.org").starts_with("550"), "the system's users are not these");
    let seen = strace.end();
    assert!(seen.contains("t.sqlite"), "{seen}");
    for user in ["gilles", "eric"] {
        let maildir = home.join(user).join("Maildir");
        assert!(seen.contains(&format!("\"{}\"", maildir.display())), "no helper is seen at work: {seen}");
    }
    for asked in ["/etc/passwd", "/etc/nsswitch.conf", "/etc/group", "nscd", "userdb"] {
        let lines: Vec<&str> = seen.lines().filter(|line| line.contains(asked)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
}
