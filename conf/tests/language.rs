//! The built part of the language, from text to decision.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ringpost_conf::{
    ActionKind, Commit, Config, Decision, Facts, Family, FileSystem, FormatValues, Host, Memory, Options, Reports,
    Reserve, Scheme, Where, load,
};

fn try_load(text: &str) -> Result<(Config, Reports), Reports> {
    load(&Memory::default().with("ringpost.conf", text), Path::new("ringpost.conf"), &Options::default())
}

#[track_caller]
fn config(text: &str) -> Config {
    try_load(text).unwrap_or_else(|reports| panic!("{reports}")).0
}

/// Codes with places, errors and warnings.
fn codes(text: &str) -> Vec<String> {
    let reports = match try_load(text) {
        Ok((_, warnings)) => warnings,
        Err(reports) => reports,
    };
    let one = |r: &ringpost_conf::Report| {
        let place = reports.place(r);
        format!("{}:{} {}", place.line, place.column, r.code)
    };
    reports.iter().map(one).collect()
}

const REST: &str = "action a discard\nmatch for local action a\n";

fn from(ip: &str, sender: &'static str, recipient: &'static str) -> Facts<'static> {
    Facts { source: Some(ip.parse().unwrap()), sender, recipient, helo: "client.example", ..Facts::default() }
}

/// The action's name, the code of a reply, or `none`.
fn decide(config: &Config, facts: Facts<'_>) -> String {
    match config.decide(&facts) {
        Decision::Action(at) => config.actions[at].name.clone(),
        Decision::Reject { code, status, text } => format!("{code} {status} {text}"),
        Decision::NoMatch { domain_is_known: true } => "none, known".to_owned(),
        Decision::NoMatch { domain_is_known: false } => "none".to_owned(),
        Decision::Unknown => "unknown".to_owned(),
        Decision::Needs(lookups) => format!("needs {lookups:?}"),
    }
}

#[test]
fn first_match_decides() {
    let config = config(
        r#"
        table ours { 10.0.0.0/8, [fd00::]/8 }
        table domains { example.org, "*.example.net" }
        action in maildir "/m"
        action out relay
        action trap discard
        match from any mail-from "@spam.example" for any reject "550 5.7.1 no"
        match from any for rcpt-to { trap@example.org } action trap
        match from any tag TRAP for local action trap
        match from any !helo regex "\." for any reject
        match from any for domain <domains> action in
        match from src <ours> for any action out
        match for any action out
        "#
        .trim_start(),
    );
    let d = |facts| decide(&config, facts);
    assert_eq!(d(from("192.0.2.1", "x@SPAM.example", "a@example.org")), "550 5.7.1 no");
    assert_eq!(d(from("192.0.2.1", "", "Trap+1@EXAMPLE.org")), "trap");
    assert_eq!(d(from("192.0.2.1", "", "a@example.org")), "in");
    assert_eq!(d(from("192.0.2.1", "", "a@b.c.example.net")), "in");
    assert_eq!(d(from("192.0.2.1", "", "a@example.net")), "none");
    assert_eq!(d(Facts { helo: "nodots", ..from("192.0.2.1", "", "a@example.org") }), "550 5.7.1 refused");
    assert_eq!(d(Facts { tag: "TRAP", ..from("192.0.2.1", "", "a@localhost") }), "trap");
    assert_eq!(d(from("192.0.2.1", "", "a@localhost")), "none, known");
    assert_eq!(d(from("10.1.2.3", "", "a@elsewhere.example")), "out");
    assert_eq!(d(from("fd00::1", "", "a@elsewhere.example")), "out");
    // from absent is from local: loopback and the socket
    assert_eq!(d(from("127.0.0.2", "", "a@elsewhere.example")), "out");
    assert_eq!(d(Facts { source: None, helo: "x.y", recipient: "a@b.example", ..Facts::default() }), "out");
    assert_eq!(d(Facts { local: true, ..from("192.0.2.1", "", "a@b.example") }), "out");
}

#[test]
fn for_local_is_localhost_the_server_name_and_own_literals() {
    let files = Memory::default()
        .with(
            "etc/ringpost.conf",
            "action a discard\nmatch from any for local action a\nmatch for domain b.example reject\n",
        )
        .with("etc/mailname", "# ours\nMX.Example.org\n");
    let options = Options { addresses: vec!["192.0.2.9".parse().unwrap()], ..Options::default() };
    let (config, _) = load(&files, Path::new("etc/ringpost.conf"), &options).unwrap();
    assert_eq!(config.names.server, "mx.example.org");
    for recipient in ["a@localhost", "a@mx.example.org", "a@[192.0.2.9]", "a@[127.0.0.1]", "postmaster"] {
        assert_eq!(decide(&config, from("198.51.100.1", "", recipient)), "a", "{recipient}");
    }
    for recipient in ["a@example.org", "a@[192.0.2.10]", "a@x.localhost"] {
        assert_eq!(decide(&config, from("198.51.100.1", "", recipient)), "none", "{recipient}");
    }
    assert_eq!(decide(&config, from("198.51.100.1", "", "a@b.example")), "none, known");
    assert_eq!(decide(&config, from("192.0.2.9", "", "a@b.example")), "550 5.7.1 refused");
}

#[test]
fn negation_stands_before_the_condition() {
    let config =
        config("action a discard\nmatch !from src { 10.0.0.0/8 } !for domain x.example !mail-from <> action a\n");
    assert_eq!(decide(&config, from("192.0.2.1", "a@b.example", "a@y.example")), "a");
    assert_eq!(decide(&config, from("10.0.0.1", "a@b.example", "a@y.example")), "none");
    assert_eq!(decide(&config, from("192.0.2.1", "a@b.example", "a@x.example")), "none");
    assert_eq!(decide(&config, from("192.0.2.1", "", "a@y.example")), "none");
}

#[test]
fn listeners_settings_and_relays() {
    let config = config(
        r#"
listen on all
listen on egress port submission tag OUT hostname mx.example.org inet4
listen on lo0 port 2525 max-message-size 1M
listen on [::1] port 2526
action out relay host { smtp://10.0.0.1:2525, mx:example.net, smtp+notls://[::1] } helo h.example src { 192.0.2.1, [2001:db8::1] } ttl 1d
action mx relay
match for any action out
match from socket for any action mx
smtp max-message-size 50M
smtp limit max-mails 7 max-rcpt 8 max-sessions 9
smtp limit max-line 4096 timeout 1m data-timeout 2m
smtp sub-addr-delim "-"
queue ttl 5d
queue backend log
bounce warn-interval 1h, 6h
shards 2 cores 2-3 coordinator 0 memory 512M
store { path spool, segment 16M, spare 2
	spool-memory 128K   # comment
	state-delay 10ms
	reserve 10G
	commit each }
http listen on 127.0.0.1 port 8026
control socket "run/ctl"
"#,
    );
    let l: Vec<_> = config.listeners.iter().map(|l| (&l.place, l.port, l.hostname.as_str(), l.tag.as_str())).collect();
    assert_eq!(l[0], (&Where::All, 25, "localhost", ""));
    assert_eq!(l[1], (&Where::Egress, 587, "mx.example.org", "OUT"));
    assert_eq!(l[2], (&Where::Name("lo0".into()), 2525, "localhost", ""));
    assert_eq!(l[3], (&Where::Address("::1".parse().unwrap()), 2526, "localhost", ""));
    assert_eq!((config.listeners[1].family, config.listeners[2].message_bytes_max), (Family::V4, 1 << 20));
    assert_eq!(config.listeners[0].message_bytes_max, 50 << 20);
    let ActionKind::Relay(relay) = &config.actions[0].kind else { panic!() };
    let hosts: Vec<_> = relay.hosts.iter().map(|h| (h.scheme, h.port)).collect();
    assert_eq!(hosts, [(Scheme::Opportunistic, 2525), (Scheme::Opportunistic, 25), (Scheme::Plain, 25)]);
    assert!(matches!(&relay.hosts[1].host, Host::Mx(name) if name.as_str() == "example.net"));
    assert_eq!(relay.sources.len(), 2);
    assert_eq!(
        (config.actions[0].ttl, config.actions[1].ttl),
        (Duration::from_secs(86_400), Duration::from_secs(432_000))
    );
    let s = &config.smtp;
    assert_eq!((s.mails_max, s.recipients_max, s.sessions_max, s.line_bytes_max), (7, 8, 9, 4096));
    assert_eq!((s.sub_address_delimiter, s.command_timeout.as_secs(), s.data_timeout.as_secs()), ('-', 60, 120));
    assert_eq!(config.bounce.warn_after, [Duration::from_secs(3600), Duration::from_secs(6 * 3600)]);
    assert_eq!((config.shards.count, &config.shards.cores[..]), (Some(2), &[2, 3][..]));
    let store = &config.store;
    assert_eq!((store.path.to_str(), store.segment_bytes, store.spare_segments), (Some("spool"), 16 << 20, 2));
    assert_eq!((store.reserve, store.commit), (Reserve::Bytes(10 << 30), Commit::Each));
    assert_eq!(config.http.unwrap().listen, "127.0.0.1:8026".parse::<SocketAddr>().unwrap());
    assert_eq!(config.control.socket, Path::new("run/ctl"));
}

#[test]
fn root_and_port_offset() {
    let files = Memory::default()
        .with(
            "c/ringpost.conf",
            "include /etc/more.conf\ntable d \"/etc/domains\"\nlisten on lo0\nmatch from any for domain <d> action a\n",
        )
        .with(
            "/r/etc/more.conf",
            "action a maildir \"/var/mail/%{dest.user}\"\naction b relay host 10.0.0.1\nmatch for any action b\n",
        )
        .with("/r/etc/domains", "example.org\n");
    let options = Options { root: Some("/r".into()), port_offset: 20_000, ..Options::default() };
    let (config, _) = load(&files, Path::new("c/ringpost.conf"), &options).unwrap_or_else(|r| panic!("{r}"));
    assert_eq!((config.listeners[0].port, config.mx_port()), (20_025, 20_025));
    let ActionKind::Maildir(maildir) = &config.actions[0].kind else { panic!() };
    let values = FormatValues { destination: "joe@example.org", ..FormatValues::default() };
    assert_eq!(maildir.path.expand_path(&values).unwrap(), Path::new("/r/var/mail/joe"));
    let ActionKind::Relay(relay) = &config.actions[1].kind else { panic!() };
    assert_eq!(relay.hosts[0].port, 20_025);
    assert_eq!(config.store.path, Path::new("/r/var/spool/ringpost"));
    assert_eq!(config.control.socket, Path::new("/r/run/ringpost.sock"));
}

#[test]
fn includes_are_sorted_relative_and_cannot_go_round() {
    let files = Memory::default()
        .with(
            "etc/ringpost.conf",
            "x = discard\ninclude \"conf.d/*.conf\"\nmatch for any action b\nmatch for local action a\n",
        )
        .with("etc/conf.d/2.conf", "action b discard\n")
        .with("etc/conf.d/1.conf", "action a $x\nmatch from any for domain a.example action a\n")
        .with("etc/conf.d/skip.txt", "nonsense\n");
    let (config, _) = load(&files, Path::new("etc/ringpost.conf"), &Options::default()).unwrap();
    assert_eq!(config.actions.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(config.matches.len(), 3);
    assert_eq!(config.matches[0].line.to_string(), "etc/conf.d/1.conf:2");

    let files = Memory::default().with("a", "include b\n").with("b", format!("include a\n{REST}"));
    let reports = load(&files, Path::new("a"), &Options::default()).unwrap_err();
    assert_eq!(reports.iter().map(|r| r.code).collect::<Vec<_>>(), ["E0309"]);
    assert_eq!(codes(&format!("include nowhere.conf\n{REST}")), ["1:9 E0701"]);
}

#[test]
fn macros() {
    let text = "where = lo0\nopts = \"port 26 tag X\"\nhost = 192.0.2.7\nurl = \"smtp://h.example:27\"\nlisten on $where $opts\n\
                action a relay host smtp://${host}:2525\naction b relay host $url\nmatch for any tag $where action a\nmatch for local action b\n";
    let c = config(text);
    assert_eq!((c.listeners[0].port, c.listeners[0].tag.as_str()), (26, "X"));
    let port = |at: usize| match &c.actions[at].kind {
        ActionKind::Relay(relay) => relay.hosts[0].port,
        other => panic!("{other:?}"),
    };
    assert_eq!((port(0), port(1)), (2525, 27));
    let options = Options { defines: vec![("where".into(), "egress".into())], ..Options::default() };
    let files = Memory::default().with("c", text);
    let (c, _) = load(&files, Path::new("c"), &options).unwrap();
    assert_eq!(c.listeners[0].place, Where::Egress);
    // no going round: a value sees only what was defined before it
    assert_eq!(codes(&format!("a = \"$a\"\nlisten on $a\n{REST}")), ["2:11 E0104"]);
    let bomb: String = (1..40).map(|n| format!("m{n} = \"$m{0} $m{0}\"\n", n - 1)).collect();
    assert_eq!(codes(&format!("m0 = x\n{bomb}listen on $m39\n"))[0], "41:11 E0104");
    let bomb: String = (1..16).map(|n| format!("m{n} = ${{m{0}}}${{m{0}}}${{m{0}}}\n", n - 1)).collect();
    assert_eq!(codes(&format!("m0 = xxxx\n{bomb}listen on x$${{m15}}\n")), ["17:11 E0103"]);
}

#[test]
fn files_are_read_as_their_uses_say() {
    let files = Memory::default()
        .with("c", "table d file:d\ntable n \"n\"\ntable r \"r\"\naction a discard\nmatch from src <n> for domain <d> action a\nmatch from any helo regex <r> for any reject\n")
        .with("d", "# domains\nexample.org enabled # x\nexample.net: y\n\n*.example.com\n")
        .with("n", "10.0.0.0/8\n::1\n[2001:db8::]/32 # doc\n")
        .with("r", "^bad host\n");
    let (config, warnings) = load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|r| panic!("{r}"));
    assert!(warnings.is_empty(), "{warnings}");
    for recipient in ["a@example.org", "a@example.net", "a@x.example.com"] {
        assert_eq!(decide(&config, from("10.0.0.1", "", recipient)), "a");
        assert_eq!(decide(&config, from("2001:db8::1", "", recipient)), "a");
    }
    let facts = Facts { helo: "BAD HOST", ..from("192.0.2.1", "", "a@b.example") };
    assert_eq!(decide(&config, facts), "550 5.7.1 refused");
    // one table, two services: what is right for one is wrong for the other, and said with the place of the use
    let files = Memory::default()
        .with("c", "table d file:d\naction a discard\nmatch from src <d> for domain <d> action a\n")
        .with("d", "x.example\nnot a\n10.0.0.0/8\n");
    let reports = load(&files, Path::new("c"), &Options::default()).unwrap_err();
    let texts: Vec<String> =
        reports.iter().map(|r| format!("{} {}", r.message, r.help.clone().unwrap_or_default())).collect();
    assert_eq!(texts[0], "`x.example` is not an address or network needed by `src` at c:3:12");
    assert_eq!(texts.len(), 3);
}

#[test]
fn a_million_entries_answer_at_once() {
    use std::fmt::Write as _;
    const ENTRIES: usize = 1_000_000;
    let (mut domains, mut senders, mut networks) = (String::new(), String::new(), String::new());
    for n in 0..ENTRIES {
        writeln!(domains, "{}d{n}.example", if n % 2 == 0 { "*." } else { "" }).unwrap();
        if n % 10 == 0 {
            writeln!(senders, "u{n}@d{n}.example").unwrap();
            writeln!(networks, "10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255).unwrap();
        }
    }
    let files = Memory::default()
        .with("c", "table d file:d\ntable s file:s\ntable n file:n\naction a discard\nmatch from src <n> mail-from <s> for domain <d> action a\n")
        .with("d", domains)
        .with("s", senders)
        .with("n", networks);
    let (config, _) = load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|r| panic!("{r}"));
    let hit = from("10.0.0.10", "U10@D10.example", "x@a.b.d999998.example");
    let miss = from("10.0.0.10", "u10@d10.example", "x@a.b.d999999.example");
    // Two hundred thousand walks over the entries would take minutes; these take a moment.
    for _ in 0..100_000 {
        assert_eq!(config.decide(&hit), Decision::Action(0));
        assert!(matches!(config.decide(&miss), Decision::NoMatch { .. }));
    }
}

#[test]
fn examples_load_without_a_word() {
    for name in ["relay.conf", "mx.conf"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name);
        match load(&FileSystem, &path, &Options::default()) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{warnings}"),
            Err(reports) => panic!("{reports}"),
        }
    }
}

#[test]
fn examples_do_what_they_say() {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name);
        load(&FileSystem, &path, &Options::default()).unwrap_or_else(|r| panic!("{r}")).0
    };
    let mx = read("mx.conf");
    assert_eq!(decide(&mx, from("198.51.100.1", "a@b.example", "alice+news@example.org")), "users");
    assert_eq!(decide(&mx, from("198.51.100.1", "a@b.example", "x@dev.lists.example.org")), "users");
    assert_eq!(decide(&mx, from("198.51.100.1", "a@x.spam.example", "alice@example.org")), "550 5.7.1 not from you");
    assert_eq!(decide(&mx, from("198.51.100.1", "a@b.example", "x@elsewhere.example")), "none");
    let facts = Facts { helo: "1.2.3.4", ..from("198.51.100.1", "", "alice@example.org") };
    assert_eq!(decide(&mx, facts), "550 5.7.1 bad HELO");
    let relay = read("relay.conf");
    assert_eq!(decide(&relay, from("198.51.100.1", "a@example.net", "x@elsewhere.example")), "none");
    assert_eq!(decide(&relay, from("192.0.2.77", "a@example.net", "x@elsewhere.example")), "out");
    assert_eq!(decide(&relay, from("192.0.2.77", "a@example.net", "x@eu.partner.example")), "direct");
    assert_eq!(decide(&relay, from("192.0.2.77", "", "x@elsewhere.example")), "out");
    assert_eq!(decide(&relay, from("192.0.2.77", "a@gmail.example", "x@y.example")), "550 5.7.1 sender not known here");
    assert_eq!(decide(&relay, from("198.51.100.1", "a@b.example", "postmaster@localhost")), "postmaster");
}

#[test]
fn mistakes_have_their_codes_and_places() {
    let cases: &[(&str, &[&str])] = &[
        ("listen lo0\n", &["1:8 E0203"]),
        ("listen on lo0 inet4 inet6\n", &["1:21 E0602"]),
        ("listen on lo0 port 25 port 26\n", &["1:23 E0601"]),
        ("listen on lo0\nlisten on lo0 port 25\n", &["2:1 E0601"]),
        ("listen on 1.2.3.400\n", &["1:11 E0507"]),
        ("listen on lo0 { }\n", &["1:15 E0204"]),
        ("table t { }\n", &["1:9 E0207"]),
        ("table t { a = 1, b }\nmatch from any tag <t> for local action a\n", &[]),
        ("table t { a = 1\nb }\n", &["2:1 E0206"]),
        ("table t { a, b = 1 }\n", &["1:14 E0206"]),
        ("table t { , a }\n", &["1:11 E0204"]),
        ("table t mysq:/x\n", &["1:9 E0307"]),
        ("table t /nowhere\nmatch tag <t> action a\n", &["1:9 E0701"]),
        ("table t { x }\n", &["1:7 W0803"]),
        ("action b discard now\n", &["1:18 E0202"]),
        ("action b relai\n", &["1:10 E0203"]),
        ("action b relay hots x\n", &["1:16 E0202"]),
        ("action b relay host smtp://a@b.example\nmatch tag x action b\n", &["1:21 E0605"]),
        ("action b relay host smpt://b.example\nmatch tag x action b\n", &["1:21 E0504"]),
        ("action b relay src { 1.2.3.4, x }\nmatch tag x action b\n", &["1:31 E0403"]),
        ("action b maildir \"/m/%{dest.usr}\"\nmatch tag x action b\n", &["1:22 E0506"]),
        ("match from any from local for any tag x action a\n", &["1:16 E0601"]),
        ("match from anny for any action a\n", &["1:12 E0203"]),
        ("match form any for any action a\n", &["1:7 E0202"]),
        ("match for domain { x.example, \"a b\" } action a\n", &["1:31 E0403"]),
        ("match rcpt-to regex { \"ok\", \"a(\" } action a\n", &["1:29 E0508"]),
        ("match for any reject \"250 ok\"\n", &["1:22 E0505"]),
        ("match for any action a b\n", &["1:24 E0204"]),
        ("match from any helo x for any action b\naction b relay\n", &["1:1 W0802"]),
        ("match from any helo x for any action b # ok W0802\naction b relay\n", &[]),
        ("match for local reject\n", &["3:1 W0801"]),
        ("smtp limit max-rctp 5\n", &["1:12 E0510"]),
        ("smtp limit max-rcpt 0\n", &["1:21 E0509"]),
        ("smtp limit max-rcpt 5\nsmtp limit max-rcpt 6\n", &["2:12 E0601"]),
        ("smtp max-message-size 35X\n", &["1:23 E0503"]),
        ("queue ttl 4x\n", &["1:11 E0502"]),
        ("queue ttl 1d\nqueue ttl 2d\n", &["2:7 E0601"]),
        ("bounce warn-interval 2d, 1d\n", &["1:26 E0203"]),
        ("shards 3 cores 1-2\n", &["1:10 E0203"]),
        ("shards none\n", &["1:8 E0509"]),
        ("store { path /x segment 1M }\n", &["1:17 E0204"]),
        ("store { pth /x }\n", &["1:9 E0202"]),
        ("store { segment 1K }\n", &["1:17 E0503"]),
        ("http listen on somewhere\n", &["1:16 E0507"]),
        ("x = a b\n", &["1:7 E0203"]),
        ("} x\n", &["1:1 E0201"]),
        ("listen on \"lo0\n", &["1:11 E0101"]),
        ("listen on lo0 port (\n", &["1:20 E0103"]),
    ];
    for (text, expected) in cases {
        assert_eq!(codes(&format!("{text}{REST}")), *expected, "{text}");
    }
    assert_eq!(codes(""), ["1:1 E0703"]);
    let reports = load(&Memory::default(), Path::new("no.conf"), &Options::default()).unwrap_err();
    assert_eq!(reports.iter().map(|r| r.code).collect::<Vec<_>>(), ["E0701"]);
    let bad = Memory::default().with("c", [b"listen on lo0 # \xff\n", REST.as_bytes()].concat());
    let reports = load(&bad, Path::new("c"), &Options::default()).unwrap_err();
    assert_eq!(reports.iter().map(|r| (r.code, reports.place(r).column)).collect::<Vec<_>>(), [("E0106", 17)]);
}

#[test]
fn an_unclosed_brace_is_one_error_and_the_rest_is_read() {
    let text = "table t { a, b\nmatch from any for domain <t> action a\nlisten on lo0 prt 25\naction a discard\n";
    assert_eq!(codes(text), ["1:9 E0205", "3:15 E0202"]);
    // closed by the brace of a later statement
    let text = "table t { a\nmatch from any for domain { x.example } action a\naction a discard\ntable u { x } }\nlisten on lo0 prt 25\n";
    assert_eq!(codes(text), ["1:9 E0205", "4:15 E0204", "5:15 E0202"]);
}
