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
