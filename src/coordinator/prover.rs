//! Logins of ours at other servers, by SCRAM: a thread of its own hashes a password as often as a server wants it, so that neither
//! a shard nor a client who logs in here waits for that. What has been hashed is kept for the next connection.

use std::collections::VecDeque;
use std::io;

use aws_lc_rs::hmac;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use futures_channel::oneshot;
use ringpost_io::sys;
use ringpost_smtp::client::{Challenge, Signed};

use crate::limits::{PROOFS_WAITING, SALTED_KEPT};
use crate::passwords::{self, scram::Salted};

/// The thread. It ends with the last copy of this.
#[derive(Clone)]
pub struct Prover(Sender<Job>);

struct Job {
    challenge: Challenge,
    answer: oneshot::Sender<Signed>,
}

impl Prover {
    /// Starts it.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn start() -> io::Result<Self> {
        let (sender, jobs) = bounded(PROOFS_WAITING);
        let mut kept = Kept::new();
        std::thread::Builder::new().name("prover".into()).spawn(move || work(&jobs, &mut kept))?;
        Ok(Self(sender))
    }

    /// Computes what a server has asked for. Never waits for room: what is beyond it fails.
    ///
    /// # Errors
    /// Too many wait, or the thread has ended.
    pub async fn prove(&self, challenge: Challenge) -> Result<Signed, String> {
        let (answer, wait) = oneshot::channel();
        let gone = || "the thread that proves passwords has ended".to_owned();
        match self.0.try_send(Job { challenge, answer }) {
            Ok(()) => wait.await.map_err(|_| gone()),
            Err(TrySendError::Full(_)) => Err(format!("{PROOFS_WAITING} logins at other servers wait to be computed")),
            Err(TrySendError::Disconnected(_)) => Err(gone()),
        }
    }
}

fn work(jobs: &Receiver<Job>, kept: &mut Kept) {
    // What another server asks for is to keep no session waiting.
    let _ = sys::step_back(sys::Step::Far);
    for Job { challenge, answer } in jobs {
        // The connection may be gone meanwhile.
        if !answer.is_canceled() {
            let _ = answer.send(kept.sign(&challenge));
        }
    }
}

/// Passwords that were hashed, the one that was used last in front. Which password, salt and count they are of is kept as a digest
/// with a key of its own, so that a password that has been changed is another one. Wiped when they are no longer kept.
struct Kept {
    key: hmac::Key,
    all: VecDeque<([u8; 32], Salted)>,
}

impl Kept {
    fn new() -> Self {
        let secret = passwords::nonce::<32>().expect("the system has randomness");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), all: VecDeque::new() }
    }

    fn sign(&mut self, challenge: &Challenge) -> Signed {
        let Challenge { password, salt, rounds, messages } = challenge;
        let name = self.name(challenge);
        let entry = match self.all.iter().position(|(known, _)| *known == name) {
            Some(at) => self.all.remove(at).expect("just found"),
            None => (name, Salted::derive(password.reveal(), *rounds, salt)),
        };
        let (proof, server) = entry.1.sign(messages.as_bytes());
        self.all.push_front(entry);
        self.all.truncate(SALTED_KEPT);
        Signed { proof, server }
    }

    fn name(&self, challenge: &Challenge) -> [u8; 32] {
        let Challenge { password, salt, rounds, .. } = challenge;
        let mut context = hmac::Context::with_key(&self.key);
        // A length in front of what has no end of its own.
        context.update(&(password.reveal().len() as u64).to_be_bytes());
        context.update(password.reveal().as_bytes());
        context.update(&rounds.get().to_be_bytes());
        context.update(salt);
        context.sign().as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use ringpost_smtp::Secret;

    use super::*;
    use crate::passwords::scram::Keys;

    fn challenge(password: &str, salt: &[u8], messages: &str) -> Challenge {
        let rounds = NonZeroU32::new(4096).unwrap();
        Challenge { password: Secret::new(password.into()), salt: salt.to_vec(), rounds, messages: messages.into() }
    }

    #[test]
    fn s63_what_is_proven_is_what_a_server_accepts() {
        let keys = Keys::make("sesame");
        let (rounds, salt) = (keys.iterations, keys.salt.clone());
        let prover = Prover::start().unwrap();
        for password in ["sesame", "other", "sesame"] {
            let challenge = Challenge { rounds, ..challenge(password, &salt, "n=u,r=x,…") };
            let signed = futures_lite::future::block_on(prover.prove(challenge)).unwrap();
            let is_right = password == "sesame";
            assert_eq!(keys.accept("n=u,r=x,…".as_bytes(), &signed.proof), is_right);
            assert_eq!(keys.answer("n=u,r=x,…".as_bytes()) == signed.server, is_right);
        }
    }

    #[test]
    fn s63_what_was_hashed_is_kept_within_a_bound_and_by_password_salt_and_count() {
        let mut kept = Kept::new();
        let first = kept.sign(&challenge("a", b"s", "m"));
        assert!(kept.sign(&challenge("a", b"s", "m")) == first && kept.sign(&challenge("a", b"s", "n")) != first);
        assert_eq!(kept.all.len(), 1);
        for other in [challenge("b", b"s", "m"), challenge("a", b"t", "m"), challenge("as", b"", "m")] {
            assert!(kept.sign(&other) != first);
        }
        let more = Challenge { rounds: NonZeroU32::new(4097).unwrap(), ..challenge("a", b"s", "m") };
        assert!(kept.sign(&more) != first && kept.all.len() == 5);
        assert!(kept.sign(&challenge("a", b"s", "m")) == first);
        let name = kept.name(&challenge("a", b"s", "m"));
        assert!(kept.all[0].0 == name, "it was used last");
        // Those that are older leave first.
        for number in 0..SALTED_KEPT - 1 {
            kept.all.push_front(([number as u8; 32], Salted::derive("x", NonZeroU32::MIN, b"s")));
        }
        assert!(kept.all.len() > SALTED_KEPT);
        kept.sign(&challenge("new", b"s", "m"));
        assert!(kept.all.len() == SALTED_KEPT && !kept.all.iter().any(|(known, _)| *known == name));
    }
}
