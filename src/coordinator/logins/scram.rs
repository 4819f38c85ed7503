//! The server's side of SCRAM-SHA-256 (RFC 5802 §5, RFC 7677), bound to the encrypted channel where the client wants that
//! (RFC 9266). Somebody who is not there is challenged like anybody else, always with the same salt, and fails at the end.

use std::num::NonZeroU32;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::passwords::{self, scram::Keys};

/// How a dialogue is bound to its channel.
#[derive(Clone, Copy, Default)]
pub struct Bound {
    /// What only its two ends know.
    pub binding: Option<[u8; 32]>,
    /// The client's mechanism says so.
    pub is_bound: bool,
}

/// A dialogue of which the second half is to come.
pub struct Scram {
    /// As the client calls itself.
    pub user: String,
    record: Option<String>,
    keys: Option<Keys>,
    /// Client's and server's.
    nonce: String,
    /// What came before the first comma-separated list, and comes again in base64, with what binds it to the channel.
    header: Vec<u8>,
    /// The first two messages.
    messages: String,
}

impl Scram {
    /// Reads the client's first message; what it is told. `None`: it is none. `binding`: of the channel, if it has one;
    /// `is_bound`: the client has chosen the mechanism that needs it.
    pub fn begin(
        first: &str,
        user: String,
        record: Option<String>,
        keys: Option<Keys>,
        iterations: Option<NonZeroU32>,
        Bound { binding, is_bound }: Bound,
    ) -> Option<(Self, String)> {
        let mut parts = first.splitn(3, ',');
        let (flag, acts_for, bare) = (parts.next()?, parts.next()?, parts.next()?);
        let is_allowed = acts_for.is_empty() || acts_for.strip_prefix("a=") == Some(&user);
        let flag_fits = match flag {
            "n" => !is_bound,
            // The client could, and thinks that we cannot: if we can, somebody between us has hidden it.
            "y" => !is_bound && binding.is_none(),
            "p=tls-exporter" => is_bound && binding.is_some(),
            _ => false,
        };
        // `m=` is an extension that must be understood.
        if !flag_fits || !is_allowed || !bare.starts_with("n=") {
            return None;
        }
        let theirs = bare.split(',').nth(1)?.strip_prefix("r=").filter(|nonce| !nonce.is_empty())?;
        let nonce = format!("{theirs}{}", STANDARD.encode(passwords::nonce::<18>()?));
        let (salt, count) = match &keys {
            Some(keys) => (keys.salt.clone(), keys.iterations),
            None => (salt_of_nobody(&user), iterations.unwrap_or(USUAL_ITERATIONS)),
        };
        let challenge = format!("r={nonce},s={},i={count}", STANDARD.encode(salt));
        let messages = format!("{bare},{challenge}");
        let mut header = format!("{flag},{acts_for},").into_bytes();
        if is_bound {
            header.extend_from_slice(&binding?);
        }
        Some((Self { user, record, keys, nonce, header, messages }, challenge))
    }

    /// Reads the client's last message. If it proves who he is: his name, and the server's own proof.
    pub fn end(self, last: &str) -> Option<(String, String)> {
        let (without_proof, proof) = last.rsplit_once(",p=")?;
        let mut parts = without_proof.split(',');
        let binding = parts.next()?.strip_prefix("c=")?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        if STANDARD.decode(binding).ok()? != self.header || nonce != self.nonce {
            return None;
        }
        let messages = format!("{},{without_proof}", self.messages);
        let keys = self.keys?;
        let proof = STANDARD.decode(proof).ok()?;
        keys.accept(messages.as_bytes(), &proof).then(|| {
            let verifier = STANDARD.encode(keys.answer(messages.as_bytes()));
            (self.record.unwrap_or(self.user), format!("v={verifier}"))
        })
    }
}

/// What most tables have.
const USUAL_ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");

/// The same each time, and nobody can tell it from one that was kept.
fn salt_of_nobody(user: &str) -> Vec<u8> {
    static SECRET: LazyLock<hmac::Key> = LazyLock::new(|| {
        let secret = passwords::nonce::<32>().expect("the system has randomness");
        hmac::Key::new(hmac::HMAC_SHA256, &secret)
    });
    hmac::sign(&SECRET, user.as_bytes()).as_ref()[..16].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_make_no_sense_prove_nothing() {
        let begin_at = |first: &str, bound| Scram::begin(first, "u".into(), None, None, None, bound);
        let begin = |first: &str| begin_at(first, Bound::default());
        let here = Bound { binding: Some([7; 32]), is_bound: true };
        assert!(begin_at("p=tls-exporter,,n=u,r=x", here).is_some() && begin_at("n,,n=u,r=x", here).is_none());
        assert!(begin_at("p=tls-unique,,n=u,r=x", here).is_none());
        let beside = Bound { is_bound: false, ..here };
        assert!(begin_at("n,,n=u,r=x", beside).is_some() && begin_at("y,,n=u,r=x", beside).is_none());
        assert!(begin("y,,n=u,r=x").is_some());
        for first in
            ["", "n", "n,,", "n,,n=u", "n,,n=u,r=", "p=tls-exporter,,n=u,r=x", "n,a=v,n=u,r=x", "n,,m=x,n=u,r=x"]
        {
            assert!(begin(first).is_none(), "{first}");
        }
        let (scram, challenge) = begin("n,,n=u,r=abc").unwrap();
        assert!(challenge.starts_with("r=abc") && challenge.ends_with(",i=4096"), "{challenge}");
        let again = begin("n,a=u,n=u,r=abc").unwrap().1;
        let salt = |text: &str| text.split(",s=").nth(1).map(str::to_owned);
        assert_eq!(salt(&again), salt(&challenge), "the same each time");
        assert!(scram.end(&format!("c=biws,{},p=AAAA", challenge.split(',').next().unwrap())).is_none());
    }
}
