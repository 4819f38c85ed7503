//! The server's side. `session.rs` holds state and dispatch; each other file one part of the dialogue, in its order.

mod auth;
mod data;
mod hello;
mod mail;
mod rcpt;
mod session;
mod starttls;

pub use auth::{Authentication, Judgement, Logins, Proof};
pub use session::{Policy, Protocol, Session, Step};
pub use starttls::Encryption;

pub use crate::mechanism::{Mechanism, Mechanisms};
pub use crate::secret::Secret;
