//! Redis, SQLite, helpers and the system's users.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::asking::Asking;
use super::{ATTACKS, EX_CONFIG, absent, failure, value, words};
use crate::support::{cli, ports, wait_until};

const STARTS: Duration = Duration::from_secs(60);

/// A redis-server of our own, with a password and nothing on disk.
pub struct Redis {
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Redis {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut redis = Self { dir, port: ports::free(), child: None };
        redis.start();
        redis
    }

    fn start(&mut self) {
        let port = self.port.to_string();
        let dir = self.dir.path().display().to_string();
        let args =
            ["--port", &port, "--bind", "127.0.0.1", "--dir", &dir, "--requirepass", "sesame", "--appendonly", "yes"];
        let mut command = Command::new("redis-server");
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server, from the package of that name"));
        wait_until("redis-server listens", STARTS, || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok());
    }

    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// `redis-cli`.
    pub fn put(&self, words: &[&str]) {
        let port = self.port.to_string();
        let done =
            Command::new("redis-cli").args(["-p", &port, "-a", "sesame", "--no-auth-warning"]).args(words).output();
        let done = done.expect("redis-cli, from the package redis-tools");
        assert!(done.status.success(), "{words:?}");
    }

    /// A table of it.
    pub fn source(&self, more: &str) -> String {
        let path = self.dir.path().join("redis.conf");
        fs::write(&path, format!("url redis://127.0.0.1:{}\n{more}", self.port)).expect("written");
        format!("redis:{}", path.display())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn s60_redis_is_asked_and_comes_back() {
    let mut redis = Redis::new();
    redis.put(&["set", "alias:staff", "gilles, eric"]);
    redis.put(&["set", "domain:poolp.org", "1"]);
    redis.put(&["set", "gilles", "gilles:$6$hash"]);
    redis.put(&["sadd", "alias:set", "x"]);
    let source = redis.source("password sesame\nalias_prefix alias:\ndomain_prefix domain:\ncredentials_prefix\n");
    assert_eq!(value(None, &source, "alias", "staff"), "gilles, eric");
    assert_eq!(value(None, &source, "domain", "poolp.org"), "poolp.org");
    assert_eq!(value(None, &source, "credentials", "gilles"), "gilles:…");
    for key in ATTACKS.into_iter().chain(["gilles\r\nSET alias:x y"]) {
        absent(None, &source, "alias", key);
    }
    absent(None, &source, "alias", "x");
    let said = failure(None, &source, "alias", "set");
    assert!(said.contains("holds no string"), "{said}");

    let mut asking = Asking::new(&source, "alias");
    assert_eq!(asking.ask("staff"), "found gilles, eric");
    redis.stop();
    for n in 0..8 {
        let answer = asking.ask(&format!("down{n}"));
        assert!(answer.starts_with("failed "), "{answer}");
    }
    redis.start();
    redis.put(&["set", "alias:new", "chl"]);
    let mut n = 0;
    wait_until("it answers again", STARTS, || {
        n += 1;
        asking.ask(&format!("up{n}")) == "not-found"
    });
    assert_eq!(asking.ask("new"), "found chl");
    assert_eq!((asking.logged("fails: "), asking.logged("works again")), (1, 1));

    let said = failure(None, &redis.source("alias_prefix alias:\n"), "alias", "staff");
    assert!(said.contains("uthentication"), "{said}");
    let said = failure(None, &redis.source("password wrong\nalias_prefix alias:\n"), "alias", "staff");
    assert!(said.contains("wrong user name or password"), "{said}");
}

const SQLITE: &str = "\
# Path to database
#
dbpath			/tmp/sqlite.db

# Alias lookup query
#
# rows   >= 0
# fields == 1 (user varchar)
#
query_alias		select value from aliases where key=?;

# Domain lookup query
#
# rows   == 1
# fields == 1 (domain varchar)
#
query_domain		select value from domains where key=?;
";

#[test]
fn s54_the_articles_database_is_asked_with_its_own_queries() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(root.path().join("etc/mail")).expect("made");
    fs::create_dir(root.path().join("tmp")).expect("made");
    let conf = root.path().join("etc/mail/sqlite.conf");
    fs::write(&conf, SQLITE).expect("written");
    let source = "sqlite:/etc/mail/sqlite.conf";
    let some = Some(root.path());
    let said = failure(some, source, "alias", "staff");
    assert!(said.contains("/tmp/sqlite.db: unable to open database file"), "{said}");
    let database = rusqlite::Connection::open(root.path().join("tmp/sqlite.db")).expect("made");
    let sql = "create table aliases(key text, value text); create table domains(key text, value text);
               insert into aliases values('staff', 'gilles'), ('staff', 'eric'), ('staff', 'chl');
               insert into domains values('poolp.org', 'poolp.org');";
    database.execute_batch(sql).expect("written");
    assert_eq!(value(some, source, "alias", "staff"), "gilles, eric, chl");
    assert_eq!(value(some, source, "domain", "poolp.org"), "poolp.org");
    for key in ATTACKS {
        absent(some, source, "alias", key);
        absent(some, source, "domain", key);
    }
    assert_eq!(value(some, source, "alias", "staff"), "gilles, eric, chl", "nothing was harmed");

    let dir = root.path().display().to_string();
    let check = |services: &[&str]| {
        let mut args = vec!["table", "check", "--root", &dir, source];
        args.extend(services);
        cli::run(&args)
    };
    assert!(check(&["alias", "domain"]).status.success());
    let output = check(&["alias", "credentials"]);
    assert_eq!(output.status.code(), Some(EX_CONFIG));
    assert!(words(&output).contains("does not answer credentials lookups"), "{}", words(&output));
    fs::write(&conf, SQLITE.replace("query_domain", "query_domian").replace("key=?;", "key=1;")).expect("written");
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(EX_CONFIG));
    let said = words(&output);
    assert!(said.contains("sqlite.conf:17:1: unknown key `query_domian`\n  did you mean `query_domain`?"), "{said}");
    fs::write(&conf, SQLITE.replace("key=?;", "key=1;").replace("from domains", "from domain")).expect("written");
    let said = words(&check(&[]));
    assert!(said.contains("sqlite.conf:10:14: query_alias: it has 0 parameters"), "{said}");
    assert!(said.contains("sqlite.conf:17:15: query_domain: no such table: domain"), "{said}");
}

#[test]
fn s60_a_helper_answers_dies_and_is_started_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("table-words");
    let script = r#"#!/bin/sh
while IFS='|' read -r kind version time name operation service id key; do
    case "$kind|$version|$key" in
    config\|ready\|) printf 'register|alias\nregister|ready\n' ;;
    table\|0.1\|die) exit 1 ;;
    table\|0.1\|config) echo "lookup-result|$id|found|$1" ;;
    table\|0.1\|staff) echo "lookup-result|$id|found|gilles, eric" ;;
    table\|0.1\|*) echo "lookup-result|$id|not-found" ;;
    esac
done
"#;
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    let source = format!("proc:{}", program.display());
    let mut asking = Asking::new(&source, "alias");
    assert_eq!(asking.ask("staff"), "found gilles, eric");
    for n in 0..3 {
        assert_eq!(asking.ask("die"), "failed the helper has ended");
        assert_eq!(asking.ask(&format!("other{n}")), "not-found");
    }
    for key in ATTACKS {
        absent(None, &source, "alias", key);
    }
    cli::succeed(&["table", "check", &source, "alias"]);
    let output = cli::run(&["table", "check", &source, "credentials"]);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{}", words(&output));

    // By its short name it is found in PATH, and gets its configuration file's.
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").expect("a path"));
    let output = Command::new(crate::support::server::PROGRAM)
        .args(["table", "lookup", "words:/etc/mail/words.conf", "alias", "config"])
        .env("PATH", path)
        .output()
        .expect("the program starts");
    assert_eq!(words(&output), "/etc/mail/words.conf\n");
    let said = failure(None, "nonesuch:/etc/mail/x.conf", "alias", "x");
    assert!(said.contains("there is no program table-nonesuch in"), "{said}");
}

#[test]
fn s59_the_system_is_a_table() {
    let root = value(None, "getpwnam", "userinfo", "root");
    assert!(root.starts_with("root:0:0:/"), "{root}");
    for key in ATTACKS {
        absent(None, "getpwnam", "userinfo", key);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let said = failure(Some(dir.path()), "getpwnam", "userinfo", "gilles");
    assert!(said.contains("etc/passwd"), "{said}");
    fs::create_dir(dir.path().join("etc")).expect("made");
    fs::write(dir.path().join("etc/passwd"), "gilles:x:10:100::/home/gilles:/bin/sh\n").expect("written");
    assert_eq!(value(Some(dir.path()), "getpwnam", "userinfo", "gilles"), "gilles:10:100:/home/gilles");
    absent(Some(dir.path()), "getpwnam", "userinfo", "root");
}
