//! The engine's way to the users of the system: it asks the supervisor, for it may not read the files itself.

use std::sync::Arc;

use crossbeam::channel::{Sender, bounded};
use futures_channel::oneshot;

use crate::ipc::codec::Channel;
use crate::ipc::supervisor::UserAnswer;
use crate::limits::USERS_WAITING;

/// Lanes to the supervisor, a thread for each.
#[derive(Clone)]
pub struct Users(Arc<Sender<Asked>>);

struct Asked {
    name: String,
    answer: oneshot::Sender<UserAnswer>,
}

impl Users {
    /// Starts the threads. They end with this, or with the supervisor.
    ///
    /// # Errors
    /// Out of threads.
    pub fn start(lanes: Vec<Channel>) -> std::io::Result<Self> {
        let (sender, asked) = bounded::<Asked>(USERS_WAITING);
        for lane in lanes {
            let asked = asked.clone();
            std::thread::Builder::new().name("users".into()).spawn(move || {
                for Asked { name, answer } in asked {
                    let heard = lane.send(&name).and_then(|()| lane.receive::<UserAnswer>());
                    let heard = match heard {
                        Ok(Some((heard, _))) => heard,
                        Ok(None) => Err("the supervisor does not answer".to_owned()),
                        Err(error) => Err(error.to_string()),
                    };
                    // Who asked may have given up.
                    let _ = answer.send(heard);
                }
            })?;
        }
        Ok(Self(Arc::new(sender)))
    }

    /// A user's record, `name:uid:gid:home`.
    ///
    /// # Errors
    /// It cannot be known now.
    pub async fn ask(&self, name: &str) -> UserAnswer {
        let (answer, wait) = oneshot::channel();
        if self.0.try_send(Asked { name: name.to_owned(), answer }).is_err() {
            return Err("too many users are asked for at once".to_owned());
        }
        wait.await.unwrap_or_else(|_| Err("the supervisor does not answer".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::users;

    #[test]
    fn the_supervisor_is_asked_and_its_end_is_a_failure() {
        let lane = |root| Channel::of(users::serve(root).unwrap());
        let asking = Users::start(vec![lane(None), lane(None)]).unwrap();
        let ask = |name: &str| futures_lite::future::block_on(asking.ask(name));
        assert!(ask("root").is_ok_and(|found| found.is_some_and(|record| record.starts_with("root:0:0:/"))));
        assert_eq!(ask("no-such-user"), Ok(None));
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = Users::start(vec![lane(Some(dir.path().to_owned()))]).unwrap();
        assert!(futures_lite::future::block_on(elsewhere.ask("root")).is_err(), "there is no list of users");
        let (ours, theirs) = Channel::pair().unwrap();
        drop(theirs);
        let gone = Users::start(vec![ours]).unwrap();
        assert!(futures_lite::future::block_on(gone.ask("root")).is_err());
    }
}
