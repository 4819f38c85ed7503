//! `on reply`, `bounce classify … treat`: what a reply of a site means for the rest of its mail.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::support::mail::submit;
use crate::support::wait::wait_for;
use crate::support::{Script, Server, Setup, Sink, wait_until};
use crate::why::{kinds, why};

const SOON: Duration = Duration::from_secs(60);

/// Everything to the sink, with these options of the relay, and statements above.
fn setup(sink: &Sink, statements: &str, options: &str) -> Setup {
    let address = sink.address;
    Setup::new(format!(
        "{statements}\naction \"out\" relay host \"smtp+notls://{address}\"{options}\nmatch for any action \"out\"\n"
    ))
}

/// At MAIL it says: `451 4.7.0 slow down`.
fn slow_down() -> Script {
    Script { mail: Some("451 4.7.0 slow down".into()), ..Script::default() }
}

fn wait_for_line(server: &Server, part: &str) {
    let has_line = || server.printed().lines().any(|line| line.contains("pace   route=") && line.contains(part));
    wait_until(&format!("the log says {part}"), SOON, has_line);
}

#[test]
fn a_suspended_site_has_no_mail_and_why_says_since_when_until_when_and_for_which_reply() {
    let sink = Sink::open();
    sink.script(slow_down());
    let shaping = "shaping default { on reply regex \"slow down\" suspend 30m }";
    let server = setup(&sink, shaping, "").start();
    submit(&server, &["b@sink.example"], "first");
    wait_for_line(&server, "suspended=1800s deferred=0 reply=\"451 4.7.0 slow down\"");
    sink.script(Script::default());
    submit(&server, &["b@sink.example"], "second");
    let found = wait_for("the second waits for the end", SOON, || {
        why(&server.state, "all").into_iter().find(|one| kinds(one) == ["suspended"])
    });
    let (id, waits) = (found["id"].as_str().expect("an id"), &found["waits_for"][0]);
    let time = |name: &str| waits[name].as_u64().unwrap_or_else(|| panic!("{name}: {found}"));
    let minutes = (time("until_ms") - time("since_ms")) / 60_000;
    assert!((29..=30).contains(&minutes), "{minutes} minutes: {found}");
    assert_eq!(waits["reply"], "451 4.7.0 slow down");
    let text = server.tell(&["why", id]);
    for part in ["waits for: the end of the suspension of", "said: 451 4.7.0 slow down", "ringpost queue retry"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!((sink.attempts(), sink.count()), (1, 0), "it was not tried");
    server.retry();
    sink.wait_for(2, SOON);
}

#[test]
fn a_throttled_site_has_its_mail_at_the_lower_rate_and_why_says_so() {
    let sink = Sink::open();
    sink.script(slow_down());
    let shaping = "shaping default { rate 4/s, burst 1, on reply { \"4.7.0\" } throttle 50% }";
    let server = setup(&sink, shaping, "").start();
    submit(&server, &["b@sink.example"], "first");
    wait_for_line(&server, "rate=4.000/s->2.000/s reply=\"451 4.7.0 slow down\"");
    sink.script(Script::default());
    let began = Instant::now();
    (0..60).for_each(|number| submit(&server, &["b@sink.example"], &format!("m{number}")));
    wait_until("somebody waits for a turn", SOON, || {
        why(&server.state, "all").iter().any(|one| {
            let slowed = |wait: &serde_json::Value| wait["kind"] == "slowed" && wait["reply"] == "451 4.7.0 slow down";
            one["waits_for"].as_array().is_some_and(|waits| waits.iter().any(slowed))
        })
    });
    sink.wait_for(9, SOON);
    let took = began.elapsed();
    // The first goes with the token that is there.
    assert!(took >= Duration::from_secs(3), "nine messages at some two a second take four seconds, not {took:?}");
}

#[test]
fn a_source_that_a_reply_retires_is_left_out_and_its_connection_ends() {
    let sink = Sink::open();
    sink.script(slow_down());
    let shaping = "shaping default { connections 1, pause 10m, on reply regex \"^451 4\\.7\" switch-source }";
    let server = setup(&sink, shaping, " src { 127.0.0.2, 127.0.0.3 }").start();
    submit(&server, &["b@sink.example"], "first");
    wait_until("it has been tried", SOON, || sink.attempts() == 1);
    let first = sink.came()[0];
    wait_for_line(&server, &format!("src={first} retired=600s reply=\"451 4.7.0 slow down\""));
    sink.script(Script { one_each: true, ..Script::default() });
    for number in 0..6 {
        submit(&server, &["b@sink.example"], &format!("m{number}"));
        sink.wait_for(number + 1, SOON);
    }
    let others: Vec<IpAddr> = sink.came().into_iter().skip(1).collect();
    assert!(others.len() >= 6 && others.iter().all(|source| *source != first), "{first}: {others:?}");
}

#[test]
fn what_a_class_is_treated_as_suspends_the_site_and_its_mail_is_tried_again() {
    let sink = Sink::open();
    sink.script(Script { end: Some("550 5.7.1 blocked using dnsbl.example".into()), ..Script::default() });
    let classify = "bounce classify policy reply regex \"blocked using\" treat suspend 1h";
    let server = setup(&sink, classify, "").start();
    submit(&server, &["b@sink.example"], "first");
    wait_for_line(&server, "suspended=3600s");
    wait_until("it is deferred", SOON, || why(&server.state, "all").iter().any(|one| kinds(one) == ["retry"]));
    assert_eq!(server.metric("envelopes_bounced"), 0);
    sink.script(Script::default());
    server.retry();
    sink.wait_for(1, SOON);
}
