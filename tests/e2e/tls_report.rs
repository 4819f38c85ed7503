//! TLS reports (RFC 8460): what came of encryption to domains with a policy is counted, shown, kept over a restart, and told
//! to those that ask for it.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::support::authority::{Authority, Kind};
use crate::support::secure_sink::{Offer, SecureSink};
use crate::support::web::Web;
use crate::support::{Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(60);

fn address(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 5, 0, number as u8 + 1), port))
}

#[test]
fn what_came_of_encryption_is_counted_and_told() {
    let authority = Authority::new();
    // Domain; mode of its policy; certificate of its server; what that offers; what is counted: well, badly and why.
    let domains = [
        ("good", "enforce", Kind::Good, Offer::StartTls, 1, 0, ""),
        ("badmail", "enforce", Kind::SelfSigned, Offer::StartTls, 0, 1, "certificate-not-trusted"),
        ("testing", "testing", Kind::Good, Offer::Nothing, 0, 1, "starttls-not-supported"),
    ];
    let mut zone = String::new();
    for (number, (name, ..)) in domains.iter().enumerate() {
        zone += &format!("{name}.example MX 10 mx.{name}.example\nmx.{name}.example A {}\n", address(number, 0).ip());
        zone += &format!("mta-sts.{name}.example A {}\n", address(10 + number, 0).ip());
        zone += &format!("_mta-sts.{name}.example TXT \"v=STSv1; id=1;\"\n");
    }
    // Two of them want a report, one of these by mail.
    zone += "_smtp._tls.badmail.example TXT \"v=TLSRPTv1; rua=mailto:tls@wants.example\"\n";
    zone += "_smtp._tls.good.example TXT \"v=TLSRPTv1; rua=https://good.example/tls\"\n";
    zone += &format!("wants.example MX 10 mx.wants.example\nmx.wants.example A {}\n", address(20, 0).ip());
    let (setup, port) = Setup::new("action \"out\" relay\nmatch for any action \"out\"\n").zone(&zone);
    let reports = Sink::open_at(address(20, port));
    let file = setup.dir().join("authority.pem");
    fs::write(&file, authority.pem()).expect("written");
    let setup = setup.environment("SSL_CERT_FILE", &file.display().to_string());
    let (mut sinks, mut webs) = (vec![], vec![]);
    for (number, (name, mode, kind, offer, ..)) in domains.iter().enumerate() {
        let policy = format!("version: STSv1\nmode: {mode}\nmx: mx.{name}.example\nmax_age: 86400\n");
        let config = authority.server(&format!("mta-sts.{name}.example"), Kind::Good);
        webs.push(Web::open(address(10 + number, port + 443 - 25), config, &policy));
        let config = authority.server(&format!("mx.{name}.example"), *kind);
        sinks.push(SecureSink::open(address(number, port), *offer, config));
    }
    let mut server = setup.start();
    for (name, ..) in &domains {
        let to = format!("r@{name}.example");
        let reply = server.client().submit("s@source.example", &[&to], b"Subject: x\r\n\r\nhello\r\n");
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    let shown = |args: &[&str]| server_says(&server.state, args);
    wait_until("all are counted", SOON, || shown(&["--json"]).lines().count() == domains.len());
    for line in shown(&["--json"]).lines() {
        let value: Value = serde_json::from_str(line).expect("JSON");
        let name = value["domain"].as_str().expect("a name").trim_end_matches(".example").to_owned();
        let (.., good, failed, why) = domains.iter().find(|domain| domain.0 == name).expect("one of them");
        let counts = &value["policies"][0];
        assert_eq!(
            (&counts["policy"], &counts["good"], &counts["failed"]),
            (&"sts".into(), &(*good).into(), &(*failed).into())
        );
        assert_eq!(counts["failures"][0]["kind"].as_str().unwrap_or_default(), *why, "{line}");
    }
    assert!(shown(&[]).contains("1 × certificate-not-trusted mx.badmail.example"), "{}", shown(&[]));

    server.stop();
    server.start();
    let state = server.state.clone();
    let shown = |args: &[&str]| server_says(&state, args);
    assert!(shown(&["--json"]).contains("badmail.example"), "what was counted outlives a restart");
    assert_eq!(shown(&["--end-day"]), "2 reports are written\n");
    assert_eq!(shown(&["--json"]), "");
    let files: Vec<String> = fs::read_dir(state.join("tlsrpt"))
        .expect("there")
        .map(|entry| entry.expect("there").file_name().into_string().expect("UTF-8"))
        .filter(|name| name.ends_with("!001.json.gz"))
        .collect();
    let file = files.iter().find(|name| name.contains("!badmail.example!")).expect("one of two");
    assert_eq!(files.len(), 2, "{files:?}");
    let (mut text, packed) = (String::new(), fs::File::open(state.join("tlsrpt").join(file)).expect("there"));
    GzDecoder::new(packed).read_to_string(&mut text).expect("gzip");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let details = &report["policies"][0]["failure-details"][0];
    assert_eq!(details["receiving-mx-hostname"], "mx.badmail.example", "{report}");
    assert_eq!(report["policies"][0]["policy"]["policy-domain"], "badmail.example");

    // What is in the spool is looked at now and then, and at the start.
    server.stop();
    server.start();
    let mail = reports.wait_for(1, SOON).remove(0);
    assert_eq!(mail.to, ["tls@wants.example"]);
    assert!(mail.from.starts_with("postmaster@"), "{}", mail.from);
    let text = String::from_utf8(mail.text.expect("it is small")).expect("ASCII");
    for part in [
        "TLS-Report-Domain: badmail.example\r\n",
        "Content-Type: application/tlsrpt+gzip\r\n",
        &format!("filename=\"{file}\""),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

fn server_says(state: &std::path::Path, args: &[&str]) -> String {
    let state = state.display().to_string();
    crate::support::cli::succeed(&[&["tls-report", "--state", &state], args].concat())
}

/// Four domains with a policy, whose reports go to web servers; one that is good, one that sends elsewhere, one whose certificate
/// nobody vouches for, and one in a network that is nobody's on the internet.
#[test]
fn reports_are_posted_to_web_servers_that_are_who_they_say_and_tried_again_for_a_day() {
    let authority = Authority::new();
    let domains = ["good", "moved", "forged", "inner"];
    let mut zone = String::new();
    for (number, name) in domains.iter().enumerate() {
        zone +=
            &format!("{name}.example MX 10 mx.{name}.example\nmx.{name}.example A {}\n", address(40 + number, 0).ip());
        zone += &format!("mta-sts.{name}.example A {}\n", address(50 + number, 0).ip());
        zone += &format!("_mta-sts.{name}.example TXT \"v=STSv1; id=1;\"\n");
        let at = if *name == "inner" { "127.6.0.1".to_owned() } else { address(60 + number, 0).ip().to_string() };
        zone += &format!("web.{name}.example A {at}\n");
        let rua = format!("mailto:nobody, https://web.{name}.example/v1/reports?of={name}");
        zone += &format!("_smtp._tls.{name}.example TXT \"v=TLSRPTv1; rua={rua}\"\n");
    }
    let rules = "mta allow-exchangers { 127.5.0.0/16 }\naction \"out\" relay\nmatch for any action \"out\"\n";
    let (setup, port) = Setup::new(rules).zone(&zone);
    let file = setup.dir().join("authority.pem");
    fs::write(&file, authority.pem()).expect("written");
    let setup = setup.environment("SSL_CERT_FILE", &file.display().to_string());
    let (mut sinks, mut policies, mut webs) = (vec![], vec![], vec![]);
    for (number, name) in domains.iter().enumerate() {
        let config = authority.server(&format!("mx.{name}.example"), Kind::Good);
        sinks.push(SecureSink::open(address(40 + number, port), Offer::StartTls, config));
        let config = authority.server(&format!("mta-sts.{name}.example"), Kind::Good);
        let policy = format!("version: STSv1\nmode: enforce\nmx: mx.{name}.example\nmax_age: 86400\n");
        policies.push(Web::open(address(50 + number, port + 443 - 25), config, &policy));
        let kind = if *name == "forged" { Kind::SelfSigned } else { Kind::Good };
        let config = authority.server(&format!("web.{name}.example"), kind);
        let mut at = address(60 + number, port + 443 - 25);
        if *name == "inner" {
            at.set_ip(Ipv4Addr::new(127, 6, 0, 1).into());
        }
        webs.push(Web::open(at, config, ""));
    }
    let [good, moved, forged, inner] = &webs[..] else { panic!("four") };
    good.say("503 Later\r\nRetry-After: 60", "");
    moved.say("307 Elsewhere\r\nLocation: https://web.good.example/v1/reports", "");
    let mut server = setup.start();
    for name in &domains {
        let reply =
            server.client().submit("s@source.example", &[&format!("r@{name}.example")], b"Subject: x\r\n\r\nhello\r\n");
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    let state = server.state.clone();
    let shown = |args: &[&str]| server_says(&state, args);
    wait_until("all are counted", SOON, || shown(&["--json"]).lines().count() == domains.len());
    assert_eq!(shown(&["--end-day"]), "4 reports are written\n");
    let waits = |name: &str, why: &str| {
        let (line, log) =
            (format!("the TLS report to {name}.example is not taken at https://web.{name}.example/"), server.printed());
        log.lines().any(|one| one.contains(&line) && one.contains(why))
    };
    wait_until("each is tried once, and told", SOON, || {
        waits("good", "503")
            && waits("moved", "307")
            && waits("forged", "certificate")
            && waits("inner", "no public address")
    });
    assert_eq!((forged.posted().len(), inner.posted().len(), moved.posted().len(), good.posted().len()), (0, 0, 1, 1));

    // What waits outlives a restart; its time is let come.
    server.stop();
    let file = state.join("tlsrpt/current.json");
    let mut kept: Value = serde_json::from_str(&fs::read_to_string(&file).expect("kept")).expect("JSON");
    let posts = kept["posts"].as_array_mut().expect("a list");
    assert_eq!(posts.len(), domains.len());
    posts.iter_mut().for_each(|post| post["due"] = 1000.into());
    fs::write(&file, kept.to_string()).expect("written");
    good.say("201 Taken\r\nContent-Type: text/html", &"<p>".repeat(100_000));
    server.start();
    wait_until("it is posted again", SOON, || good.posted().len() == 2 && moved.posted().len() == 2);
    let posted = good.posted().remove(1);
    for part in [
        "POST /v1/reports?of=good HTTP/1.1\r\n",
        "\r\ncontent-type: application/tlsrpt+gzip\r\n",
        "\r\nhost: web.good.example\r\n",
    ] {
        assert!(posted.head.contains(part), "{part}: {}", posted.head);
    }
    let mut text = String::new();
    GzDecoder::new(&posted.body[..]).read_to_string(&mut text).expect("gzip");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["policies"][0]["policy"]["policy-domain"], "good.example");
    // What has arrived does not wait any more, and what has not does.
    wait_until("it is kept so", SOON, || {
        let kept: Value = serde_json::from_str(&fs::read_to_string(&file).expect("kept")).expect("JSON");
        let posts = kept["posts"].as_array().expect("a list");
        posts.len() == 3 && posts.iter().all(|post| post["domain"] != "good.example" && post["attempts"] == 2)
    });
    assert_eq!((forged.posted().len(), inner.posted().len()), (0, 0));
}
