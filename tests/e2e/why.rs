//! `ringpost why`: what a message waits for, since when, until when, and what ends it (promise 6; limits of row S125).

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::cli::run;
use crate::support::text::MARK;
use crate::support::wait::wait_for;
use crate::support::{Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// `why SELECTOR --json`: an object for each envelope; none, if it says that there is none.
pub fn why(state: &Path, selector: &str) -> Vec<Value> {
    let output = run(&["why", selector, "--json", "--state", &state.display().to_string()]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

pub fn kinds(why: &Value) -> Vec<&str> {
    why["waits_for"].as_array().expect("a list").iter().map(|one| one["kind"].as_str().expect("a kind")).collect()
}

fn submit(server: &Server, number: usize) {
    let text = format!("{MARK}{number}\r\n\r\nhello\r\n");
    let to = format!("to{number}@sink.example");
    assert_eq!(server.client().submit("a@source.example", &[&to], text.as_bytes()).code, 250);
}

#[test]
fn s126_why_names_the_retry_its_time_its_cause_and_what_ends_it() {
    let sink = Sink::closed();
    let mut server = Setup::relay_to(sink.address).start();
    submit(&server, 1);
    let found = wait_for("it is deferred, and the reply is durable", SOON, || {
        why(&server.state, "all").into_iter().find(|one| kinds(one) == ["retry"] && one["reason"] != "")
    });
    let id = found["id"].as_str().expect("an id").to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("a number: {found}"));
    let (received, until) = (number(&found["received_ms"]), number(&found["waits_for"][0]["until_ms"]));
    assert!((received + 54_000..received + 120_000).contains(&until), "a minute after the first attempt: {found}");
    assert_eq!(number(&found["expires_ms"]) - received, 4 * 24 * 3600 * 1000, "{found}");
    for selector in [&*id, "sink.example", "@SINK.example", "to1@sink.example", "from=a@source.example"] {
        assert_eq!(why(&server.state, selector).len(), 1, "{selector}");
    }
    let text = server.tell(&["why", &id]);
    for part in ["waits for: the next attempt", "last reply: 451 4.4.1", "failed attempts: 1", "ringpost queue retry"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    server.stop();
    let offline = why(&server.state, &id);
    assert_eq!(kinds(&offline[0]), ["retry", "stopped"], "{offline:?}");
    for (selector, says) in
        [("00000000000000ff", "no message 00000000000000ff in the queue"), ("x.example", "x.example")]
    {
        let output = run(&["why", selector, "--state", &server.state.display().to_string()]);
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains(says), "{stderr}");
    }
}

/// A server that greets, takes leave of nobody, and never answers MAIL.
fn silent_after_hello() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming().flatten() {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            // A client that is gone needs no answer.
            let _ = stream.get_mut().write_all(b"220 silent.example\r\n");
            let _ = stream.read_line(&mut line);
            let _ = stream.get_mut().write_all(b"250 silent.example\r\n");
            kept.push(stream);
        }
    });
    address
}

#[test]
fn s125_max_inflight_holds_the_rest_back_and_why_tells_who_is_where() {
    let address = silent_after_hello();
    let (ip, port) = (address.ip(), address.port());
    let server = Setup::new(format!(
        "scheduler limit max-inflight 2\naction out relay host \"smtp+notls://{ip}:{port}\"\nmatch from any for any action out\n"
    ))
    .start();
    (0..8).for_each(|number| submit(&server, number));
    wait_until("all but those that may be on their way wait for room", SOON, || {
        let all = why(&server.state, "all");
        let count = |kind: &str| all.iter().filter(|one| kinds(one) == [kind]).count();
        let (sending, room) = (count("sending"), count("room"));
        all.len() == 8 && (1..=2).contains(&sending) && sending + room == 8
    });
    let text = server.tell(&["why", "all"]);
    assert!(
        text.contains("which it is being sent to") && text.contains("messages of its shard are on their way"),
        "{text}"
    );
}

#[test]
fn s125_the_null_scheduler_tries_nothing_and_why_says_so() {
    let sink = Sink::open();
    let relay = format!("action out relay host \"smtp+notls://{}:{}\"\n", sink.address.ip(), sink.address.port());
    let server = Setup::new(format!("scheduler backend null\n{relay}match from any for any action out\n")).start();
    submit(&server, 1);
    let found = wait_for("it is listed", SOON, || why(&server.state, "all").pop());
    assert_eq!(kinds(&found), ["null"]);
    assert!(found["release"].as_str().is_some_and(|said| said.contains("ringpost reload")), "{found}");
    let conf = std::fs::read_to_string(server.dir().join("ringpost.conf")).expect("its configuration");
    server.configure(&conf.replace("scheduler backend null\n", ""));
    server.tell(&["reload"]);
    assert_eq!(sink.wait_for(1, SOON).len(), 1);
    wait_until("the queue is empty", SOON, || why(&server.state, "all").is_empty());
    assert_eq!(sink.count(), 1);
}

#[test]
fn a_held_message_is_sent_when_it_is_released_and_why_says_when() {
    let sink = Sink::open();
    let mut server = Setup::relay_to(sink.address).start();
    let began = std::time::Instant::now();
    let mut client = server.client();
    client.say("EHLO here.example");
    for (hold, number) in [(3600, 1), (3, 2)] {
        client.say(&format!("MAIL FROM:<a@source.example> HOLDFOR={hold}"));
        client.say(&format!("RCPT TO:<to{number}@sink.example>"));
        client.say("DATA");
        client.send(format!("{MARK}{number}\r\n\r\nhello\r\n.\r\n").as_bytes());
        client.expect("250 ");
    }
    assert_eq!(sink.wait_for(1, SOON).len(), 1);
    assert!(began.elapsed() >= Duration::from_secs(3), "not before its time");
    let found =
        wait_for("the other one is left", SOON, || Some(why(&server.state, "all")).filter(|all| all.len() == 1));
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("a number: {found:?}"));
    let (received, until) = (number(&found[0]["received_ms"]), number(&found[0]["waits_for"][0]["until_ms"]));
    assert_eq!((kinds(&found[0]), until - received), (vec!["release"], 3_600_000));
    assert_eq!(number(&found[0]["expires_ms"]) - until, 4 * 24 * 3600 * 1000, "its time begins then: {found:?}");
    assert!(server.tell(&["why", "to1@sink.example"]).contains("its sender wants it held"));
    server.stop();
    assert_eq!(kinds(&why(&server.state, "all")[0]), ["release", "stopped"]);
    assert_eq!(sink.count(), 1);
}
