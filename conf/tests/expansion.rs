//! Rules and expansion from the text of a configuration on: rows of `seed-spec.md` that need no server.

use std::path::Path;

use proptest::prelude::*;
use ringpost_conf::expand::{Delivery, Expansion, Outlines, Question, Refusal, Step, Told};
use ringpost_conf::{Config, Facts, Memory, Options, load};

/// Users of the system.
const USERS: [&str; 4] = ["root", "gilles", "eric", "chl"];

fn config(text: &str, files: &[(&str, &str)]) -> Config {
    let text = format!("listen on lo0\n{text}");
    let source = files.iter().fold(Memory::default(), |source, (path, text)| source.with(*path, *text));
    let options = Options { server_name: Some("mail.example".into()), ..Options::default() };
    match load(&source.with("r.conf", text), Path::new("r.conf"), &options) {
        Ok((config, _)) => config,
        Err(reports) => panic!("{}", reports.render(ringpost_conf::Look::Plain)),
    }
}

fn system(question: &Question) -> Told {
    match question {
        Question::User(name) if USERS.contains(&name.as_str()) => Told::Found(format!("{name}:1:1:/home/{name}")),
        _ => Told::NotFound,
    }
}

/// What becomes of a recipient, as text.
fn outcome(config: &Config, facts: Facts<'_>) -> String {
    let outlines = Outlines::new(config);
    let mut expansion = Expansion::new(config, &outlines, facts);
    loop {
        match expansion.step() {
            Step::Done(outcome) => return shown(config, outcome),
            Step::Needs(needs) => needs.into_iter().for_each(|question| {
                let told = system(&question);
                expansion.tell(question, told);
            }),
        }
    }
}

fn shown(config: &Config, outcome: Result<Vec<Delivery>, Refusal>) -> String {
    match outcome {
        Err(refusal) => format!("{} {}", refusal.code(), refusal.status()),
        Ok(all) => {
            let one = |one: &Delivery| match one.way.user() {
                Some(user) => format!("{} {}", config.actions[one.action].describe(), user.name),
                None => format!("{} <{}>", config.actions[one.action].describe(), one.address),
            };
            all.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    }
}

/// From anywhere on the network.
fn stranger(recipient: &str) -> Facts<'_> {
    Facts { source: Some([192, 0, 2, 9].into()), sender: "s@x.example", recipient, ..Facts::default() }
}

/// From this host.
fn own(recipient: &str) -> Facts<'_> {
    Facts { source: Some([127, 0, 0, 1].into()), ..stranger(recipient) }
}

#[track_caller]
fn check(config: &Config, cases: &[(Facts<'_>, &str)]) {
    for (facts, expected) in cases {
        assert_eq!(outcome(config, *facts), *expected, "<{}> from {:?}", facts.recipient, facts.source);
    }
}

#[test]
fn s04_the_first_matching_rule_decides() {
    let reject = "reject from any for domain a.example\n";
    let accept = "accept from any for domain a.example deliver to maildir\n";
    let (gilles, root) = (stranger("gilles@a.example"), stranger("root@b.example"));
    check(&config(&format!("{reject}{accept}"), &[]), &[(gilles, "550 5.7.1"), (root, "550 5.7.1")]);
    check(&config(&format!("{accept}{reject}"), &[]), &[(gilles, "maildir ~/Maildir gilles"), (root, "550 5.7.1")]);
}

#[test]
fn s06_primary_domains() {
    let local = config("accept for local deliver to mbox\n", &[]);
    check(
        &local,
        &[
            (own("gilles@localhost"), "mbox gilles"),
            (own("Gilles+x@mail.example"), "mbox gilles"),
            (own("nobody-such@localhost"), "550 5.1.1"),
            (own("gilles@elsewhere.example"), "550 5.7.1"),
        ],
    );
    check(&config("accept for any deliver to mbox\n", &[]), &[(own("gilles@whatever.example"), "mbox gilles")]);
}

#[test]
fn s07_virtual_for_any_and_local() {
    let any = config("accept for any virtual { \"@\" => gilles } deliver to mbox\n", &[]);
    check(&any, &[(own("x@y.example"), "mbox gilles")]);
    let local = config("accept for local virtual { root => gilles } deliver to mbox\n", &[]);
    check(&local, &[(own("root@localhost"), "mbox gilles"), (own("x@localhost"), "550 5.1.1")]);
}

#[test]
fn s08_wildcards_match_any_depth_but_not_the_domain_itself() {
    for rule in ["", "alias { a => b } ", "virtual { \"@\" => gilles } "] {
        let text =
            format!("table d {{ poolp.org, \"*.poolp.org\" }}\naccept from any for domain <d> {rule}deliver to mbox\n");
        let config = config(&text, &[]);
        for good in ["gilles@poolp.org", "gilles@a.poolp.org", "gilles@a.b.poolp.org", "gilles@A.POOLP.ORG"] {
            check(&config, &[(stranger(good), "mbox gilles")]);
        }
        for bad in ["gilles@xpoolp.org", "gilles@poolp.org.evil.example"] {
            check(&config, &[(stranger(bad), "550 5.7.1")]);
        }
    }
}

#[test]
fn s09_from_is_local_unless_said_otherwise() {
    let here = |from: &str| config(&format!("accept {from} for domain poolp.org deliver to mbox\n"), &[]);
    let (near, far) = (own("gilles@poolp.org"), stranger("gilles@poolp.org"));
    let six = Facts { source: Some("2001:db8::5".parse().unwrap()), ..far };
    check(&here(""), &[(near, "mbox gilles"), (far, "550 5.1.1")]);
    check(&here("from any"), &[(near, "mbox gilles"), (far, "mbox gilles")]);
    check(&here("from 192.0.2.0/24"), &[(near, "550 5.1.1"), (far, "mbox gilles")]);
    check(&here("from { 10.0.0.0/8, 2001:db8::/32 }"), &[(far, "550 5.1.1"), (six, "mbox gilles")]);
}

#[test]
fn s10_who_has_logged_in_counts_as_local_in_rules_of_long_ago() {
    let config = config("accept for any relay\n", &[]);
    let far = stranger("x@example.net");
    check(
        &config,
        &[(far, "550 5.7.1"), (Facts { authenticated: Some("gilles"), ..far }, "relay by MX <x@example.net>")],
    );
}

#[test]
fn s11_rules_by_sender() {
    let config = config(
        "reject sender \"@redhat.com\" for any\naccept from any sender \"@openbsd.org\" for any relay\n\
         accept from any sender gilles@poolp.org for any relay\n",
        &[],
    );
    let from = |sender: &'static str| Facts { sender, ..stranger("x@y.example") };
    check(
        &config,
        &[
            (from("a@openbsd.org"), "relay by MX <x@y.example>"),
            (from("a@xopenbsd.org"), "550 5.7.1"),
            (from("gilles@poolp.org"), "relay by MX <x@y.example>"),
            (from("gilles@sub.poolp.org"), "550 5.7.1"),
            (from(""), "550 5.7.1"),
            (Facts { sender: "x@RedHat.com", ..own("x@y.example") }, "550 5.7.1"),
        ],
    );
}

#[test]
fn s12_routes_by_network_and_sender() {
    let config = config(
        "table hackers { \"@opensmtpd.org\", \"@poolp.org\" }\ntable slackers { \"@slack.example\" }\n\
         accept from 192.168.1.0/24 sender <hackers> relay\n\
         accept from 192.168.2.0/24 sender <slackers> relay via smtp://example.org\n",
        &[],
    );
    let from = |net: u8, sender: &'static str| Facts {
        source: Some([192, 168, net, 7].into()),
        sender,
        recipient: "x@y.example",
        ..Facts::default()
    };
    check(
        &config,
        &[
            (from(1, "a@poolp.org"), "relay by MX <x@y.example>"),
            (from(2, "a@slack.example"), "relay to example.org:25 <x@y.example>"),
            (from(1, "a@slack.example"), "550 5.7.1"),
            (from(2, "a@poolp.org"), "550 5.7.1"),
        ],
    );
}

#[test]
fn s24_a_table_of_addresses_with_a_catch_all() {
    let table = "gilles@example.org gilles\n@example.org gilles # catch all\n# example.org enabled -> no longer\n\
                 example.net enabled\n";
    let rule = "accept from any for domain { example.org, example.net } virtual <t> deliver to mbox\n";
    let config = config(&format!("table t \"/t\"\n{rule}"), &[("/t", table)]);
    check(
        &config,
        &[
            (stranger("gilles@example.org"), "mbox gilles"),
            (stranger("any@example.org"), "mbox gilles"),
            (stranger("x@example.net"), "550 5.1.1"),
        ],
    );
}

#[test]
fn s29_users_that_exist_only_in_tables() {
    let config = config(
        "table bleh1 { vuser => vuser:10:100:/tmp/vuser }\ntable bleh2 { vuser => vuser:20:200:/tmp2/vuser }\n\
         accept from any for domain poolp.org users <bleh1> deliver to maildir\n\
         accept from any for domain opensmtpd.org users <bleh2> deliver to maildir\n\
         accept from any for domain pool.ps deliver to maildir\n",
        &[],
    );
    check(
        &config,
        &[
            (stranger("vuser@poolp.org"), "maildir ~/Maildir vuser"),
            (stranger("vuser@opensmtpd.org"), "maildir ~/Maildir vuser"),
            (stranger("gilles@poolp.org"), "550 5.1.1"),
            (stranger("root@pool.ps"), "maildir ~/Maildir root"),
            (stranger("vuser@pool.ps"), "550 5.1.1"),
        ],
    );
}

fn address() -> impl Strategy<Value = String> {
    let local = prop::sample::select(vec!["gilles", "eric", "root", "nobody", "Gilles+x", "chl+a+b", "x"]);
    let domain = "(poolp\\.org|POOLP\\.ORG|opensmtpd\\.org|a\\.poolp\\.org|[a-z]{1,5}\\.(org|example))";
    (local, domain).prop_map(|(local, domain)| format!("{local}@{domain}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn s05_inline_static_file_and_bracketed_tables_are_the_same(to in address()) {
        let rule = |domains: &str| format!("accept from any for domain {domains} deliver to mbox\n");
        let list = "poolp.org, opensmtpd.org";
        let inline = config(&rule(&format!("{{ {list} }}")), &[]);
        let declared = config(&format!("table d {{ {list} }}\n{}", rule("<d>")), &[]);
        let bracketed = config(&format!("table <d> {{ {list} }}\n{}", rule("<d>")), &[]);
        let files = [("/etc/mail/domains", "poolp.org\nopensmtpd.org\n")];
        let file = config(&format!("table d \"/etc/mail/domains\"\n{}", rule("<d>")), &files);
        let expected = outcome(&inline, stranger(&to));
        for other in [&declared, &bracketed, &file] {
            prop_assert_eq!(&outcome(other, stranger(&to)), &expected, "{}", to);
        }
        if to.to_lowercase().ends_with("@poolp.org") {
            prop_assert_eq!(&outcome(&config(&rule("poolp.org"), &[]), stranger(&to)), &expected);
        }
    }

    #[test]
    fn s26_a_global_catch_all_takes_everybody(local in "[a-z0-9]{1,12}", domain in "[a-z]{1,9}\\.[a-z]{2,6}") {
        let sink = config("accept from any for any virtual { \"@\" => gilles } deliver to maildir\n", &[]);
        let to = format!("{local}@{domain}");
        prop_assert_eq!(outcome(&sink, stranger(&to)), "maildir ~/Maildir gilles");
    }

    /// Who is in no table is refused by one and looked up by the other: so only those who exist.
    #[test]
    fn s27_a_virtual_domain_is_a_regular_domain_with_a_mapping(to in address()) {
        let regular = config("accept from any for domain poolp.org deliver to mbox\n", &[]);
        let map = USERS.map(|user| format!("{user} => {user}")).join(", ");
        let text = format!("accept from any for domain poolp.org virtual {{ {map} }} deliver to mbox\n");
        prop_assert_eq!(outcome(&config(&text, &[]), stranger(&to)), outcome(&regular, stranger(&to)));
    }
}
