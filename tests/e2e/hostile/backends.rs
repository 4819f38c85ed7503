//! The same addresses as keys: every backend is asked for exactly them, and an entry that only an injection could find is
//! never found.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::addresses::{Kind, TABLE, Taken, taken};
use super::{someone, tree};
use crate::support::{Server, Setup, cli};
use crate::tables::directory::Slapd;
use crate::tables::stores::Redis;

/// A key that no address here is.
const CANARY: &str = "canary";

/// A helper that writes down what it is asked, and knows the canary, `good`, and the lines of `exact`.
const HELPER: &str = r#"#!/bin/sh
here=$(dirname "$0")
while IFS= read -r line; do
    case $line in
    'config|ready') printf 'register|alias\nregister|ready\n'; continue ;;
    'config|'*) continue ;;
    esac
    printf '%s\n' "$line" >> "$here/asked"
    IFS='|' read -r kind version time name operation service id key <<END
$line
END
    if [ "$name" = exact ]; then
        if grep -Fxq -e "$key" "$here/exact"; then echo "lookup-result|$id|found|gilles"; else echo "lookup-result|$id|not-found"; fi
        continue
    fi
    case $key in
    canary) echo "lookup-result|$id|found|gilles" ;;
    good) echo "lookup-result|$id|found|gilles" ;;
    *) echo "lookup-result|$id|not-found" ;;
    esac
done
"#;

/// The codes of RCPT for this address at all domains, with one connection.
fn rcpt(server: &Server, one: &Taken, domains: &[&str]) -> Vec<String> {
    let mut client = server.client();
    assert_eq!(client.say(&format!("MAIL FROM:<s@from.example>{}", one.parameter())).code, 250);
    let replies = domains.iter().map(|domain| {
        let reply = client.say(&format!("RCPT TO:<{}@{domain}.example>", one.local));
        format!("{} {}", reply.code, reply.lines[0].split(' ').next().unwrap_or_default())
    });
    replies.collect()
}

fn conf(kinds: &[(&str, String)]) -> String {
    let (uid, gid) = someone();
    let mut text = format!(
        "table users {{ gilles => gilles:{uid}:{gid}:/ }}\naction none discard\n\
         match from any for domain example.org action none\n"
    );
    for (name, table) in kinds {
        text += &format!(
            "table {name} {table}\naction {name} maildir \"@DIR@/none\" virtual <{name}> userbase <users>\n\
             match from any for domain {name}.example action {name}\n"
        );
    }
    text
}

/// `dbpath` and the query, with an alias for each key.
fn sqlite(setup: &Setup, name: &str, keys: &BTreeSet<String>) {
    let path = setup.dir().join(format!("{name}.db"));
    let text = format!("dbpath {}\nquery_alias select value from aliases where key=?;\n", path.display());
    fs::write(setup.dir().join(format!("{name}.conf")), text).expect("written");
    let database = rusqlite::Connection::open(path).expect("made");
    database.execute_batch("create table aliases(key text primary key, value text); begin").expect("made");
    for key in keys {
        database.execute("insert into aliases values(?, 'gilles')", [key]).expect("written");
    }
    database.execute_batch("commit").expect("written");
}

#[test]
fn hostile_keys_find_nothing_but_themselves() {
    let (slapd, redis) = (Slapd::new(), Redis::new());
    // What the keys of K_ALIAS are made of: local parts without quotes, in lower case.
    let key_of = |one: &Taken| one.unquoted().to_lowercase();
    // `@` stands for everybody, whoever asks.
    let keys: BTreeSet<String> = taken().map(|one| key_of(&one)).filter(|key| !["", "@"].contains(&&**key)).collect();
    let canary: BTreeSet<String> = [CANARY, "good"].map(str::to_owned).into();
    redis.put(&["set", "alias:canary", "gilles"]);
    redis.put(&["set", "alias:good", "gilles"]);
    redis.put(&["mset", "secret", "gilles"]);
    let exact: Vec<[String; 2]> = keys.iter().map(|key| [format!("exact:{key}"), "gilles".to_owned()]).collect();
    let pairs: Vec<&str> = exact.iter().flatten().map(String::as_str).collect();
    redis.put(&[&["mset"], &pairs[..]].concat());
    let at = |name: &str| format!("@DIR@/{name}");
    let canaries: Vec<(&str, String)> = vec![
        ("memory", "{ canary => gilles, good => gilles }".into()),
        ("file", format!("file:{}", at("aliases"))),
        ("db", format!("db:{}", at("aliases.db"))),
        ("sqlite", format!("sqlite:{}", at("sqlite.conf"))),
        ("ldap", slapd.source(slapd.port, "")),
        ("redis", redis.source("password sesame\nalias_prefix alias:\n")),
        ("proc", format!("proc:{}", at("helper"))),
    ];
    let redis_exact = format!("{}.exact", redis.source("password sesame\nalias_prefix alias:\n"));
    let path = redis_exact.strip_prefix("redis:").expect("so it begins");
    let text = fs::read_to_string(path.trim_end_matches(".exact")).expect("written");
    fs::write(path, text.replace("alias:\n", "exact:\n")).expect("written");
    let exacts: Vec<(&str, String)> = vec![
        ("exactsql", format!("sqlite:{}", at("exactsql.conf"))),
        ("exactredis", redis_exact.clone()),
        ("exact", format!("proc:{}", at("helper"))),
    ];
    let setup = Setup::new(conf(&[&canaries[..], &exacts[..]].concat()));
    sqlite(&setup, "sqlite", &canary);
    sqlite(&setup, "exactsql", &keys);
    fs::write(setup.dir().join("aliases"), "canary: gilles\ngood: gilles\n").expect("written");
    fs::write(setup.dir().join("exact"), keys.iter().map(|key| format!("{key}\n")).collect::<String>())
        .expect("written");
    let (from, to) = (setup.dir().join("aliases"), setup.dir().join("aliases.db"));
    cli::succeed(&["makemap", "-o", &to.display().to_string(), &from.display().to_string()]);
    let helper = setup.dir().join("helper");
    fs::write(&helper, HELPER).expect("written");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("ours");
    let server = setup.start();
    let before = tree::paths(server.dir(), &["state", "log", "asked"]);

    let names: Vec<&str> = canaries.iter().map(|(name, _)| *name).collect();
    let others: Vec<&str> = exacts.iter().map(|(name, _)| *name).collect();
    for one in taken() {
        assert_eq!(rcpt(&server, &one, &names), vec!["550 5.1.1"; names.len()], "{}: {names:?}", one.local);
        // A key with an `@` is that of an address, which a local part is not.
        let key = key_of(&one);
        let finds = keys.contains(&key) && !key.contains(['@', '<', '>']);
        let expected = if finds { "250 2.1.5" } else { "550 5.1.1" };
        assert_eq!(rcpt(&server, &one, &others), vec![expected; others.len()], "{}: {others:?}", one.local);
    }
    // They do find what is there.
    let good = Taken { row: 0, local: "good" };
    let with_good: Vec<&str> = names.iter().copied().filter(|name| *name != "ldap").collect();
    assert_eq!(rcpt(&server, &good, &with_good), vec!["250 2.1.5"; with_good.len()]);
    assert_eq!(rcpt(&server, &Taken { row: 0, local: "staff" }, &["ldap"]), ["250 2.1.5"]);

    // One line a question, whatever is in it, and never another operation.
    for line in fs::read_to_string(server.dir().join("asked")).expect("written").lines() {
        let fields: Vec<&str> = line.splitn(8, '|').collect();
        assert!(fields.len() == 8 && fields[..2] == ["table", "0.1"] && fields[4..6] == ["lookup", "alias"], "{line}");
        let key = fields[7].rsplit_once('@').map_or(fields[7], |(local, _)| local);
        let plain = |of: &String| of == key || of.split('+').next() == Some(key);
        assert!(key.is_empty() || ["good", "staff", "gilles", "@"].contains(&key) || keys.iter().any(plain), "{line}");
    }
    let rows = |name: &str| -> i64 {
        let database = rusqlite::Connection::open(server.dir().join(name)).expect("there");
        database.query_row("select count(*) from aliases", [], |row| row.get(0)).expect("a number")
    };
    assert_eq!(
        (rows("sqlite.db"), rows("exactsql.db")),
        (canary.len() as i64, keys.len() as i64),
        "nothing was harmed"
    );
    assert_eq!(tree::paths(server.dir(), &["state", "log", "asked"]), before);
    tree::no_canary_outside(server.dir());
    assert!(TABLE.iter().any(|(kind, _)| *kind == Kind::None) && !server.printed().contains("panicked"));
}

/// An administrator who puts the parameter into quotes is told, and gets no server whose keys are pasted.
#[test]
fn hostile_keys_meet_no_quoted_parameter() {
    let setup = Setup::new("");
    let database = rusqlite::Connection::open(setup.dir().join("x.db")).expect("made");
    database.execute_batch("create table aliases(key text, value text)").expect("made");
    for query in ["select value from aliases where key='?'", "select value from aliases where key=\"?\""] {
        let path = setup.dir().join("x.conf");
        let text = format!("dbpath {}\nquery_alias {query}\n", setup.dir().join("x.db").display());
        fs::write(&path, text).expect("written");
        let output = cli::run(&["table", "check", &format!("sqlite:{}", path.display()), "alias"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains("query_alias: it has 0 parameters"), "{query}: {said}");
    }
}
