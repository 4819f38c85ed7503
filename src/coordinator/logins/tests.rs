//! Logins against tables in memory and on a disk, and without any.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use ringpost_conf::tables::Secret as Kept;

use super::*;
use crate::coordinator::tables::{Backend, Declared, Surroundings};
use crate::passwords::{Scheme, hash};

fn logins() -> (Logins, Arc<AtomicUsize>) {
    let warned = Arc::new(AtomicUsize::new(0));
    let count = warned.clone();
    let logins = Logins::start(1, None, move |_| _ = count.fetch_add(1, Ordering::Relaxed)).unwrap();
    (logins, warned)
}

fn from(last: u8) -> Origin {
    Origin::Host([192, 0, 2, last].into())
}

fn login(from: Origin, book: Book, user: &str, password: &str) -> Login {
    let proof = Proof::Password { user: user.into(), password: Secret::new(password.into()) };
    Login { from, book, proof, binding: None, proceeding: None }
}

fn entry(text: &str) -> Option<Credentials> {
    Some(Credentials::parse(text).unwrap())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The user of an accepted login.
fn user(verdict: Verdict) -> Option<String> {
    match verdict {
        Verdict::Accepted { user, .. } => Some(user),
        Verdict::Refused => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn s62_the_record_says_who_the_user_is() {
    let (logins, _) = logins();
    let made = hash("right", Scheme::Ssha);
    let tables = Tables::default();
    block_on(async {
        for (text, password, expected) in [
            (format!("gilles:{made}"), "right", Some("gilles")),
            (made.clone(), "right", Some("g")),
            (format!("gilles:{made}:10:100:G:/home/gilles:/bin/sh"), "right", Some("gilles")),
            (format!("gilles:{made}"), "left", None),
            ("gilles:right".to_owned(), "right", None),
            ("gilles:$1$x$y".to_owned(), "right", None),
        ] {
            let book = Book::Entry { entry: entry(&text), sample: None };
            let verdict = logins.judge(&tables, login(from(1), book, "g", password)).await;
            assert_eq!(user(verdict).as_deref(), expected, "{text}");
        }
        let sample = Some(Kept::new(&made));
        let book = Book::Entry { entry: None, sample };
        assert_eq!(
            user(logins.judge(&tables, login(from(2), book, "g", "right")).await),
            None,
            "whatever the sample fits"
        );
    });
}

#[test]
fn s64_a_table_that_fails_is_not_held_against_the_client() {
    let (logins, warned) = logins();
    let surroundings = Surroundings { root: None, events: Arc::new(|_| {}), users: None };
    let declared = Declared::new("t", Backend::Db(Path::new("/nowhere/t.db").to_owned()));
    let tables = Tables::new(vec![declared], &surroundings).unwrap();
    block_on(async {
        for judges in [false, true] {
            for _ in 0..20 {
                let book = Book::Table { name: "t".into(), judges };
                let verdict = logins.judge(&tables, login(from(1), book, "g", "right")).await;
                assert!(matches!(verdict, Verdict::Failed), "{verdict:?}");
            }
        }
        assert_eq!(warned.load(Ordering::Relaxed), 0, "the table tells of itself");
        for _ in 0..20 {
            let verdict = logins.judge(&tables, login(from(1), Book::System, "g", "right")).await;
            assert!(matches!(verdict, Verdict::Failed), "there is no supervisor: {verdict:?}");
        }
    });
    assert_eq!(warned.load(Ordering::Relaxed), 1);
}

#[test]
fn many_failures_are_slowed_and_told_of_once() {
    let (logins, warned) = logins();
    let made = hash("right", Scheme::Ssha);
    let tables = Tables::default();
    block_on(async {
        let book = || Book::Entry { entry: entry(&made), sample: None };
        let began = tokio::time::Instant::now();
        for _ in 0..9 {
            let verdict = logins.judge(&tables, login(from(1), book(), "g", "left")).await;
            assert!(matches!(verdict, Verdict::Refused), "one after the other, each has its turn: {verdict:?}");
        }
        assert!(began.elapsed().as_secs() >= 2, "{:?} for 9 guesses", began.elapsed());
        let other =
            logins.judge(&tables, login(from(2), Book::Entry { entry: entry(&made), sample: None }, "h", "right"));
        let began = tokio::time::Instant::now();
        assert_eq!(user(other.await).as_deref(), Some("h"));
        assert!(began.elapsed().as_secs() < 1);
    });
    assert!(warned.load(Ordering::Relaxed) <= 7, "{} lines", warned.load(Ordering::Relaxed));
}

#[test]
fn scram_goes_to_its_end() {
    let (logins, _) = logins();
    let tables = Tables::default();
    let keys = hash("pencil", Scheme::Scram);
    block_on(async {
        let first = "n,,n=user,r=abc";
        let proof = Proof::First(Mechanism::ScramSha256, Secret::new(first.into()));
        let book = Book::Entry { entry: entry(&format!("gilles:{keys}")), sample: None };
        let begun = logins
            .judge(&tables, Login { from: from(1), book: book.clone(), proof, binding: None, proceeding: None })
            .await;
        let Verdict::Challenge { text, proceeding } = begun else { panic!("{begun:?}") };
        let last = crate::passwords::scram::client_last("pencil", "n=user,r=abc", &text);
        let proof = Proof::Next(Secret::new(last));
        let ended = logins
            .judge(&tables, Login { from: from(1), book, proof, binding: None, proceeding: Some(proceeding) })
            .await;
        let Verdict::Accepted { user, last: Some(last) } = ended else { panic!("{ended:?}") };
        assert_eq!((user.as_str(), &last[..2]), ("gilles", "v="));
    });
}
