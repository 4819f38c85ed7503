//! Supervisor, engine and keyholder. Keys come in as files and never leave; what leaves are public keys and signatures.

use serde::{Deserialize, Serialize};

use crate::owners::Owner;

/// From the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToKeyholder {
    /// First letter.
    Start {
        /// Process number of the supervisor, with which the keyholder ends.
        parent: u32,
        /// Whom it becomes; `None`: it stays who it is.
        owner: Option<Owner>,
    },
    /// Are you there?
    Ping(u64),
    /// The descriptor alongside is the keyholder's end of this.
    Lane(Lane),
}

/// A connection of its own, with a thread at the keyholder's end: one letter there, one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lane {
    /// The supervisor's: [`Custody`] and [`Kept`].
    Custody,
    /// A thread's of the engine: [`SignRequests`] and [`Signatures`].
    Signing,
}

/// From the keyholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromKeyholder {
    /// It has given up all that it does not need.
    Ready,
    /// The number of the question.
    Pong(u64),
}

/// What a key is for; it signs nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyPurpose {
    /// The server's side of TLS handshakes.
    TlsServer,
    /// The client's.
    TlsClient,
}

/// The first number of a key that was found in a table: those below are the configuration's, and are kept and forgotten by name.
pub const FIRST_FOUND: u32 = 1 << 31;

/// What becomes of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Custody {
    /// Keep the key that is in the file alongside; answered with its public key.
    Hold {
        /// Its number from now on.
        key: u32,
        /// What it is for.
        purpose: KeyPurpose,
    },
    /// Make a key, write it to the file alongside, and keep nothing; answered with a certificate.
    Make {
        /// Whom the certificate is for.
        hostname: String,
    },
    /// Forget all keys of the configuration but these.
    Keep(Vec<u32>),
}

/// What has become of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// `SubjectPublicKeyInfo` in DER.
    PublicKey(Vec<u8>),
    /// A certificate in PEM, signed with its own key.
    Certificate(String),
    /// It is done.
    Done,
    /// It cannot be done, and why.
    Refused(String),
}

/// Handshakes that want a signature each, together no more than a letter takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignRequests {
    /// Of this letter, so that a late answer is not taken for another's.
    pub number: u64,
    /// In the order of their answers.
    pub handshakes: Vec<SignRequest>,
}

/// A handshake that wants a signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignRequest {
    /// Which key.
    pub key: u32,
    /// How, by its number in the registry (RFC 8446 §4.2.3).
    pub scheme: u16,
    /// Over what, not hashed.
    pub transcript: Vec<u8>,
}

/// A signature, or why there is none.
pub type Signature = Result<Vec<u8>, String>;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signatures {
    /// Of the requests.
    pub number: u64,
    /// One for each of them.
    pub outcomes: Vec<Signature>,
}
