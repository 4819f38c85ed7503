//! Names of hosts: who is asked what, how often, how many at once, and what is done when nobody answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::mail::submit;
use crate::support::name_server::NameServer;
use crate::support::text::MARK;
use crate::support::wait::wait_for;
use crate::support::{Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// A question that is not answered in time is asked again, since datagrams get lost: not more than this often.
const AGAIN: usize = 8;
const BY_MX: &str = "action \"mx\" relay\nmatch for any action \"mx\"\n";

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 3, 30, last], port))
}

/// Why mail to there waits.
fn reason(server: &Server, to: &str) -> String {
    wait_for("it waits", SOON, || {
        let waiting = server.queue().into_iter().find(|one| one.recipient == to && !one.reason.is_empty());
        waiting.map(|one| one.reason)
    })
}

#[test]
fn s95_addresses_of_all_exchangers_are_asked_for_at_once() {
    let hosts: Vec<String> = (1..=5).map(|number| format!("mx{number}.five.example")).collect();
    let mut zone = String::new();
    for (number, host) in (1..).zip(&hosts) {
        zone += &format!("five.example MX {number}0 {host}\n{host} A 127.3.30.{number}\n");
    }
    let names = NameServer::open(&zone);
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    names.hold(&hosts);
    let (setup, port) = Setup::new(BY_MX).zone(&names.seam());
    let sink = Sink::open_at(at(1, port));
    let server = setup.start();
    submit(&server, &["b@five.example"], "m");
    let all: BTreeSet<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    wait_until("all are asked for, and none is answered", SOON, || names.held() == all);
    for host in hosts {
        // Both families, too.
        wait_until("both families are asked for", SOON, || names.asked(host, "A") > 0 && names.asked(host, "AAAA") > 0);
    }
    names.release();
    assert_eq!(sink.wait_for(1, SOON)[0].key.as_deref(), Some("m"));
}

#[test]
fn s82_s97_one_question_serves_all_messages_of_all_domains_that_share_their_hosts() {
    const MANY: usize = 300;
    const DOMAINS: [&str; 3] = ["one.example", "two.example", "three.example"];
    let mut zone = String::from("mx1.shared.example A 127.3.30.11\nmx2.shared.example A 127.3.30.12\n");
    for domain in DOMAINS {
        zone += &format!("{domain} MX 10 mx1.shared.example\n{domain} MX 10 mx2.shared.example\n");
    }
    let names = NameServer::open(&zone);
    names.hold(&DOMAINS);
    let (setup, port) = Setup::new(BY_MX).zone(&names.seam());
    let sinks = [Sink::open_at(at(11, port)), Sink::open_at(at(12, port))];
    let server = setup.start();
    let mut client = server.client();
    let mut send = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let (to, text) = (format!("b@{}", DOMAINS[number % 3]), format!("{MARK}{number}\r\n\r\nhello\r\n"));
            assert_eq!(client.submit("a@source.example", &[&to], text.as_bytes()).code, 250);
        }
    };
    // While nobody answers, as many ask as there are messages.
    send(0..MANY / 15);
    wait_until("all domains are asked for", SOON, || names.held().len() == DOMAINS.len());
    names.release();
    send(MANY / 15..MANY);
    let count = || sinks.iter().map(Sink::count).sum::<usize>();
    wait_until("all have arrived", SOON, || count() == MANY);
    for domain in DOMAINS {
        assert!((1..=AGAIN).contains(&names.asked(domain, "MX")), "{domain}: {}", names.asked(domain, "MX"));
    }
    for host in ["mx1.shared.example", "mx2.shared.example"] {
        let asked = [names.asked(host, "A"), names.asked(host, "AAAA")];
        assert!(asked.iter().all(|asked| (1..=AGAIN).contains(asked)), "{host}: {asked:?}");
    }
    let routes = server.tell(&["show", "routes", "shared.example", "--json"]);
    assert_eq!(routes.lines().count(), 1, "one set of connections serves the three: {routes}");
}

#[test]
fn s97_what_is_too_long_for_a_datagram_comes_by_tcp_and_questions_say_how_much_they_take() {
    let names = NameServer::open("long.example MX 10 mx.long.example\nmx.long.example A 127.3.30.21\n");
    names.is_long("long.example");
    let (setup, port) = Setup::new(BY_MX).zone(&names.seam());
    let sink = Sink::open_at(at(21, port));
    let server = setup.start();
    submit(&server, &["b@long.example"], "m");
    assert_eq!(sink.wait_for(1, SOON)[0].key.as_deref(), Some("m"));
    assert!(names.asked_by_tcp("long.example", "MX") && !names.asked_by_tcp("mx.long.example", "A"));
    assert!(names.asked_with_edns("long.example", "MX") && names.asked_with_edns("mx.long.example", "A"));
}

#[test]
fn s97_without_resolvers_known_routes_go_on_and_other_mail_waits() {
    let mut names = NameServer::open(
        "known.example MX 10 mx.known.example\nmx.known.example A 127.3.30.31\nother.example MX 10 mx.known.example\n",
    );
    let (setup, port) = Setup::new(BY_MX).zone(&names.seam());
    let sink = Sink::open_at(at(31, port));
    let server = setup.start();
    submit(&server, &["b@known.example"], "first");
    sink.wait_for(1, SOON);
    names.close();
    submit(&server, &["b@other.example"], "other");
    submit(&server, &["b@known.example"], "second");
    assert_eq!(sink.wait_for(2, SOON)[1].key.as_deref(), Some("second"));
    let why = reason(&server, "b@other.example");
    assert!(why.starts_with("451 4.4.3 "), "{why}");
    assert_eq!(sink.count(), 2);
}

#[test]
fn s96_the_preference_of_an_exchanger_is_found_whatever_its_records_look_like() {
    // As mx2: case is no difference, the best of several records counts, and a domain may be an alias.
    let zone = "twice.example MX 30 MX2.Poolp.example\ntwice.example MX 20 mx2.poolp.example\n\
        twice.example MX 10 mx1.poolp.example\ntwice.example MX 25 mx3.poolp.example\n\
        alias.example CNAME real.example\nreal.example MX 20 mx2.poolp.EXAMPLE\nreal.example MX 10 name.poolp.example\n\
        absent.example MX 10 mx1.poolp.example\n\
        mx1.poolp.example A 127.3.30.41\nmx2.poolp.example A 127.3.30.42\nmx3.poolp.example A 127.3.30.43\n\
        name.poolp.example CNAME mx1.poolp.example\n";
    let names = NameServer::open(zone);
    let rules = "action back relay backup mx mx2.poolp.example\nmatch for any action back\n";
    let (setup, port) = Setup::new(rules).zone(&names.seam());
    let best = Sink::open_at(at(41, port));
    let others = [Sink::open_at(at(42, port)), Sink::open_at(at(43, port))];
    let server = setup.start();
    for domain in ["twice", "alias"] {
        submit(&server, &[&format!("b@{domain}.example")], domain);
    }
    let mut keys: Vec<_> = best.wait_for(2, SOON).into_iter().filter_map(|one| one.key).collect();
    keys.sort();
    assert_eq!(keys, ["alias", "twice"]);
    submit(&server, &["b@absent.example"], "absent");
    let why = reason(&server, "b@absent.example");
    assert!(why.contains("mx2.poolp.example is not among the mail exchangers of the domain"), "{why}");
    wait_until("the log has it", SOON, || server.printed().contains("mail for absent.example waits"));
    assert!(others.iter().all(|sink| sink.connections() == 0), "nobody asked those that are no better");
}
