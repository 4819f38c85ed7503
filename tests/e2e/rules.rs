//! Rules at work: what RCPT is answered, which line decided, and that `ringpost explain` says the same beforehand.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Setup, cli};

/// What `ringpost explain --json` says of a configuration.
fn explain(conf: &Path, args: &[&str]) -> Value {
    let conf = conf.display().to_string();
    let text = cli::succeed(&[&["explain", "--json", "--config", &conf], args].concat());
    serde_json::from_str(&text).expect("JSON")
}

/// A configuration in a file of its own.
fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ringpost.conf");
    fs::write(&path, text).expect("written");
    (dir, path)
}

/// `550 5.7.1`, or the name of the action of each delivery.
fn verdict(told: &Value) -> String {
    match told["outcome"]["deliveries"].as_array() {
        Some(all) => all.iter().map(|one| one["action"].as_str().expect("a name")).collect::<Vec<_>>().join(" "),
        None => format!("{} {}", told["outcome"]["code"], told["outcome"]["status"].as_str().expect("a status")),
    }
}

#[test]
fn s04_the_first_match_decides_and_none_is_a_refusal() {
    let lines = "match from any for domain a.example reject \"554 5.7.0 not here\"\n\
                 match from any for domain a.example action \"none\"\nmatch from any for domain b.example action \"none\"\n";
    let server = Setup::new(format!("action \"none\" discard\n{lines}")).start();
    let mut client = server.client();
    assert_eq!(client.say("MAIL FROM:<s@x.example>").code, 250);
    assert!(client.say("RCPT TO:<u@a.example>").starts_with("554 5.7.0 not here"));
    assert!(client.say("RCPT TO:<u@B.Example>").starts_with("250"));
    assert!(client.say("RCPT TO:<u@c.example>").starts_with("550 5.7.1"));
    let told = explain(&server.dir().join("ringpost.conf"), &["--sender", "s@x.example", "--rcpt", "u@b.example"]);
    let rules = told["nodes"][0]["rules"].as_array().expect("rules");
    let holds: Vec<&str> = rules.iter().map(|rule| rule["is"].as_str().expect("a word")).collect();
    assert_eq!(holds, ["false", "false", "true"]);
    // Below the listeners and the limits that every test has, and the action.
    assert!(rules[2]["line"].as_str().expect("a line").ends_with(":9"), "{rules:?}");
}

#[test]
fn s05_wherever_a_list_stands_it_says_the_same() {
    let rest = "action \"none\" discard\nmatch from any for domain";
    let (_file, list) = written("poolp.org\nopensmtpd.org # two\n");
    let forms = [
        format!("{rest} {{ poolp.org, opensmtpd.org }} action \"none\"\n"),
        format!("table d {{ poolp.org, opensmtpd.org }}\n{rest} <d> action \"none\"\n"),
        format!("table <d> \"{}\"\n{rest} <d> action \"none\"\n", list.display()),
    ];
    for form in forms {
        let (_dir, conf) = written(&format!("listen on 127.0.0.1 port 2525\n{form}"));
        for (to, expected) in [("x@poolp.org", "none"), ("x@OpenSMTPD.org", "none"), ("x@a.poolp.org", "550 5.7.1")] {
            assert_eq!(verdict(&explain(&conf, &["--from", "192.0.2.9", "--rcpt", to])), expected, "{to}: {form}");
        }
    }
}

#[test]
fn s08_wildcards_at_rcpt() {
    let server = Setup::new(
        "action \"none\" discard\ntable d { poolp.org, \"*.poolp.org\" }\nmatch from any for domain <d> action \"none\"\n",
    )
    .start();
    let mut client = server.client();
    assert_eq!(client.say("MAIL FROM:<>").code, 250);
    for good in ["u@poolp.org", "u@a.poolp.org", "u@a.b.POOLP.org"] {
        assert_eq!(client.say(&format!("RCPT TO:<{good}>")).code, 250, "{good}");
    }
    for bad in ["u@xpoolp.org", "u@poolp.org.evil.example"] {
        assert!(client.say(&format!("RCPT TO:<{bad}>")).starts_with("550 5.7.1"), "{bad}");
    }
}

#[test]
fn s09_s11_who_says_so_and_from_where() {
    let (_dir, conf) = written(
        "listen on 127.0.0.1 port 2525\n\
         accept for domain poolp.org relay\n\
         accept from 192.0.2.0/24 for domain net.example relay\n\
         accept from any sender \"@openbsd.org\" for any relay\n",
    );
    let ask = |from: &str, sender: &str, to: &str| {
        let told = explain(&conf, &["--from", from, "--sender", sender, "--rcpt", to]);
        verdict(&told)
    };
    assert_eq!(ask("127.0.0.1", "s@x.example", "u@poolp.org"), "line-2");
    assert_eq!(ask("socket", "s@x.example", "u@poolp.org"), "line-2");
    assert_eq!(ask("192.0.2.9", "s@x.example", "u@poolp.org"), "550 5.1.1");
    assert_eq!(ask("192.0.2.9", "s@x.example", "u@net.example"), "line-3");
    assert_eq!(ask("2001:db8::1", "a@OpenBSD.org", "u@any.example"), "line-4");
    assert_eq!(ask("2001:db8::1", "a@xopenbsd.org", "u@any.example"), "550 5.7.1");
}

#[test]
fn explain_says_what_cannot_be_known_without_a_server() {
    let (dir, conf) = written(
        "listen on 127.0.0.1 port 2525\ntable d redis:redis.conf\naction \"none\" discard\n\
         match from any for domain <d> action \"none\"\nmatch from any for domain b.example action \"none\"\n",
    );
    fs::write(dir.path().join("redis.conf"), "url redis://127.0.0.1:1\ndomain_prefix d:\n").expect("written");
    let dir = dir.path().display().to_string();
    let text = cli::succeed(&[
        "explain",
        "--config",
        &conf.display().to_string(),
        "--state",
        &dir,
        "--from",
        "192.0.2.9",
        "--rcpt",
        "u@b.example",
    ]);
    assert!(text.contains("ringpost.conf:4: unknown (for domain: unknown)"), "{text}");
    assert!(text.contains("asked table <d> for domain `b.example`: unknown: no server"), "{text}");
    assert!(text.contains("refused: 451 4.3.0"), "{text}");
    let output = cli::run(&["explain", "--config", "/nowhere/x.conf", "--rcpt", "a@b.example"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let output = cli::run(&["explain", "--from", "x", "--rcpt", "a@b.example"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("an IPv4 or IPv6 address, or `socket`"), "{output:?}");
}
