//! `warmup`: what a source address that is new may send today, also after a restart, and what the rest does.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::sources::{address, by_source, one, one_each, send};
use crate::support::{Server, Setup, Sink, wait_until};
use crate::why::{kinds, why};

const SOON: Duration = Duration::from_secs(60);
const DAY_MS: u64 = 86_400_000;

/// A day that ends in the middle of a test is two.
fn not_about_midnight() {
    wait_until("it is not about midnight", Duration::from_secs(400), || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
        now.as_secs() % 86_400 < 86_400 - 300
    });
}

fn rules(sink: &Sink, pool: &str) -> String {
    format!(
        "warmup slow {{ 3/d, 5/d }}\npool p {pool}\naction \"out\" relay host \"smtp://{}\" src pool p\n\
         match for any action \"out\"\n",
        sink.address
    )
}

/// So many wait for their warm-up, and nothing else.
fn wait_for_waiting(server: &Server, count: usize) {
    wait_until(&format!("{count} wait for the warm-up"), SOON, || {
        let all = why(&server.state, "all");
        all.len() == count && all.iter().all(|one| kinds(one).last() == Some(&"warm-up"))
    });
}

/// Another day than the one of which the file is.
fn turn_the_day(server: &Server) {
    let path = server.state.join("warmup.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).expect("it is kept")).expect("JSON");
    for kept in file["addresses"].as_array_mut().expect("a list") {
        for day in ["began", "used"] {
            kept[day] = json!(kept[day].as_u64().expect("a day") - 1);
        }
        for (_, counts) in kept["sites"].as_object_mut().expect("an object") {
            counts[0] = json!(counts[0].as_u64().expect("a time") - DAY_MS);
        }
    }
    fs::write(path, file.to_string()).expect("written");
}

#[test]
fn s78_what_a_new_address_has_sent_counts_after_restarts_and_the_next_day_allows_more() {
    not_about_midnight();
    let sink = Sink::open();
    let mut server = Setup::new(rules(&sink, "{ 127.0.0.2 warmup slow }")).start();
    send(&server, 5);
    sink.wait_for(3, SOON);
    wait_for_waiting(&server, 2);
    let text = server.tell(&["why", "all"]);
    let says = format!("the warm-up of 127.0.0.2: 3 of 3 sent to {} today, next at 00:00 UTC", sink.address);
    assert!(text.contains(&says), "{text}");
    let text = server.tell(&["show", "warmup"]);
    assert!(text.contains("slow day 1 of 2") && text.contains("3 of 3/d"), "{text}");
    let routes = server.tell(&["show", "routes"]);
    assert!(routes.contains("warming up, all of 3/d sent"), "{routes}");

    server.stop();
    server.start();
    send(&server, 1);
    wait_for_waiting(&server, 3);
    server.kill9();
    server.start();
    wait_for_waiting(&server, 3);
    assert_eq!(sink.count(), 3);

    server.stop();
    turn_the_day(&server);
    server.start();
    sink.wait_for(6, SOON);
    send(&server, 3);
    sink.wait_for(8, SOON);
    wait_for_waiting(&server, 1);
    server.stop();
    turn_the_day(&server);
    server.start();
    send(&server, 9);
    sink.wait_for(18, SOON);
    let text = server.tell(&["show", "warmup"]);
    assert!(text.contains("slow done"), "{text}");
}

#[test]
fn s78_what_a_new_address_may_not_send_leaves_from_another_of_its_pool() {
    not_about_midnight();
    let sink = one_each();
    let server = Setup::new(rules(&sink, "{ 127.0.0.2 warmup slow, 127.0.0.3 }")).start();
    let count = |last: u8| by_source(&sink, 0, usize::MAX).get(&address(last)).copied().unwrap_or_default();
    wait_until("the new address has sent what it may", SOON, || {
        one(&server, &sink);
        count(2) == 3
    });
    let before = count(3);
    send(&server, 8);
    wait_until("the others leave from the other address", SOON, || count(3) == before + 8);
    assert_eq!(count(2), 3);
    assert!(server.queue().is_empty(), "nothing waits");
}

#[test]
fn s78_a_ledger_that_cannot_be_read_is_told_and_set_aside() {
    not_about_midnight();
    let sink = Sink::open();
    let mut server = Setup::new(rules(&sink, "{ 127.0.0.2 warmup slow }")).prepare();
    fs::create_dir_all(&server.state).expect("made");
    fs::write(server.state.join("warmup.json"), "no ledger").expect("written");
    server.start();
    send(&server, 4);
    sink.wait_for(3, SOON);
    wait_for_waiting(&server, 1);
    wait_until("it is told", SOON, || {
        let printed = server.printed();
        printed.contains("warmup.json cannot be read") && printed.contains("begin with their first day again")
    });
    assert_eq!(fs::read_to_string(server.state.join("warmup.json.bad")).expect("set aside"), "no ledger");
}

#[test]
fn s78_mail_that_waits_for_a_warm_up_leaves_when_a_reload_ends_that() {
    not_about_midnight();
    let sink = Sink::open();
    let server = Setup::new(rules(&sink, "{ 127.0.0.2 warmup slow }")).start();
    send(&server, 5);
    sink.wait_for(3, SOON);
    wait_for_waiting(&server, 2);
    // What the shapes say is the same: it waits on.
    let path = server.dir().join("ringpost.conf");
    let text = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, format!("# moved\n{text}")).expect("written");
    server.tell(&["reload"]);
    wait_for_waiting(&server, 2);
    fs::write(&path, text.replace("127.0.0.2 warmup slow", "127.0.0.2")).expect("written");
    server.tell(&["reload"]);
    sink.wait_for(5, SOON);
    wait_until("nothing waits", SOON, || server.queue().is_empty());
}
