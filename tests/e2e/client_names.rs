//! `match from rdns`: what the DNS calls a client, if the name has his address, too.

use std::path::Path;

use serde_json::Value;

use crate::support::{Server, Setup};

const RULES: &str = "action \"none\" discard\n\
    match from rdns \"*.partner.example\" for domain a.example action \"none\"\n\
    match from rdns for domain b.example action \"none\"\n\
    match !from rdns regex \"(^|\\.)dyn\\.\" for domain c.example action \"none\"\n";

/// With rules that ask for names, and what the DNS has for 127.0.0.1, from where the tests come.
fn server(zone: &str) -> Server {
    let others = "9.2.0.192.in-addr.arpa PTR mx.partner.example\nmx.partner.example A 192.0.2.9\n\
        8.2.0.192.in-addr.arpa PTR mx.partner.example\n\
        7.2.0.192.in-addr.arpa SERVFAIL\n\
        6.2.0.192.in-addr.arpa PTR host6.dyn.example\nhost6.dyn.example A 192.0.2.6\n";
    Setup::new(RULES).zone(&format!("{others}{zone}")).0.start()
}

/// Code and status of the replies to RCPT for these domains.
fn replies(server: &Server) -> Vec<String> {
    let mut client = server.client();
    assert_eq!(client.say("MAIL FROM:<s@x.example>").code, 250);
    let replies = ["a.example", "b.example", "c.example"].map(|domain| {
        let reply = client.say(&format!("RCPT TO:<u@{domain}>"));
        let status = reply.lines[0].split(' ').next().expect("a word").to_owned();
        format!("{} {status}", reply.code)
    });
    replies.to_vec()
}

/// What `explain`, through the server, says of a client elsewhere.
fn explained(conf: &Path, server: &Server, from: &str, domain: &str) -> String {
    let to = format!("u@{domain}");
    let conf = conf.display().to_string();
    let said = server.tell(&["explain", "--json", "--config", &conf, "--from", from, "--rcpt", &to]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    match said["outcome"]["code"].as_u64() {
        Some(code) => format!("{code} {}", said["outcome"]["status"].as_str().expect("a status")),
        None => said["outcome"]["deliveries"][0]["action"].as_str().expect("an action").to_owned(),
    }
}

#[test]
fn a_name_counts_if_it_has_the_clients_address() {
    let honest = server("1.0.0.127.in-addr.arpa PTR Mail.Partner.example\nmail.partner.example A 127.0.0.1\n");
    assert_eq!(replies(&honest), ["250 2.1.5", "250 2.1.5", "250 2.1.5"]);
    assert_eq!(replies(&honest), ["250 2.1.5", "250 2.1.5", "250 2.1.5"], "from memory, too");
    let conf = honest.dir().join("ringpost.conf");
    let ask = |from: &str, domain: &str| explained(&conf, &honest, from, domain);
    assert_eq!([ask("127.0.0.1", "a.example"), ask("192.0.2.9", "a.example")], ["none", "none"]);
    assert_eq!(ask("192.0.2.8", "a.example"), "550 5.1.1", "it has somebody else's name");
    assert_eq!([ask("192.0.2.5", "b.example"), ask("192.0.2.6", "b.example")], ["550 5.1.1", "none"]);
    assert_eq!([ask("192.0.2.5", "c.example"), ask("192.0.2.6", "c.example")], ["none", "550 5.1.1"]);
    assert_eq!([ask("socket", "b.example"), ask("192.0.2.7", "b.example")], ["550 5.1.1", "451 4.3.0"]);
    let conf = conf.display().to_string();
    let said = honest.tell(&["explain", "--config", &conf, "--from", "192.0.2.9", "--rcpt", "u@a.example"]);
    assert!(said.contains("asked the DNS for the client's name: found: mx.partner.example"), "{said}");
}

#[test]
fn a_client_without_a_name_of_his_own_has_none() {
    let liar = server("1.0.0.127.in-addr.arpa PTR mx.partner.example\n");
    assert_eq!(replies(&liar), ["550 5.1.1", "550 5.1.1", "250 2.1.5"]);
}

#[test]
fn a_dns_that_fails_is_a_temporary_failure_and_other_rules_go_on() {
    let broken = server("1.0.0.127.in-addr.arpa PTR mail.partner.example\nmail.partner.example SERVFAIL\n");
    assert_eq!(replies(&broken), ["451 4.3.0", "451 4.3.0", "451 4.3.0"]);
    let mut client = broken.client();
    assert_eq!(client.say("MAIL FROM:<s@x.example>").code, 250);
    assert!(client.say("RCPT TO:<u@d.example>").starts_with("550 5.7.1"), "no rule that asks is for that domain");
}
