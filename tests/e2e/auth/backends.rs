//! The users of every backend, what happens when one fails, and whose entries change.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::{ALL, IN, PASSWORD, WRONG, base64, hash, login, near, plain};
use crate::support::database::sqlite;
use crate::support::server::{SMALL, greets};
use crate::support::{Client, Server, Setup, wait_until};
use crate::tables::directory::Slapd;
use crate::tables::stores::Redis;

/// AUTH as everybody does it.
fn all_ways(server: &Server, what: &str) {
    let mut client = server.client();
    assert_eq!(login(&mut client, "anna", PASSWORD), IN, "{what}");
    let mut client = server.client();
    assert_eq!(client.say("AUTH LOGIN").code, 334);
    assert_eq!(client.say(&base64("anna")).code, 334);
    assert_eq!(client.say(&base64(PASSWORD)).code, 235, "{what}");
    let mut client = server.client();
    assert_eq!(login(&mut client, "anna", "sesame"), WRONG, "{what}");
    assert_eq!(login(&mut client, "nobody", PASSWORD), WRONG, "{what}");
    let mut client = server.client();
    for attack in ["*)(uid=*", "' or 1=1 --", "*", "%s"] {
        assert!(login(&mut client, attack, PASSWORD).starts_with("535") || client.is_closed(), "{what} {attack}");
        client = server.client();
    }
}

fn helper(path: &std::path::Path, service: &str, key: &str, value: &str) {
    let script = format!(
        "#!/bin/sh\nwhile IFS='|' read -r kind version time name operation service id key; do\n\
         case \"$kind|$version|$key\" in\nconfig\\|ready\\|) printf 'register|{service}\\nregister|ready\\n' ;;\n\
         table\\|0.1\\|'{key}') echo \"lookup-result|$id|found|{value}\" ;;\n\
         table\\|0.1\\|*) echo \"lookup-result|$id|not-found\" ;;\nesac\ndone\n"
    );
    fs::write(path, script).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
}

/// A server whose users are in `table users …`, whose files are written by `make`.
fn of(declared: &str, make: impl FnOnce(&Setup)) -> Server {
    let setup = Setup::whole("");
    make(&setup);
    let listen = "listen on 127.0.0.1 port @SMTP@ auth <users>\n";
    setup.config(format!("{SMALL}table users {declared}\n{listen}{}{ALL}", super::BOX)).start()
}

#[test]
fn s40_files_and_databases_know_users() {
    let made = hash("ssha");
    let record = format!("anna:{made}");
    all_ways(&of(&format!("{{ anna = \"{record}\" }}"), |_| {}), "static");
    let passwd = format!("anna:{made}:10:100:Anna:/home/anna:/bin/sh\n");
    all_ways(&of("\"@DIR@/users\"", |setup| fs::write(setup.dir().join("users"), &passwd).expect("written")), "passwd");
    let server = of("db:@DIR@/users.db", |setup| {
        let text = setup.dir().join("users");
        fs::write(&text, format!("anna {record}\n")).expect("written");
        crate::support::cli::succeed(&["makemap", &text.display().to_string()]);
    });
    all_ways(&server, "db");
    let server = of("sqlite:@DIR@/sqlite.conf", |setup| {
        let database = setup.dir().join("users.sqlite");
        sqlite(&database, &format!("create table users(name, hash); insert into users values('anna', '{made}')"));
        let query = "query_credentials select name, hash from users where name=?\n";
        let text = format!("dbpath {}\n{query}", database.display());
        fs::write(setup.dir().join("sqlite.conf"), text).expect("written");
    });
    all_ways(&server, "sqlite");
}

#[test]
fn s40_servers_and_helpers_know_users() {
    let made = hash("ssha");
    let entry = format!(
        "\ndn: uid=anna,dc=opensmtpd,dc=org\nobjectClass: account\nobjectClass: posixAccount\nuid: anna\ncn: Anna\n\
         uidNumber: 11\ngidNumber: 100\nhomeDirectory: /home/anna\nuserPassword: {made}\n"
    );
    let slapd = Slapd::with(&entry);
    all_ways(&of(&slapd.source(slapd.port(), ""), |_| {}), "ldap");
    let redis = Redis::new();
    redis.put(&["set", "login:anna", &made]);
    all_ways(&of(&redis.source("password sesame\ncredentials_prefix login:\n"), |_| {}), "redis");
    let program = |service: &'static str, key: String, value: String| {
        of("proc:@DIR@/helper", move |setup| helper(&setup.dir().join("helper"), service, &key, &value))
    };
    all_ways(&program("credentials", "anna".into(), format!("anna:{made}")), "a helper that knows");
    // Those that judge for themselves: a directory by a bind, a helper by its own lights.
    let judge = slapd.source(slapd.port(), "auth_filter (&(objectClass=posixAccount)(uid=%s))\n");
    let path = judge.strip_prefix("ldap:").expect("so it begins").to_owned();
    let text = fs::read_to_string(&path).expect("written");
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("credentials_")).collect();
    fs::write(&path, without.join("\n")).expect("written");
    all_ways(&of(&judge, |_| {}), "a bind");
    let server = program("auth", format!("anna:{PASSWORD}"), "anna".into());
    all_ways(&server, "a helper that judges");
    // And tokens of OAuth, which only somebody else can judge.
    let server = program("auth", "anna@poolp.org:t0ken".into(), "x".into());
    let mut client = server.client();
    let offered = client.say("EHLO client.example").lines;
    assert!(offered.iter().any(|line| line == "AUTH OAUTHBEARER XOAUTH2 PLAIN LOGIN"), "{offered:?}");
    let token = |token: &str| base64(format!("user=anna@poolp.org\u{1}auth=Bearer {token}\u{1}\u{1}"));
    assert_eq!(client.say(&format!("AUTH XOAUTH2 {}", token("wrong"))).code, 334);
    assert_eq!(client.say("").code, 535);
    assert_eq!(client.say(&format!("AUTH XOAUTH2 {}", token("t0ken"))).code, 235);
    let mut client = server.client();
    let bearer = base64("n,a=anna@poolp.org,\u{1}host=h\u{1}port=25\u{1}auth=Bearer t0ken\u{1}\u{1}");
    assert_eq!(client.say("AUTH OAUTHBEARER").code, 334);
    assert_eq!(client.say(&bearer).code, 235);
}

#[test]
fn s40_system_users_are_asked_of_the_supervisor() {
    let setup = Setup::whole("").with_users(&["anna"]);
    let made = hash("yescrypt");
    setup.put("root/etc/shadow", &format!("anna:{made}:19000:0:99999:7:::\nlocked:!{made}:19000::::::\n"));
    let config = format!("{SMALL}listen on 127.0.0.1 port @SMTP@ auth\n{}{ALL}", super::BOX);
    let server = setup.config(config).start();
    let mut client = server.client();
    assert_eq!(login(&mut client, "locked", PASSWORD), WRONG);
    assert_eq!(login(&mut client, "anna", "sesame"), WRONG);
    assert_eq!(login(&mut client, "anna", PASSWORD), IN);
    client.envelope("anna@poolp.org", &["x@example.org"]);
    // An engine that comes back has its own way to ask.
    let engine = server.engine();
    kill_process(engine, Signal::KILL).expect("it runs");
    wait_until("another engine", Duration::from_secs(30), || server.engine() != engine && greets(server.smtp));
    assert_eq!(login(&mut server.client(), "anna", PASSWORD), IN);
    // No shadow, no verdict.
    fs::remove_file(server.dir().join("root/etc/shadow")).expect("there");
    assert!(login(&mut server.client(), "anna", PASSWORD).starts_with("454 4.7.0 "));
}

/// A stranger must not learn by a clock who has an account.
#[test]
fn s40_unknown_users_take_as_long_as_known_ones() {
    let table = format!("table users {{ anna = \"{}\" }}\n", hash("sha512"));
    let server = near(&table, "auth <users>", ALL);
    // The fastest of each: whatever else runs here only adds, so that they draw near each other with time. Where a user who
    // is not there is answered without such a hash, he never takes as long as one who is.
    let mut fastest = [f64::MAX; 2];
    for round in 1..=200_u8 {
        for (which, user) in ["anna", "nobody"].into_iter().enumerate() {
            let mut client = Client::ready_from([127, 0, which as u8 + 1, round].into(), server.smtp);
            let began = Instant::now();
            assert_eq!(login(&mut client, user, "wrong"), WRONG);
            fastest[which] = fastest[which].min(began.elapsed().as_secs_f64());
        }
        let [known, unknown] = fastest;
        if round >= 12 && known > 0.005 && (known / unknown - 1.0).abs() < 0.15 {
            return;
        }
    }
    panic!("of 200 logins of each the fastest took {fastest:?} s");
}

#[test]
fn s64_a_table_that_fails_is_a_matter_of_time() {
    let made = hash("ssha");
    let server = of("sqlite:@DIR@/sqlite.conf", |setup| {
        let database = setup.dir().join("users.sqlite");
        sqlite(&database, &format!("create table users(name, hash); insert into users values('anna', '{made}')"));
        let query = "query_credentials select name, hash from users where name=?\n";
        let text = format!("dbpath {}\n{query}", database.display());
        fs::write(setup.dir().join("sqlite.conf"), text).expect("written");
    });
    let (here, away) = (server.dir().join("users.sqlite"), server.dir().join("away"));
    fs::rename(&here, &away).expect("there");
    let mut client = server.client();
    for _ in 0..10 {
        let said = login(&mut client, "anna", PASSWORD);
        assert!(said.starts_with("454 4.7.0 "), "{said}");
    }
    fs::rename(&away, &here).expect("there");
    wait_until("the table works again", Duration::from_secs(30), || login(&mut client, "anna", PASSWORD) == IN);
    // Nothing is kept of passwords: one that was changed is so for the next.
    sqlite(&here, "update users set hash = '{SSHA}x'");
    sqlite(&here, &format!("insert into users values('eric', '{made}')"));
    assert_eq!(login(&mut server.client(), "eric", PASSWORD), IN);
    assert_eq!(login(&mut server.client(), "anna", PASSWORD), WRONG);
    let log = server.printed();
    assert!(log.matches("login failed").count() <= 1 && !log.contains("slowed"), "nobody else has failed: {log}");
    assert_eq!(server.metric("logins_failed"), 1);
}

#[test]
fn s11_a_database_says_who_may_be_whom() {
    let made = hash("ssha");
    let server = of(&format!("{{ anna = \"{made}\" }}\ntable own sqlite:@DIR@/sqlite.conf"), |setup| {
        let database = setup.dir().join("own.sqlite");
        let rows = "('anna', 'anna@poolp.org'), ('anna', '@example.org')";
        sqlite(&database, &format!("create table own(name, address); insert into own values {rows}"));
        let query = "query_mailaddrmap select address from own where name=?\n";
        let text = format!("dbpath {}\n{query}", database.display());
        fs::write(setup.dir().join("sqlite.conf"), text).expect("written");
    });
    server.configure(
        &fs::read_to_string(server.dir().join("ringpost.conf"))
            .expect("there")
            .replace("auth <users>", "auth <users> senders <own>"),
    );
    server.tell(&["reload"]);
    let mut client = server.client();
    assert_eq!(login(&mut client, "anna", PASSWORD), IN);
    for (sender, code) in [("anna@poolp.org", 250), ("x@example.org", 250), ("eric@poolp.org", 553), ("", 553)] {
        assert_eq!(client.say(&format!("MAIL FROM:<{sender}>")).code, code, "{sender}");
        client.say("RSET");
    }
    fs::remove_file(server.dir().join("own.sqlite")).expect("there");
    server.tell(&["table", "update", "own"]);
    assert!(client.say("MAIL FROM:<x@example.org>").starts_with("451 4.3.0 "), "nobody knows now");
}

#[test]
fn s60_the_next_login_uses_what_a_table_has_become() {
    let made = hash("ssha");
    let mut server = of("\"@DIR@/users\"", |setup| fs::write(setup.dir().join("users"), "eric x\n").expect("written"));
    assert_eq!(login(&mut server.client(), "anna", PASSWORD), WRONG);
    fs::write(server.dir().join("users"), format!("anna {made}\n")).expect("written");
    server.tell(&["table", "update", "users"]);
    let mut client = server.client();
    assert_eq!(login(&mut client, "anna", PASSWORD), IN);
    client.envelope("anna@poolp.org", &["x@example.org"]);
    // Another configuration, and another life, know him, too.
    server.tell(&["reload"]);
    assert_eq!(login(&mut server.client(), "anna", PASSWORD), IN);
    server.kill9();
    server.start();
    assert_eq!(login(&mut server.client(), "anna", PASSWORD), IN);
    fs::write(server.dir().join("users"), "anna x\n").expect("written");
    wait_until("a watched file is read", Duration::from_secs(10), || {
        server.client().say(&plain("anna", PASSWORD)).code == 535
    });
}
