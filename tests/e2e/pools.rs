//! Pools of source addresses: how one of them is chosen, what it is called, and what is done without one that is of no use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::sources::{address, by_source, explain, one, one_each, send};
use crate::support::mail::submit_of;
use crate::support::server::{LISTENERS, SMALL};
use crate::support::sink::Step;
use crate::support::{Script, Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// Everything goes to `sink` from a pool.
fn from_pool(pool: &str, sink: &Sink) -> String {
    let to = sink.address;
    format!("pool p {pool}\naction \"out\" relay host \"smtp://{to}\" src pool p\nmatch for any action \"out\"\n")
}

fn of_one_shard(rules: &str) -> Setup {
    Setup::whole(format!("{}{LISTENERS}{rules}", SMALL.replace("shards 2", "shards 1")))
}

fn submit(server: &Server, from: &str, to: &[&str]) {
    submit_of(server, from, to, "m");
}

/// Three messages of each of some senders, who take turns.
fn of_senders(server: &Server, senders: usize) {
    for round in 0..3 {
        for number in 0..senders {
            // Whoever writes it otherwise is the same.
            let domain = if round == 1 { "Source.EXAMPLE" } else { "source.example" };
            submit(server, &format!("user{number}@{domain}"), &["b@sink.example"]);
        }
    }
}

/// From where mail of each sender came.
fn by_sender(sink: &Sink) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let mut sources = BTreeMap::<String, BTreeSet<IpAddr>>::new();
    for message in sink.messages() {
        sources.entry(message.from.to_lowercase()).or_default().insert(message.source);
    }
    sources
}

#[test]
fn s78_s79_a_pools_addresses_take_turns_by_weight_and_have_their_own_names() {
    let sink = one_each();
    let pool = "{ 127.0.0.2 helo m2.example.org weight 3, 127.0.0.3 helo m3.example.org, 127.0.0.4 } select cycle";
    let rules = from_pool(pool, &sink)
        .replace("src pool p", "src pool p helo-src { 127.0.0.2 => other.example.org, 127.0.0.4 => m4.example.org }");
    let server = Setup::new(rules).start();
    for _ in 0..20 {
        one(&server, &sink);
    }
    assert_eq!(by_source(&sink, 0, 20), [(address(2), 12), (address(3), 4), (address(4), 4)].into());
    for (source, name) in sink.greeted() {
        let IpAddr::V4(four) = source else { panic!("{source}") };
        assert_eq!(name, format!("m{}.example.org", four.octets()[3]), "from {source}");
    }
    let said = explain(&server, "b@sink.example");
    let sources = "from pool p: 127.0.0.2 weight 3, 127.0.0.3, 127.0.0.4 (cycle)";
    assert!(said.contains(sources), "{said}");
    assert!(said.contains("as m2.example.org from 127.0.0.2") && !said.contains("other.example.org"), "{said}");
    assert!(said.contains("as m4.example.org from 127.0.0.4"), "{said}");
}

#[test]
fn s78_the_least_used_address_of_a_pool_is_the_one_with_the_fewest_connections() {
    let (elsewhere, sink) = (Sink::open(), Sink::open());
    let stalling = Script { stall_at: Some(Step::EndOfData), ..Script::default() };
    elsewhere.script(stalling.clone());
    sink.script(stalling);
    let rules = format!(
        "action \"first\" relay host \"smtp://{}\" src 127.0.0.2\nmatch for domain first.example action \"first\"\n{}",
        elsewhere.address,
        from_pool("{ 127.0.0.2, 127.0.0.3, 127.0.0.4 weight 2 } select least-used", &sink)
    );
    // Each shard counts its own connections.
    let server = of_one_shard(&rules).start();
    for number in 1..=3 {
        submit(&server, "a@source.example", &["b@first.example"]);
        elsewhere.wait_for_attempts(number, SOON);
    }
    // 127.0.0.2 has three already: the others get three and six before it has its turn.
    for number in 1..=13 {
        submit(&server, "a@source.example", &["b@sink.example"]);
        sink.wait_for_attempts(number, SOON);
    }
    assert_eq!(by_source(&sink, 0, 9), [(address(3), 3), (address(4), 6)].into());
    assert_eq!(by_source(&sink, 9, 4), [(address(2), 1), (address(3), 1), (address(4), 2)].into());
}

#[test]
fn s78_mail_of_a_sender_keeps_to_its_address() {
    let sink = Sink::open();
    let pool = "{ 127.0.0.2, 127.0.0.3, 127.0.0.4 } select sticky-sender";
    let server = Setup::new(from_pool(pool, &sink)).start();
    of_senders(&server, 20);
    sink.wait_for(60, SOON);
    let before = by_sender(&sink);
    assert!(before.len() == 20 && before.values().all(|sources| sources.len() == 1), "{before:?}");
    let used: BTreeSet<IpAddr> = before.values().flatten().copied().collect();
    assert_eq!(used.len(), 3, "{before:?}");

    // In another process and without one of them, only its senders leave from elsewhere.
    let less = Sink::open();
    let server = Setup::new(from_pool("{ 127.0.0.3, 127.0.0.2 } select sticky-sender", &less)).start();
    of_senders(&server, 20);
    less.wait_for(60, SOON);
    for (sender, sources) in by_sender(&less) {
        let kept = before[&sender].contains(&address(4)) || before[&sender] == sources;
        assert!(kept && sources.len() == 1, "{sender} from {sources:?}, before from {:?}", before[&sender]);
    }
    drop(server);

    // One that this machine does not have: its senders have others, each one.
    let lost = Sink::open();
    let server = Setup::new(from_pool("{ 127.0.0.2, 127.0.0.3, 192.0.2.77 } select sticky-sender", &lost)).start();
    of_senders(&server, 20);
    lost.wait_for(60, SOON);
    let after = by_sender(&lost);
    assert!(after.values().all(|sources| sources.len() == 1), "{after:?}");
    wait_until("an administrator is told", SOON, || {
        server.printed().contains("source address 192.0.2.77 cannot be used")
    });
    assert!(server.queue().is_empty(), "nothing was deferred");
}

#[test]
fn s78_mail_to_a_domain_keeps_to_its_address() {
    let sink = Sink::open();
    let server = of_one_shard(&from_pool("{ 127.0.0.2, 127.0.0.3 } select sticky-domain", &sink)).start();
    let domains: Vec<String> = (0..10).map(|number| format!("b@d{number}.example")).collect();
    let all: Vec<&str> = domains.iter().map(String::as_str).collect();
    for sender in ["a@source.example", "c@source.example"] {
        submit(&server, sender, &all);
        domains.iter().for_each(|to| submit(&server, sender, &[to]));
    }
    let arrived = || sink.messages().iter().map(|message| message.to.len()).sum::<usize>();
    wait_until("each has arrived twice from each sender", SOON, || arrived() == 40);
    let mut sources = BTreeMap::<String, BTreeSet<IpAddr>>::new();
    for message in sink.messages() {
        for to in message.to {
            sources.entry(to).or_default().insert(message.source);
        }
    }
    assert!(sources.len() == 10 && sources.values().all(|of_one| of_one.len() == 1), "{sources:?}");
    assert_eq!(sources.values().flatten().collect::<BTreeSet<_>>().len(), 2, "{sources:?}");
    // Those that keep to one address share a transaction, once it is known where the host is.
    let together = sink.messages().into_iter().filter(|message| message.from.starts_with('c') && message.to.len() > 1);
    assert_eq!(together.map(|message| message.to.len()).sum::<usize>(), 10, "each with others");
}

#[test]
fn s78_an_address_of_a_pool_that_cannot_be_bound_is_left_out() {
    for select in ["cycle", "least-used"] {
        let sink = one_each();
        let server = Setup::new(from_pool(&format!("{{ 192.0.2.77 weight 9, 127.0.0.2 }} select {select}"), &sink));
        let server = server.start();
        send(&server, 10);
        sink.wait_for(10, SOON);
        assert_eq!(by_source(&sink, 0, 100).into_keys().collect::<Vec<_>>(), [address(2)]);
        assert!(server.queue().is_empty(), "nothing was deferred");
    }
}

#[test]
fn s78_each_family_has_its_addresses_of_a_pool() {
    let (setup, port) = Setup::new(
        "pool p { ::1 helo six.example.org, 127.0.0.2 helo two.example.org, 127.0.0.3 helo three.example.org }\n\
         action \"out\" relay src pool p\nmatch for any action \"out\"\n",
    )
    .zone("four.example MX 10 mx4.example\nmx4.example A 127.0.0.9\nsix.example MX 10 mx6.example\nmx6.example AAAA ::1\n");
    let four = Sink::open_at(SocketAddr::from(([127, 0, 0, 9], port)));
    let six = Sink::open_at(format!("[::1]:{port}").parse().expect("an address"));
    for sink in [&four, &six] {
        sink.script(Script { one_each: true, ..Script::default() });
    }
    let server = setup.start();
    for number in 1..=4 {
        submit(&server, "a@source.example", &["b@four.example", "b@six.example"]);
        four.wait_for(number, SOON);
        six.wait_for(number, SOON);
    }
    assert_eq!(by_source(&four, 0, 4), [(address(2), 2), (address(3), 2)].into());
    let said: BTreeSet<(IpAddr, String)> = six.greeted().into_iter().collect();
    assert_eq!(said, [("::1".parse().expect("an address"), "six.example.org".to_owned())].into());
}

/// What a shape says for each source, in front of a pool of two.
fn shaped(shape: &str, sink: &Sink) -> String {
    let pool = "{ 127.0.0.2, 127.0.0.3 }";
    format!("shaping default {{ {shape} }}\n{}", from_pool(pool, sink))
}

#[test]
fn s78_each_source_has_so_many_connections_to_a_site() {
    let sink = Sink::open();
    sink.script(Script { stall_at: Some(Step::EndOfData), ..Script::default() });
    let server = Setup::new(shaped("connections-per-source 2", &sink)).start();
    send(&server, 12);
    sink.wait_for_attempts(4, SOON);
    let is_waiting = || server.queue().iter().filter(|one| one.state == "in flight").count() == 12;
    wait_until("all are with their route", SOON, is_waiting);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(by_source(&sink, 0, 100), [(address(2), 2), (address(3), 2)].into());
}

#[test]
fn s78_each_source_sends_a_site_so_many_messages() {
    let sink = Sink::open();
    let server = Setup::new(shaped("rate-per-source 1/s", &sink)).start();
    let began = Instant::now();
    send(&server, 12);
    let messages = sink.wait_for(12, SOON);
    // Two at once, and then two a second.
    assert!(began.elapsed() > Duration::from_millis(4500), "after {:?}", began.elapsed());
    let from = |source| messages.iter().filter(|message| message.source == source).count();
    assert!([2, 3].map(|last| from(address(last))).iter().all(|count| (4..=8).contains(count)), "{messages:?}");
    assert!(server.queue().is_empty(), "nothing was deferred");
}
