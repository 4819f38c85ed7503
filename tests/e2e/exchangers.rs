//! Mail exchangers that mail must not go to: this server itself, and hosts of inner networks that some domain's owner names.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::mail::submit_of;
use crate::support::{Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(60);
const BY_MX: &str = "action \"mx\" relay\nmatch for any action \"mx\"\n";

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 3, 40, last], port))
}

/// Failures of the null sender's mail are the end of it.
fn submit(server: &Server, to: &str) {
    submit_of(server, "", &[to], "m");
}

/// Waits for the line of a failure for good with this status, which says this.
fn wait_for_failure(server: &Server, to: &str, status: &str, says: &str) {
    let (failed, status) = (format!("to=<{to}> result=PermFail"), format!("dsn={status} "));
    wait_until(&format!("{to} has failed"), SOON, || {
        let printed = server.printed();
        printed.lines().any(|line| line.contains(&failed) && line.contains(&status) && line.contains(says))
    });
}

#[test]
fn exchangers_of_inner_networks_get_no_mail_unless_the_configuration_names_them() {
    let rules = "mta allow-exchangers { 127.3.40.0/24 }\n\
        action \"host\" relay host \"smtp://inner.example\"\n\
        match for domain named.example action \"host\"\n";
    let (setup, port) = Setup::new(format!("{rules}{BY_MX}")).zone(
        "allowed.example MX 10 mx.allowed.example\nmx.allowed.example A 127.3.40.1\n\
         inner.example A 127.3.41.1\n\
         mixed.example MX 10 inner.example\nmixed.example MX 20 mx.allowed.example\n",
    );
    let allowed = Sink::open_at(at(1, port));
    let inner = Sink::open_at(SocketAddr::from(([127, 3, 41, 1], port)));
    let server = setup.start();
    submit(&server, "b@inner.example");
    wait_for_failure(&server, "b@inner.example", "5.1.2", "inner.example[127.3.41.1] has no public address");
    submit(&server, "b@[127.3.41.1]");
    wait_for_failure(&server, "b@[127.3.41.1]", "5.1.2", "has no public address");
    wait_until("the administrator is told how to allow it", SOON, || {
        server.printed().contains("`mta allow-exchangers` has to name its network")
    });
    for domain in ["allowed", "mixed"] {
        submit(&server, &format!("b@{domain}.example"));
    }
    allowed.wait_for(2, SOON);
    assert_eq!(inner.connections(), 0, "nobody may be sent there by what the DNS says");
    // What the administrator has named is his business.
    submit(&server, "b@named.example");
    inner.wait_for(1, SOON);
}

#[test]
fn mail_whose_best_exchanger_is_this_server_fails_and_does_not_go_round() {
    let (setup, port) = Setup::new(format!("listen on 127.0.0.1 port 25\n{BY_MX}")).zone(
        "loop.example MX 10 mx.loop.example\nloop.example MX 20 spare.example\nmx.loop.example A 127.0.0.1\n\
         bare.example A 127.0.0.1\n\
         backup.example MX 5 best.example\nbackup.example MX 10 mx.loop.example\nbackup.example MX 20 spare.example\n\
         best.example A 127.3.40.11\nspare.example A 127.3.40.12\n",
    );
    let (mut best, spare) = (Sink::open_at(at(11, port)), Sink::open_at(at(12, port)));
    let server = setup.start();
    for to in ["b@loop.example", "b@bare.example"] {
        submit(&server, to);
        wait_for_failure(&server, to, "5.4.6", "the best mail exchanger of the domain is this server");
    }
    submit(&server, "b@backup.example");
    best.wait_for(1, SOON);
    // Without the better one it waits: neither this server nor a worse one is asked.
    best.close();
    submit(&server, "c@backup.example");
    wait_until("it waits", SOON, || {
        server.queue().iter().any(|one| one.recipient == "c@backup.example" && !one.reason.is_empty())
    });
    assert_eq!(spare.connections(), 0);
    assert_eq!(server.metric("messages_received"), 4, "none came back");
}
