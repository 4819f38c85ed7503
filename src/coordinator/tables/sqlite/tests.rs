//! Real databases in a temporary directory.

use std::time::Duration;

use rusqlite::Connection;

use super::super::tests::{block, config, declared, failed, found, surroundings};
use super::super::{Answer, Backend, Declared, Tables};
use super::*;

struct World {
    dir: tempfile::TempDir,
    connection: Connection,
}

impl World {
    fn new(sql: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::open(dir.path().join("sqlite.db")).unwrap();
        connection.execute_batch(sql).unwrap();
        Self { dir, connection }
    }

    fn config(&self, queries: &str) -> ConfigFile {
        config(format!("dbpath {}\n{queries}", self.dir.path().join("sqlite.db").display()))
    }

    fn table(&self, queries: &str) -> Declared {
        let (cache, negative, stale) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        Declared { cache, negative, stale, ..declared(Backend::Sqlite(self.config(queries))) }
    }

    fn tables(&self, queries: &str) -> Tables {
        Tables::new(vec![self.table(queries)], &surroundings().0).unwrap()
    }
}

const MAIL: &str = "
    create table aliases(key text, value text);
    insert into aliases values('staff', 'gilles'), ('staff', 'eric'), ('staff', '|cmd'), ('root', 'gilles@example.org');
    create table domains(key text, value text);
    insert into domains values('poolp.org', 'poolp.org');
    create table users(name text, hash text, uid integer, gid integer, home text);
    insert into users values('gilles', '$6$hash', 10, 100, '/home/gilles'), ('eric', 'x', 11, 100, '/home/eric');
    insert into users values('twin', 'a', 1, 1, '/a'), ('twin', 'b', 2, 2, '/b');
    create table sources(address text);
    insert into sources values('192.0.2.1'), ('192.0.2.2');";

const QUERIES: &str = "
# as in the article
query_alias\t\tselect value from aliases where key=?;
query_domain\t\tselect value from domains where key=?;
query_credentials select name, hash from users where name=?
query_auth select 1 from users where name=?1 and hash=?2
query_userinfo select uid, gid, home from users where name=?
query_sourceaddr select address from sources
query_mailaddrmap select value from aliases where key=?
";

#[test]
fn every_service_has_its_query() {
    let world = World::new(MAIL);
    let tables = world.tables(QUERIES);
    block(async {
        assert_eq!(tables.check().await, []);
        let ask = async |service, key: &str| tables.lookup("t", service, key).await;
        assert_eq!(ask(Service::Alias, "staff").await, found("gilles, eric, |cmd"));
        assert_eq!(ask(Service::Alias, "nobody").await, Answer::NotFound);
        assert_eq!(ask(Service::Domain, "poolp.org").await, found("poolp.org"));
        assert_eq!(ask(Service::Credentials, "gilles").await, found("gilles:$6$hash"));
        assert_eq!(ask(Service::RelayCredentials, "gilles").await, found("gilles:$6$hash"));
        assert_eq!(ask(Service::Auth, "eric:x").await, found("1"));
        assert_eq!(ask(Service::Auth, "eric:y").await, Answer::NotFound);
        assert_eq!(ask(Service::UserInfo, "gilles").await, found("10:100:/home/gilles"));
        assert_eq!(ask(Service::SourceAddr, "").await, found("192.0.2.1, 192.0.2.2"));
        assert_eq!(ask(Service::MailAddrMap, "staff").await, found("gilles, eric, |cmd"));
        failed(ask(Service::UserInfo, "twin").await, "more than one row, one is wanted");
        failed(ask(Service::Cert, "x").await, "no `query_cert`");
    });
}

#[test]
fn keys_are_bound_and_never_pasted() {
    let world = World::new(MAIL);
    let tables = world.tables(QUERIES);
    block(async {
        for key in [
            "' OR 1=1 --",
            "'; drop table aliases;--",
            "\0",
            "root\0",
            "root\n",
            "*)(uid=*",
            "%",
            "?",
            "",
            "\u{feff}root",
        ] {
            assert_eq!(tables.lookup("t", Service::Alias, key).await, Answer::NotFound, "{key:?}");
        }
        assert_eq!(tables.lookup("t", Service::Auth, "x' or '1'='1:x' or '1'='1").await, Answer::NotFound);
        assert_eq!(tables.lookup("t", Service::Alias, "root").await, found("gilles@example.org"));
    });
}

#[test]
fn queries_are_looked_at_before_they_are_needed() {
    let world = World::new(MAIL);
    let queries = "query_alias select value from aliases\nquery_domain selekt\nquery_userinfo select uid, gid from users where \
                   name=?\nquery_string delete from aliases where key=?\nquery_netaddr select none from aliases where key=?\n\
                   query_addrname select 1 where ? = 1; select 2\n";
    let database = Database::new("t", &world.config(queries), 1, &surroundings().0).unwrap();
    let problems: Vec<String> = database.check().iter().map(Problem::to_string).collect();
    let expected = [
        "t.conf:2:13: query_alias: it has 0 parameters `?`, 1 needed",
        "t.conf:3:14: query_domain: near \"selekt\": syntax error",
        "t.conf:4:16: query_userinfo: it gives 2 columns, 1 or 3 or 4 needed",
        "t.conf:6:15: query_netaddr: no such column: none",
        "t.conf:7:16: query_addrname: Multiple statements provided",
        "t.conf:5:14: query_string: it changes the database; a query begins with `select`",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for expected in expected {
        assert!(problems.iter().any(|problem| problem.contains(expected)), "no {expected} in {problems:#?}");
    }
    assert_eq!(world.connection.query_row("select count(*) from aliases", [], |row| row.get::<_, i64>(0)), Ok(4));
    let wrong = |text: &str| {
        Database::new("t", &config(text), 1, &surroundings().0)
            .err()
            .unwrap()
            .iter()
            .map(Problem::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        wrong("query_aliases select 1\n"),
        ["/etc/mail/t.conf:1:1: unknown key `query_aliases`\n  did you mean `query_alias`?"]
    );
    assert_eq!(
        wrong("query_alias select ?\n"),
        ["/etc/mail/t.conf: there is no `dbpath`\n  add a line `dbpath …` to /etc/mail/t.conf"]
    );
}

#[test]
fn bad_rows_are_named() {
    let world = World::new(
        "create table t(k, v); insert into t values('null', 'a'), ('null', null), ('blob', x'00ff'), ('real', 1.5), ('int', 7);
         insert into t values('bytes', cast(x'ff' as text)); insert into t values('large', printf('%.100000c', 'x'));",
    );
    let tables = world.tables("query_alias select v from t where k=?\n");
    block(async {
        for (key, why) in [
            ("null", "row 2, column 1: NULL"),
            ("blob", "row 1, column 1: a blob"),
            ("real", "row 1, column 1: a number with a fraction"),
            ("bytes", "row 1, column 1: not UTF-8"),
            ("large", "more than 65536 bytes"),
        ] {
            failed(tables.lookup("t", Service::Alias, key).await, why);
        }
        assert_eq!(tables.lookup("t", Service::Alias, "int").await, found("7"));
        // The query says `*`, and the table gets a column.
        let mut table = world
            .table("query_alias select * from (select v from t where k=?)\nquery_domain select * from w where k=?\n");
        table.pool = 1;
        let tables = Tables::new(vec![table], &surroundings().0).unwrap();
        world.connection.execute_batch("create table w(k); insert into w values('x')").unwrap();
        assert_eq!(tables.lookup("t", Service::Domain, "x").await, found("x"));
        world.connection.execute_batch("alter table w add column more").unwrap();
        failed(tables.lookup("t", Service::Domain, "x").await, "row 1 has 2 columns, 1 wanted");
    });
}

/// Counts for ever.
const ENDLESS: &str =
    "query_string with recursive r(n) as (select ?1 union all select n from r) select n from r where n = 'no'\n";

#[test]
fn a_slow_query_is_broken_off_and_takes_one_thread() {
    let world = World::new(MAIL);
    let mut table = world.table(&format!("{QUERIES}{ENDLESS}"));
    (table.pool, table.timeout) = (2, Duration::from_secs(2));
    let tables = Arc::new(Tables::new(vec![table], &surroundings().0).unwrap());
    block(async {
        let slow = tokio::spawn({
            let tables = tables.clone();
            async move { tables.lookup("t", Service::String, "yes").await }
        });
        let mut meanwhile = 0;
        while !slow.is_finished() {
            assert_eq!(tables.lookup("t", Service::Alias, "root").await, found("gilles@example.org"));
            meanwhile += 1;
        }
        assert!(meanwhile > 10, "only {meanwhile} others were answered");
        failed(slow.await.unwrap(), "");
        // Both threads are taken, and free again in time.
        let both = [tables.lookup("t", Service::String, "a"), tables.lookup("t", Service::String, "b")];
        for slow in both {
            failed(slow.await, "");
        }
        assert_eq!(tables.lookup("t", Service::Alias, "root").await, found("gilles@example.org"));
    });
}

#[test]
fn a_locked_database_is_waited_for_and_then_a_failure() {
    let world = World::new(MAIL);
    let mut table = world.table(QUERIES);
    table.timeout = Duration::from_millis(300);
    let tables = Tables::new(vec![table], &surroundings().0).unwrap();
    block(async {
        world.connection.execute_batch("begin exclusive").unwrap();
        failed(tables.lookup("t", Service::Alias, "root").await, "");
        world.connection.execute_batch("commit").unwrap();
        assert_eq!(tables.lookup("t", Service::Alias, "root").await, found("gilles@example.org"));
    });
}

#[test]
fn a_database_may_come_go_and_be_replaced() {
    let world = World::new(MAIL);
    let (path, away) = (world.dir.path().join("sqlite.db"), world.dir.path().join("away"));
    let tables = world.tables(QUERIES);
    block(async {
        std::fs::rename(&path, &away).unwrap();
        assert!(tables.check().await[0].to_string().contains("unable to open database file"));
        failed(tables.lookup("t", Service::Alias, "root").await, "unable to open database file");
        std::fs::rename(&away, &path).unwrap();
        assert_eq!(tables.lookup("t", Service::Alias, "root").await, found("gilles@example.org"));
        let other = World::new("create table aliases(key, value); insert into aliases values('root', 'eric')");
        std::fs::rename(other.dir.path().join("sqlite.db"), &path).unwrap();
        assert_eq!(tables.lookup("t", Service::Alias, "root").await, found("eric"));
        failed(tables.lookup("t", Service::Domain, "poolp.org").await, "no such table: domains");
        assert_eq!(tables.lookup("t", Service::Alias, "root").await, found("eric"));
        std::fs::write(&path, "root: gilles, which is no database at all\n".repeat(100)).unwrap();
        failed(tables.lookup("t", Service::Alias, "root").await, "");
    });
}
