//! Sentences made of clauses: in any order they mean the same, each may be said once, and none may be another statement's.

use std::path::Path;

use proptest::prelude::*;
use ringpost_conf::{Memory, Options, Reports, load, load_canonical};

/// What stands before the clauses, the clauses, and what ends the sentence.
struct Sentence {
    before: &'static str,
    clauses: &'static [&'static str],
    after: &'static str,
}

const REST: &str = "\
table nets { 10.0.0.0/8 }
pki mx cert /c key /k
srs key x
filter f phase connect match !rdns junk
shaping s relay { connections 1 }
action a discard
match for local tag REST action a
";

const SENTENCES: &[Sentence] = &[
    Sentence {
        before: "accept",
        clauses: &[
            "tagged OUT",
            "from ! source <nets>",
            "sender \"@a.example\"",
            "recipient ! x@b.example",
            "for domain { c.example, d.example }",
            "virtual { x => y }",
            "userbase { u = 1:2:/home/u }",
        ],
        after: "deliver to maildir",
    },
    Sentence {
        before: "accept from any for any relay",
        clauses: &[
            "auth { l = u:p }",
            "as @x.example",
            "source 192.0.2.1",
            "helo { 192.0.2.1 = mx.example }",
            "certificate mx",
            "tls verify",
            "expire 2d",
        ],
        after: "",
    },
    Sentence {
        before: "match",
        clauses: &[
            "tag OUT",
            "!helo regex \"^x\"",
            "tls",
            "auth { joe, jim }",
            "cert",
            "!mail-from @a.example",
            "rcpt-to x@b.example",
            "from src <nets>",
            "!for domain c.example",
        ],
        after: "action a",
    },
    Sentence {
        before: "listen on lo0",
        clauses: &[
            "port 2525",
            "tls-require verify",
            "pki mx",
            "auth-optional",
            "senders { joe = joe@a.example } masquerade",
            "tag X",
            "filter f",
            "mask-src",
            "hostname h.example",
            "max-message-size 1M",
        ],
        after: "",
    },
    Sentence {
        before: "action b relay",
        clauses: &[
            "host smtp+tls://l@h.example",
            "auth { l = u:p }",
            "src 192.0.2.1",
            "helo h.example",
            "tls no-verify",
            "mail-from @x.example",
            "srs",
            "verp",
            "shaping s",
            "ttl 1d",
        ],
        after: "",
    },
    Sentence {
        before: "smtp limit",
        clauses: &["max-mails 1", "max-rcpt 2", "max-errors 3", "timeout 5m", "data-timeout 6m"],
        after: "",
    },
];

fn files(text: &str) -> Memory {
    let use_it = if text.starts_with("action b") { "match tag B action b\n" } else { "" };
    let files = Memory::default().with("c", format!("{text}\n{REST}{use_it}"));
    files.with("/c", "").with("/k", "")
}

fn canonical(text: &str) -> String {
    match load_canonical(&files(text), Path::new("c"), &Options::default(), false) {
        Ok((_, _, canonical)) => canonical,
        Err(reports) => panic!("{text}\n{reports}"),
    }
}

fn errors(text: &str) -> Reports {
    match load(&files(text), Path::new("c"), &Options::default()) {
        Ok(_) => panic!("it loads: {text}"),
        Err(reports) => reports,
    }
}

/// A sentence of some of its clauses.
fn said(sentence: &Sentence, clauses: &[&str]) -> String {
    format!("{} {} {}", sentence.before, clauses.join(" "), sentence.after)
}

fn some_sentence() -> impl Strategy<Value = (usize, Vec<&'static str>)> {
    (0..SENTENCES.len()).prop_flat_map(|at| {
        // Which go together is not asked here; all of each sentence do.
        let clauses = SENTENCES[at].clauses.to_vec();
        (Just(at), prop::sample::subsequence(clauses.clone(), 1..=clauses.len()).prop_shuffle())
    })
}

/// Old rules without a condition, and what needs another clause.
fn is_whole(at: usize, clauses: &[&str]) -> bool {
    let has = |word: &str| clauses.iter().any(|clause| clause.starts_with(word));
    let only_mapping = at == 0 && clauses.iter().all(|c| c.starts_with("virtual") || c.starts_with("userbase"));
    let needs_auth = at == 4 && has("host") && !has("auth");
    let needs_tls = at == 3 && has("auth") && !has("tls");
    let needs_pki = at == 3 && has("tls") && !has("pki");
    !only_mapping && !needs_auth && !needs_tls && !needs_pki
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_does_not_matter((at, clauses) in some_sentence()) {
        prop_assume!(is_whole(at, &clauses));
        let sentence = &SENTENCES[at];
        let in_order: Vec<&str> = sentence.clauses.iter().copied().filter(|c| clauses.contains(c)).collect();
        prop_assert_eq!(canonical(&said(sentence, &clauses)), canonical(&said(sentence, &in_order)));
    }

    #[test]
    fn each_is_said_once((at, clauses) in some_sentence(), which in any::<prop::sample::Index>(), place in any::<prop::sample::Index>()) {
        let sentence = &SENTENCES[at];
        let twice = *which.get(&clauses);
        // A listener may have several certificates.
        prop_assume!(twice != "pki mx");
        let mut more = clauses.clone();
        more.insert(place.index(clauses.len() + 1), twice);
        let text = said(sentence, &more);
        let reports = errors(&text);
        let found = reports.iter().find(|report| report.code == "E0601");
        prop_assert!(found.is_some_and(|report| report.also.is_some()), "{}\n{}", text, reports);
    }

    #[test]
    fn none_is_another_statements(from in 0..SENTENCES.len(), to in 0..SENTENCES.len(), which in any::<prop::sample::Index>()) {
        let clause = *which.get(SENTENCES[from].clauses);
        let target = &SENTENCES[to];
        let word = clause.split(' ').find(|word| *word != "!").expect("a clause has a word").trim_start_matches('!');
        let knows = |sentence: &Sentence| {
            sentence.clauses.iter().any(|c| c.trim_start_matches('!').split(' ').next() == Some(word))
        };
        // Words that a sentence knows, though this test does not say them in it.
        let others: &[&str] = match to {
            0 => &["auth"],
            1 => &["sender", "recipient", "tagged", "hostname", "tls", "pki"],
            2 => &["auth"],
            3 => &["tls", "auth", "certificate"],
            4 => &["virtual", "filter", "pki", "host", "tls"],
            _ => &[],
        };
        prop_assume!(!knows(target) && !others.contains(&word));
        let mut clauses = target.clauses.to_vec();
        clauses.insert(1, clause);
        let reports = errors(&said(target, &clauses));
        prop_assert!(reports.iter().any(|report| matches!(report.code, "E0202" | "E0204" | "E0510" | "E0203")), "{}", reports);
    }
}
