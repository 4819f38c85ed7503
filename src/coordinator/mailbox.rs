//! Questions of the shards in, answers out. The same question is looked up once, however many shards ask it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_channel::oneshot;
use ringpost_io::{Mailbox, Sender};
use ringpost_shard::{Ask, MxAnswer};
use tokio::task::JoinSet;

use super::dns::{self, Names};
use crate::limits::{LOOKUPS, QUESTIONS};

/// What a shard may ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    Exchangers(String),
    Addresses(String),
}

/// A question and where its answer goes.
pub struct Asked {
    question: Question,
    answer: oneshot::Sender<MxAnswer>,
}

/// A shard's way to the coordinator.
#[derive(Clone)]
pub struct Line(Sender<Asked>);

/// The shards' end and the coordinator's.
pub fn questions() -> (Line, Mailbox<Asked>) {
    let (sender, mailbox) = Mailbox::new(QUESTIONS);
    (Line(sender), mailbox)
}

impl Line {
    async fn ask(&self, question: Question) -> MxAnswer {
        let (answer, wait) = oneshot::channel();
        if self.0.send(Asked { question, answer }).await.is_err() {
            return MxAnswer::Temporary("the coordinator has stopped".into());
        }
        wait.await.unwrap_or_else(|_| MxAnswer::Temporary("the coordinator has stopped".into()))
    }
}

impl Ask for Line {
    async fn exchangers(&self, domain: &str) -> MxAnswer {
        self.ask(Question::Exchangers(domain.to_owned())).await
    }

    async fn addresses(&self, host: &str) -> MxAnswer {
        self.ask(Question::Addresses(host.to_owned())).await
    }
}

/// Answers until all shards are gone.
pub async fn answer(mailbox: Mailbox<Asked>, names: Arc<Names>) {
    let mut asking: HashMap<Question, Vec<oneshot::Sender<MxAnswer>>> = HashMap::new();
    let mut waiting: VecDeque<Question> = VecDeque::new();
    let mut lookups: JoinSet<(Question, MxAnswer)> = JoinSet::new();
    let mut open = true;
    while open || !lookups.is_empty() {
        tokio::select! {
            asked = mailbox.receive(), if open => match asked {
                Some(Asked { question, answer }) => {
                    let all = asking.entry(question.clone()).or_default();
                    all.push(answer);
                    if all.len() == 1 {
                        waiting.push_back(question);
                    }
                }
                None => open = false,
            },
            Some(done) = lookups.join_next() => {
                let Ok((question, answer)) = done else { continue };
                for asker in asking.remove(&question).into_iter().flatten() {
                    // A shard that no longer waits needs no answer.
                    let _ = asker.send(answer.clone());
                }
            }
        }
        while lookups.len() < LOOKUPS
            && let Some(question) = waiting.pop_front()
        {
            let names = names.clone();
            lookups.spawn(async move {
                let answer = match &question {
                    Question::Exchangers(domain) => dns::exchangers(&names, domain).await,
                    Question::Addresses(host) => dns::addresses(&names, host).await,
                };
                (question, answer)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::zone::Zone;

    #[test]
    fn all_who_ask_are_answered() {
        let zone = Zone::parse("a.test MX 10 mx.test\nmx.test A 192.0.2.1\n").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (line, mailbox) = questions();
            let answering = tokio::spawn(answer(mailbox, Arc::new(Names::Zone(zone))));
            let same = (0..50).map(|_| line.exchangers("a.test"));
            let mut set = Vec::new();
            for ask in same {
                set.push(ask);
            }
            for ask in set {
                assert!(matches!(ask.await, MxAnswer::Hosts { .. }));
            }
            assert_eq!(line.exchangers("b.test").await, MxAnswer::NoSuchDomain);
            assert!(matches!(line.addresses("mx.test").await, MxAnswer::Hosts { .. }));
            drop(line);
            answering.await.unwrap();
        });
    }
}
