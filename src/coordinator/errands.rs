//! The engine's way to the supervisor's lanes: errands of all shards in, answers out. Two threads for each lane, one that
//! writes and one that reads; so a supervisor that is slow holds up whoever asks something of it, and nobody else.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::oneshot;
use ringpost_io::{Mailbox, Sender};
use ringpost_shard::{Forwarding, HandOver, Handed, Handover, UserRecord};

use crate::ipc::codec::Channel;
use crate::ipc::supervisor::{Answer, Errand, Report, Work, memory, seal, text_from_memory};
use crate::limits::{ERRANDS, FORWARD_BYTES, LOOKS, LOOKS_WAITING};
use crate::supervisor::forward;

/// What is said when there is nobody to ask.
const GONE: &str = "the supervisor does not answer";

/// A shard's way to both lanes.
#[derive(Clone)]
pub struct Errands {
    deliveries: Sender<Asked>,
    forwards: Sender<Asked>,
    looks: crossbeam::channel::Sender<Look>,
}

/// Whether there is a `.forward` in a home. Most have none, and that is found out without a process.
struct Look {
    home: PathBuf,
    is_absent: oneshot::Sender<bool>,
}

struct Asked {
    work: Work,
    text: Option<OwnedFd>,
    answer: oneshot::Sender<Answer>,
}

/// Who waits for an answer, by the number of the errand.
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

impl Errands {
    /// Starts the threads of both lanes. They end with the shards, or with the supervisor.
    ///
    /// # Errors
    /// Out of threads or descriptors.
    pub fn start(deliveries: Channel, forwards: Channel) -> io::Result<Self> {
        Ok(Self {
            deliveries: lane(deliveries, "deliveries")?,
            forwards: lane(forwards, "forwards")?,
            looks: lookers()?,
        })
    }

    /// Whether there is surely no `.forward`.
    async fn is_absent(&self, home: PathBuf) -> bool {
        let (is_absent, wait) = oneshot::channel();
        self.looks.try_send(Look { home, is_absent }).is_ok() && wait.await.unwrap_or(false)
    }

    async fn read(&self, work: Work) -> Forwarding {
        match Self::ask(&self.forwards, work, None).await {
            Answer::Forward(found) => found,
            Answer::Delivery(_) => Forwarding::Failed("the supervisor has answered another question".into()),
        }
    }

    async fn ask(lane: &Sender<Asked>, work: Work, text: Option<OwnedFd>) -> Answer {
        let failed = work.failed(GONE);
        let (answer, wait) = oneshot::channel();
        match lane.send(Asked { work, text, answer }).await {
            Ok(()) => wait.await.unwrap_or(failed),
            Err(_) => failed,
        }
    }
}

impl HandOver for Errands {
    type Text = File;

    fn text(&self) -> io::Result<File> {
        memory()
    }

    async fn deliver(&self, handover: Handover, text: File) -> Handed {
        let text = match seal(text) {
            Ok(text) => text,
            Err(error) => return Handed::temporary((4, 3, 0), format!("cannot hand over the text: {error}")),
        };
        match Self::ask(&self.deliveries, Work::Deliver(handover), Some(text)).await {
            Answer::Delivery(handed) => handed,
            Answer::Forward(_) => Handed::temporary((4, 3, 0), "the supervisor has answered another question"),
        }
    }

    async fn forward(&self, user: UserRecord) -> Forwarding {
        match self.is_absent(user.home.clone()).await {
            true => Forwarding::NotThere,
            false => self.read(Work::ReadForward(user)).await,
        }
    }

    async fn list(&self, user: UserRecord, path: PathBuf) -> Forwarding {
        self.read(Work::ReadList { user, path }).await
    }
}

/// They end with the shards.
fn lookers() -> io::Result<crossbeam::channel::Sender<Look>> {
    let (sender, looks) = crossbeam::channel::bounded::<Look>(LOOKS_WAITING);
    for _ in 0..LOOKS {
        let looks = looks.clone();
        std::thread::Builder::new().name("forward-looks".into()).spawn(move || {
            for Look { home, is_absent } in looks {
                // Who asked may have given up.
                let _ = is_absent.send(forward::is_absent(&home));
            }
        })?;
    }
    Ok(sender)
}

fn lane(channel: Channel, name: &str) -> io::Result<Sender<Asked>> {
    let (sender, mailbox) = Mailbox::new(ERRANDS);
    let waiting = Waiting::default();
    let (reading, listed) = (channel.try_clone()?, waiting.clone());
    std::thread::Builder::new().name(format!("{name}-out")).spawn(move || write(&channel, &mailbox, &waiting))?;
    std::thread::Builder::new().name(format!("{name}-in")).spawn(move || read(&reading, &listed))?;
    Ok(sender)
}

/// Sends errands until all shards are gone, which is then said by the end of the channel.
fn write(channel: &Channel, mailbox: &Mailbox<Asked>, waiting: &Waiting) {
    let mut id = 0;
    while let Some(Asked { work, text, answer }) = futures_lite::future::block_on(mailbox.receive()) {
        id += 1;
        list(waiting, |waiting| waiting.insert(id, answer));
        let errand = Errand { id, work };
        if let Err(error) = channel.send_with(&errand, text.as_ref().map(|text| text.as_fd())) {
            // Gone, or too long for a letter: a command of pages.
            let why = format!("cannot be handed over: {error}");
            if let Some(answer) = list(waiting, |waiting| waiting.remove(&id)) {
                // Who asked may have given up.
                let _ = answer.send(errand.work.failed(&why));
            }
        }
    }
    channel.close();
}

/// Hands answers to who waits for them, until the supervisor is gone: then nobody is answered any more.
fn read(channel: &Channel, waiting: &Waiting) {
    while let Ok(Some((Report { id, answer }, text))) = channel.receive::<Report>() {
        let Some(asker) = list(waiting, |waiting| waiting.remove(&id)) else { continue };
        let answer = match (answer, text) {
            (Answer::Forward(Forwarding::Text(_)), Some(text)) => {
                Answer::Forward(match text_from_memory(text, FORWARD_BYTES) {
                    Ok(text) => Forwarding::Text(text),
                    Err(error) => Forwarding::Failed(format!("the text of a .forward was lost: {error}")),
                })
            }
            (Answer::Forward(Forwarding::Text(_)), None) => {
                Answer::Forward(Forwarding::Failed("the text of a .forward was lost".into()))
            }
            (answer, _) => answer,
        };
        // A shard that no longer waits needs no answer.
        let _ = asker.send(answer);
    }
    channel.close();
    list(waiting, HashMap::clear);
}

fn list<T>(waiting: &Waiting, act: impl FnOnce(&mut HashMap<u64, oneshot::Sender<Answer>>) -> T) -> T {
    act(&mut waiting.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures_lite::future::block_on;
    use ringpost_shard::How;

    use super::*;
    use crate::ipc::supervisor::text_to_memory;

    fn user() -> UserRecord {
        UserRecord { name: "u".into(), uid: 1, gid: 2, home: "/".into(), in_table: false }
    }

    fn handover(recipient: &str) -> Handover {
        Handover {
            user: user(),
            how: How::Program { arguments: vec!["x".into()] },
            sender: String::new(),
            recipient: recipient.into(),
            extension: String::new(),
            original: String::new(),
            copy: "1".into(),
        }
    }

    /// Errands, and the supervisor's ends of both lanes.
    fn start() -> (Errands, Channel, Channel) {
        let (deliveries, theirs) = Channel::pair().unwrap();
        let (forwards, theirs_too) = Channel::pair().unwrap();
        let errands = Errands::start(Channel::of(theirs), Channel::of(theirs_too)).unwrap();
        (errands, deliveries, forwards)
    }

    fn deliver(errands: &Errands, recipient: &str, text: &str) -> impl Future<Output = Handed> {
        let mut file = errands.text().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        errands.deliver(handover(recipient), file)
    }

    #[test]
    fn answers_find_who_asked() {
        let (errands, supervisor, _forwards) = start();
        let answering = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for _ in 0..2 {
                let (errand, text) = supervisor.receive::<Errand>().unwrap().expect("an errand");
                let Work::Deliver(handover) = errand.work else { panic!("a delivery") };
                let text = text_from_memory(text.expect("a text"), 100).unwrap();
                asked.push((errand.id, format!("{} {text}", handover.recipient)));
            }
            // The other way round.
            for (id, text) in asked.into_iter().rev() {
                supervisor.send(&Report { id, answer: Answer::Delivery(Handed::Delivered { text }) }).unwrap();
            }
            supervisor
        });
        let both = futures_lite::future::zip(deliver(&errands, "a", "one"), deliver(&errands, "b", "two"));
        let expected = |text: &str| Handed::Delivered { text: text.into() };
        assert_eq!(block_on(both), (expected("a one"), expected("b two")));
        drop(errands);
        let supervisor = answering.join().unwrap();
        assert!(supervisor.receive::<Errand>().unwrap().is_none(), "the end of the shards is the end of the channel");
    }

    #[test]
    fn who_has_no_forward_costs_no_errand() {
        let (errands, _deliveries, _supervisor) = start();
        let home = tempfile::tempdir().unwrap();
        let user = UserRecord { home: home.path().into(), ..user() };
        assert_eq!(block_on(errands.forward(user)), Forwarding::NotThere);
    }

    /// A user who has a `.forward`, and his home.
    fn with_forward() -> (tempfile::TempDir, UserRecord) {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".forward"), "").unwrap();
        let user = UserRecord { home: home.path().into(), ..user() };
        (home, user)
    }

    #[test]
    fn the_text_of_a_forward_comes_alongside() {
        let (errands, _deliveries, supervisor) = start();
        let (_home, user) = with_forward();
        let expected = user.clone();
        let answering = std::thread::spawn(move || {
            for text in [Some("x@y\n"), None] {
                let (errand, _) = supervisor.receive::<Errand>().unwrap().expect("an errand");
                assert_eq!(errand.work, Work::ReadForward(expected.clone()));
                let answer = Answer::Forward(Forwarding::Text(String::new()));
                let text = text.map(|text| text_to_memory(text).unwrap());
                let report = Report { id: errand.id, answer };
                supervisor.send_with(&report, text.as_ref().map(|text| text.as_fd())).unwrap();
            }
        });
        assert_eq!(block_on(errands.forward(user.clone())), Forwarding::Text("x@y\n".into()));
        assert!(
            matches!(block_on(errands.forward(user.clone())), Forwarding::Failed(_)),
            "an empty one would be another thing"
        );
        answering.join().unwrap();
    }

    #[test]
    fn a_supervisor_that_is_gone_is_a_failure_for_now() {
        let (errands, supervisor, forwards) = start();
        drop((supervisor, forwards));
        let (_home, user) = with_forward();
        assert!(matches!(block_on(deliver(&errands, "a", "x")), Handed::Temporary { .. }));
        assert!(matches!(block_on(errands.forward(user)), Forwarding::Failed(_)));
        // One that goes while it is waited for.
        let (errands, supervisor, _forwards) = start();
        let leaving = std::thread::spawn(move || drop(supervisor.receive::<Errand>()));
        assert!(matches!(block_on(deliver(&errands, "a", "x")), Handed::Temporary { .. }));
        leaving.join().unwrap();
    }

    #[test]
    fn a_command_of_pages_is_a_failure_for_now() {
        let (errands, _deliveries, _forwards) = start();
        let how = How::Program { arguments: vec!["x".repeat(crate::limits::LETTER_BYTES)] };
        let handed = block_on(errands.deliver(Handover { how, ..handover("a") }, errands.text().unwrap()));
        assert!(matches!(handed, Handed::Temporary { .. }), "{handed:?}");
    }
}
