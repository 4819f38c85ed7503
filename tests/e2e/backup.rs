//! `relay backup`: mail waits for the mail exchangers that are better than this server, and goes to nobody else.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::server::{LISTENERS, SMALL};
use crate::support::{Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(30);

fn submit(server: &Server, to: &str) {
    let reply = server.client().submit("s@source.example", &[to], b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
}

/// Why mail to there waits.
fn reason(server: &Server, to: &str) -> Option<String> {
    let waiting = server.queue().into_iter().find(|one| one.recipient == to && !one.reason.is_empty());
    waiting.map(|one| one.reason)
}

#[test]
fn s76_a_backup_sends_to_better_exchangers_alone() {
    let rules = "action named relay backup mx mx2.poolp.org\n\
        match for domain one.example action named\n\
        match for domain strange.example action named\n\
        match for domain best.example action named\n\
        accept for domain two.example relay via backup://mx2.poolp.org\n\
        accept for domain three.example relay backup\n";
    let mut zone = String::new();
    for domain in ["one", "two", "three"] {
        for number in 1..=3 {
            zone += &format!("{domain}.example. MX {number}0 mx{number}.poolp.org.\n");
        }
    }
    zone += "strange.example. MX 10 mx1.poolp.org.\nbest.example. MX 10 mx2.poolp.org.\n\
        best.example. MX 20 mx3.poolp.org.\n";
    zone += "mx1.poolp.org. A 127.1.4.1\nmx2.poolp.org. A 127.1.4.2\nmx3.poolp.org. A 127.1.4.3\n";
    let (setup, port) = Setup::new(rules).zone(&zone);
    // What the third rule means without saying it.
    std::fs::write(setup.dir().join("mailname"), "mx2.poolp.org\n").expect("written");
    let at = |last: u8| SocketAddr::from(([127, 1, 4, last], port));
    let (second, third) = (Sink::open_at(at(2)), Sink::open_at(at(3)));
    let server = setup.start();
    for domain in ["one", "two", "three"] {
        submit(&server, &format!("r@{domain}.example"));
        wait_until(&format!("{domain} waits"), SOON, || {
            reason(&server, &format!("r@{domain}.example")).is_some_and(|why| why.contains("mx1.poolp.org[127.1.4.1]"))
        });
    }
    for (domain, why) in
        [("strange", "is not among the mail exchangers"), ("best", "no mail exchanger of the domain is better")]
    {
        for number in 0..2 {
            let to = format!("r{number}@{domain}.example");
            submit(&server, &to);
            wait_until(&format!("{domain} waits"), SOON, || {
                reason(&server, &to).is_some_and(|said| said.contains(why))
            });
        }
        let told = || {
            let printed = server.printed();
            printed.lines().filter(|line| line.contains(&format!("warn   relay: mail for {domain}.example"))).count()
        };
        wait_until("it is told", SOON, || told() > 0);
        // Shards do not know what others have told.
        assert!(told() <= 2, "once: {}", server.printed());
    }
    let first = Sink::open_at(at(1));
    server.retry();
    let taken = first.wait_for(3, SOON);
    assert_eq!(taken.len(), 3);
    assert_eq!((second.connections(), third.connections()), (0, 0), "neither to itself nor to one that is no better");
    // Envelopes know the action by its name: what that means by now counts.
    let rules = rules.replacen("relay backup mx mx2.poolp.org", "relay host smtp://mx3.poolp.org", 1);
    server.configure(&format!("{SMALL}{LISTENERS}smtp limit max-mails 1000000\n{rules}"));
    server.tell(&["reload"]);
    server.retry();
    assert_eq!(third.wait_for(4, SOON).len(), 4);
    assert!(server.queue().is_empty());
}
