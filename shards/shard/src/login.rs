//! Logging in, and what a user who has may say: the session brings a proof, whoever judges it sits where waiting keeps
//! nobody (`ask.rs`), and the answer goes back to the session.

use std::any::Any;
use std::fmt;
use std::rc::Rc;

use ringpost_address::FoldedAddress;
use ringpost_conf::expand::{Question, Told};
use ringpost_conf::tables::{self, AddressPattern, AddressSet, Credentials, ServiceKind, is_known_scheme};
use ringpost_conf::{Backend, Config, Keyed, Listener, Lookup, PasswordAuth, Senders, TlsMode, Users};
use ringpost_io::Runtime;
use ringpost_smtp::Reply;
use ringpost_smtp::server::{Authentication, Judgement, Logins, Mechanism, Mechanisms, Proof};

use crate::ask::Ask;
use crate::event::{Event, Origin};
use crate::lookups::{self, Awaited};
use crate::recipient::Client;
use crate::settings::{ListenerPolicy, Settings};
use crate::shard::{Shard, World};
use crate::{limits, replies};

/// A login to be judged.
#[derive(Debug)]
pub struct Login {
    /// Where the client is.
    pub from: Origin,
    /// Who is asked.
    pub book: Book,
    /// What it shows.
    pub proof: Proof,
    /// What binds it to its encrypted channel, where that can be.
    pub binding: Option<[u8; 32]>,
    /// What a mechanism of several steps is about, from the [`Verdict::Challenge`] before.
    pub proceeding: Option<Proceeding>,
}

/// Who knows the users.
#[derive(Clone, Debug)]
pub enum Book {
    /// The system.
    System,
    /// A table in memory, which was looked at already.
    Entry {
        /// What it has of this user.
        entry: Option<Credentials>,
        /// The entry of another: a user who is not there must cost as much time as one who is.
        sample: Option<tables::Secret>,
    },
    /// A table that must be asked.
    Table {
        /// Its name.
        name: String,
        /// It judges the password itself (K_AUTH), rather than to say what it should be (K_CREDENTIALS).
        judges: bool,
    },
}

/// The state of a mechanism between two steps; whoever judges knows what it is.
pub struct Proceeding(pub Box<dyn Any + Send>);

impl fmt::Debug for Proceeding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proceeding")
    }
}

/// What becomes of a login.
#[derive(Debug)]
pub enum Verdict {
    /// The client is this user.
    Accepted {
        /// The user of the record, which may have another name than the label.
        user: String,
        /// What the mechanism says last.
        last: Option<String>,
    },
    /// The mechanism goes on.
    Challenge {
        /// What the client is told.
        text: String,
        /// To be brought back with its answer.
        proceeding: Proceeding,
    },
    /// The password is wrong, or there is no such user: nobody is told which.
    Refused,
    /// Nobody can say now.
    Failed,
    /// So many have been wrong that this one was not even looked at.
    TooMany,
}

/// Who may log in somewhere, and who is asked about them.
pub struct Guard {
    users: Users,
    /// The table, if it must be asked.
    book: Option<Book>,
    sample: Option<tables::Secret>,
}

impl Guard {
    /// Those of a listener, and what its sessions are told.
    pub(crate) fn of(listener: &Listener, config: &Config) -> (Option<Self>, Authentication) {
        let (logins, users) = match &listener.auth.password {
            PasswordAuth::Off => return (None, Authentication::default()),
            PasswordAuth::Offered(users) => (Logins::Offered, users),
            PasswordAuth::Required(users) => (Logins::Required, users),
        };
        let (guard, mechanisms) = Self::of_users(users, config);
        // A listener without TLS that asks for passwords is one that nobody but this machine reaches (E0603).
        let in_clear = listener.tls.mode == TlsMode::Off;
        (Some(guard), Authentication { logins, in_clear, mechanisms })
    }

    /// These, and how they can prove who they are.
    pub fn of_users(users: &Users, config: &Config) -> (Self, Mechanisms) {
        let mut mechanisms = Mechanisms::passwords();
        let (mut book, mut sample) = (None, None);
        match users {
            Users::System => book = Some(Book::System),
            Users::Table(Keyed::Memory(entries)) => {
                let mut hashes = entries.values().map(|entry| &entry.secret);
                sample = hashes.find(|hash| is_known_scheme(hash.reveal())).cloned();
                // A client takes the best that is offered, and must not fail with it.
                let has_keys = |entry: &Credentials| entry.secret.reveal().starts_with("SCRAM-SHA-256$");
                if !entries.is_empty() && entries.values().all(has_keys) {
                    mechanisms = mechanisms.with(Mechanism::ScramSha256);
                }
            }
            Users::Table(Keyed::Remote(table)) => {
                let table = &config.tables[table.0 as usize];
                let judges = table.services.contains(&ServiceKind::Auth);
                if judges && matches!(table.backend, Backend::Proc { .. }) {
                    mechanisms = mechanisms.with(Mechanism::OAuthBearer).with(Mechanism::XOAuth2);
                }
                book = Some(match table.backend {
                    Backend::Getpwnam => Book::System,
                    _ => Book::Table { name: table.name.clone(), judges },
                });
            }
        }
        (Self { users: users.clone(), book, sample }, mechanisms)
    }

    /// Who is asked about a user.
    pub fn book(&self, user: &str) -> Book {
        match (&self.book, &self.users) {
            (Some(book), _) => book.clone(),
            (None, Users::Table(Keyed::Memory(entries))) => {
                Book::Entry { entry: entries.get(user).cloned(), sample: self.sample.clone() }
            }
            (None, _) => Book::Entry { entry: None, sample: None },
        }
    }
}

/// Has a proof judged. Counted and logged; what was wrong is logged by whoever judges, once for many.
pub(crate) async fn judge<W: World>(
    shard: &Rc<Shard<W>>,
    policy: &ListenerPolicy,
    client: &mut Client,
    binding: Option<[u8; 32]>,
    proof: Proof,
) -> Judgement {
    let Some(guard) = &policy.guard else { return Judgement::Refused };
    let named = match &proof {
        Proof::Password { user, .. } => user.clone(),
        Proof::First(mechanism, text) => claimed(*mechanism, text.reveal()).unwrap_or_default(),
        Proof::Next(_) => String::new(),
    };
    let proceeding = client.proceeding.take();
    let login = Login { from: client.origin, book: guard.book(&named), proof, binding, proceeding };
    let verdict = shard.runtime.timeout(limits::LOGIN, shard.ask.judge(login)).await.unwrap_or(Verdict::Failed);
    match verdict {
        Verdict::Accepted { user, last } => {
            shard.counters.add(ringpost_perf::Counter::Logins, 1);
            shard.event(&Event::LoggedIn { session: client.session, from: client.origin, user: &user });
            Judgement::Accepted { user, last }
        }
        Verdict::Challenge { text, proceeding } => {
            client.proceeding = Some(proceeding);
            Judgement::Challenge(text)
        }
        Verdict::Refused => {
            shard.counters.add(ringpost_perf::Counter::LoginsFailed, 1);
            Judgement::Refused
        }
        Verdict::Failed => Judgement::Unavailable(replies::login_unknown()),
        Verdict::TooMany => {
            shard.counters.add(ringpost_perf::Counter::LoginsTurnedAway, 1);
            Judgement::Unavailable(replies::too_many_logins())
        }
    }
}

/// The user whom a mechanism's first words name.
pub fn claimed(mechanism: Mechanism, first: &str) -> Option<String> {
    match mechanism {
        // RFC 5802 §7: `n,,n=user,r=nonce`, with two characters written otherwise.
        Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
            let name = first.split(',').find_map(|part| part.strip_prefix("n="))?;
            Some(name.replace("=2C", ",").replace("=3D", "="))
        }
        // `n,a=user,^Ahost=…^A…`
        Mechanism::OAuthBearer => first.split(',').find_map(|part| part.strip_prefix("a=")).map(str::to_owned),
        // `user=…^Aauth=Bearer …^A^A`
        Mechanism::XOAuth2 => first.split('\u{1}').find_map(|part| part.strip_prefix("user=")).map(str::to_owned),
        Mechanism::Plain | Mechanism::Login | Mechanism::External => None,
    }
}

/// Whether a user may be this sender, where the listener says who may be what.
///
/// # Errors
/// The reply that says no, or that nobody knows.
pub(crate) async fn may_be<W: World>(
    shard: &Rc<Shard<W>>,
    settings: &Settings,
    senders: &Senders,
    user: &str,
    sender: &str,
) -> Result<(), Reply> {
    let delimiter = settings.config.smtp.sub_address_delimiter;
    let fits = match &senders.table {
        Keyed::Memory(entries) => entries.get(user).is_some_and(|patterns| fits(patterns, sender, delimiter)),
        Keyed::Remote(table) => {
            let (service, key) = (ServiceKind::MailAddrMap, user.to_owned());
            let question = Question::Lookup(Lookup::Table { table: *table, service, key });
            let told = match lookups::begin(shard, &settings.config, &question) {
                Awaited::Now(told) => told,
                Awaited::Later(wait) => wait.await.unwrap_or_else(|_| Told::Failed("the lookup was lost".into())),
            };
            match told {
                Told::Found(text) => {
                    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
                    fits(&words.map(|word| AddressPattern(word.to_owned())).collect::<Vec<_>>(), sender, delimiter)
                }
                Told::NotFound => false,
                Told::Failed(_) | Told::Unsafe(_) => return Err(replies::senders_unknown()),
            }
        }
    };
    if fits { Ok(()) } else { Err(replies::not_your_address()) }
}

fn fits(patterns: &[AddressPattern], sender: &str, delimiter: char) -> bool {
    let mut set = AddressSet::default();
    for pattern in patterns {
        // One that is none, from a table that nobody has checked, fits nothing.
        set.insert(&pattern.0);
    }
    set.contains(&FoldedAddress::new(sender), delimiter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mechanisms_name_their_user() {
        assert_eq!(claimed(Mechanism::ScramSha256, "n,,n=a=2Cb=3Dc,r=x").as_deref(), Some("a,b=c"));
        assert_eq!(claimed(Mechanism::ScramSha256Plus, "p=tls-exporter,,n=gilles,r=x").as_deref(), Some("gilles"));
        assert_eq!(claimed(Mechanism::XOAuth2, "user=g@x\u{1}auth=Bearer t\u{1}\u{1}").as_deref(), Some("g@x"));
        assert_eq!(claimed(Mechanism::OAuthBearer, "n,a=g@x,\u{1}auth=Bearer t\u{1}\u{1}").as_deref(), Some("g@x"));
        assert_eq!(claimed(Mechanism::XOAuth2, "nothing"), None);
    }

    #[test]
    fn s62_patterns_say_whom_a_user_may_be() {
        let patterns = ["@poolp.org", "gilles@example.net", "<>"].map(|one| AddressPattern(one.to_owned()));
        for (sender, expected) in
            [("x@poolp.org", true), ("Gilles@Example.net", true), ("", true), ("eric@example.net", false)]
        {
            assert_eq!(fits(&patterns, sender, '+'), expected, "{sender}");
        }
        assert!(!fits(&patterns[..1], "", '+'), "the null sender is nobody's by itself");
        assert!(!fits(&[AddressPattern("@@".into())], "a@b.c", '+'));
    }
}
