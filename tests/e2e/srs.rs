//! Forwarded mail under an address of ours, and the way back to the sender.

use std::time::Duration;

use crate::support::mail::wait_for_all;
use crate::support::{Client, Server, Setup, Sink, cli};

const SOON: Duration = Duration::from_secs(20);

/// Forwards mail to `all@here.example` to `you@there.example`, under an address of its own.
pub fn forwarder(sink: &Sink) -> Server {
    let rules = format!(
        "srs key \"secret\"\ntable lists {{ \"all@here.example\" = \"you@there.example\" }}\n\
         action \"lists\" expand-only virtual <lists>\naction \"out\" relay host \"smtp+notls://{}\" srs\n\
         match from any for domain \"here.example\" action \"lists\"\nmatch for any action \"out\"\n",
        sink.address
    );
    Setup::new(rules).start()
}

/// A message from there; the code of its last reply.
fn submit(client: &mut Client, from: &str, to: &str) -> u16 {
    client.submit(from, &[to], b"Subject: x\r\n\r\nhello\r\n").code
}

#[test]
fn srs_forwarded_mail_has_an_address_of_ours_that_leads_back() {
    let sink = Sink::open();
    let server = forwarder(&sink);
    let mut client = server.client();
    assert_eq!(submit(&mut client, "gilles@poolp.example", "all@here.example"), 250);
    let forwarded = sink.wait_for(1, SOON)[0].clone();
    assert_eq!(forwarded.to, ["you@there.example"]);
    let (made, domain) = forwarded.from.split_once('@').expect("an address");
    assert!(made.starts_with("SRS0=") && made.ends_with("=poolp.example=gilles"), "{made}");
    assert_eq!(domain, "here.example", "whose servers we are");

    // What comes back, goes to the sender, and a bounce of that to nobody.
    assert_eq!(submit(&mut client, "", &forwarded.from), 250);
    let back = sink.wait_for(2, SOON)[1].clone();
    assert_eq!((back.from.as_str(), &back.to[..]), ("", &["gilles@poolp.example".to_owned()][..]));
    let forged = forwarded.from.replace("=gilles@", "=eric@");
    assert_eq!(client.say("MAIL FROM:<>").code, 250);
    assert_eq!(
        client.say(&format!("RCPT TO:<{forged}>")).code,
        550,
        "nobody relays by an address that was not made here"
    );
    assert_eq!(client.say("RSET").code, 250);

    // Mail of our own domain and mail that is not forwarded keep their senders.
    assert_eq!(submit(&mut client, "chl@here.example", "all@here.example"), 250);
    assert_eq!(submit(&mut client, "gilles@poolp.example", "x@elsewhere.example"), 250);
    let mut senders: Vec<String> = sink.wait_for(4, SOON)[2..].iter().map(|one| one.from.clone()).collect();
    senders.sort();
    assert_eq!(senders, ["chl@here.example", "gilles@poolp.example"]);
    wait_for_all(&server);

    let path = server.dir().join("ringpost.conf").display().to_string();
    let told = cli::succeed(&["explain", "--config", &path, "--rcpt", &forwarded.from]);
    assert!(told.contains("srs") && told.contains("gilles@poolp.example"), "{told}");
}
