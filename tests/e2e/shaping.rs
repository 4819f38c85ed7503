//! `shaping`: what sites see of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::mail::{submit, wait_for_all};
use crate::support::sink::Step;
use crate::support::{Script, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// Everything to the sink, by a domain of each kind; `shapings` above.
fn rules(sink: &Sink, shapings: &str) -> String {
    format!(
        "{shapings}action \"out\" relay host \"smtp+notls://{0}\"\n\
         action \"named\" relay host \"smtp+notls://{0}\" shaping \"slow\"\n\
         match for domain \"named.example\" action \"named\"\nmatch for any action \"out\"\n",
        sink.address
    )
}

#[test]
fn s88_connections_are_opened_as_mail_asks_up_to_the_limit_and_end_when_there_is_none() {
    let sink = Sink::open();
    sink.script(Script { stall_at: Some(Step::Mail), ..Script::default() });
    let shapings = "shaping default { connections 3, idle 1s }\nshaping slow relay { connections 2 }\n";
    let server = Setup::new(rules(&sink, shapings)).start();
    for number in 0..12 {
        submit(&server, &["b@sink.example"], &format!("m{number}"));
        submit(&server, &["b@named.example"], &format!("n{number}"));
    }
    wait_until("five connections carry mail", SOON, || sink.attempts() == 5);
    assert_eq!(sink.connections(), 5, "three of one route and two of the other, and no more");
    // They break, and all goes on; then nobody keeps a connection that carries nothing.
    sink.script(Script::default());
    let mut sink = sink;
    sink.close();
    sink.reopen();
    server.retry();
    wait_until("all has arrived", SOON, || {
        server.retry();
        sink.count() == 24
    });
    wait_for_all(&server);
    wait_until("idle connections are closed", SOON, || sink.open_connections() == 0);
}

#[test]
fn a_connection_carries_so_many_messages_and_the_pattern_that_fits_best_decides() {
    let sink = Sink::open();
    let shapings = "shaping default { connections 1 }\nshaping wide domain \"*.example\" { messages-per-connection 4 }\n\
                    shaping narrow domain \"one.example\" { messages-per-connection 1 }\nshaping slow relay { connections 1 }\n";
    let server = Setup::new(rules(&sink, shapings)).start();
    let sent = |domain: &str| {
        let (connections, count) = (sink.connections(), sink.count());
        for number in 0..8 {
            submit(&server, &[&format!("b@{domain}")], &format!("{domain}-{number}"));
        }
        wait_until(&format!("mail for {domain} has arrived"), SOON, || sink.count() == count + 8);
        sink.connections() - connections
    };
    assert_eq!(sent("one.example"), 8, "one each");
    let four = sent("four.example");
    assert!((2..8).contains(&four), "four each, or fewer where one had gone: {four}");
}

#[test]
fn a_rate_is_kept() {
    let sink = Sink::open();
    let shapings = "shaping default { rate 20/s, burst 1 }\nshaping slow relay { connections 1 }\n";
    let server = Setup::new(rules(&sink, shapings)).start();
    let began = Instant::now();
    for number in 0..60 {
        submit(&server, &["b@sink.example"], &format!("m{number}"));
    }
    wait_until("all has arrived", Duration::from_secs(60), || sink.count() == 60);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(2900), "60 messages at 20 a second take three seconds, not {took:?}");
}

#[test]
fn s88_mail_waits_for_room_at_a_host_also_where_another_host_has_failed() {
    let (setup, port) = Setup::new(
        "shaping default { connections 20, connections-per-host 1 }\naction \"mx\" relay\nmatch for any action \"mx\"\n",
    )
    .zone(
        "x.example MX 10 a.x.example\nx.example MX 10 b.x.example\n\
         a.x.example A 127.3.43.1\nb.x.example A 127.3.43.2\n",
    );
    // Nobody listens at the other.
    let sink = Sink::open_at(SocketAddr::from(([127, 3, 43, 1], port)));
    sink.script(Script { stall_at: Some(Step::Greeting), ..Script::default() });
    let server = setup.start();
    submit(&server, &["b@x.example"], "m0");
    submit(&server, &["b@x.example"], "m1");
    wait_until("the one is being connected to", SOON, || sink.connections() == 1);
    wait_until("the other was tried", SOON, || server.printed().contains("mail waits for room at the others"));
    (2..6).for_each(|number| submit(&server, &["b@x.example"], &format!("m{number}")));
    wait_until("all wait for it", SOON, || {
        let text = server.tell(&["why", "all"]);
        text.contains("one of 1 connections to") && text.contains("of at most 1; 6 wait there")
    });
    assert!(!server.printed().contains("result=TempFail"), "{}", server.printed());
}

#[test]
fn s88_a_host_has_so_many_connections_and_those_of_a_worse_preference_get_none_for_it() {
    let (setup, port) = Setup::new(
        "shaping default { connections 20, connections-per-host 2 }\naction \"mx\" relay\nmatch for any action \"mx\"\n",
    )
    .zone(
        "x.example MX 10 a.x.example\nx.example MX 10 b.x.example\nx.example MX 20 c.x.example\n\
         a.x.example A 127.3.42.1\nb.x.example A 127.3.42.2\nb.x.example A 127.3.42.3\nc.x.example A 127.3.42.4\n",
    );
    let sinks: Vec<Sink> = (1..=4).map(|last| Sink::open_at(SocketAddr::from(([127, 3, 42, last], port)))).collect();
    let stall = |at| sinks.iter().for_each(|sink| sink.script(Script { stall_at: at, ..Script::default() }));
    stall(Some(Step::EndOfData));
    let server = setup.start();
    let counts = || sinks.iter().map(Sink::connections).collect::<Vec<_>>();
    (0..9).for_each(|number| submit(&server, &["b@x.example"], &format!("m{number}")));
    wait_until("each of the best hosts has two", SOON, || {
        let counts = counts();
        counts[0] == 2 && counts[1] + counts[2] == 2
    });
    wait_until("the others wait for them", SOON, || {
        let text = server.tell(&["why", "all"]);
        text.contains("one of 4 connections to") && text.contains("of at most 4; 5 wait there")
    });
    assert_eq!(sinks[3].connections(), 0, "{:?}", counts());
    // More may be set while it runs, and what waits has them at once.
    server.tell(&["limit", "set", "default", "connections-per-host=3"]);
    wait_until("each has three", SOON, || {
        let counts = counts();
        counts[0] == 3 && counts[1] + counts[2] == 3
    });
    assert_eq!(sinks[3].connections(), 0, "{:?}", counts());
}
