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

use crate::ask::Ask;
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
    since: Instant,
    until: Instant,
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

    /// Takes an answer. One that has failed gives way to the last good one, if that is not too old.
    fn take(&self, now: Instant, asked: Asked, told: Told, manner: &Manner) -> Told {
        let mut kept = self.kept.borrow_mut();
        if let Told::Failed(_) = told {
            let stale = kept.get(&asked).filter(|kept| now.saturating_duration_since(kept.since) <= manner.stale);
            return stale.map_or(told, |kept| kept.told.clone());
        }
        let time = if told == Told::NotFound { manner.negative } else { manner.found };
        if time.is_zero() {
            return told;
        }
        let entry = Kept { told: told.clone(), since: now, until: now + time };
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
        let told = task_shard.runtime.timeout(manner.wait, asks).await;
        let told = told.unwrap_or_else(|| Told::Failed("no answer in time".to_owned()));
        let lookups = &task_shard.lookups;
        let waiting = lookups.asking.borrow_mut().remove(&asked).unwrap_or_default();
        let told = lookups.take(task_shard.runtime.now(), asked, told, &manner);
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

async fn put<W: World>(shard: &Shard<W>, asked: &Asked, delimiter: char) -> Told {
    match &asked.question {
        Question::Lookup(Lookup::Table { service, key, .. }) => {
            let keys = Keys::new(*service, key, delimiter).map(|key| key.as_str().to_owned()).collect();
            shard.ask.look_up(&asked.table, *service, keys).await
        }
        // It is not a table's, and asked elsewhere (`client_name.rs`).
        Question::Lookup(Lookup::ReverseName) => Told::Failed("the client's name is not looked up".to_owned()),
        Question::User(name) => shard.ask.user(name).await,
        Question::Forward(user) => shard.hand.forward(target::record(user)).await.into(),
        Question::Include { path, user: Some(user) } => {
            shard.hand.list(target::record(user), path.clone()).await.into()
        }
        Question::Include { path, user: None } => shard.ask.list(path).await,
    }
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

    #[test]
    fn answers_are_kept_and_old_ones_serve_while_the_table_fails() {
        let lookups = Lookups::default();
        let manner = Manner::of_table(&TableOptions::default(), ServiceKind::Alias);
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let failed = || Told::Failed("down".to_owned());
        assert_eq!(lookups.take(at(0), asked("t", "a"), failed(), &manner), failed());
        assert_eq!(lookups.get(at(0), &asked("t", "a")), None, "a failure is not kept");
        lookups.take(at(0), asked("t", "a"), found("x"), &manner);
        lookups.take(at(0), asked("t", "b"), Told::NotFound, &manner);
        assert_eq!(lookups.get(at(59), &asked("t", "a")), Some(found("x")));
        assert_eq!(lookups.get(at(59), &asked("u", "a")), None);
        assert_eq!(
            (lookups.get(at(9), &asked("t", "b")), lookups.get(at(11), &asked("t", "b"))),
            (Some(Told::NotFound), None)
        );
        assert_eq!(lookups.get(at(61), &asked("t", "a")), None);
        assert_eq!(lookups.take(at(61), asked("t", "a"), failed(), &manner), found("x"));
        assert_eq!(lookups.take(at(3601), asked("t", "a"), failed(), &manner), failed());
        lookups.forget_table("t");
        assert_eq!(lookups.take(at(61), asked("t", "a"), failed(), &manner), failed());
    }

    #[test]
    fn passwords_are_never_stale_and_files_never_kept() {
        let lookups = Lookups::default();
        let manner = Manner::of_table(&TableOptions::default(), ServiceKind::Credentials);
        let now = Instant::now();
        lookups.take(now, asked("t", "a"), found("x"), &manner);
        let told = lookups.take(now + Duration::from_secs(61), asked("t", "a"), Told::Failed(String::new()), &manner);
        assert_eq!(told, Told::Failed(String::new()));
        let config = Config::quickstart(std::path::Path::new("/s"), &Default::default());
        let file = Question::Include { path: "/l".into(), user: None };
        let manner = Manner::of(&file, &config);
        let file = Asked { table: String::new(), question: file };
        lookups.take(now, file.clone(), found("x"), &manner);
        assert_eq!(lookups.get(now, &file), None);
    }

    #[test]
    fn the_oldest_answers_leave_when_there_are_too_many() {
        let lookups = Lookups::default();
        let manner = Manner::of_table(&TableOptions::default(), ServiceKind::Alias);
        let now = Instant::now();
        for number in 0..=limits::LOOKUPS_KEPT {
            lookups.take(now, asked("t", &number.to_string()), found("x"), &manner);
        }
        assert_eq!(lookups.kept.borrow().len(), limits::LOOKUPS_KEPT);
        assert_eq!((lookups.get(now, &asked("t", "0")), lookups.get(now, &asked("t", "1"))), (None, Some(found("x"))));
    }
}
