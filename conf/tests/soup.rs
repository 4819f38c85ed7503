//! Whatever is in a file, reading it ends, and ends with a configuration or with an error that points somewhere.

use std::path::Path;

use proptest::prelude::*;
use ringpost_conf::{Facts, Look, Memory, Options, Severity, load};

/// Words of the language, marks, and things that go wrong.
const WORDS: &[&str] = &[
    "listen",
    "on",
    "all",
    "egress",
    "socket",
    "lo0",
    "port",
    "25",
    "tag",
    "hostname",
    "inet4",
    "table",
    "t",
    "<t>",
    "<u>",
    "<",
    ">",
    "<>",
    "{",
    "}",
    "{",
    "}",
    ",",
    "=",
    "=>",
    "!",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\\\n",
    "#",
    "# c\n",
    "# c \\\n",
    "action",
    "a",
    "relay",
    "host",
    "smtp://x.example",
    "smtps://l@h:1",
    "mx:x.example",
    "src",
    "10.0.0.1",
    "helo",
    "ttl",
    "1d",
    "maildir",
    "/m/%{rcpt}",
    "\"%{\"",
    "discard",
    "match",
    "from",
    "for",
    "any",
    "local",
    "domain",
    "rcpt-to",
    "mail-from",
    "regex",
    "\"a(b\"",
    "reject",
    "\"550 no\"",
    "x.example",
    "*.x.example",
    "@",
    "@x.example",
    "smtp",
    "limit",
    "max-rcpt",
    "queue",
    "bounce",
    "warn-interval",
    "1h",
    "shards",
    "auto",
    "cores",
    "1-2",
    "store",
    "path",
    "segment",
    "64M",
    "commit",
    "group",
    "http",
    "control",
    "include",
    "inc",
    "*",
    "m",
    "m =",
    "$m",
    "${m}",
    "x${m}y",
    "$",
    "${",
    "\"$m\"",
    "'",
    "\"",
    "\\",
    "(",
    ")",
    "[...]",
    "a#b",
    "pki",
    "accept",
    "filter",
    "\t",
    "\u{feff}",
    "ü",
    "\0",
    "file:d",
    "sqlite:/x",
    "é=",
];

fn soup() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        20 => prop::sample::select(WORDS).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let glue = prop::sample::select(&["", " ", " ", " "][..]);
    prop::collection::vec((word, glue), 0..60).prop_map(|words| words.into_iter().map(|(w, g)| w + g).collect())
}

fn look_at(text: &str, included: &str, data: &[u8]) {
    let files = Memory::default().with("c", text).with("inc", included).with("d", data);
    match load(&files, Path::new("c"), &Options::default()) {
        Ok((config, warnings)) => {
            assert!(warnings.iter().all(|r| r.severity() == Severity::Warning));
            let facts = Facts { recipient: "a+b@x.example", sender: "s@x.example", helo: "h", ..Facts::default() };
            config.decide(&facts);
        }
        Err(reports) => {
            assert!(reports.counts().0 > 0);
            for report in reports.iter() {
                let place = reports.place(report);
                assert!(place.line >= 1 && place.column >= 1);
            }
            reports.render(Look::Plain);
            reports.render(Look::Coloured);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn token_soup_never_panics(text in soup(), included in soup(), data in prop::collection::vec(any::<u8>(), 0..40)) {
        look_at(&text, &included, &data);
    }

    /// A good file with one piece taken out or put twice: the mistakes that people make.
    #[test]
    fn damaged_files_never_panic(from in 0usize..2_000, length in 0usize..80, twice: bool) {
        let good = include_str!("../../docs/examples/relay.conf");
        let floor = |at: usize| (0..=at.min(good.len())).rev().find(|at| good.is_char_boundary(*at)).unwrap_or(0);
        let (from, to) = (floor(from), floor(from + length));
        let middle = if twice { good[from..to].repeat(2) } else { String::new() };
        look_at(&format!("{}{middle}{}", &good[..from], &good[to..]), "", b"");
    }

    #[test]
    fn addresses_are_decided_without_a_panic(recipient: String, sender: String, helo: String) {
        let text = include_str!("../../docs/examples/mx.conf");
        let files = Memory::default().with("c", text);
        let (config, _) = load(&files, Path::new("c"), &Options::default()).unwrap();
        let facts = Facts { recipient: &recipient, sender: &sender, helo: &helo, ..Facts::default() };
        config.decide(&facts);
    }
}
