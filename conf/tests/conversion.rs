//! A converted file decides as the one that it was made of: the whole expansion is run for both, with the same sessions, users
//! and answers of tables. It is what `ringpost explain` shows.

mod book;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::path::Path;

use book::extract;
use ringpost_conf::expand::{Delivery, Expansion, Outlines, Question, Refusal, Step, Told};
use ringpost_conf::tables::ServiceKind;
use ringpost_conf::{Config, Explanation, Facts, Lookup, convert, load};

/// Sessions for each file.
const SESSIONS: u64 = 10_000;
const SOURCES: [Option<IpAddr>; 6] = [
    None,
    Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
    Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 7))),
    Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 2, 7))),
    Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 5))),
    Some(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1))),
];
const LOCAL_PARTS: [&str; 12] = [
    "gilles",
    "Gilles+x",
    "root",
    "staff",
    "vuser",
    "joe",
    "postmaster",
    "abuse+1",
    "x",
    "eric",
    "info-list",
    "nobody",
];
const DOMAINS: [&str; 24] = [
    "example.org",
    "Example.ORG",
    "example.net",
    "example.com",
    "mail.example.com",
    "m.example.com",
    "poolp.org",
    "a.b.poolp.org",
    "opensmtpd.org",
    "pool.ps",
    "localhost",
    "openbsd.org",
    "redhat.com",
    "thepig.org",
    "foot-cheese.org",
    "a.example",
    "b.example",
    "c.example",
    "d.example",
    "e.example",
    "f.example",
    "g.example",
    "h.example",
    "elsewhere.example",
];
const TAGS: [&str; 4] = ["", "DKIM", "SUBMITTED", "local"];
const USERS: [&str; 5] = ["gilles", "root", "eric", "chl", "joe"];

fn pick(number: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    number.hash(&mut hasher);
    hasher.finish()
}

/// One of each, by a number that is used up.
fn one<T: Copy>(of: &[T], from: &mut u64) -> T {
    let at = *from % of.len() as u64;
    *from /= of.len() as u64;
    of[at as usize]
}

/// Somebody who answers, always the same to the same question; not every time does he know.
fn answer(question: &Question) -> Told {
    let mut hasher = DefaultHasher::new();
    match question {
        // A rule may have become two, and a table is another one's number then.
        Question::Lookup(Lookup::Table { service, key, .. }) => (service.to_string(), key).hash(&mut hasher),
        other => other.hash(&mut hasher),
    }
    let sum = hasher.finish();
    match question {
        Question::User(name) if USERS.contains(&&**name) => Told::Found(format!("{name}:1:1:/home/{name}")),
        Question::User(_) => Told::NotFound,
        _ if sum.is_multiple_of(7) => Told::Failed("tired".into()),
        _ if !sum.is_multiple_of(3) => Told::NotFound,
        Question::Lookup(Lookup::Table { service: ServiceKind::UserInfo, .. }) => Told::Found("v:2:2:/v".into()),
        Question::Lookup(Lookup::Table { .. }) => Told::Found("eric, chl".into()),
        Question::Forward(_) => Told::Found("x@elsewhere.example\n".into()),
        Question::Include { .. } | Question::Lookup(Lookup::ReverseName) => Told::NotFound,
    }
}

fn outcome<'c>(
    config: &'c Config,
    outlines: &'c Outlines,
    facts: Facts<'c>,
) -> (Expansion<'c>, Result<Vec<Delivery>, Refusal>) {
    let mut expansion = Expansion::new(config, outlines, facts);
    loop {
        match expansion.step() {
            Step::Done(outcome) => return (expansion, outcome),
            Step::Needs(needs) => needs.into_iter().for_each(|question| {
                let told = answer(&question);
                expansion.tell(question, told);
            }),
        }
    }
}

/// What is done in the end; actions by what they do, for their names may differ.
fn shown(expansion: Expansion<'_>, config: &Config, outcome: Result<Vec<Delivery>, Refusal>) -> String {
    let ttls: Vec<_> = outcome.iter().flatten().map(|delivery| config.actions[delivery.action].ttl).collect();
    match Explanation::new(expansion, outcome).outcome {
        Err(refusal) => format!("{} {} {}", refusal.code(), refusal.status(), refusal.text()),
        Ok(all) => {
            let one = |(one, ttl): (&ringpost_conf::ExplainedDelivery, _)| {
                format!("{} {:?} {:?} <{}> {ttl:?}", one.does, one.user, one.special, one.address)
            };
            all.iter().zip(&ttls).map(one).collect::<Vec<_>>().join("; ")
        }
    }
}

#[test]
fn s16_converted_files_decide_alike_for_ten_thousand_sessions() {
    let (mut fixtures, data) = extract();
    fixtures.retain(|fixture| fixture.name.starts_with(['P', 'L']));
    let mut kinds = std::collections::BTreeSet::new();
    for fixture in &fixtures {
        let path = fixture.file();
        let read = |text: &str| {
            let files = book::files(fixture, text, &data);
            load(&files, Path::new(&path), &book::options()).unwrap_or_else(|reports| panic!("{text}\n{reports}")).0
        };
        let whole = fixture.whole();
        let files = book::files(fixture, &whole, &data);
        let converted =
            convert(&files, Path::new(&path), &book::options()).unwrap_or_else(|r| panic!("{whole}\n{r}")).0;
        let (old, new) = (read(&whole), read(&converted));
        let (old_outlines, new_outlines) = (Outlines::new(&old), Outlines::new(&new));
        for session in 0..SESSIONS {
            let mut number = pick(session);
            let sender = match number % 8 {
                0 => String::new(),
                _ => format!("{}@{}", one(&LOCAL_PARTS, &mut number), one(&DOMAINS, &mut number)),
            };
            let recipient = format!("{}@{}", one(&LOCAL_PARTS, &mut number), one(&DOMAINS, &mut number));
            let facts = Facts {
                source: one(&SOURCES, &mut number),
                tag: one(&TAGS, &mut number),
                authenticated: one(&[None, None, Some("joe"), Some("gilles")], &mut number),
                helo: one(&["h.example", "localhost"], &mut number),
                tls: one(&[false, true], &mut number),
                sender: &sender,
                recipient: &recipient,
                ..Facts::default()
            };
            let (expansion, decided) = outcome(&old, &old_outlines, facts);
            let expected = shown(expansion, &old, decided);
            let (expansion, decided) = outcome(&new, &new_outlines, facts);
            assert_eq!(shown(expansion, &new, decided), expected, "{}: {facts:?}\n{converted}", fixture.name);
            kinds.insert(expected.split(' ').next().unwrap_or("").to_owned());
        }
    }
    // All ways of ending have been seen.
    for kind in ["relay", "mbox", "maildir", "550", "451", "lmtp"] {
        assert!(kinds.contains(kind), "{kind} is not in {kinds:?}");
    }
}
