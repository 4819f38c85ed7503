//! What a relay says of itself: the addresses that it leaves from, the names that go with them, the sender; and relay hosts
//! out of tables.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::support::database::sqlite;
use crate::support::text::MARK;
use crate::support::wait::wait_for;
use crate::support::{Script, Server, Setup, Sink, cli, wait_until};

const SOON: Duration = Duration::from_secs(20);

pub fn send(server: &Server, count: usize) {
    let mut client = server.client();
    for number in 0..count {
        let text = format!("{MARK}m{number}\r\n\r\nhello\r\n");
        assert_eq!(client.submit("gilles@source.example", &["b@sink.example"], text.as_bytes()).code, 250);
    }
}

/// A sink that closes the connection after each message.
pub fn one_each() -> Sink {
    let sink = Sink::open();
    sink.script(Script { one_each: true, ..Script::default() });
    sink
}

/// How many connections came from each address, of those after the first `skipped`.
pub fn by_source(sink: &Sink, skipped: usize, count: usize) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for (source, _) in sink.greeted().into_iter().skip(skipped).take(count) {
        *counts.entry(source).or_insert(0) += 1;
    }
    counts
}

pub fn address(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

/// What `ringpost explain` says of the rules of a server, asked through it.
pub fn explain(server: &Server, to: &str) -> String {
    let conf = server.dir().join("ringpost.conf").display().to_string();
    server.tell(&["explain", "--config", &conf, "--sender", "gilles@source.example", "--rcpt", to])
}

#[test]
fn s43_a_hundred_connections_are_shared_by_the_addresses_of_a_table() {
    let sink = one_each();
    let rules = format!(
        "table myaddrs file:@DIR@/myaddrs\naction \"out\" relay host \"smtp://{}\" src <myaddrs>\n\
         match for any action \"out\"\n",
        sink.address
    );
    let setup = Setup::new(rules);
    let list = setup.dir().join("myaddrs");
    fs::write(&list, "127.0.0.2\n127.0.0.3\n").expect("written");
    let server = setup.start();
    send(&server, 100);
    sink.wait_for(100, SOON);
    let counts = by_source(&sink, 0, 100);
    assert_eq!(counts.len(), 2, "{counts:?}");
    assert!(counts.values().all(|count| (49..=51).contains(count)), "{counts:?}");

    // A third one by `table update`: the next messages know it.
    fs::write(&list, "127.0.0.2\n127.0.0.3\n127.0.0.4\n").expect("written");
    server.tell(&["table", "update", "myaddrs"]);
    let before = sink.greeted().len();
    send(&server, 30);
    sink.wait_for(130, SOON);
    let counts = by_source(&sink, before, 30);
    assert!((9..=11).contains(counts.get(&address(4)).unwrap_or(&0)), "{counts:?}");
    assert!(explain(&server, "b@sink.example").contains("from 127.0.0.2, 127.0.0.3, 127.0.0.4 in turn"));

    // And a fourth one because its file is watched.
    fs::write(&list, "127.0.0.2\n127.0.0.3\n127.0.0.4\n127.0.0.5\n").expect("written");
    wait_until("the fourth joins in", SOON, || {
        send(&server, 4);
        sink.greeted().iter().any(|(source, _)| *source == address(5))
    });
}

#[test]
fn s43_s44_addresses_and_their_names_out_of_a_database() {
    let sink = one_each();
    let rules = format!(
        "table t sqlite:@DIR@/sqlite.conf stale 0s\n\
         action \"out\" relay host \"smtp://{}\" src <t> helo-src <t>\nmatch for any action \"out\"\n",
        sink.address
    );
    let setup = Setup::new(rules);
    let database = setup.dir().join("t.db");
    sqlite(
        &database,
        "create table sources (ip); insert into sources values ('127.0.0.2'), ('127.0.0.3');\
         create table names (ip, name); insert into names values ('127.0.0.2', 'm2.source.example');",
    );
    let conf = format!(
        "dbpath {}\nquery_source select ip from sources;\nquery_addrname select name from names where ip=?;\n",
        database.display()
    );
    fs::write(setup.dir().join("sqlite.conf"), conf).expect("written");
    let server = setup.start();
    send(&server, 20);
    sink.wait_for(20, SOON);
    let counts = by_source(&sink, 0, 20);
    assert!(counts.len() == 2 && counts.values().all(|count| (9..=11).contains(count)), "{counts:?}");
    let own = sink.greeted().into_iter().find(|(source, _)| *source == address(3)).expect("one").1;
    for (source, name) in sink.greeted() {
        let expected = if source == address(2) { "m2.source.example" } else { &own };
        assert_eq!(name, expected, "from {source}");
    }
    assert_ne!(own, "m2.source.example", "who has no name says the server's");
    let said = explain(&server, "b@sink.example");
    assert!(said.contains("from 127.0.0.2, 127.0.0.3 in turn"), "{said}");
    assert!(said.contains("as m2.source.example from 127.0.0.2"), "{said}");

    // What the database cannot say now is no reason to send from elsewhere: mail waits.
    sqlite(&database, "alter table sources rename to away;");
    server.tell(&["table", "update", "t"]);
    send(&server, 1);
    let waiting = wait_for("it waits", SOON, || {
        server.queue().into_iter().find(|one| one.state == "deferred" && !one.reason.is_empty())
    });
    assert!(waiting.reason.starts_with("451 4.3.0 table <t> cannot be asked"), "{}", waiting.reason);
    sqlite(&database, "alter table away rename to sources; insert into sources values ('127.0.0.4');");
    server.tell(&["table", "update", "t"]);
    server.retry();
    sink.wait_for(21, SOON);
}

#[test]
fn names_of_addresses_that_the_system_chooses() {
    let sink = Sink::open();
    let rules = format!(
        "action \"out\" relay host \"smtp://{}\" helo-src {{ 127.0.0.1 => mx1.source.example }}\n\
         match for any action \"out\"\n",
        sink.address
    );
    let server = Setup::new(rules).start();
    send(&server, 1);
    sink.wait_for(1, SOON);
    assert_eq!(sink.greeted(), [(address(1), "mx1.source.example".to_owned())]);
}

#[test]
fn an_address_that_this_machine_does_not_have_is_left_out() {
    let sink = one_each();
    let rules = format!(
        "action \"out\" relay host \"smtp://{}\" src {{ 192.0.2.77, 127.0.0.2 }}\nmatch for any action \"out\"\n",
        sink.address
    );
    let server = Setup::new(rules).start();
    send(&server, 10);
    sink.wait_for(10, SOON);
    assert_eq!(by_source(&sink, 0, 100).into_keys().collect::<Vec<_>>(), [address(2)]);
    wait_until("an administrator is told", SOON, || {
        server.printed().contains("source address 192.0.2.77 cannot be used")
    });
}

#[test]
fn relay_hosts_by_domain_and_others_by_their_exchangers() {
    let (setup, port) = Setup::new(
        "table routes file:@DIR@/routes\naction \"out\" relay domain <routes> mail-from \"@out.example\"\n\
         match for any action \"out\"\n",
    )
    .zone("other.example MX 10 mx.other.example\nmx.other.example A 127.0.0.3\nhub.example A 127.0.0.2\n");
    fs::write(setup.dir().join("routes"), "a.example smtp://hub.example\n*.b.example hub.example\n").expect("written");
    let hub = Sink::open_at(SocketAddr::from(([127, 0, 0, 2], port)));
    let exchanger = Sink::open_at(SocketAddr::from(([127, 0, 0, 3], port)));
    let server = setup.start();
    let mut client = server.client();
    let text = format!("{MARK}m\r\n\r\nhello\r\n");
    let to = ["u@a.example", "u@x.b.example", "u@other.example"];
    assert_eq!(client.submit("gilles@source.example", &to, text.as_bytes()).code, 250);
    let at_hub = hub.wait_for(1, SOON).remove(0);
    assert_eq!((at_hub.from.as_str(), &at_hub.to[..]), ("gilles@out.example", &to.map(str::to_owned)[..2]));
    let elsewhere = exchanger.wait_for(1, SOON).remove(0);
    assert_eq!((elsewhere.from.as_str(), &elsewhere.to[..]), ("gilles@out.example", &to.map(str::to_owned)[2..]));
    // `explain` knows nothing of the port offset that the server was started with.
    let hub_port = "relay to hub.example:25";
    assert!(explain(&server, "u@a.example").contains(hub_port), "{}", explain(&server, "u@a.example"));
    assert!(explain(&server, "u@other.example").contains("relay by MX"));
    assert!(explain(&server, "u@other.example").contains("sender <gilles@out.example>"));
    // The null sender stays what it is.
    assert_eq!(client.submit("", &["u@a.example"], text.as_bytes()).code, 250);
    assert_eq!(hub.wait_for(2, SOON)[1].from, "");
}

#[test]
fn relay_hosts_of_a_remote_table_take_turns() {
    let (first, second) = (one_each(), one_each());
    let setup = Setup::new(
        "table t sqlite:@DIR@/sqlite.conf\naction \"out\" relay host <t>\naction \"by\" relay domain <t>\n\
         match for domain sink.example action \"out\"\nmatch for domain d.example action \"by\"\n",
    );
    let database = setup.dir().join("t.db");
    let (one, two) = (first.address, second.address);
    sqlite(&database, &format!("create table hosts (url); insert into hosts values ('smtp://{one}'), ('{two}');"));
    // The same query answers for the whole list and for a domain: here it says the same to both.
    let conf = format!("dbpath {}\nquery_relayhost select url from hosts;\n", database.display());
    fs::write(setup.dir().join("sqlite.conf"), conf).expect("written");
    let server = setup.start();
    send(&server, 20);
    wait_until("all have arrived", SOON, || first.count() + second.count() == 20);
    assert!((9..=11).contains(&first.connections()), "{} and {}", first.connections(), second.connections());
    let text = format!("{MARK}m\r\n\r\nhello\r\n");
    assert_eq!(server.client().submit("a@source.example", &["u@d.example"], text.as_bytes()).code, 250);
    wait_until("another", SOON, || first.count() + second.count() == 21);
    let said = explain(&server, "u@d.example");
    assert!(said.contains(&format!("relay to {one}, {two}")), "{said}");
    let conf = server.dir().join("ringpost.conf").display().to_string();
    let alone = cli::succeed(&["explain", "--config", &conf, "--state", "/nowhere", "--rcpt", "u@d.example"]);
    assert!(alone.contains("relay: unknown: table <t> cannot be asked: no server"), "{alone}");
}

/// A helper that gives one of two addresses at a time, as smtpd-tables(7) has it.
const HELPER: &str = r#"#!/bin/sh
turn=0
while IFS='|' read -r kind version time name operation service id key; do
    case "$kind|$version|$operation" in
    config\|ready\|) printf 'register|source\nregister|ready\n' ;;
    table\|0.1\|fetch) turn=$((1 - turn)); echo "fetch-result|$id|found|127.0.0.$((2 + turn))" ;;
    esac
done
"#;

#[test]
fn s43_a_helper_gives_the_next_address_itself() {
    let sink = one_each();
    let setup = Setup::new(format!(
        "table next proc:@DIR@/next pool 1\naction \"out\" relay host \"smtp://{}\" src <next>\n\
         match for any action \"out\"\n",
        sink.address
    ));
    let program = setup.dir().join("next");
    fs::write(&program, HELPER).expect("written");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("ours");
    let server = setup.start();
    // One after the other, so that none shares the answer to another one's question.
    for number in 0..10 {
        send(&server, 1);
        sink.wait_for(number + 1, SOON);
    }
    let counts = by_source(&sink, 0, 10);
    assert_eq!(counts, [(address(2), 5), (address(3), 5)].into());
}

/// Sends one message and waits for it.
pub fn one(server: &Server, sink: &Sink) {
    let before = sink.count();
    send(server, 1);
    sink.wait_for(before + 1, SOON);
}

#[test]
fn s77_a_relay_leaves_from_the_addresses_that_it_is_told() {
    let (table, list, single) = (one_each(), one_each(), one_each());
    let rules = format!(
        "table myaddrs {{ 127.0.0.2, 127.0.0.3 }}\n\
         accept for domain table.example relay via smtp://{} source <myaddrs>\n\
         action \"list\" relay host \"smtp://{}\" src {{ 127.0.0.4, 127.0.0.5 }}\n\
         action \"single\" relay host \"smtp://{}\" src 127.0.0.6\n\
         match for domain list.example action \"list\"\nmatch for domain single.example action \"single\"\n",
        table.address, list.address, single.address
    );
    let server = Setup::new(rules).start();
    let mut client = server.client();
    let text = format!("{MARK}m\r\n\r\nhello\r\n");
    for _ in 0..6 {
        let to = ["b@table.example", "b@list.example", "b@single.example"];
        assert_eq!(client.submit("gilles@source.example", &to, text.as_bytes()).code, 250);
    }
    for (sink, expected) in
        [(&table, vec![address(2), address(3)]), (&list, vec![address(4), address(5)]), (&single, vec![address(6)])]
    {
        sink.wait_for(6, SOON);
        assert_eq!(by_source(sink, 0, 100).into_keys().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn s78_s81_a_source_that_one_destination_refuses_is_left_out_there_and_nowhere_else() {
    let (strict, other) = (one_each(), one_each());
    let refusal = |greeting: &str| Script {
        one_each: true,
        greeting_to: Some((address(2), greeting.to_owned())),
        ..Script::default()
    };
    let setup = Setup::new(format!(
        "action \"strict\" relay host \"smtp://{}\" src {{ 127.0.0.2, 127.0.0.3 }}\n\
         action \"out\" relay host \"smtp://{}\" src {{ 127.0.0.2, 127.0.0.3 }}\n\
         match for domain sink.example action \"strict\"\nmatch for any action \"out\"\n",
        strict.address, other.address
    ));
    let server = setup.start();
    for greeting in ["554 5.7.1 no mail from there", "421 4.7.0 too much from there"] {
        strict.script(refusal(greeting));
        let before = strict.connections();
        for _ in 0..12 {
            one(&server, &strict);
        }
        let came: Vec<IpAddr> = strict.came().into_iter().skip(before).collect();
        let refused = came.iter().filter(|source| **source == address(2)).count();
        assert_eq!(refused, 3, "three failures in a row are enough: {came:?}");
        // What an administrator asks for is tried at once.
        server.retry();
    }
    let text = format!("{MARK}m\r\n\r\nhello\r\n");
    for _ in 0..10 {
        assert_eq!(server.client().submit("a@source.example", &["b@other.example"], text.as_bytes()).code, 250);
    }
    other.wait_for(10, SOON);
    let counts = by_source(&other, 0, 10);
    assert!((4..=6).contains(counts.get(&address(2)).unwrap_or(&0)), "{counts:?}");
    assert!(server.queue().is_empty(), "nothing was deferred or bounced");
    assert_eq!(server.metric("envelopes_bounced"), 0);
    let lines = || {
        let printed = server.printed();
        printed.lines().filter(|line| line.contains("smtp-out:")).map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("the log has a line for each refusal", SOON, || lines().len() == 6);
    for line in lines() {
        let said = ["src=127.0.0.2", "stage=greeting", "next=\"the same host from another source\""];
        assert!(said.iter().all(|said| line.contains(said)), "{line}");
    }
    wait_until("it is told", SOON, || server.printed().contains("does without source address 127.0.0.2 for 60 s"));
}

#[test]
fn s79_each_source_has_its_own_name_with_and_without_src() {
    let (both, alone) = (one_each(), one_each());
    let setup = Setup::new(format!(
        "table myhelo {{ 127.0.0.2 => mx1.poolp.org, 127.0.0.3 => mx2.poolp.org }}\n\
         table myaddrs {{ 127.0.0.2, 127.0.0.3, 127.0.0.4 }}\n\
         accept for domain sink.example relay via smtp://{} source <myaddrs> helo <myhelo>\n\
         action \"alone\" relay host \"smtp://{}\" helo-src {{ 127.0.0.1 => mx0.poolp.org }}\n\
         match for any action \"alone\"\n",
        both.address, alone.address
    ));
    std::fs::write(setup.dir().join("mailname"), "machine.example\n").expect("written");
    let server = setup.start();
    send(&server, 12);
    both.wait_for(12, SOON);
    let greeted = both.greeted();
    assert_eq!(greeted.len(), 12);
    for (source, name) in greeted {
        let expected = ["mx1.poolp.org", "mx2.poolp.org", "machine.example"]
            .into_iter()
            .zip(2..)
            .find_map(|(name, last)| (source == address(last)).then_some(name));
        assert_eq!(Some(name.as_str()), expected, "from {source}");
    }
    wait_until("it is told that one has no name", SOON, || {
        server.printed().contains("`helo-src` has no name for 127.0.0.4, which says the server's, machine.example")
    });
    let text = format!("{MARK}m\r\n\r\nhello\r\n");
    assert_eq!(server.client().submit("a@source.example", &["b@other.example"], text.as_bytes()).code, 250);
    alone.wait_for(1, SOON);
    assert_eq!(alone.greeted(), [(address(1), "mx0.poolp.org".to_owned())]);
}
