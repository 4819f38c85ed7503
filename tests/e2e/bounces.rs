//! Where bounces go is decided by the rules, as for everybody; and a lookup that fails is no decision. Senders are told that
//! their mail waits.

use std::fs;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use crate::support::database::sqlite;
use crate::support::server::{LISTENERS, SMALL};
use crate::support::text::MARK;
use crate::support::{Client, Script, Setup, Sink, ports, wait_until};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn s49_a_bounce_waits_while_the_table_that_says_where_it_goes_fails() {
    let (sink, senders) = (Sink::open(), Sink::open());
    sink.script(Script { rcpt: vec![("u@".into(), "550 5.1.1 nobody".into())], ..Script::default() });
    let setup = Setup::new(format!(
        "table home sqlite:@DIR@/sqlite.conf cache 1s negative 1s stale 0s\n\
         action \"out\" relay host \"smtp://{}\"\naction \"home\" relay host \"smtp://{}\"\n\
         match from any for domain sink.example action \"out\"\nmatch from any for domain <home> action \"home\"\n",
        sink.address, senders.address
    ));
    let database = setup.dir().join("home.db");
    let sqlite = |sql: &str| sqlite(&database, sql);
    sqlite("create table away (name); insert into away values ('source.example');");
    // A table that is there when the server starts, and is gone when it is asked.
    sqlite("create table home (name);");
    let conf = format!("dbpath {}\nquery_domain select name from home where name=?;\n", database.display());
    fs::write(setup.dir().join("sqlite.conf"), conf).expect("written");
    let server = setup.start();
    sqlite("drop table home;");
    let text = format!("{MARK}x\r\n\r\nhello\r\n");
    let mut client = server.client();
    assert_eq!(client.submit("a@source.example", &["u@sink.example"], text.as_bytes()).code, 250);
    wait_until("it is told that the bounce waits", SOON, || {
        server.printed().contains("where a bounce to <a@source.example> goes is not known yet")
    });
    assert_eq!(server.queue().len(), 1, "the message is still there");
    assert!(!server.printed().contains("no rule takes a bounce"));

    sqlite("alter table away rename to home;");
    server.tell(&["table", "update", "home"]);
    server.retry();
    let bounce = senders.wait_for(1, SOON).remove(0);
    assert_eq!((bounce.from.as_str(), &bounce.to[..]), ("", &["a@source.example".to_owned()][..]));
    wait_until("nothing is left", SOON, || server.queue().is_empty());

    // That no rule takes it is a decision.
    assert_eq!(client.submit("a@other.example", &["u@sink.example"], text.as_bytes()).code, 250);
    wait_until("it is told", SOON, || server.printed().contains("no rule takes a bounce to <a@other.example>"));
    wait_until("nothing is left", SOON, || server.queue().is_empty());
    assert_eq!(senders.count(), 1);
}

#[test]
fn s100_a_sender_is_told_at_each_interval_once_whatever_is_restarted_and_reloaded() {
    let (sink, senders) = (Sink::open(), Sink::open());
    sink.script(Script { rcpt: vec![("u@".into(), "451 4.3.0 not now".into())], ..Script::default() });
    let config = |intervals: &str| {
        format!(
            "{SMALL}{LISTENERS}bounce warn-interval {intervals}\n\
             action \"out\" relay host \"smtp://{}\"\naction \"home\" relay host \"smtp://{}\"\n\
             match from any for domain sink.example action \"out\"\n\
             match from any for domain source.example action \"home\"\n",
            sink.address, senders.address
        )
    };
    let mut server = Setup::whole(config("5s, 1h")).start();
    let text = format!("{MARK}x\r\n\r\nhello\r\n");
    assert_eq!(server.client().submit("a@source.example", &["u@sink.example"], text.as_bytes()).code, 250);
    let notice = |count: usize| {
        let notice = senders.wait_for(count, SOON).remove(count - 1);
        assert_eq!((notice.from.as_str(), &notice.to[..]), ("", &["a@source.example".to_owned()][..]));
        let text = String::from_utf8(notice.text.expect("it is small")).expect("ASCII");
        for line in ["Action: delayed", "Status: 4.3.0", "Diagnostic-Code: smtp; 451 4.3.0 not now"] {
            assert!(text.lines().any(|one| one == line), "no {line:?} in {text}");
        }
    };
    notice(1);
    wait_until("only the message waits", SOON, || server.queue().len() == 1);
    server.stop();
    server.start();
    // It is looked for at once and once a second.
    sleep(Duration::from_secs(3));
    assert_eq!((server.metric("delay_notices"), senders.count()), (0, 1), "this one was told of before");

    server.configure(&config("5s, 8s"));
    server.tell(&["reload"]);
    notice(2);
    wait_until("it is counted", SOON, || server.metric("delay_notices") == 1);
    sink.script(Script::default());
    server.retry();
    assert_eq!(sink.wait_for(1, SOON)[0].to, ["u@sink.example"]);
    wait_until("nothing is left", SOON, || server.queue().is_empty());
    assert_eq!(senders.count(), 2);
}

/// A client that comes by a proxy: without one, all of them are of this host.
fn stranger(port: u16, source: [u8; 4]) -> Client {
    let mut client = Client::connect((Ipv4Addr::LOCALHOST, port).into());
    client.send(format!("PROXY TCP4 {} 192.0.2.99 12345 25\r\n", Ipv4Addr::from(source)).as_bytes());
    client.expect("220");
    assert_eq!(client.say("EHLO client.example").code, 250);
    client
}

#[test]
fn s101_strangers_have_reports_sent_to_others_within_limits() {
    let (sink, senders) = (Sink::open(), Sink::open());
    sink.script(Script { rcpt: vec![("u".into(), "550 5.1.1 nobody".into())], ..Script::default() });
    let port = ports::free();
    let config = format!(
        "{SMALL}{LISTENERS}listen on 127.0.0.1 port {port} proxy-v2\n\
         bounce limit per-sender 2/h per-domain 3/h\nbounce limit total 5/h\n\
         action \"in\" relay host \"smtp+notls://{}\"\naction \"out\" relay host \"smtp+notls://{}\"\n\
         match from src 198.51.100.7 for domain \"in.example\" action \"in\"\n\
         match from any for domain \"in.example\" action \"in\"\nmatch from any for any action \"out\"\n",
        sink.address, senders.address
    );
    let server = Setup::whole(config).start();
    let submit = |client: &mut Client, from: &str, count: usize| {
        for number in 0..count {
            let text = b"Subject: x\r\n\r\nhello\r\n";
            assert_eq!(client.submit(from, &[&format!("u{number}@in.example")], text).code, 250);
        }
        // What is withheld is given up like the rest.
        wait_until("nothing is left", SOON, || server.queue().is_empty());
    };
    let withheld = |count: u64, line: &str| {
        wait_until("it is counted", SOON, || server.metric("bounces_withheld") == count);
        wait_until("it is told", SOON, || server.printed().matches(" withheld limit=").count() as u64 == count);
        wait_until(line, SOON, || server.printed().contains(line));
    };
    let mut client = stranger(port, [198, 51, 100, 1]);
    submit(&mut client, "a@one.example", 4);
    withheld(2, "to=<a@one.example> withheld limit=per-sender rate=2/h rcpt=<u");
    submit(&mut client, "b@one.example", 2);
    withheld(3, "to=<b@one.example> withheld limit=per-domain rate=3/h rcpt=<u");
    submit(&mut client, "", 3);
    submit(&mut client, "a@two.example", 1);
    submit(&mut client, "a@three.example", 1);
    assert_eq!(senders.wait_for(5, SOON).len(), 5);
    submit(&mut client, "a@four.example", 1);
    withheld(4, "to=<a@four.example> withheld limit=total rate=5/h ");
    // Those who are known are told of all: by a rule, and by coming from here.
    submit(&mut stranger(port, [198, 51, 100, 7]), "a@one.example", 4);
    submit(&mut server.client(), "a@one.example", 4);
    assert_eq!(senders.wait_for(13, SOON).len(), 13);
    assert_eq!((server.metric("bounces_withheld"), server.metric("bounces_dropped")), (4, 3));
}
