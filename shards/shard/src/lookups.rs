//! Answers of tables, of the system and of users' files, as a shard asks for them: each question once however many sessions
//! wait for its answer, what tables say kept for a while (grammar §7.3). Tables in memory never come here.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use ringpost_conf::expand::{Question, Told};
use ringpost_conf::tables::{Keys, ServiceKind};
use ringpost_conf::{Backend, Config, Lookup, TableOptions};
use ringpost_io::{Class, Runtime};

use crate::ask::{Ask, Said};
use crate::handover::HandOver;
use crate::shard::{Shard, World};
use crate::{limits, target};

/// What is asked, in words that outlive a change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    /// The table's name, if it is one.
    table: String,
    question: Question,
}

struct Kept {
    told: Told,
    /// As long as that it is the answer.
    until: Instant,
    /// As long as that it stands in for a table that fails.
    stale_until: Instant,
}

/// A shard's answers.
#[derive(Default)]
pub(crate) struct Lookups {
    kept: RefCell<HashMap<Asked, Kept>>,
    order: RefCell<VecDeque<Asked>>,
    asking: RefCell<HashMap<Asked, Vec<oneshot::Sender<Told>>>>,
}

/// An answer, or where it will come.
pub(crate) enum Awaited {
    Now(Told),
    Later(oneshot::Receiver<Told>),
}

impl Lookups {
    /// Nothing that is kept counts any more: the tables are others, or have changed.
    pub(crate) fn forget(&self) {
        self.kept.borrow_mut().clear();
        self.order.borrow_mut().clear();
    }

    /// Forgets what one table has said.
    pub(crate) fn forget_table(&self, name: &str) {
        self.kept.borrow_mut().retain(|asked, _| asked.table != name);
        self.order.borrow_mut().retain(|asked| asked.table != name);
    }

    fn get(&self, now: Instant, asked: &Asked) -> Option<Told> {
        self.kept.borrow().get(asked).filter(|kept| kept.until > now).map(|kept| kept.told.clone())
    }

    /// Takes an answer. While the table fails the last one that was found stands in, if it is not too old. "Not found" never
    /// does: a table that fails must not look empty, or mail would be turned away for good.
    fn take(&self, now: Instant, asked: Asked, said: Said, manner: &Manner) -> Told {
        let mut kept = self.kept.borrow_mut();
        let (told, age, time, stale) = match said {
            Said::Found { text, age } => (Told::Found(text), age, manner.found, manner.stale),
            Said::NotFound { age } => (Told::NotFound, age, manner.negative, Duration::ZERO),
            Said::Failed(why) => {
                let stale = kept.get(&asked).filter(|kept| kept.stale_until > now);
                return stale.map_or(Told::Failed(why), |kept| kept.told.clone());
            }
            Said::Wrong(why) => return Told::Failed(why),
        };
        // How long is counted from when the table said so, not from when it came here.
        let entry = Kept {
            told: told.clone(),
            until: now + time.saturating_sub(age),
            stale_until: now + stale.saturating_sub(age),
        };
        // Of no use by itself, but it takes the place of an older one.
        if entry.until <= now && entry.stale_until <= now && !kept.contains_key(&asked) {
            return told;
        }
        if kept.insert(asked.clone(), entry).is_none() {
            let mut order = self.order.borrow_mut();
            order.push_back(asked);
            if order.len() > limits::LOOKUPS_KEPT
                && let Some(oldest) = order.pop_front()
            {
                kept.remove(&oldest);
            }
        }
        told
    }
}

/// How long answers to a question are believed, and waited for.
struct Manner {
    found: Duration,
    negative: Duration,
    stale: Duration,
    wait: Duration,
}

impl Manner {
    fn of(question: &Question, config: &Config) -> Self {
        match question {
            Question::Lookup(Lookup::Table { table, service, .. }) => {
                let table = config.tables.get(table.0 as usize);
                let options = table.map(|table| table.options).unwrap_or_default();
                // A helper gives one of a list at a time, and another one each time.
                let gives_next = table.is_some_and(|table| matches!(table.backend, Backend::Proc { .. }));
                match gives_next && service.is_cycled() {
                    true => Self { found: Duration::ZERO, ..Self::of_table(&options, *service) },
                    false => Self::of_table(&options, *service),
                }
            }
            Question::User(_) => Self::of_table(&TableOptions::default(), ServiceKind::UserInfo),
            // A user who changes his `.forward` expects the next message to follow it.
            Question::Lookup(Lookup::ReverseName) | Question::Forward(_) | Question::Include { .. } => Self {
                found: Duration::ZERO,
                negative: Duration::ZERO,
                stale: Duration::ZERO,
                wait: limits::FILE_ANSWER,
            },
        }
    }

    fn of_table(options: &TableOptions, service: ServiceKind) -> Self {
        // Of passwords only what is true now may open a door.
        let guards = matches!(service, ServiceKind::Credentials | ServiceKind::Auth);
        Self {
            found: options.cache,
            negative: options.negative,
            stale: if guards { Duration::ZERO } else { options.stale },
            // The coordinator keeps the table's own time; this is for a coordinator that is stuck.
            wait: options.timeout + limits::TABLE_ANSWER_GRACE,
        }
    }
}

/// Begins to ask, unless the answer is known.
pub(crate) fn begin<W: World>(shard: &Rc<Shard<W>>, config: &Config, question: &Question) -> Awaited {
    let table = match question {
        Question::Lookup(Lookup::Table { table, .. }) => config.table_name(*table).to_owned(),
        _ => String::new(),
    };
    // Numbers of tables change with the configuration.
    let asked = Asked { table, question: without_number(question) };
    let lookups = &shard.lookups;
    if let Some(told) = lookups.get(shard.runtime.now(), &asked) {
        return Awaited::Now(told);
    }
    let (answer, wait) = oneshot::channel();
    let mut asking = lookups.asking.borrow_mut();
    if let Some(others) = asking.get_mut(&asked) {
        others.push(answer);
        return Awaited::Later(wait);
    }
    if asking.len() >= limits::LOOKUPS_WAITING {
        return Awaited::Now(Told::Failed("too many lookups are waiting".to_owned()));
    }
    asking.insert(asked.clone(), vec![answer]);
    drop(asking);
    let (task_shard, manner) = (shard.clone(), Manner::of(question, config));
    let delimiter = config.smtp.sub_address_delimiter;
    shard.spawn_counted(Class::Session, async move {
        let asks = put(&task_shard, &asked, delimiter);
        let heard = task_shard.runtime.timeout(manner.wait, asks).await;
        let heard = heard.unwrap_or_else(|| Heard::OfTable(Said::Failed("no answer in time".to_owned())));
        let lookups = &task_shard.lookups;
        let waiting = lookups.asking.borrow_mut().remove(&asked).unwrap_or_default();
        let told = match heard {
            Heard::OfTable(said) => lookups.take(task_shard.runtime.now(), asked, said, &manner),
            Heard::OfFile(told) => told,
        };
        for one in waiting {
            // Who has given up meanwhile needs no answer.
            let _ = one.send(told.clone());
        }
    });
    Awaited::Later(wait)
}

/// Asks all of these at once, and returns when all have been answered, or by `deadline`.
pub(crate) async fn all<W: World>(
    shard: &Rc<Shard<W>>,
    config: &Config,
    questions: Vec<Question>,
    deadline: Instant,
) -> Vec<(Question, Told)> {
    let begun: Vec<(Question, Awaited)> = questions
        .into_iter()
        .map(|question| {
            let awaited = begin(shard, config, &question);
            (question, awaited)
        })
        .collect();
    let mut answers = Vec::with_capacity(begun.len());
    for (question, awaited) in begun {
        let told = match awaited {
            Awaited::Now(told) => told,
            Awaited::Later(wait) => {
                let left = deadline.saturating_duration_since(shard.runtime.now()).max(Duration::from_millis(1));
                let told = shard.runtime.timeout(left, wait).await;
                told.and_then(Result::ok).unwrap_or_else(|| Told::Failed("no answer in time".to_owned()))
            }
        };
        answers.push((question, told));
    }
    answers
}

/// What is kept for a while, and what is read anew each time.
enum Heard {
    OfTable(Said),
    OfFile(Told),
}

async fn put<W: World>(shard: &Shard<W>, asked: &Asked, delimiter: char) -> Heard {
    Heard::OfFile(match &asked.question {
        Question::Lookup(Lookup::Table { service, key, .. }) => {
            let keys = Keys::new(*service, key, delimiter).map(|key| key.as_str().to_owned()).collect();
            return Heard::OfTable(shard.ask.look_up(&asked.table, *service, keys).await);
        }
        // It is not a table's, and asked elsewhere (`client_name.rs`).
        Question::Lookup(Lookup::ReverseName) => Told::Failed("the client's name is not looked up".to_owned()),
        Question::User(name) => return Heard::OfTable(shard.ask.user(name).await),
        Question::Forward(user) => shard.hand.forward(target::record(user)).await.into(),
        Question::Include { path, user: Some(user) } => {
            shard.hand.list(target::record(user), path.clone()).await.into()
        }
        Question::Include { path, user: None } => shard.ask.list(path).await,
    })
}

fn without_number(question: &Question) -> Question {
    match question {
        Question::Lookup(Lookup::Table { service, key, .. }) => {
            let table = ringpost_conf::TableId(0);
            Question::Lookup(Lookup::Table { table, service: *service, key: key.clone() })
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(table: &str, key: &str) -> Asked {
        let (service, key) = (ServiceKind::Alias, key.to_owned());
        let question = Question::Lookup(Lookup::Table { table: ringpost_conf::TableId(0), service, key });
        Asked { table: table.to_owned(), question }
    }

    fn found(text: &str) -> Told {
        Told::Found(text.to_owned())
    }

    fn says(text: &str, age: u64) -> Said {
        Said::Found { text: text.to_owned(), age: Duration::from_secs(age) }
    }

    fn nothing(age: u64) -> Said {
        Said::NotFound { age: Duration::from_secs(age) }
    }

    fn fails() -> Said {
        Said::Failed("down".to_owned())
    }

    const DOWN: fn() -> Told = || Told::Failed("down".to_owned());

    #[test]
    fn answers_are_kept_and_old_ones_serve_while_the_table_fails() {
        let lookups = Lookups::default();
        let manner = Manner::of_table(&TableOptions::default(), ServiceKind::Alias);
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(lookups.take(at(0), asked("t", "a"), fails(), &manner), DOWN());
        assert_eq!(lookups.get(at(0), &asked("t", "a")), None, "a failure is not kept");
        lookups.take(at(0), asked("t", "a"), says("x", 0), &manner);
        lookups.take(at(0), asked("t", "b"), nothing(0), &manner);
        assert_eq!(lookups.get(at(59), &asked("t", "a")), Some(found("x")));
        assert_eq!(lookups.get(at(59), &asked("u", "a")), None);
        assert_eq!(
            (lookups.get(at(9), &asked("t", "b")), lookups.get(at(11), &asked("t", "b"))),
            (Some(Told::NotFound), None)
        );
        assert_eq!(lookups.get(at(61), &asked("t", "a")), None);
        assert_eq!(lookups.take(at(61), asked("t", "a"), fails(), &manner), found("x"));
        let wrong = Said::Wrong("two rows".to_owned());
        let told = lookups.take(at(61), asked("t", "a"), wrong, &manner);
        assert_eq!(told, Told::Failed("two rows".to_owned()), "the table works; its entry is what is wrong");
        assert_eq!(lookups.take(at(3601), asked("t", "a"), fails(), &manner), DOWN());
        lookups.forget_table("t");
        assert_eq!(lookups.take(at(61), asked("t", "a"), fails(), &manner), DOWN());
    }

    /// It would answer 550 for an entry that has been added, or that was asked for before it was there.
    #[test]
    fn a_table_that_fails_never_looks_empty() {
        let lookups = Lookups::default();
        let manner = Manner::of_table(&TableOptions::default(), ServiceKind::Alias);
        let now = Instant::now();
        lookups.take(now, asked("t", "a"), nothing(0), &manner);
        for seconds in [1, 9, 11, 600] {
            let told = lookups.take(now + Duration::from_secs(seconds), asked("t", "a"), fails(), &manner);
            assert_eq!(told, DOWN(), "after {seconds} s");
        }
        // Nor does an answer of long ago hide that the entry is gone, however short "not found" is believed.
        let brief =
            Manner::of_table(&TableOptions { negative: Duration::ZERO, ..TableOptions::default() }, ServiceKind::Alias);
        lookups.take(now, asked("t", "c"), says("x", 0), &brief);
        lookups.take(now + Duration::from_secs(61), asked("t", "c"), nothing(0), &brief);
        assert_eq!(lookups.take(now + Duration::from_secs(62), asked("t", "c"), fails(), &brief), DOWN());
        lookups.take(now, asked("t", "b"), says("x", 0), &manner);
        lookups.take(now + Duration::from_secs(61), asked("t", "b"), nothing(0), &manner);
        assert_eq!(lookups.take(now + Duration::from_secs(80), asked("t", "b"), fails(), &manner), DOWN());
    }

    #[test]
    fn the_time_that_an_answer_was_kept_elsewhere_counts() {
        let lookups = Lookups::default();
        let manner = Manner::of_table(&TableOptions::default(), ServiceKind::Alias);
        let now = Instant::now();
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        lookups.take(now, asked("t", "a"), says("x", 50), &manner);
        lookups.take(now, asked("t", "b"), nothing(7), &manner);
        assert_eq!(
            (lookups.get(at(9), &asked("t", "a")), lookups.get(at(11), &asked("t", "a"))),
            (Some(found("x")), None)
        );
        assert_eq!(lookups.get(at(2), &asked("t", "b")), Some(Told::NotFound));
        assert_eq!(lookups.get(at(4), &asked("t", "b")), None);
        assert_eq!(lookups.take(at(3549), asked("t", "a"), fails(), &manner), found("x"));
        assert_eq!(lookups.take(at(3551), asked("t", "a"), fails(), &manner), DOWN(), "an hour is an hour");
        // What the coordinator gives while the table fails is no fresh answer here.
        lookups.take(now, asked("t", "c"), says("x", 1800), &manner);
        assert_eq!(lookups.get(now, &asked("t", "c")), None);
        assert_eq!(lookups.take(at(1799), asked("t", "c"), fails(), &manner), found("x"));
        assert_eq!(lookups.take(at(1801), asked("t", "c"), fails(), &manner), DOWN());
    }

    #[test]
    fn passwords_are_never_stale_and_files_never_kept() {
        let lookups = Lookups::default();
        let manner = Manner::of_table(&TableOptions::default(), ServiceKind::Credentials);
        let now = Instant::now();
        lookups.take(now, asked("t", "a"), says("x", 0), &manner);
        assert_eq!(lookups.take(now + Duration::from_secs(61), asked("t", "a"), fails(), &manner), DOWN());
        let config = Config::quickstart(std::path::Path::new("/s"), &Default::default());
        let file = Question::Include { path: "/l".into(), user: None };
        let manner = Manner::of(&file, &config);
        let file = Asked { table: String::new(), question: file };
        lookups.take(now, file.clone(), says("x", 0), &manner);
        assert_eq!(lookups.get(now, &file), None);
    }

    #[test]
    fn the_oldest_answers_leave_when_there_are_too_many() {
        let lookups = Lookups::default();
        let manner = Manner::of_table(&TableOptions::default(), ServiceKind::Alias);
        let now = Instant::now();
        for number in 0..=limits::LOOKUPS_KEPT {
            lookups.take(now, asked("t", &number.to_string()), says("x", 0), &manner);
        }
        assert_eq!(lookups.kept.borrow().len(), limits::LOOKUPS_KEPT);
        assert_eq!((lookups.get(now, &asked("t", "0")), lookups.get(now, &asked("t", "1"))), (None, Some(found("x"))));
    }
}
