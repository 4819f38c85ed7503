//! `ringpost limit`: limits of sites, changed while the server runs.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::support::cli::run;
use crate::support::mail::submit;
use crate::support::sink::Step;
use crate::support::wait::wait_for;
use crate::support::{Script, Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// A server whose mail for x.example goes to a sink that says nothing more at MAIL: as many are there as connections carry mail.
fn stalled(last: u8) -> (Sink, Server) {
    let (setup, port) = Setup::new(
        "shaping default { connections 8, idle 1s }\nshaping own relay { connections 8 }\n\
         action \"mx\" relay shaping \"own\"\nmatch for any action \"mx\"\n",
    )
    .zone(&format!("x.example MX 10 mx.x.example\nmx.x.example A 127.3.41.{last}\n"));
    let sink = Sink::open_at(SocketAddr::from(([127, 3, 41, last], port)));
    sink.script(Script { stall_at: Some(Step::Mail), ..Script::default() });
    (sink, setup.start())
}

fn rows(server: &Server, args: &[&str]) -> Vec<Value> {
    let text = server.tell(&[args, &["--json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn send(server: &Server, count: usize) {
    (0..count).for_each(|number| submit(server, &["b@x.example"], &format!("m{number}")));
}

#[test]
fn s88_a_limit_that_is_set_counts_at_once_is_listed_and_ends_when_it_is_unset() {
    let (sink, server) = stalled(1);
    assert_eq!(rows(&server, &["limit", "list"]), Vec::<Value>::new());
    let said = server.tell(&["limit", "set", "domain:X.example", "connections=1", "rate=1000/s"]);
    assert_eq!(said, "in force for domain:x.example: connections=1 rate=1000/s\n");
    send(&server, 12);
    let relay = wait_for("one connection carries mail, the others wait", SOON, || {
        rows(&server, &["show", "relays"]).into_iter().find(|row| row["in_flight"] == 1 && row["waiting"] == 11)
    });
    let shapes = "domain:x.example,own".into();
    assert_eq!((&relay["shaping"], &relay["connections_max"]), (&shapes, &1.into()), "{relay}");
    assert_eq!(relay["rate"]["count"], 1000, "{relay}");
    assert_eq!(sink.connections(), 1, "there was never another");
    let all = rows(&server, &["limit", "list", "--all"]);
    assert_eq!((&all[0]["of"], &all[0]["limits"][0]), (&"domain:x.example".into(), &"connections=1".into()), "{all:?}");
    let user = rustix::process::geteuid().as_raw();
    assert_eq!((&all[0]["by"]["user"], all[0].get("until_ms")), (&user.into(), None), "{all:?}");
    assert!(all[0]["since_ms"].as_u64().is_some_and(|since| since > 1_700_000_000_000), "{all:?}");
    assert_eq!((all.len(), &all[1]["of"]), (3, &"shaping default".into()), "{all:?}");
    assert!(all[1]["by"]["line"].as_str().is_some_and(|line| line.contains(".conf:")), "{all:?}");

    // What waits does not wait for the old limit.
    server.tell(&["limit", "set", "domain:x.example", "connections=3"]);
    wait_until("two more carry mail", SOON, || sink.attempts() == 3);
    wait_until("the rest waits again", SOON, || {
        rows(&server, &["show", "relays"]).iter().any(|row| row["in_flight"] == 3 && row["waiting"] == 9)
    });
    assert_eq!(rows(&server, &["limit", "list"]).len(), 1, "it has taken the place of the first");
    assert_eq!(sink.connections(), 3);
    assert_eq!(
        server.tell(&["limit", "unset", "domain:x.example"]),
        "domain:x.example has the configuration's limits again\n"
    );
    wait_until("eight connections of the action's shape carry mail", SOON, || sink.attempts() == 11);
    assert_eq!(rows(&server, &["limit", "list"]), Vec::<Value>::new());
}

#[test]
fn s88_a_limit_stays_across_a_reload_and_ends_when_its_time_is_over() {
    let (sink, server) = stalled(2);
    server.tell(&["limit", "set", "mx:*.x.example", "connections=2"]);
    server.tell(&["reload"]);
    send(&server, 6);
    wait_until("two connections carry mail, the others wait", SOON, || {
        rows(&server, &["show", "relays"]).iter().any(|row| row["in_flight"] == 2 && row["waiting"] == 4)
    });
    assert_eq!(sink.connections(), 2);
    server.tell(&["limit", "set", "default", "burst=9", "--for", "1h"]);
    let text = server.tell(&["limit", "list"]);
    assert!(text.contains("in 60.0 min") || text.contains("in 59."), "{text}");
    assert!(text.contains("burst=9") && text.contains("connections=2"), "{text}");
    server.tell(&["limit", "set", "mx:*.x.example", "connections=2", "--for", "1s"]);
    wait_until("it has had its time", SOON, || rows(&server, &["limit", "list"]).len() == 1);
    wait_until("all are under way", SOON, || sink.attempts() == 6);
    wait_until("the log says so", SOON, || server.printed().contains("limit mx:*.x.example has had its time"));
}

#[test]
fn s88_a_limit_stays_across_restarts_and_its_time_goes_on_meanwhile() {
    let (sink, mut server) = stalled(3);
    server.tell(&["limit", "set", "mx:*.x.example", "connections=2"]);
    server.tell(&["limit", "set", "default", "burst=9", "--for", "1h"]);
    let before = rows(&server, &["limit", "list"]);
    server.stop();
    server.start();
    assert_eq!(rows(&server, &["limit", "list"]), before);
    send(&server, 6);
    let is_limited =
        || rows(&server, &["show", "relays"]).iter().any(|row| row["in_flight"] == 2 && row["waiting"] == 4);
    wait_until("two connections carry mail, the others wait", SOON, is_limited);
    assert_eq!(sink.connections(), 2, "from the beginning");
    server.kill9();
    let path = server.state.join("limits.json");
    let text = fs::read_to_string(&path).expect("it is kept");
    let until = before.iter().find_map(|row| row["until_ms"].as_u64()).expect("one ends");
    fs::write(&path, text.replace(&until.to_string(), "1000")).expect("written");
    server.start();
    let left = rows(&server, &["limit", "list"]);
    assert_eq!((left.len(), &left[0]["of"]), (1, &"mx:*.x.example".into()), "{left:?}");
    server.tell(&["limit", "unset", "mx:*.x.example"]);
    server.stop();
    server.start();
    assert_eq!(rows(&server, &["limit", "list"]), Vec::<Value>::new());

    server.stop();
    fs::write(&path, "{\"version\":1,\"limits\":").expect("written");
    server.start();
    assert_eq!(rows(&server, &["limit", "list"]), Vec::<Value>::new());
    wait_until("it is told", SOON, || server.printed().contains("limits.json cannot be read"));
}

#[test]
fn what_cannot_be_set_is_an_error_that_says_what_can() {
    let server = Setup::discard().start();
    let state = server.state.display().to_string();
    let fails = |args: &[&str]| {
        let output = run(&[&["limit"], args, &["--state", &state]].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = fails(&["set", "domain:x.example", "rates=5/s"]);
    assert_eq!(code, Some(64), "EX_USAGE: {text}");
    assert!(text.contains("there is no limit `rates`; there are connections, "), "{text}");
    let (code, text) = fails(&["set", "domain:x.example", "rate=5"]);
    assert_eq!(code, Some(64), "EX_USAGE: {text}");
    assert!(text.contains("`rate` needs a rate: `100/s`"), "{text}");
    let (code, text) = fails(&["set", "x.example", "rate=5/s"]);
    assert!(code == Some(64) && text.contains("it is `domain:example.org`"), "{text}");
    let (code, text) = fails(&["unset", "domain:x.example"]);
    assert!(code == Some(1) && text.contains("nothing is set for domain:x.example"), "{text}");
    assert_eq!(rows(&server, &["limit", "list"]), Vec::<Value>::new());
}
