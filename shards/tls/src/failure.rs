//! Why there is no encrypted connection, and whose fault that is.

use std::sync::Arc;

use rustls::{CertificateError, Error, OtherError};

use crate::dane::Unmatched;

/// A handshake or a connection that is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Whose fault.
    pub fault: Fault,
    /// What happened, for the log.
    pub text: String,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other side sent what cannot be used, or offers nothing that we have.
    Peer,
    /// The private key cannot be used now; later it may.
    Key,
    /// A certificate or a setting of ours is wrong.
    Ours,
}

impl Failure {
    /// The private key cannot be used now.
    pub fn key(text: impl Into<String>) -> Self {
        Self { fault: Fault::Key, text: text.into() }
    }

    /// A certificate or a setting of ours is wrong.
    pub fn ours(text: impl Into<String>) -> Self {
        Self { fault: Fault::Ours, text: text.into() }
    }

    /// The other side sent what cannot be used, or nothing.
    pub fn peer(text: impl Into<String>) -> Self {
        Self { fault: Fault::Peer, text: text.into() }
    }
}

/// There is no signature. Travels through rustls, which has no word for it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unsigned(pub(crate) String);

impl From<Unsigned> for Error {
    fn from(unsigned: Unsigned) -> Self {
        Error::Other(OtherError(Arc::new(unsigned)))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Other(OtherError(other)) if other.is::<Unsigned>() => Self::key(other.to_string()),
            Error::InvalidCertificate(CertificateError::Other(OtherError(other))) if other.is::<Unmatched>() => {
                Self::peer(other.to_string())
            }
            Error::AlertReceived(alert) => Self::peer(format!("the other side sent the alert {alert:?}")),
            Error::InvalidMessage(_) => Self::peer("what came is not TLS"),
            // What rustls says when `names.rs` finds nothing.
            Error::General(_) => Self::peer("no certificate of ours is of a kind that the client can verify"),
            Error::NoCertificatesPresented => Self::peer("the client has shown no certificate"),
            other => Self::peer(other.to_string()),
        }
    }
}
