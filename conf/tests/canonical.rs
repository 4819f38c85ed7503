//! The canonical form prints itself and decides alike, and so does what `ringpost convert` writes: for every fixture of the
//! grammar.

mod book;

use std::net::IpAddr;
use std::path::Path;

use book::{Data, Fixture, extract};
use ringpost_conf::{
    ActionKind, Config, Decision, Facts, LookUp, Reports, TableId, convert, load, load_canonical, tables,
};

fn canonical(fixture: &Fixture, text: &str, data: &[Data], defaults: bool) -> (Config, Reports, String) {
    let files = book::files(fixture, text, data);
    load_canonical(&files, Path::new(&fixture.file()), &book::options(), defaults)
        .unwrap_or_else(|reports| panic!("{}:\n{text}\n{reports}", fixture.name))
}

fn loading() -> (Vec<Fixture>, Vec<Data>) {
    let (mut fixtures, data) = extract();
    fixtures.retain(|fixture| fixture.name.starts_with(['P', 'M', 'L']));
    assert_eq!(fixtures.len(), 41);
    (fixtures, data)
}

/// Remote tables answer by what they are asked, so that both sides ask the same.
struct Asked(Vec<String>);

impl LookUp for Asked {
    fn look(&mut self, table: TableId, service: tables::ServiceKind, key: &str) -> tables::Answer<()> {
        self.0.push(format!("{} {service} {key}", table.0));
        if key.len().is_multiple_of(2) { tables::Answer::Found(()) } else { tables::Answer::NotFound }
    }
}

/// What a configuration does with some sessions; actions by what they do, for their names may differ.
fn decisions(config: &Config) -> Vec<String> {
    let sources: [Option<IpAddr>; 5] = [
        None,
        Some([127, 0, 0, 1].into()),
        Some([192, 168, 1, 7].into()),
        Some([192, 168, 2, 7].into()),
        Some([198, 51, 100, 1].into()),
    ];
    let recipients = [
        "gilles@example.org",
        "staff@poolp.org",
        "x@a.poolp.org",
        "x@opensmtpd.org",
        "root@localhost",
        "abuse+1@example.com",
        "postmaster",
        "x@b.example",
        "old@example.net",
    ];
    let senders = ["", "a@openbsd.org", "gilles@poolp.org", "x@redhat.com", "richard@foot-cheese.org", "a@example.com"];
    let mut all = Vec::new();
    for source in sources {
        for recipient in recipients {
            for sender in senders {
                for (authenticated, tag) in [(None, ""), (Some("joe"), "DKIM"), (None, "SUBMITTED")] {
                    let facts = Facts { source, recipient, sender, authenticated, tag, helo: "h", ..Facts::default() };
                    let mut asked = Asked(Vec::new());
                    let decision = match config.decide_with(&facts, &mut asked) {
                        Decision::Action(at) => {
                            let action = &config.actions[at];
                            let kind = match &action.kind {
                                ActionKind::Relay(relay) => format!("relay {:?} {:?}", relay.hosts, relay.backup),
                                ActionKind::Maildir(maildir) => format!("maildir {}", maildir.path.as_written()),
                                other => format!("{other:?}"),
                            };
                            format!("{kind} {:?} {}", action.ttl, action.mapping.is_some())
                        }
                        other => format!("{other:?}"),
                    };
                    all.push(format!("{source:?} {sender} {recipient}: {decision} {:?}", asked.0));
                }
            }
        }
    }
    all
}

#[test]
fn s02_the_canonical_form_prints_itself_and_decides_alike() {
    let (fixtures, data) = loading();
    for fixture in &fixtures {
        let whole = fixture.whole();
        for defaults in [false, true] {
            let (config, _, first) = canonical(fixture, &whole, &data, defaults);
            let (again, reports, second) = canonical(fixture, &first, &data, defaults);
            assert_eq!(first, second, "{}", fixture.name);
            assert!(reports.iter().all(|r| r.code != "W0804" && r.code != "W0811"), "{first}\n{reports}");
            assert_eq!(decisions(&config), decisions(&again), "{}:\n{first}", fixture.name);
        }
    }
}

#[test]
fn the_example_of_the_book() {
    let (fixtures, data) = loading();
    let fixture = fixtures.iter().find(|fixture| fixture.name == "P18").expect("P18");
    let book = book::book();
    let (_, section) = book.split_once("### 5.4 Example").expect("§5.4");
    let example = section.split("```").nth(1).expect("a block").trim_start();
    assert_eq!(canonical(fixture, &fixture.text, &data, false).2, example);
}

#[test]
fn s16_conversion_keeps_decisions_and_comments() {
    let (fixtures, data) = loading();
    for fixture in &fixtures {
        let whole = fixture.whole();
        let converted = |text: &str| {
            let files = book::files(fixture, text, &data);
            convert(&files, Path::new(&fixture.file()), &book::options()).unwrap_or_else(|r| panic!("{text}\n{r}")).0
        };
        let once = converted(&whole);
        assert_eq!(converted(&once), once, "{}", fixture.name);
        let files = book::files(fixture, &once, &data);
        let (config, reports) = load(&files, Path::new(&fixture.file()), &book::options())
            .unwrap_or_else(|reports| panic!("{once}\n{reports}"));
        assert!(reports.iter().all(|r| r.code != "W0804"), "{once}\n{reports}");
        let files = book::files(fixture, &whole, &data);
        let (before, _) = load(&files, Path::new(&fixture.file()), &book::options()).expect("it loads");
        assert_eq!(decisions(&before), decisions(&config), "{}:\n{once}", fixture.name);
        for comment in whole.lines().filter_map(|line| line.trim().strip_prefix('#')) {
            assert!(once.contains(comment), "{}: lost `{comment}`:\n{once}", fixture.name);
        }
        // What is in the words of today stays as it is.
        let is_modern = fixture.name.starts_with('M') && !whole.contains("mta limit");
        assert!(!is_modern || once == whole, "{}:\n{once}", fixture.name);
    }
}

fn one(text: &str) -> String {
    let files = ringpost_conf::Memory::default().with("c", text);
    convert(&files, Path::new("c"), &ringpost_conf::Options::default()).unwrap_or_else(|r| panic!("{r}")).0
}

#[test]
fn what_a_conversion_looks_like() {
    let text = "\
# head
host = \"mx.example.org\"
listen on lo0   # near
size 10M # small
accept for domain { a.example, # first
    b.example } deliver to maildir \"/m/%{rcpt.domain[0:6]}\"    # archive
accept from any for all relay via tls+auth://x@$host auth { x = y:z } # ok W0802
";
    // A macro is not replaced inside a word.
    let text = text.replace("x@$host", "x@${host}");
    let expected = "\
# head
host = \"mx.example.org\"
listen on lo0   # near
smtp max-message-size 10M # small
# first
action \"line-5\" maildir \"/m/%{rcpt.domain[0:7]}\" # ok W0806
match from local for domain { a.example, b.example } action \"line-5\"
match from auth for domain { a.example, b.example } action \"line-5\"    # archive
action \"line-7\" relay host smtp+tls://x@mx.example.org auth { x => y:z } # ok W0802
match from any for any action \"line-7\" # ok W0802
";
    assert_eq!(one(&text), expected);
}

#[test]
fn s16_a_comment_behind_a_quote_stays_a_comment() {
    assert_eq!(one("subaddressing-delimiter \"-\"#of ours\n"), "smtp sub-addr-delim - #of ours\n");
    let text = "action \"a\" maildir \"/m/%{rcpt.domain[0:6]}\"#archive\nmatch from any for any action \"a\"\n";
    let expected =
        "action \"a\" maildir \"/m/%{rcpt.domain[0:7]}\" # ok W0806 archive\nmatch from any for any action \"a\"\n";
    assert_eq!(one(text), expected);
}

#[test]
fn s16_a_backup_that_is_no_host_is_refused_in_the_old_words_as_in_the_new() {
    let files = |text: &str| ringpost_conf::Memory::default().with("c", text);
    for text in ["accept for any relay via \"backup://mx2.;x.org\"\n", "action a relay backup mx \"mx2.;x.org\"\n"] {
        let reports = convert(&files(text), Path::new("c"), &ringpost_conf::Options::default()).expect_err(text);
        assert_eq!(reports.iter().map(|report| report.code).collect::<Vec<_>>(), ["E0507"], "{text}");
    }
}
