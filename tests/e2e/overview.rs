//! `ringpost show hosts|relays|routes`: where mail goes, as the running server knows it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::support::cli::run;
use crate::support::mail::submit;
use crate::support::sink::Step;
use crate::support::wait::wait_for;
use crate::support::{Script, Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// `show WHAT --json`: an object for each.
fn show(server: &Server, what: &[&str]) -> Vec<Value> {
    let text = server.tell(&[&["show"], what, &["--json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 3, 20, last], port))
}

#[test]
fn s78_s81_faults_count_against_the_route_of_a_source_and_the_listings_say_so() {
    let sink = Sink::open();
    let bad: IpAddr = [127, 0, 0, 2].into();
    sink.script(Script { one_each: true, greeting_to: Some((bad, "421 4.7.0 not you".into())), ..Script::default() });
    let server = Setup::new(format!(
        "action \"out\" relay host \"smtp+notls://{}\" src {{ 127.0.0.2, 127.0.0.3 }}\nmatch for any action \"out\"\n",
        sink.address
    ))
    .start();
    for number in 0..12 {
        submit(&server, &["b@sink.example"], &format!("m{number}"));
        sink.wait_for(number + 1, SOON);
    }
    let routes = show(&server, &["routes"]);
    assert_eq!(routes.len(), 2, "{routes:?}");
    let of = |source: &str| routes.iter().find(|row| row["source"] == source).expect("a route of each source");
    let (refused, good) = (of("127.0.0.2"), of("127.0.0.3"));
    assert_eq!(refused["left_out"]["why"], "the hosts refuse it, and take another", "{refused}");
    assert!(refused["left_out"]["until_ms"].as_u64().is_some_and(|until| until > 1_700_000_000_000), "{refused}");
    assert!(good.get("left_out").is_none() && good.get("held").is_none(), "the other has no fault: {good}");
    assert_eq!(good["relay"], format!("smtp+notls://127.0.0.1:{}", sink.address.port()));
    let hosts = show(&server, &["hosts"]);
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    assert_eq!((&hosts[0]["state"], &hosts[0]["failures"]), (&"ok".into(), &0.into()), "the host itself is well");
    assert_eq!(show(&server, &["relays"]).len(), 1);
    assert_eq!(show(&server, &["routes", "127.0.0.3"]).len(), 1);
    assert_eq!(show(&server, &["hosts", "nowhere.example"]), Vec::<Value>::new());
    let text = server.tell(&["show", "routes"]);
    assert!(text.starts_with("source") && text.contains("source left out for"), "{text}");
}

#[test]
fn s81_hosts_relays_and_routes_are_listed_with_what_is_wrong_and_what_waits() {
    let (setup, port) = Setup::new(
        "shaping default { connections 2, rate 1000/s }\naction \"mx\" relay\nmatch for any action \"mx\"\n",
    )
    .zone(
        "two.example MX 10 a.two.example\ntwo.example MX 10 b.two.example\ntwo.example MX 20 c.two.example\n\
         a.two.example A 127.3.20.1\nb.two.example A 127.3.20.2\nc.two.example A 127.3.20.3\n",
    );
    let b = Sink::open_at(at(2, port));
    b.script(Script { one_each: true, ..Script::default() });
    let server = setup.start();
    // Each connection begins with one of the equal hosts.
    let mut first = 0;
    wait_until("one has failed", SOON, || {
        submit(&server, &["b@two.example"], &format!("first{first}"));
        first += 1;
        b.wait_for(first, SOON);
        show(&server, &["hosts"]).iter().any(|row| row["state"] == "failing")
    });
    b.script(Script { stall_at: Some(Step::Mail), ..Script::default() });
    for number in 0..20 {
        submit(&server, &["b@two.example"], &format!("m{number}"));
    }
    let relay = wait_for("two connections carry mail, the others wait", SOON, || {
        show(&server, &["relays"]).into_iter().find(|row| row["in_flight"] == 2 && row["waiting"] == 18)
    });
    assert_eq!(relay["relay"], format!("a.two.example:{port},b.two.example:{port}"));
    assert_eq!((&relay["connections"], &relay["connections_max"]), (&2.into(), &2.into()), "{relay}");
    assert_eq!((&relay["rate"]["count"], &relay["rate"]["per_ms"]), (&1000.into(), &1000.into()), "{relay}");
    let hosts = show(&server, &["hosts"]);
    let names: Vec<&str> = hosts.iter().filter_map(|row| row["host"].as_str()).collect();
    assert_eq!(names, ["a.two.example", "b.two.example", "c.two.example"], "what has failed comes first");
    assert!(hosts[0]["state"] == "failing" || hosts[0]["state"] == "paused", "{hosts:?}");
    assert_eq!(hosts[2]["state"], "untried", "{hosts:?}");
    assert!(hosts[0]["fault"].as_str().is_some_and(|fault| fault.contains("refused")), "{}", hosts[0]);
    assert!(hosts[0]["since_ms"].is_u64(), "{}", hosts[0]);
    assert_eq!((&hosts[1]["state"], &hosts[1]["connections"]), (&"ok".into(), &2.into()), "{}", hosts[1]);
    assert_eq!(hosts[1]["address"], at(2, port).to_string());
    let routes = show(&server, &["routes", "TWO.example"]);
    assert_eq!(routes.len(), 1, "{routes:?}");
    assert_eq!((&routes[0]["held"]["kind"], &routes[0]["waiting"]), (&"connections".into(), &18.into()));
    assert!(routes[0].get("source").is_none(), "the system chooses it: {}", routes[0]);

    // With nobody left, the route pauses, and what it waits for is said.
    drop(b);
    wait_until("all hosts have failed", SOON, || {
        server.retry();
        submit(&server, &["b@two.example"], "again");
        let states: Vec<String> = show(&server, &["hosts"]).iter().map(|row| row["state"].to_string()).collect();
        states.len() == 3 && states.iter().all(|state| state == "\"failing\"" || state == "\"paused\"")
    });
    let text = server.tell(&["show", "hosts"]);
    assert!(text.starts_with("host ") && text.contains("Connection refused"), "{text}");
    let held = wait_for("the route rests", SOON, || {
        show(&server, &["routes"]).into_iter().find(|row| row["held"]["kind"] == "pause")
    });
    assert!(held["held"]["until_ms"].is_u64(), "{held}");
}

#[test]
fn s81_only_a_running_server_can_be_asked() {
    let mut server = Setup::discard().start();
    assert!(show(&server, &["routes"]).is_empty());
    server.stop();
    let output = run(&["show", "hosts", "--state", &server.state.display().to_string()]);
    assert_eq!(output.status.code(), Some(69), "EX_UNAVAILABLE");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("no server runs with the state directory"), "{stderr}");
}
